"""The pages that users read first agree with the code: commands, links, versions and names."""

import hashlib
import json
import re
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest

import deop
from deop.dependencies import EXTRAS
from deop.zoo import NANO, ZOO

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text, language):
    """The code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def anchors(text):
    """The link anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["install", "test"])
def test_ci_runs_the_commands_of_the_readme(name):
    command = re.search(rf"^<!-- ci: {name} -->\n```sh\n(.*?)^```", read("README.md"), re.MULTILINE | re.DOTALL)
    assert command, f"no command below <!-- ci: {name} -->"
    lines = command[1].strip().splitlines()
    assert len(lines) == 1, "one command installs everything"
    assert "-c constraints.txt" in lines[0]
    assert " -e " not in lines[0], "the installed package is tested, not the checkout"
    assert f"readme_command {name}" in read(".ci/run")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_link_targets_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_on_a_page_exists(page):
    import typer.main

    from deop.cli.app import app

    commands = typer.main.get_command(app).commands
    for block in blocks(page.read_text(encoding="utf-8"), "sh"):
        for line in re.findall(r"^(?:.*[\s/])?deop ([a-z]+ .*)$", block.replace("\\\n", " "), re.MULTILINE):
            name, *rest = line.split("#")[0].split()
            assert name in commands, f"deop {line}"
            command = commands[name]
            if hasattr(command, "commands") and rest and not rest[0].startswith("-"):
                assert rest[0] in command.commands, f"deop {line}"
                command = command.commands[rest[0]]
            flags = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)} | {"--help"}
            assert {word for word in rest if word.startswith("--")} <= flags, f"deop {line}"


def test_python_code_in_the_readme_compiles_and_its_names_exist():
    from deop.results.segmentation import Segmentation

    for block in blocks(read("README.md"), "python"):
        compile(block, "README.md", "exec")
        for name in re.findall(r"^(?:result = )?result\.(\w+)", block, re.MULTILINE):
            assert hasattr(Segmentation, name) or name in Segmentation.__dataclass_fields__, name
        for name in re.findall(r"\bdeop\.(\w+)", block):
            assert name in deop.__all__


def test_every_named_model_has_a_card():
    """docs/model-cards.md states encoder, masks, licences and size as the code does."""
    page = read("docs/model-cards.md")
    cards = dict(re.findall(r"^## ([\w-]+)\n(.*?)(?=^## )", page, re.MULTILINE | re.DOTALL))
    assert set(ZOO) <= set(cards)
    for name, entry in ZOO.items():
        rows = dict(re.findall(r"^\| ([\w ]+) \| (.+) \|$", cards[name], re.MULTILINE))
        assert rows["encoder"].startswith(f"`{entry.encoder.repo}`")
        assert rows["masks"] == f"`{entry.proposer.repo}`"
        assert rows["licence"].startswith(entry.encoder.license)
        assert entry.proposer.license in rows["licence"] or "likewise" in rows["licence"]
        assert rows["download"] == f"{entry.megabytes:,} MB"
        assert {"training data", "published", "good for"} <= set(rows)
    for proposer in {entry.proposer for entry in ZOO.values()}:
        assert f"`{proposer.repo}` ({proposer.megabytes} MB)" in cards["Mask2Former"] + cards["EoMT"]


CARD = NANO / "README.md"


@pytest.mark.parametrize(
    ("question", "page", "anchor", "answer"),
    [
        ("COCO instance masks", "docs/results.md", "coco", "--mode instance"),
        ("name vanish", "docs/troubleshooting.md", "why-did-my-name-vanish", "0 %"),
        ("commercially", "docs/licences.md", "", "commercial use"),
        ("ten thousand photos", "docs/many-photos.md", "", "deop batch"),
        ("without torch", "docs/deployment.md", "", "base install"),
    ],
)
def test_readme_answers_in_two_clicks(question, page, anchor, answer):
    """The row with the question links to the page, whose section contains the answer."""
    [row] = [line for line in read("README.md").splitlines() if line.startswith("| ") and question in line]
    assert f"({page}{'#' * bool(anchor)}{anchor})" in row
    text = read(page)
    if anchor:
        sections = re.split(r"^(?=#+ )", text, flags=re.MULTILINE)
        [text] = [section for section in sections if anchor in anchors(section)]
    assert answer in text


def test_readme_is_short():
    assert len(read("README.md").splitlines()) <= 125


def test_readme_and_card_state_the_same_scores():
    """mIoU and pixels of the three rows that README shows."""
    rows = re.findall(r"^\| .*(?:COCO|names in each|CamVid).* \| (mIoU .*?) \|$", read("README.md"), re.MULTILINE)
    numbers = [number for row in rows for number in re.findall(r"([\d.]+) %", row)]
    assert len(numbers) == 6
    card = CARD.read_text(encoding="utf-8")
    for number in numbers:
        assert f"{number} %" in card


@pytest.mark.parametrize("page", ["README.md", "src/deop/assets/nano/README.md"])
def test_every_picture_has_a_file(page):
    file = ROOT / page
    pictures = re.findall(r"!\[.*?\]\((.+?)\)", file.read_text(encoding="utf-8"))
    assert pictures
    for picture in pictures:
        assert (file.parent / picture).resolve().is_relative_to(ROOT / "docs" / "pictures")
        assert (file.parent / picture).is_file(), picture


def test_versions_agree():
    assert f"version: {deop.__version__}\n" in read("CITATION.cff")
    releases = re.findall(r"^## \[(.*?)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert releases[0] == "Unreleased"
    assert len(releases) == 1 or releases[1] == deop.__version__


def test_readme_and_citation_name_the_same_paper():
    title = "Open-Vocabulary Semantic Segmentation with Decoupled One-Pass Network"
    assert title in read("README.md")
    assert f"  title: {title}" in read("CITATION.cff")
    for family in re.findall(r"family-names: (\w+)", read("CITATION.cff")):
        assert f"{family}, " in read("README.md")


def test_every_dependency_has_a_reason():
    for line in re.findall(r'^  "[\w\[\],]+(?:>=|").*$', read("pyproject.toml"), re.MULTILINE):
        assert re.search(r'",\s+# \w', line), line


def requirements_of(*extras):
    """The names of the libraries of the base install and of extras, with the extras that those include."""
    project, names = PROJECT["project"], set()
    pending = [
        *project["dependencies"],
        *(line for extra in extras for line in project["optional-dependencies"][extra]),
    ]
    while pending:
        name, included = re.match(r"([\w-]+)(?:\[([\w,]+)\])?", pending.pop()).groups()
        if name == "deop":
            pending += [line for extra in included.split(",") for line in project["optional-dependencies"][extra]]
        else:
            names.add(name)
    return names


def test_every_dependency_has_a_tested_release():
    pins = {line.split("==")[0] for line in read("constraints.txt").splitlines() if "==" in line}
    assert requirements_of(*PROJECT["project"]["optional-dependencies"]) <= pins


def test_the_base_install_is_light():
    assert requirements_of() == {"numpy", "pillow", "onnxruntime", "typer", "rich"}
    assert {"torch", "transformers", "safetensors", "huggingface_hub", "scipy"} <= requirements_of("torch")
    for extra in ("export", "train", "dev"):
        assert requirements_of("torch") <= requirements_of(extra), extra


def test_messages_name_extras_that_exist():
    extras = set(PROJECT["project"]["optional-dependencies"])
    named = set()
    for file in [*(ROOT / "src").rglob("*.py"), *PAGES]:
        named |= set(re.findall(r"deop\[([\w,]+)\]", file.read_text(encoding="utf-8")))
    assert {extra for names in named for extra in names.split(",")} <= extras
    assert set(EXTRAS.values()) <= extras
    for library, extra in EXTRAS.items():
        assert {"yaml": "pyyaml"}.get(library, library) in requirements_of(extra), library


PACKAGE_LIMIT = 20e6
"""Bytes of the installed package: the built-in model's weights and graphs (16.5 MB), the page and the code. A limit so
that the model stays part of the package and the base install stays small (docs/install.md)."""


def test_the_package_is_small():
    files = [file for file in (ROOT / "src" / "deop").rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert sum(file.stat().st_size for file in files) < PACKAGE_LIMIT


@pytest.mark.parametrize("folder", ["src", "docs", "examples", "README.md"])
def test_nothing_refers_to_paths_of_one_machine(folder):
    path = ROOT / folder
    suffixes = (".py", ".md", ".toml", ".yaml")
    for file in [path] if path.is_file() else [file for file in path.rglob("*") if file.suffix in suffixes]:
        assert not re.search(r"(?<![\w.])/(work|root|home)/", file.read_text(encoding="utf-8")), file


def test_libraries_that_the_design_rules_out_are_not_imported():
    for file in (ROOT / "src").rglob("*.py"):
        forbidden = re.findall(
            r"^\s*(?:import|from) (torchvision|timm|open_clip|detectron2|mmcv)\b",
            file.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        assert not forbidden, file


def test_the_ci_script_has_no_syntax_error():
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=False).returncode == 0


def test_every_example_photo_is_credited():
    credits = read("examples/CREDITS.md")
    for file in (ROOT / "examples").iterdir():
        if file.suffix in (".jpg", ".png"):
            assert f"`{file.name}`" in credits


def test_nano_agrees_with_its_model_card():
    config = json.loads((NANO / "config.json").read_text(encoding="utf-8"))
    assert hashlib.sha256((NANO / "model.safetensors").read_bytes()).hexdigest() == config["sha256"]
    model = deop.load("nano", device="cpu")
    words = len(model.text.words)
    assert f"{words:,} words" in (NANO / "README.md").read_text(encoding="utf-8")


def test_the_first_command_of_the_readme_finds_everything():
    """A check of obvious results, not of a score: points of the photo whose names are certain."""
    names = re.search(r'examples/pagoda\.jpg --classes "(.+?)"', read("README.md"))[1]
    result = deop.load("nano", device="cpu").segment(ROOT / "examples" / "pagoda.jpg", names)
    found = np.array([*result.names, "none"])
    places = {"sky": (60, 500), "pagoda": (200, 200), "tree": (380, 560), "lake": (250, 400)}
    assert {name: found[result.label_map[place]] for name, place in places.items()} == {name: name for name in places}
