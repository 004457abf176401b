"""The releases that CI tests with agree with pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins(name: str) -> dict[str, str]:
    """Library -> release of a constraints file."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def parts(release: str) -> tuple[int, ...]:
    """(2, 13) of "2.13.0": zeros at the end say nothing."""
    numbers = [int(number) for number in release.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


@pytest.mark.parametrize("extra", [None, "torch", "export", "dev"])
def test_the_lowest_releases_are_the_bounds(extra):
    lowest = pins("constraints-lowest.txt")
    needed = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    bounds = {match[1]: match[2] for line in needed if (match := re.match(r"([\w-]+)>=([\d.]+)", line))}
    assert bounds
    if extra is None:
        assert bounds.keys() <= lowest.keys()
    for name in bounds.keys() & lowest.keys() - {"torch"}:  # constraints-lowest.txt says why not torch
        assert parts(lowest[name]) == parts(bounds[name]), name
    assert lowest["torch"] == pins("constraints.txt")["torch"]


def test_no_bound_is_above_the_tested_release():
    lowest, tested = pins("constraints-lowest.txt"), pins("constraints.txt")
    assert lowest.keys() <= tested.keys()
    assert all(parts(lowest[name]) <= parts(tested[name]) for name in lowest)
