"""The examples in docstrings give what they show."""

import doctest
import importlib
from pathlib import Path

import pytest

import deop

PACKAGE = Path(deop.__file__).parent


def modules_with_examples() -> list[str]:
    """Modules of the installed package that contain an example."""
    files = [file for file in sorted(PACKAGE.rglob("*.py")) if ">>> " in file.read_text(encoding="utf-8")]
    parts = [file.relative_to(PACKAGE.parent).with_suffix("").parts for file in files]
    return [".".join(names[:-1] if names[-1] == "__init__" else names) for names in parts]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_of_docstrings(name):
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testmod(importlib.import_module(name), optionflags=options)
    assert result.attempted
    assert not result.failed
