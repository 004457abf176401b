"""The documentation is run and compared with the code.

* Python blocks and ``deop`` commands of every page are executed in a directory that holds the files they name.
* Tables that repeat the code (models, severances, JSON keys, files) are compared with it.
* The import rules of docs/design.md are checked on the import graph.

A block that cannot run gives its reason in a comment above it, ``<!-- not run: REASON -->``. A block that needs an
optional library names it, ``<!-- needs: LIBRARY -->``. Model names stand for small random models in the hub's cache.
"""

import ast
import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from deop.zoo import ZOO
from tests.cli.conftest import write_photo
from tests.data import miniatures
from tests.proposals import tiny_networks
from tests.video.test_video import make_video
from tests.weights.test_conversion import openai_state, write_open_clip_config

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "deop"
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
BLOCK = re.compile(r"(?:^<!-- (not run|needs|ci): (.+?) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A code block of a page."""

    line: int
    mark: str  # "not run", "needs", "ci" or ""
    reason: str
    language: str
    text: str


def read(page):
    return page.read_text(encoding="utf-8")


def section_of(page, heading):
    """The text below a heading, up to the next heading of level 2."""
    return read(DOCS / page).split(heading)[1].split("\n## ")[0]


def blocks_of(page):
    text = read(page)
    return [
        Block(text.count("\n", 0, match.start(3)) + 1, match[1] or "", match[2] or "", match[3], match[4])
        for match in BLOCK.finditer(text)
    ]


def is_runnable(block):
    if block.mark == "needs":
        return importlib.util.find_spec(block.reason) is not None
    return not block.mark


def pages_with(language):
    return [page for page in PAGES if any(block.language == language for block in blocks_of(page))]


def commands(text):
    """The commands of a shell block, each as a list of words without comments."""
    lines = (shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines())
    return [words for words in lines if words]


# --- Pages are run


@pytest.fixture(scope="session")
def hub_cache(tmp_path_factory, tiny_clip):
    """A hub cache with a small model for every repo that a page names."""
    cache = tmp_path_factory.mktemp("hub-cache")
    networks = {
        "facebook/maskformer-swin-tiny-ade": tiny_networks.maskformer(),
        "facebook/sam-vit-base": tiny_networks.sam(),
    }
    for entry in ZOO.values():
        revision = "0" * 40 if entry.clip.revision == "main" else entry.clip.revision
        snapshot = cache / f"models--{entry.clip.repo.replace('/', '--')}" / "snapshots" / revision
        shutil.copytree(tiny_clip, snapshot)
        _write_main_reference(snapshot)
        networks[str(entry.proposer)] = tiny_networks.mask2former()
    for name, network in networks.items():
        repo, _, revision = name.partition("@")
        snapshot = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / (revision or "0" * 40)
        network.save_pretrained(snapshot)
        _write_main_reference(snapshot)
    return cache


def _write_main_reference(snapshot):
    """Make a snapshot the cache's branch main."""
    reference = snapshot.parents[1] / "refs" / "main"
    reference.parent.mkdir(exist_ok=True)
    reference.write_text(snapshot.name)


@pytest.fixture
def working_directory(tmp_path, monkeypatch, hub_cache, tiny_clip):
    """A working directory with every file that the pages name; the hub is offline and has its cache only."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["photo.jpg", "coffee.jpg", "photos/a.jpg", "photos/b.jpg"]):
        write_photo(tmp_path / name, seed=number)
    for name in ("clip.mp4", "clip.mov"):
        make_video(tmp_path / name, frames=3)
    (tmp_path / "names.txt").write_text("cat\nsofa|couch\na wall, painted\n")
    (tmp_path / "unseen.txt").write_text("cat\n")
    halves = np.repeat(np.array([[1, 2]], np.uint8), 48, axis=1).repeat(64, axis=0)
    for name in ["masks.png", "masks/a.png", "masks/b.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(halves).save(tmp_path / name)
    for split in ["val/images", "val/masks"]:
        (tmp_path / "dataset" / split).mkdir(parents=True)
    for number in range(3):
        write_photo(tmp_path / f"dataset/val/images/{number}.jpg", seed=number)
        Image.fromarray(halves).save(tmp_path / f"dataset/val/masks/{number}.png")
    (tmp_path / "dataset/classes.json").write_text(json.dumps([{"id": 1, "name": "cat"}, {"id": 2, "name": "wall"}]))
    miniatures.voc(tmp_path / "downloads")
    shutil.copytree(tiny_clip, tmp_path / "my-clip")
    tiny_networks.mask2former().save_pretrained(tmp_path / "my-mask2former")
    shutil.copytree(tiny_clip, tmp_path / "pickled-clip")
    weights = tmp_path / "pickled-clip" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    torch.save(openai_state(tiny_clip), tmp_path / "clip-state-dict.pt")
    write_open_clip_config(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks_are_well_formed(page):
    """Each block has a known language, a reason where it is not run, and shell blocks hold deop commands only."""
    blocks = blocks_of(page)
    assert read(page).count("```") == 2 * len(blocks)
    assert len(re.findall(r"<!-- (?:not run|needs|ci)\b", read(page))) == sum(bool(block.mark) for block in blocks)
    for block in blocks:
        place = f"{page.name}:{block.line}"
        assert block.mark != "not run" or len(block.reason) > 10, f"{place}: say why it is not run"
        assert block.language in ("python", "sh", "text", "bibtex", ""), place
        if block.language == "sh" and is_runnable(block):
            for words in commands(block.text):
                assert words[0] == "deop", f"{place}: mark it as not run, or start the line with deop"


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_text_has_no_angle_brackets_that_become_html(page):
    text = BLOCK.sub("", read(page))
    text = re.sub(r"<!--.*?-->|`[^`]*`", "", text, flags=re.DOTALL)
    assert not re.findall(r"<\w[^>]*>", text)


@pytest.mark.parametrize("page", pages_with("python"), ids=lambda page: page.name)
def test_python_blocks_run(page, working_directory):
    namespace = {"__name__": "page"}
    for block in blocks_of(page):
        if block.language == "python" and is_runnable(block):
            code = "\n" * block.line + block.text  # a traceback then shows the line number of the page
            exec(compile(code, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", pages_with("sh"), ids=lambda page: page.name)
def test_commands_run(page, working_directory, capfd):
    from deop.cli import main

    for block in blocks_of(page):
        if block.language != "sh" or not is_runnable(block):
            continue
        for words in commands(block.text):
            with pytest.raises(SystemExit) as exit_info:
                main(words[1:])
            assert not exit_info.value.code, f"{page.name}:{block.line} {shlex.join(words)}\n{capfd.readouterr().err}"


@pytest.mark.parametrize("page", pages_with("sh"), ids=lambda page: page.name)
def test_commands_that_do_not_run_have_valid_arguments(page):
    """Their arguments are parsed, which finds unknown options, missing and surplus arguments."""
    import typer.main

    from deop.cli.app import app

    for block in blocks_of(page):
        if block.language != "sh" or block.mark != "not run":
            continue
        for words in commands(block.text):
            if "deop" not in words or words[0] == "python":
                continue
            command, arguments = typer.main.get_command(app), words[words.index("deop") + 1 :]
            context = command.make_context("deop", list(arguments), resilient_parsing=True)
            while hasattr(command, "commands") and arguments and arguments[0] in command.commands:
                name, *arguments = arguments
                command = command.commands[name]
                context = command.make_context(name, list(arguments), parent=context)


# --- Tables and references agree with the code


def test_segmenting_page_lists_the_json_keys(working_directory, capfd):
    from deop.cli import main

    arguments = ["segment", "photo.jpg", "-c", "cat, sofa", "--masks", "masks.png", "-o", "out.png", "--json", "-"]
    arguments += ["--threshold", "0"]  # the photo is random: no name reaches the model's own threshold
    with pytest.raises(SystemExit):
        main(arguments)
    result = json.loads(capfd.readouterr().out)
    page = " ".join(read(DOCS / "segmenting.md").split())
    description = re.search("JSON object has the keys(.*?)For a photo that failed", page)
    photo_keys, segment_keys = description[1].split("; a segment has")
    assert set(re.findall(r"`(\w+)`", photo_keys)) == set(result)
    assert result["segments"]
    assert set(re.findall(r"`(\w+)`", segment_keys)) == set(result["segments"][0])


def test_evaluation_page_lists_the_json_keys(working_directory, capfd):
    from deop.cli import main

    with pytest.raises(SystemExit):
        main(["evaluate", "dataset", "--model", "clip-b16", "--json", "result.json", "--limit", "1", "--skip-broken"])
    rows = re.findall(r"^\| (`.+?) \|", section_of("evaluation.md", "## JSON results"), re.MULTILINE)
    listed = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    result = set(json.loads(Path("result.json").read_text(encoding="utf-8")))
    only_for_some = {"trained_names_miou", "new_names_miou", "seen_miou_absent_as_zero"}
    assert result <= listed
    assert listed <= result | only_for_some


def test_models_page_lists_the_zoo():
    rows = re.findall(r"^\| `([\w-]+)` \| `(.+)` \| `(.+)` \|$", read(DOCS / "models.md"), re.MULTILINE)
    assert rows == [(name, entry.clip.repo, entry.proposer.repo) for name, entry in ZOO.items()]


def test_pages_list_every_severance():
    from deop.encoders.severance import KINDS

    for page, heading in [("python.md", "## Severance"), ("method.md", "## 3.")]:
        assert set(re.findall(r"^\| `([\w-]+)` \|", section_of(page, heading), re.MULTILINE)) == set(KINDS), page


def method_sections():
    """The sections of docs/method.md by number."""
    parts = re.split(r"^## (\d+)\. ", read(DOCS / "method.md"), flags=re.MULTILINE)
    return {int(number): body for number, body in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize("file", [*SOURCE.rglob("*.py"), *(ROOT / "tests").rglob("test_*.py")], ids=lambda f: f.name)
def test_references_to_the_method_exist(file):
    """``docs/method.md §5`` names a section; §13.9 its item 9; §2, use b and §4, "Learnable prompt" a part of it."""
    sections = method_sections()
    text = re.sub(r"\n\s*#? *", " ", read(file))
    assert not re.search(r"METHOD(?:'s)? (?:section )?\d", text), "write docs/method.md §N"
    for references in re.findall(r"docs/method\.md((?:(?:,| and| to| or|;)? *§\d+(?:\.\d+)?)+)", text):
        for number, item in re.findall(r"§(\d+)(?:\.(\d+))?", references):
            assert int(number) in sections
            assert not item or re.search(rf"^{item}\. ", sections[int(number)], re.MULTILINE), f"§{number}.{item}"
    for number, quoted in re.findall(r'docs/method\.md §(\d+), "([^"]+)"', text):
        assert f"**{quoted}" in sections[int(number)], f"§{number} has no part {quoted}"
    for number, use in re.findall(r"docs/method\.md §(\d+), use (\w)\b", text):
        assert f"**use {use}**" in sections[int(number)]


def test_method_has_every_section_and_what_deop_does():
    sections = method_sections()
    assert sorted(sections) == list(range(14))
    assert all("**In deop:**" in body for number, body in sections.items() if number < 13)


def test_design_lists_every_file():
    """Tables of docs/design.md name each file once, except an ``__init__.py`` that only re-exports."""
    rows = re.findall(r"^\| (`.*?`) \|", read(DOCS / "design.md"), re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`([\w/]+(?:\.py|/))`", row)]
    assert len(listed) == len(set(listed)), "a file is listed twice"
    for name in listed:
        assert (SOURCE / name).exists(), f"docs/design.md lists {name}, which does not exist"
    missing = []
    for file in SOURCE.rglob("*.py"):
        name = file.relative_to(SOURCE).as_posix()
        is_listed = name in listed or f"{file.parent.name}/" in listed
        if not is_listed and name != "__main__.py" and not (file.name == "__init__.py" and is_reexport(file)):
            missing.append(name)
    assert not missing, "docs/design.md does not say what these files do"


def is_reexport(file):
    """Whether a file has nothing but a docstring, imports and constants."""
    statements = ast.parse(read(file)).body
    return all(isinstance(node, ast.Expr | ast.ImportFrom | ast.Assign | ast.AnnAssign) for node in statements)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_pages_name_exist(page):
    for name in re.findall(r"`((?:tests|src|examples|benchmarks|recipes|docs)/[\w./-]+)`", read(page)):
        assert (ROOT / name).exists(), name
    if page.name == "method.md":
        for name in re.findall(r"`([\w/]+\.py)`", read(page)):
            assert (SOURCE / name).exists(), name


def test_site_has_every_page():
    listed = re.findall(r": ([\w-]+\.md)$", read(ROOT / "mkdocs.yml"), re.MULTILINE)
    assert sorted(listed) == sorted(page.name for page in PAGES[1:])


def test_glossary_is_in_order():
    terms = re.findall(r"^\*\*(.+?)\*\*", read(DOCS / "glossary.md"), re.MULTILINE)
    assert terms == sorted(terms, key=str.lower)
    assert len(terms) == len(set(terms))


# --- Import rules of docs/design.md


def imports_of(file):
    """(module, whether the import is inside a function) for every import of a file that runs."""
    imports = []

    def visit(node, inside_function):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                imports.extend((alias.name, inside_function) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                for alias in child.names:
                    path = SOURCE.parent / Path(*child.module.split("."), alias.name)
                    is_module = path.with_suffix(".py").exists() or (path / "__init__.py").exists()
                    imports.append((f"{child.module}.{alias.name}" if is_module else child.module, inside_function))
            visit(child, inside_function or isinstance(child, ast.FunctionDef))

    visit(ast.parse(read(file)), False)
    return imports


def module_graph():
    """Each module of deop, and the modules of deop that it imports anywhere."""
    graph = {}
    for file in SOURCE.rglob("*.py"):
        module = ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
        graph[module] = {name for name, _ in imports_of(file) if name.startswith("deop.")}
    return graph


def package_graph():
    """The same between sub-packages; a module of the top level, such as deop.model, counts as a sub-package."""
    graph = {}
    for module, imports in module_graph().items():
        package = ".".join(module.split(".")[:2])
        graph.setdefault(package, set()).update({".".join(name.split(".")[:2]) for name in imports} - {package})
    return graph


def assert_no_cycle(graph):
    done = set()

    def visit(node, path):
        assert node not in path, f"import cycle: {' -> '.join([*path[path.index(node) :], node])}"
        if node not in done:
            for target in sorted(graph.get(node, ())):
                visit(target, [*path, node])
            done.add(node)

    for node in graph:
        visit(node, [])


def test_modules_have_no_import_cycle():
    assert_no_cycle(module_graph())


def test_sub_packages_have_no_import_cycle():
    assert_no_cycle(package_graph())


def test_a_cycle_is_found():
    with pytest.raises(AssertionError, match="b -> c -> b"):
        assert_no_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}})


def test_encoders_and_proposals_do_not_know_each_other():
    graph = package_graph()
    assert "deop.proposals" not in graph["deop.encoders"]
    assert "deop.encoders" not in graph["deop.proposals"]


def test_only_main_imports_the_command_line():
    graph = package_graph()
    assert [package for package, imports in graph.items() if "deop.cli" in imports] == ["deop.__main__"]


def test_transformers_is_imported_inside_functions():
    for file in SOURCE.rglob("*.py"):
        assert not any(name.startswith("transformers") and not inside for name, inside in imports_of(file)), file
