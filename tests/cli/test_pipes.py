"""Standard input and output in place of files."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import write_photo
from tests.cli.test_segment import files_in, write_inputs


class Stdin(io.TextIOWrapper):
    terminal = False

    def isatty(self):
        return self.terminal


@pytest.fixture
def pipe(capfdbinary, tiny_clip, here, monkeypatch):
    """``pipe("-", ..., stdin=bytes)`` runs ``deop segment`` -> exit code, bytes of stdout, text of stderr."""
    from deop.cli import main

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", Stdin(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as exit_info:
            main(["segment", *arguments, "--model", str(tiny_clip), "--device", "cpu"])
        out, err = capfdbinary.readouterr()
        return exit_info.value.code or 0, out, err.decode()

    return run


def test_a_photo_in_and_a_picture_out(pipe, here):
    arguments = write_inputs(here)
    code, out, err = pipe("-", *arguments[1:], "-o", "-", stdin=(here / "a.jpg").read_bytes())
    assert (code, err) == (0, "")
    with Image.open(io.BytesIO(out)) as picture:
        assert picture.format == "PNG"
    pipe(*arguments, "-o", "file.png")
    with Image.open(io.BytesIO(out)) as piped, Image.open("file.png") as written:
        assert np.array_equal(np.asarray(piped), np.asarray(written)), "the same picture as from files"
    assert not (here / "-").exists()


def test_labels_out(pipe, here):
    arguments = write_inputs(here)
    code, out, err = pipe(*arguments, "--labels", "-")
    assert (code, err) == (0, "")
    pipe(*arguments, "--labels", "labels.png")
    assert out == (here / "labels.png").read_bytes()
    assert files_in(here) == ["a.jpg", "labels.png", "m.npy"]


def test_polygons_and_json_out(pipe, here):
    arguments = write_inputs(here)
    code, out, _ = pipe(*arguments, "--polygons", "-")
    assert code == 0
    assert json.loads(out)["type"] == "FeatureCollection"
    code, out, _ = pipe("-", *arguments[1:], "--json", "-", "--rle", stdin=(here / "a.jpg").read_bytes())
    line = json.loads(out)
    assert line["photo"] == "standard input"
    assert line["results"] == {}
    assert all(segment["segmentation"]["size"] == [64, 96] for segment in line["segments"])


def test_a_photo_from_standard_input_gets_a_picture_of_that_name(pipe, here):
    arguments = write_inputs(here)
    code, out, _ = pipe("-", *arguments[1:], stdin=(here / "a.jpg").read_bytes())
    assert code == 0
    assert files_in(here) == ["a.jpg", "m.npy", "stdin.deop.png"]
    assert b"wrote stdin.deop.png" in out


def test_names_from_standard_input(pipe, here):
    arguments = write_inputs(here)
    names = "\ufeff# names\ncat\n\nsofa, red|couch;\nfaçade\n".encode()
    code, out, err = pipe("a.jpg", "--classes-file", "-", *arguments[3:], "--json", "-", stdin=names)
    assert code == 0, err
    assert json.loads(out)["names"] == ["cat", "sofa, red", "façade"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["-", "-c", "cat"], b"", "standard input is empty"),
        (["-", "--classes-file", "-"], b"cat", "cannot both come from standard input"),
        (["a.jpg", "--classes-file", "-"], b" \n", "standard input is empty"),
        (["a.jpg", "--classes-file", "-"], b"caf\xe9", "not UTF-8"),
        (["-", "-c", "cat", "--masks", "m.npy"], b"no image", "standard input"),
    ],
)
def test_bad_input_is_reported(pipe, here, arguments, stdin, message):
    write_inputs(here)
    code, out, err = pipe(*arguments, stdin=stdin)
    assert code in (1, 2)
    assert out == b""
    assert message in err
    assert "Traceback" not in err
    assert files_in(here) == ["a.jpg", "m.npy"]


@pytest.mark.parametrize("flag", ["--output", "--labels", "--instances", "--polygons"])
def test_one_result_fits_standard_output(pipe, here, flag):
    for name in "ab":
        write_photo(here / f"{name}.jpg")
    code, out, err = pipe("a.jpg", "b.jpg", "-c", "cat", "--mode", "panoptic", flag, "-")
    assert (code, out) == (2, b"")
    assert f"{flag} - writes one result, and there are 2 photos" in err


def test_pictures_are_not_written_to_a_terminal(pipe, here, monkeypatch):
    monkeypatch.setattr("deop.cli.streams.sys.stdout.isatty", lambda: True, raising=False)
    arguments = write_inputs(here)
    code, out, err = pipe(*arguments, "-o", "-")
    assert (code, out) == (2, b"")
    assert "> out.png" in err


def test_a_terminal_is_no_input(pipe, here, monkeypatch):
    arguments = write_inputs(here)
    monkeypatch.setattr(Stdin, "terminal", True)
    for words in (["-", *arguments[1:]], ["a.jpg", "--classes-file", "-", *arguments[3:]]):
        code, _, err = pipe(*words)
        assert code in (1, 2)
        assert "nothing is piped to standard input" in err
