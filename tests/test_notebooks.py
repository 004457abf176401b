"""The notebooks run from top to bottom, on a machine without a network, and are committed without output."""

import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(notebook, kind):
    return [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def test_there_are_three():
    assert [notebook.stem for notebook in NOTEBOOKS] == ["first_steps", "method_explained", "own_classes"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_notebooks_are_committed_without_output(notebook):
    for cell in cells(notebook, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_every_section_has_code_and_the_notebook_begins_with_its_title(notebook):
    texts = ["".join(cell["source"]) for cell in cells(notebook, "markdown")]
    assert texts[0].startswith("# ")
    assert sum(text.startswith("# ") for text in texts) == 1
    assert len(cells(notebook, "code")) >= len(texts) - 3


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_notebooks_run(notebook, tmp_path, monkeypatch):
    """In a copy of the directories that they read, so that nothing is written into the repository."""
    import nbclient
    import nbformat

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for folder in ("examples", "tests/fixtures/photos"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "notebooks").mkdir()
    document = nbformat.read(notebook, as_version=4)
    resources = {"metadata": {"path": str(tmp_path / "notebooks")}}
    nbclient.NotebookClient(document, timeout=1200, kernel_name="python3", resources=resources).execute()
    shown = [output for cell in document.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in shown)
    text = "".join(output.get("text", "") for output in shown)
    if notebook.stem != "own_classes":  # fine-tuning may warn that four photos are few
        assert "Warning" not in text
    else:  # the cat's own name is learned
        [before, after] = [float(value) for value in text.split("Chelsea")[-1].split("\n")[0].split("->")]
        assert after > before + 0.2
