"""docs/promises.md names tests that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)+)`", PAGE)))


def names_of_tests(path: Path) -> set[str]:
    """The tests of a file: "test_name", or "TestClass::test_name"."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return {name for name in names if name.split("::")[-1].startswith("test_")}


def test_every_promise_names_a_test_that_exists():
    tables = [part.splitlines() for part in PAGE.split("\n\n") if part.startswith("| promise |")]
    promises = [line for table in tables for line in table[2:]]
    assert len(promises) > 20
    for line in promises:
        assert re.search(r"`tests/[\w/]+\.py::", line), f"a promise without a test: {line}"
    for name in NAMED:
        file, _, test = name.partition("::")
        assert (ROOT / file).is_file(), name
        assert test in names_of_tests(ROOT / file), name


def test_every_test_of_trust_stands_behind_a_promise():
    """A file of tests/trust without a promise is a promise that nobody can find."""
    for path in (ROOT / "tests" / "trust").glob("test_*.py"):
        assert any(name.startswith(f"tests/trust/{path.name}::") for name in NAMED), path.name
