"""Masks, lists of names, classes.json, config.json and deop.toml with every mistake: each is refused by name."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deop
from deop.data.folder import open_folder
from deop.data.labelled import read_classes, read_mask
from deop.errors import DataError, DeopError, ImageError, ProposalError, SettingError
from deop.files import json_of
from deop.images.masks import as_masks, read_masks
from deop.images.reading import read_photo
from deop.results.segmentation import Segmentation
from deop.text.names_file import read_class_names
from tests.trust.bad_input import (
    HEIGHT,
    WIDTH,
    content,
    cut,
    directory,
    endless_device,
    fifo,
    link_to_itself,
    photo,
    png_bomb,
    tiff_bomb,
    unix_socket,
    write_quick_model,
)

LONGEST_MESSAGE = 700


def check(caught, path: Path) -> None:
    message = str(caught.value)
    assert str(path) in message
    assert len(message) < LONGEST_MESSAGE, message[:2000]
    assert "Traceback" not in message


# ---- masks


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def zipped(**entries: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def lying_header(shape: tuple[int, ...]) -> bytes:
    """An array of a few bytes whose header announces another shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|b1", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(10)


def many_arrays() -> bytes:
    """An array that announces 1.5 GB, and has 1,000 bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "|b1", "fortran_order": False, "shape": (1500, 1000, 1000)}
        )
        with archive.open("masks.npy", "w") as entry:
            entry.write(header.getvalue() + bytes(1000))
    return file.getvalue()


def with_header(text: str) -> bytes:
    """An array file with any text in place of its header."""
    header = text.encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(100)


def with_flag(position: int, value: int) -> bytes:
    """An archive with another byte in the table of contents and before each array: both have the same fields."""
    content = bytearray(zipped(masks=npy(np.zeros((1, 4, 4), bool))))
    for magic, shift in ((b"PK\x01\x02", 2), (b"PK\x03\x04", 0)):
        content[content.index(magic) + 4 + shift + position] = value
    return bytes(content)


MASKS: dict[str, Callable[[Path], object]] = {
    "empty.npy": content(bytes),
    "empty.npz": content(bytes),
    "empty.png": content(bytes),
    "text.npy": content(lambda: b"not an array"),
    "text.npz": content(lambda: b"PK\x03\x04 not an archive"),
    "cut.npy": content(lambda: npy(np.zeros((4, 40, 60), bool))[:300]),
    "cut.npz": content(lambda: zipped(masks=npy(np.zeros((4, 40, 60), bool)))[:100]),
    "cut.png": cut("PNG"),
    "objects.npy": content(lambda: npy(np.array([{}], object))),
    "strings.npy": content(lambda: npy(np.array([["cat"]]))),
    "complex.npy": content(lambda: npy(np.ones((4, 4), complex))),
    "dates.npy": content(lambda: npy(np.zeros((4, 4), "M8[s]"))),
    "records.npy": content(lambda: npy(np.zeros((4, 4), [("a", "u1")]))),
    "scalar.npy": content(lambda: npy(np.array(1))),
    "one-side.npy": content(lambda: npy(np.zeros(9, bool))),
    "five-sides.npy": content(lambda: npy(np.zeros((1, 1, 1, 4, 4), bool))),
    "nan.npy": content(lambda: npy(np.full((1, 4, 4), np.nan))),
    "probabilities.npy": content(lambda: npy(np.full((1, 4, 4), 0.5))),
    "negative.npy": content(lambda: npy(np.full((4, 4), -1))),
    "lying.npy": content(lambda: lying_header((1 << 20, 1 << 12, 1 << 12))),
    "lying.npz": content(lambda: zipped(masks=lying_header((1 << 20, 1 << 12, 1 << 12)))),
    "overflow.npy": content(lambda: lying_header((1 << 62, 1 << 62))),
    "gigabytes.npz": content(many_arrays),
    "encrypted.npz": content(lambda: with_flag(2, 1)),
    "version-of-zip.npz": content(lambda: with_flag(0, 99)),
    "method-of-zip.npz": content(lambda: with_flag(4, 77)),
    "patched.npz": content(lambda: with_flag(2, 0x20)),
    "open-header.npy": content(lambda: with_header("{'descr': '|b1', (")),
    "zero-in-header.npy": content(lambda: with_header("{'descr': '|b1'\0}")),
    "long-header.npy": content(lambda: with_header("{'descr': '" + "x" * 60_000 + "'}")),
    "nested-header.npy": content(lambda: with_header("(" * 9_000)),
    "nested-header.npz": content(lambda: zipped(masks=with_header("(" * 9_000))),
    "open-header.npz": content(lambda: zipped(masks=with_header("{'descr': '|b1', ("))),
    "two-arrays.npz": content(lambda: zipped(a=npy(np.zeros((1, 4, 4))), b=npy(np.zeros((1, 4, 4))))),
    "no-array.npz": content(zipped),
    "colour.png": photo("PNG"),
    "lossy.jpg": photo("JPEG"),
    "bomb.png": content(png_bomb),
    "bomb.tif": content(tiff_bomb),
    "post.png": content(lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "folder.png": directory,
    "pipe.png": fifo,
    "pipe.npy": fifo,
    "device.npz": endless_device,
    "device.png": endless_device,
    "socket.png": unix_socket,
    "loop.png": link_to_itself,
}


@pytest.mark.parametrize("name", MASKS)
def test_masks(name, tmp_path):
    path = tmp_path / name
    MASKS[name](path)
    with pytest.raises(ProposalError) as caught:
        read_masks(path)
    check(caught, path if name != "loop.png" else tmp_path)


@pytest.mark.parametrize("function", [read_masks, Segmentation.load])
def test_archives_that_unpack_to_too_much(function, tmp_path, monkeypatch):
    """By the table of contents of the archive, before anything is unpacked."""
    path = tmp_path / "masks.npz"
    path.write_bytes(zipped(masks=npy(np.zeros((1, 1000, 1000), bool))))
    assert path.stat().st_size < 10_000
    monkeypatch.setattr("deop.array_files.LARGEST", 100_000)
    with pytest.raises(DeopError, match="1,000,128 bytes once they are unpacked, and at most 100,000"):
        function(path)


@pytest.mark.parametrize("name", [name for name in MASKS if name.endswith(".npz")])
def test_saved_results(name, tmp_path):
    path = tmp_path / name
    MASKS[name](path)
    with pytest.raises(ImageError) as caught:
        Segmentation.load(path)
    check(caught, path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    loaded = deop.load(write_quick_model(tmp_path_factory.mktemp("models") / "quick"), engine="onnx", device="cpu")
    loaded.cache = None
    return loaded


@pytest.mark.parametrize(
    "masks",
    [
        np.zeros((1, HEIGHT, WIDTH + 1), bool), np.zeros((1, WIDTH, HEIGHT), bool), np.zeros((HEIGHT - 1, WIDTH), int),
        np.zeros((1, 0, 0), bool), np.full((1, HEIGHT, WIDTH), np.nan), np.full((1, HEIGHT, WIDTH), "x"), "masks.png",
        {1}, [{}], [{"segmentation": {"counts": "\x1b", "size": [HEIGHT, WIDTH]}}], [[1, 2], [3]], 7, object,
        [{"segmentation": {"counts": [10**12], "size": [10**6, 10**6]}}], [np.zeros((HEIGHT, WIDTH)), np.zeros((1, 1))],
        [{"segmentation": {"counts": [HEIGHT * WIDTH], "size": [HEIGHT, -WIDTH]}}],
        [{"segmentation": {"counts": [-5], "size": [HEIGHT, WIDTH]}}],
    ],
    ids=str,
)  # fmt: skip
def test_masks_in_python(masks, model):
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for call in (lambda: as_masks(masks, (HEIGHT, WIDTH)), lambda: model.segment(image, ["cat"], masks=masks)):
        with pytest.raises(ProposalError) as caught:
            call()
        assert len(str(caught.value)) < LONGEST_MESSAGE


# ---- lists of names


NAMES: dict[str, Callable[[Path], object]] = {
    "empty.txt": content(bytes),
    "blank.txt": content(lambda: b"\n \n\t\n"),
    "comments.txt": content(lambda: b"# only\n# comments\n"),
    "mark.txt": content(lambda: b"\xef\xbb\xbf"),
    "binary.txt": content(lambda: bytes(range(256))),
    "zeros.txt": content(lambda: bytes(1000)),
    "latin.txt": content(lambda: "Käse".encode("latin-1")),
    "odd-utf16.txt": content(lambda: "cat".encode("utf-16") + b"x"),
    "escape.txt": content(lambda: b"cat\n\x1b[31mdog\n"),
    "twice.txt": content(lambda: b"cat\ndog\nCAT\n"),
    "blank-synonym.txt": content(lambda: b"cat|\ndog\n"),
    "only-marks.txt": content(lambda: b"|,|;|\n"),
    "number.json": content(lambda: b"7"),
    "numbers.json": content(lambda: b"[1, 2]"),
    "nested.json": content(lambda: b"[" * 100_000),
    "deep.json": content(lambda: b'[["cat"]]'),
    "null.json": content(lambda: b'[{"name": null}]'),
    "unnamed.json": content(lambda: b'[{"title": "cat"}]'),
    "cut.json": content(lambda: b'["cat", "do'),
    "empty.json": content(lambda: b"[]"),
    "object.json": content(lambda: b"{}"),
    "untitled.csv": content(lambda: b"1,2\n3,4\n"),
    "quote.csv": content(lambda: b'name\n"cat\n' + b"x" * 200_000),
    "photo.txt": photo("PNG"),
    "folder.txt": directory,
    "device.txt": endless_device,
    "loop.txt": link_to_itself,
}


@pytest.mark.parametrize("name", NAMES)
def test_lists_of_names(name, tmp_path):
    path = tmp_path / name
    NAMES[name](path)
    with pytest.raises(DeopError) as caught:
        read_class_names(path)
    assert name in str(caught.value)
    assert len(str(caught.value)) < LONGEST_MESSAGE


def test_a_huge_list_of_names_is_not_read(tmp_path):
    path = tmp_path / "names.txt"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SettingError, match="at most"):
        read_class_names(path)


# ---- classes.json


CLASSES = (
    "", "null", "7", '"cat"', "[]", "{}", "[1]", "[null]", "[[]]", "[{}]", '[{"id": 1}]', '[{"name": "cat"}]',
    '[{"id": "1", "name": "cat"}]', '[{"id": 1.5, "name": "cat"}]', '[{"id": true, "name": "cat"}]',
    '[{"id": -1, "name": "cat"}]', '[{"id": 65536, "name": "cat"}]', '[{"id": 1e400, "name": "cat"}]',
    '[{"id": NaN, "name": "cat"}]', '[{"id": 1, "name": 7}]', '[{"id": 1, "name": null}]', '[{"id": 1, "name": ""}]',
    '[{"id": 1, "name": " "}]', '[{"id": 1, "name": "a|"}]', '[{"id": 1, "name": "a\\u0000b"}]',
    '[{"id": 1, "name": "\\u001b[31m"}]', '[{"id": 1, "name": "\\ud800"}]',
    '[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]',
    '[{"id": 1, "name": "a", "isthing": 7}]', '[{"id": 1, "name": "a", "isthing": "yes"}]',
    '[{"id": 1, "name": "a", "isthing": []}]', '[{"id": 1, "name": "a", "seen": "no"}]',
    '[{"id": 1, "name": "a", "color": "red"}]', '[{"id": 1, "name": "a", "color": [1, 2]}]',
    '[{"id": 1, "name": "a", "color": [1, 2, 256]}]', '[{"id": 1, "name": "a", "color": [1, 2, "3"]}]',
    '[{"id": 1, "name": "a", "color": "#010203"}, {"id": 2, "name": "b", "color": [1, 2, 3]}]',
    '{"1": 7}', '{"1": null}', '{"x": "cat"}', '{"-1": "cat"}', '{"70000": "cat"}', '{"\\u00b2": "cat"}',
    "[" * 100_000, '[{"id": 1, "name": "a"', '[{"id": 1, "name": "a"}] x', "\\x00", '[{"id": ' + "9" * 5000 + "}]",
    '[{"id": 1, "name": {"a": "' + "x" * 100_000 + '"}}]', '["' + "x" * 100_000 + '"]',
)  # fmt: skip


def labelled(folder: Path, classes: str) -> Path:
    """A folder with one photo, its mask and a list of classes."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images" / "a.png")
    Image.new("L", (WIDTH, HEIGHT), 1).save(folder / "masks" / "a.png")
    (folder / "classes.json").write_text(classes, encoding="utf-8", errors="surrogatepass")
    return folder


@pytest.mark.parametrize("text", CLASSES, ids=lambda text: text[:50] or "empty")
def test_lists_of_classes(text, tmp_path):
    folder = labelled(tmp_path / "data", text)
    with pytest.raises(DeopError) as caught:
        open_folder(folder)
    assert "classes.json" in str(caught.value)
    assert len(str(caught.value)) < LONGEST_MESSAGE


@pytest.mark.parametrize("write", [directory, fifo, endless_device, link_to_itself], ids=lambda write: write.__name__)
def test_lists_of_classes_that_are_no_files(write, tmp_path):
    folder = labelled(tmp_path / "data", "[]")
    (folder / "classes.json").unlink()
    write(folder / "classes.json")
    with pytest.raises(DataError) as caught:
        read_classes(folder / "classes.json")
    check(caught, folder / "classes.json")
    with pytest.raises(DeopError):
        open_folder(folder)


def read_pair(folder: Path) -> None:
    (pair,) = open_folder(folder).pairs
    read_photo(pair.photo)
    read_mask(pair.mask)


@pytest.mark.parametrize("part", ["images", "masks"])
def test_links_of_a_labelled_folder_show_nothing_of_what_they_lead_to(part, tmp_path):
    """They are followed, since data sets are often made of links. A file that is not a picture is named, not shown."""
    folder = labelled(tmp_path / "data", '[{"id": 1, "name": "a"}]')
    secret = tmp_path / "secret"
    secret.write_text("hunter2-is-the-secret " * 20)
    (folder / part / "a.png").unlink()
    (folder / part / "a.png").symlink_to(secret)
    with pytest.raises(DeopError) as caught:
        read_pair(folder)
    assert "a.png" in str(caught.value)
    assert "hunter2" not in str(caught.value)


# ---- values that are too long or too deep for a message


def test_a_message_shows_the_beginning_and_the_end_of_a_long_one():
    """The input is named at the beginning, the remedy at the end."""
    for kind in (ImageError, SettingError, ProposalError, DataError):
        message = str(kind(f"cannot read a.png: {'x' * 10**6}; copy it again"))
        assert len(message) <= 2000
        assert message.startswith("cannot read a.png: xx")
        assert message.endswith("xx; copy it again")
        assert str(kind("x" * 2000)) == "x" * 2000


@pytest.mark.parametrize("content", ["[" * 100_000, b"[" * 100_000, "", "{", b"\xff"])
def test_json_of_any_content_is_read_or_a_value_error(content):
    with pytest.raises(ValueError):
        json_of(content)


# ---- deop.toml


CONFIGS = (
    "[segment", "[segment]\nclasses = ", "[segment]\nclasses = [1]", "[segment]\nunknown = 1", "[unknown]\na = 1",
    "a = 1", "[segment]\nthreshold = 'x'", "[segment]\nmode = 7", "[segment]\nmode = 'x'", "[segment.deep]\na = 1",
    "[[segment]]\na = 1", "segment = 7", "[segment]\n" + "a" * 5000 + " = 1", "[segment]\nmode = '" + "x" * 5000 + "'",
    "\x00", "\xff", "[segment]\ncsv = \x1b", "a = " + "[" * 20_000,
)  # fmt: skip


@pytest.mark.parametrize("text", CONFIGS, ids=lambda text: ascii(text[:40]))
def test_configuration_files(text, tmp_path, monkeypatch, capfd):
    from deop.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("typer.get_app_dir", lambda name: str(tmp_path / "configuration" / name))
    (tmp_path / "deop.toml").write_text(text, encoding="latin-1")
    Image.new("RGB", (WIDTH, HEIGHT)).save("a.png")
    with pytest.raises(SystemExit) as ended:
        main(["segment", "a.png", "-c", "cat", "--device", "cpu"])
    _, err = capfd.readouterr()
    assert ended.value.code == 2, err
    assert "deop.toml" in "".join(err.split())
    assert "Traceback" not in err
    assert "unexpected" not in err
    assert "\x1b" not in err
    assert not [name for name in os.listdir() if name not in ("a.png", "deop.toml")]  # noqa: PTH208
