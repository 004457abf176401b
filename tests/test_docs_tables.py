"""Tables and references of the documentation agree with the code."""

import ast
import json
import re
from pathlib import Path

import pytest

from deop.zoo import ZOO
from tests.pages import DOCS, PAGES, ROOT, SOURCE, hub_cache, read, section_of, working_directory

__all__ = ["hub_cache", "working_directory"]


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
    only_for_some = {"trained_names_miou", "new_names_miou", "seen_miou_absent_as_zero", "bank"}
    assert result <= listed
    assert listed <= result | only_for_some


def test_models_page_lists_the_zoo():
    rows = re.findall(r"^\| `([\w-]+)` \| `(.+)` \| `(.+)` \|$", read(DOCS / "models.md"), re.MULTILINE)
    assert rows == [(name, entry.encoder.repo, entry.proposer.repo) for name, entry in ZOO.items()]


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
    assert sorted(sections) == list(range(15))
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


def test_glossary_is_in_order():
    terms = re.findall(r"^\*\*(.+?)\*\*", read(DOCS / "glossary.md"), re.MULTILINE)
    assert terms == sorted(terms, key=str.lower)
    assert len(terms) == len(set(terms))
