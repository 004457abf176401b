"""What the pages show is run: their Python, their commands; and what they say of the code is compared with it.

A block that cannot run says why in a comment above it, ``<!-- not run: REASON -->``; one that needs a library that deop
does not, ``<!-- needs: LIBRARY -->``. Names of models mean small random ones, put into the hub's cache.
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
from tests.weights.test_conversion import openai_state

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "deop"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:^<!-- (not run|needs|ci): (.+?) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    line: int
    mark: str  # "not run", "needs", "ci" or ""
    reason: str
    language: str
    text: str


def blocks_of(page):
    text = page.read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, match.start(3)) + 1, match[1] or "", match[2] or "", match[3], match[4])
        for match in BLOCK.finditer(text)
    ]


def runs(block):
    if block.mark == "needs":
        return importlib.util.find_spec(block.reason) is not None
    return not block.mark


def pages_with(language):
    return [page for page in PAGES if any(block.language == language for block in blocks_of(page))]


@pytest.fixture(scope="session")
def hub_cache(tmp_path_factory, tiny_clip):
    """The hub's cache with every repo that a page names, small."""
    cache = tmp_path_factory.mktemp("hub-cache")
    networks = {
        "facebook/maskformer-swin-tiny-ade": tiny_networks.maskformer(),
        "facebook/sam-vit-base": tiny_networks.sam(),
    }
    for entry in ZOO.values():
        snapshot = cache / f"models--{entry.clip.repo.replace('/', '--')}" / "snapshots" / _commit(entry.clip)
        shutil.copytree(tiny_clip, snapshot)
        _refer(snapshot)
        networks[str(entry.proposer)] = tiny_networks.mask2former()
    for name, network in networks.items():
        repo, _, revision = name.partition("@")
        snapshot = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / (revision or "0" * 40)
        network.save_pretrained(snapshot)
        _refer(snapshot)
    return cache


def _commit(weights):
    return "0" * 40 if weights.revision == "main" else weights.revision


def _refer(snapshot):
    reference = snapshot.parents[1] / "refs" / "main"
    reference.parent.mkdir(exist_ok=True)
    reference.write_text(snapshot.name)


@pytest.fixture
def desk(tmp_path, monkeypatch, hub_cache, tiny_clip):
    """A working directory with all files that pages name, and a hub that is its cache alone."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["photo.jpg", "coffee.jpg", "photos/a.jpg", "photos/b.jpg"]):
        write_photo(tmp_path / name, seed=number)
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
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_marks_have_their_reason_and_shell_blocks_are_commands_of_ours(page):
    text = page.read_text(encoding="utf-8")
    blocks = blocks_of(page)
    assert text.count("```") == 2 * len(blocks)
    assert len(re.findall(r"<!-- (?:not run|needs|ci)\b", text)) == sum(bool(block.mark) for block in blocks)
    for block in blocks:
        assert block.mark != "not run" or len(block.reason) > 10
        assert block.language in ("python", "sh", "text", "bibtex", ""), f"{page.name}:{block.line}"
        if block.language == "sh" and runs(block):
            for words in commands(block.text):
                assert words[0] == "deop", f"{page.name}:{block.line}: mark it, or begin with deop"


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_nothing_is_taken_for_html(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    text = re.sub(r"<!--.*?-->|`[^`]*`", "", text, flags=re.DOTALL)
    assert not re.findall(r"<\w[^>]*>", text)


def commands(text):
    """The commands of a shell block as words, without comments."""
    lines = (shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines())
    return [words for words in lines if words]


@pytest.mark.parametrize("page", pages_with("python"), ids=lambda page: page.name)
def test_python_of_a_page_runs_as_written(page, desk):
    namespace = {"__name__": "page"}
    for block in blocks_of(page):
        if block.language == "python" and runs(block):
            code = "\n" * block.line + block.text  # so that a traceback names the page's own lines
            exec(compile(code, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", pages_with("sh"), ids=lambda page: page.name)
def test_commands_of_a_page_run_as_written(page, desk, capfd):
    from deop.cli import main

    for block in blocks_of(page):
        if block.language != "sh" or not runs(block):
            continue
        for words in commands(block.text):
            with pytest.raises(SystemExit) as ended:
                main(words[1:])
            assert not ended.value.code, f"{page.name}:{block.line} {shlex.join(words)}\n{capfd.readouterr().err}"


def test_results_have_the_keys_that_the_page_lists(desk, capfd):
    from deop.cli import main

    arguments = ["segment", "photo.jpg", "-c", "cat, sofa", "--masks", "masks.png", "-o", "out.png", "--json", "-"]
    arguments += ["--threshold", "0"]  # the photo is made up: none of the names are in it
    with pytest.raises(SystemExit):
        main(arguments)
    found = json.loads(capfd.readouterr().out)
    text = (ROOT / "docs" / "segmenting.md").read_text(encoding="utf-8")
    described = re.search(r"JSON object has the keys(.*?)A photo that failed", text, re.DOTALL)[1].replace("\n", " ")
    of_photo, of_segment = described.split("; a segment has")
    assert set(re.findall(r"`(\w+)`", of_photo)) == set(found)
    assert found["segments"]
    assert set(re.findall(r"`(\w+)`", of_segment)) == set(found["segments"][0])


def test_models_page_lists_the_zoo():
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| `(.+)` \| `(.+)` \|$", text, re.MULTILINE)
    assert rows == [(name, entry.clip.repo, entry.proposer.repo) for name, entry in ZOO.items()]


def test_python_page_lists_the_severances():
    from deop.encoders.severance import KINDS

    for page, table in [("python.md", "## Severance"), ("method.md", "## 3.")]:
        section = (ROOT / "docs" / page).read_text(encoding="utf-8").split(table)[1].split("\n## ")[0]
        assert set(re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE)) == set(KINDS), page


def sections():
    """The sections of the method, by number."""
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (\d+)\. ", text, flags=re.MULTILINE)
    return {int(number): body for number, body in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize("file", [*SOURCE.rglob("*.py"), *(ROOT / "tests").rglob("test_*.py")], ids=lambda f: f.name)
def test_references_to_the_method_lead_somewhere(file):
    found = sections()
    text = re.sub(r"\n\s*#? *", " ", file.read_text(encoding="utf-8"))
    for number, item in re.findall(r"METHOD(?:'s)?(?: sections?)? (\d+)(?:\.(\d+))?", text):
        assert int(number) in found
        assert not item or re.search(rf"^{item}\. ", found[int(number)], re.MULTILINE), f"{number}.{item}"
    for number, quoted in re.findall(r'METHOD section (\d+), "([^"]+)"', text):
        assert f"**{quoted}" in found[int(number)], f"section {number} has no {quoted}"
    for number, use in re.findall(r"METHOD section (\d+), use (\w)\b", text):
        assert f"**use {use}**" in found[int(number)]


def test_method_has_every_section_and_says_what_deop_does():
    found = sections()
    assert sorted(found) == list(range(14))
    assert all("**In deop:**" in body for number, body in found.items() if number < 13)


def named_files(text):
    """Files in the first column of the design's tables."""
    rows = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([\w/]+(?:\.py|/))`", row)]


def test_design_lists_the_rooms_as_they_are():
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    listed = named_files(text)
    assert len(listed) == len(set(listed))
    for name in listed:
        assert (SOURCE / name).exists(), name
    for file in SOURCE.rglob("*.py"):
        inside = file.relative_to(SOURCE).as_posix()
        short = not file.read_text(encoding="utf-8").partition('"""\n')[2].strip()  # a docstring and no more
        if inside == "__main__.py" or short or f"{file.parent.name}/" in listed:
            continue
        assert inside in listed, f"docs/design.md does not say what {inside} does"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_pages_name_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:tests|src|examples)/[\w./]+)`", text):
        assert (ROOT / name).exists(), name
    if page.name == "method.md":
        for name in re.findall(r"`([\w/]+\.py)`", text):
            places = [SOURCE / name, SOURCE / "proposals" / name]
            assert any(place.exists() for place in places), name


def imports_of(file):
    """(module, inside a function?) for each import that runs, of deop's own modules and of libraries."""
    found = []

    def visit(node, inside):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                for alias in child.names:
                    inner = SOURCE.parent / Path(*child.module.split("."), alias.name)
                    is_module = inner.with_suffix(".py").exists() or (inner / "__init__.py").exists()
                    found.append((f"{child.module}.{alias.name}" if is_module else child.module, inside))
            visit(child, inside or isinstance(child, ast.FunctionDef))

    visit(ast.parse(file.read_text(encoding="utf-8")), False)
    return found


def test_import_rules_of_the_design_hold():
    graph = {}
    for file in SOURCE.rglob("*.py"):
        module = ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
        graph[module] = {name for name, _ in imports_of(file) if name.startswith("deop.")}
        assert not any(name.startswith("transformers") and not inside for name, inside in imports_of(file)), module
        if not module.startswith(("deop.cli", "deop.__main__")):
            assert not any(name.startswith("deop.cli") for name in graph[module]), module
    assert not any("zoo" in name for name in graph["deop.regions.anchors"])

    done = set()

    def walk(module, path):
        assert module not in path, f"circle: {' -> '.join([*path, module])}"
        if module not in done:
            for other in graph.get(module, ()):
                walk(other, [*path, module])
            done.add(module)

    for module in graph:
        walk(module, [])


def test_site_has_every_page():
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r": (\w+\.md)$", settings, re.MULTILINE)
    assert sorted(listed) == sorted(page.name for page in PAGES[1:])
