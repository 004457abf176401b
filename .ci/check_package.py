"""Check a built source archive and wheel: ``python .ci/check_package.py DIR``.

The wheel must hold every file of src/deop and nothing else, unpacked in less than the limit of tests/test_front.py. The
source archive must hold what a build needs, and none of the large extras: tests, photos, pictures of the documentation,
the sources of the page.
"""

import ast
import sys
import tarfile
import zipfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
BUILD = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt"}
GENERATED = {"PKG-INFO", ".gitignore"}  # by hatchling


def limit() -> float:
    """Bytes of the unpacked package, as tests/test_front.py says."""
    tree = ast.parse((REPO / "tests" / "test_front.py").read_text(encoding="utf-8"))
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PACKAGE_LIMIT"
    ]
    return float(ast.literal_eval(values[0]))


def the_only(folder: Path, pattern: str) -> Path:
    """The only file of a folder that a pattern matches."""
    files = list(folder.glob(pattern))
    assert len(files) == 1, f"{folder} has {len(files)} files {pattern}"
    return files[0]


def main(folder: Path) -> None:
    """Check the two files of a folder and print their sizes."""
    source = REPO / "src"
    expected = {
        file.relative_to(source).as_posix()
        for file in (source / "deop").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    wheel = the_only(folder, "*.whl")
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist() if ".dist-info/" not in entry.filename}
    assert sizes.keys() == expected, f"the wheel differs from src: {sorted(sizes.keys() ^ expected)}"
    unpacked = sum(sizes.values())
    assert unpacked < limit(), f"the package has {unpacked / 1e6:.1f} MB"
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, {unpacked / 1e6:.1f} MB unpacked, {len(sizes)} files")

    archive_file = the_only(folder, "*.tar.gz")
    with tarfile.open(archive_file) as archive:
        names = {entry.name.split("/", 1)[1] for entry in archive if entry.isfile()}
    needed = BUILD | {f"src/{name}" for name in expected}
    assert needed <= names, f"not in the source archive: {sorted(needed - names)}"
    assert names <= needed | GENERATED, f"the source archive has more: {sorted(names - needed - GENERATED)}"
    print(f"{archive_file.name}: {archive_file.stat().st_size / 1e6:.1f} MB, {len(names)} files")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
