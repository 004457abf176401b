"""The command ``deop convert``."""

import shutil

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.cli.conftest import write_photo


def pickled(tiny_clip, folder):
    """Write the tiny CLIP with pickled weights, as hub repos had before safetensors, and return the folder."""
    shutil.copytree(tiny_clip, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_pickled_weights_are_converted_to_an_equal_model(deop, tiny_clip, here, monkeypatch):
    monkeypatch.setenv("DEOP_CACHE", "off")
    done = deop("convert", pickled(tiny_clip, here / "old"), "new")
    assert done.code == 0, done.err
    assert "--model new" in done.err
    assert not list((here / "new").glob("*.bin"))
    write_photo(here / "a.jpg")
    masks = np.arange(64 * 96).reshape(64, 96) // 2000 + 1
    np.save(here / "m.npy", masks)
    arguments = ["segment", "a.jpg", "-c", "cat, sofa, wall", "--masks", "m.npy", "--device", "cpu"]
    assert deop(*arguments, "--model", "new", "--labels", "new.png").code == 0
    assert deop(*arguments, "--model", tiny_clip, "--labels", "original.png").code == 0
    assert np.array_equal(*(np.asarray(Image.open(here / name)) for name in ("new.png", "original.png")))


def test_segment_refuses_a_pickle_and_names_the_command_to_convert_it(deop, tiny_clip, here):
    pickled(tiny_clip, here / "old")
    write_photo(here / "a.jpg")
    done = deop("segment", "a.jpg", "-c", "cat", "--model", "old")
    assert done.code == 4
    assert "deop convert old" in done.err


def test_a_file_that_is_not_a_checkpoint_is_reported_and_nothing_is_written(deop, here):
    (here / "notes.pth").write_text("not weights")
    for source in ("notes.pth", "gone.pth"):
        done = deop("convert", source, "out")
        assert done.code == 4
        assert source in done.err
        assert "Traceback" not in done.err
    assert [path.name for path in here.iterdir()] == ["notes.pth"]


def test_a_folder_with_a_model_is_not_overwritten(deop, tiny_clip, here):
    pickled(tiny_clip, here / "old")
    shutil.copytree(tiny_clip, here / "out")
    before = (here / "out" / "model.safetensors").read_bytes()
    assert deop("convert", "old", "out").code == 3
    assert (here / "out" / "model.safetensors").read_bytes() == before
