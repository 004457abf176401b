"""Files: written completely or not at all, read as UTF-8 everywhere, and reported by name if they are damaged."""

import ast
import sys
from pathlib import Path

import pytest

from deop.errors import CheckpointError, OutputError, SettingError
from deop.files import (
    existing_folder,
    existing_path,
    folder_of_results,
    lock_file,
    parse_json,
    read_names,
    replacing,
    sha256,
    writing_folder,
)

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for folder in ("src", "recipes", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")
)


NO_FILES = ("archive", "rasterio", "Image", "os", "self._av")  # their open() has no text mode


def calls_without_encoding(source: str) -> list[str]:
    """Calls that read or write text in the encoding of the system, which is not UTF-8 on every system."""
    calls = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        if name in ("read_text", "write_text") and owner:
            positional = 1 if name == "read_text" else 2
            text = len(node.args) < positional
        elif name in ("open", "fdopen", "TemporaryFile", "NamedTemporaryFile") and owner not in NO_FILES:
            # Path.open(mode), open(path, mode); a method open() without a mode may be anything, such as Data.open().
            values = [
                argument.value for argument in (*node.args, keywords.get("mode")) if isinstance(argument, ast.Constant)
            ]
            modes = [value for value in values if isinstance(value, str) and set(value) <= set("rwaxbt+")]
            text = not any("b" in mode for mode in modes) and bool(modes or not owner)
        else:
            text = isinstance(flag := keywords.get("text", keywords.get("universal_newlines")), ast.Constant) and bool(
                flag.value
            )
        if text and "encoding" not in keywords:
            calls.append(f"line {node.lineno}: {ast.unparse(node)}")
    return calls


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_text_files_are_read_and_written_as_utf_8(path):
    assert not calls_without_encoding(path.read_text(encoding="utf-8")), 'add encoding="utf-8"'


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("path.read_text()", 1),
        ("path.write_text(text)", 1),
        ("open(path)", 1),
        ("open(path, 'w')", 1),
        ("path.open('w')", 1),
        ("path.open(mode='a')", 1),
        ("subprocess.run(command, text=True)", 1),
        ("path.read_text(encoding='utf-8')", 0),
        ("path.write_text(text, 'utf-8')", 0),
        ("open(path, 'rb')", 0),
        ("path.open('xb')", 0),
        ("Image.open(path)", 0),
        ("data.open()", 0),
        ("subprocess.run(command, encoding='utf-8')", 0),
    ],
)
def test_the_search_finds_text_without_an_encoding(source, count):
    assert len(calls_without_encoding(source)) == count


def test_a_file_is_replaced_only_once_it_is_complete(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with replacing(path) as file:
        file.write(b"first")
        assert not path.exists()
    with pytest.raises(TypeError), replacing(path) as file:
        file.write("not bytes")  # type: ignore[call-overload]
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(OutputError, match="it is a folder"), replacing(tmp_path):
        pass
    with pytest.raises(OutputError, match="cannot write"), replacing(path / "below"):
        pass


def test_names_are_read_one_per_line(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\ufeffcat\r\n\n  sofa|couch \n # a comment\nBär", encoding="utf-8")
    assert read_names(path) == ["cat", "sofa|couch", "Bär"]
    path.write_bytes("Bär".encode("latin-1"))
    with pytest.raises(SettingError, match=r"names\.txt.*UTF-8"):
        read_names(path)
    with pytest.raises(SettingError, match=r"absent\.txt"):
        read_names(tmp_path / "absent.txt")


def test_json_may_start_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_text('["Bär"]', encoding="utf-8-sig")
    assert parse_json(tmp_path / "a.json") == ["Bär"]


def test_impossible_paths_do_not_exist(tmp_path):
    for name in ("x" * 5000, "~no-such-user/a", "a\0b", tmp_path / "absent"):
        assert existing_path(name) is None
    assert existing_folder(tmp_path) == tmp_path
    (tmp_path / "file").touch()
    assert existing_folder(tmp_path / "file") is None
    assert existing_path(tmp_path / "file") == tmp_path / "file"


def test_a_digest_of_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="absent"):
        sha256(tmp_path / "absent")


def test_a_locked_file_is_locked_until_it_is_closed(tmp_path):
    held = lock_file(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        lock_file(tmp_path / "lock")
    held.close()
    lock_file(tmp_path / "lock").close()


class Windows:
    """``msvcrt`` as Windows has it: one lock of a file at a time."""

    LK_NBLCK = 2
    held = False

    def locking(self, handle, mode, count):
        assert (mode, count) == (2, 1)
        if self.held:
            raise PermissionError(13, "Permission denied")
        self.held = True


def test_windows_has_locks_too(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", Windows())
    lock_file(tmp_path / "lock").close()
    with pytest.raises(BlockingIOError):
        lock_file(tmp_path / "lock")


def test_drives_without_locks_are_used_without_one(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*arguments):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock_file(tmp_path / "lock").close()


def test_a_disk_that_is_full_while_tensors_are_written(tmp_path):
    """safetensors has an error of its own for it, which is no OSError."""
    safetensors = pytest.importorskip("safetensors")
    folder = tmp_path / "model"
    with (
        pytest.raises(OutputError, match=r"cannot write the model to .*model: .*No space left"),
        writing_folder(folder),
    ):
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert not folder.exists()


@pytest.mark.parametrize("writing", [writing_folder, folder_of_results])
def test_a_folder_that_exists_keeps_its_other_files(tmp_path, monkeypatch, writing):
    place = tmp_path / "place"
    for name in ("keep.txt", "below/keep.txt", "below/new.txt"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("before")
    moved = []
    replace = Path.replace

    def record(self, target):
        moved.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", record)
    with writing(place) as folder:
        (folder / "below").mkdir()
        for name in ("config.json", "below/new.txt", "weights"):
            (folder / name).write_text("now")
        assert moved == []
    content = {file.relative_to(place).as_posix(): file.read_text() for file in place.rglob("*") if file.is_file()}
    assert content == {
        "keep.txt": "before", "below/keep.txt": "before",
        "below/new.txt": "now", "config.json": "now", "weights": "now",
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == [place]
    assert writing is folder_of_results or moved[-1] == "config.json"


@pytest.mark.parametrize("writing", [writing_folder, folder_of_results])
def test_a_folder_that_another_process_makes_meanwhile(tmp_path, writing):
    with writing(tmp_path / "place") as folder:
        (folder / "ours").write_text("now")
        (tmp_path / "place").mkdir()
        (tmp_path / "place/theirs").write_text("before")
    assert sorted(file.name for file in (tmp_path / "place").iterdir()) == ["ours", "theirs"]
    assert len(list(tmp_path.iterdir())) == 1
