"""What a stranger reads first is true: commands, links, versions and names agree with the code."""

import hashlib
import json
import re
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest

import deop
from deop.zoo import NANO, ZOO

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text, language):
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def anchors(text):
    """The anchors that the headings of a page make."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["install", "test"])
def test_readme_has_the_commands_that_ci_runs(name):
    command = re.search(rf"^<!-- ci: {name} -->\n```sh\n(.*?)^```", read("README.md"), re.MULTILINE | re.DOTALL)
    assert command, f"no command below <!-- ci: {name} -->"
    lines = command[1].strip().splitlines()
    assert len(lines) == 1, "one command does all the set-up"
    assert "-c constraints.txt" in lines[0]
    assert " -e " not in lines[0], "what is tested is what users install"
    assert f"readme_command {name}" in read(".ci/run")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
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
            known = {flag for option in command.params for flag in option.opts} | {"--help", "-h"}
            assert {word for word in rest if word.startswith("--")} <= known, f"deop {line}"


def test_readmes_python_is_python_and_its_names_exist():
    from deop.results.segmentation import Segmentation

    for block in blocks(read("README.md"), "python"):
        compile(block, "README.md", "exec")
        for name in re.findall(r"^(?:result = )?result\.(\w+)", block, re.MULTILINE):
            assert hasattr(Segmentation, name) or name in Segmentation.__dataclass_fields__, name
        for name in re.findall(r"\bdeop\.(\w+)", block):
            assert name in deop.__all__


def test_readme_lists_the_zoo():
    rows = re.findall(r"^\| `([\w-]+)` \| .* \| (.+) \|$", read("README.md"), re.MULTILINE)
    listed = {name: licence.replace("CC BY-NC 4.0", "CC-BY-NC-4.0") for name, licence in rows}
    shipped = json.loads((NANO / "config.json").read_text())["card"]["license"]
    assert listed == {"nano": shipped} | {name: entry.clip.license for name, entry in ZOO.items()}


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


def test_every_dependency_has_its_reason():
    for line in re.findall(r'^  "[\w]+>=.*$', read("pyproject.toml"), re.MULTILINE):
        assert re.search(r'",\s+# \w', line), line


def test_every_dependency_has_its_tested_release():
    pins = {line.split("==")[0] for line in read("constraints.txt").splitlines() if "==" in line}
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    assert {re.match(r"[\w-]+", requirement)[0] for requirement in wanted} <= pins


@pytest.mark.parametrize("folder", ["src", "docs", "examples", "README.md"])
def test_no_path_of_one_machine_in_what_ships(folder):
    place = ROOT / folder
    files = (
        [place] if place.is_file() else [f for f in place.rglob("*") if f.suffix in (".py", ".md", ".toml", ".yaml")]
    )
    for file in files:
        assert not re.search(r"(?<![\w.])/(work|root|home)/", file.read_text(encoding="utf-8")), file


def test_no_library_that_the_design_rules_out():
    for file in (ROOT / "src").rglob("*.py"):
        forbidden = re.findall(
            r"^\s*(?:import|from) (torchvision|timm|open_clip|detectron2|mmcv)\b", file.read_text(), re.MULTILINE
        )
        assert not forbidden, file


def test_ci_is_sound_bash():
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=False).returncode == 0


def test_every_example_has_its_credit():
    credits = read("examples/CREDITS.md")
    for file in (ROOT / "examples").iterdir():
        if file.suffix in (".jpg", ".png"):
            assert f"`{file.name}`" in credits


def test_the_small_model_is_what_its_card_says():
    config = json.loads((NANO / "config.json").read_text())
    assert hashlib.sha256((NANO / "model.safetensors").read_bytes()).hexdigest() == config["sha256"]
    assert sum(file.stat().st_size for file in NANO.iterdir()) < 16e6
    model = deop.load("nano", device="cpu")
    words = len(model.text.words)
    assert f"{words:,} words" in (NANO / "README.md").read_text()


def test_the_first_command_finds_the_cat():
    """Not a score: a photo that looks right to the eye must go on doing so."""
    found = deop.load("nano", device="cpu").segment(ROOT / "examples" / "chelsea.png", "cat, wall, blanket")
    names = np.array([*found.names, "none"])
    assert names[found.label_map[150, 225]] == "cat"  # between the eyes
    assert names[found.label_map[20, 10]] != "cat"  # the upper left corner, behind it
    assert found.segments[0].name == "cat"
