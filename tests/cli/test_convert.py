import shutil

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.cli.conftest import write_photo


def pickled(tiny_clip, folder):
    """The tiny CLIP as hubs held models before safetensors; returns the folder."""
    shutil.copytree(tiny_clip, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_pickled_weights_become_a_model_that_segments_alike(deop, tiny_clip, here, monkeypatch):
    monkeypatch.setenv("DEOP_CACHE", "off")
    answer = deop("convert", pickled(tiny_clip, here / "old"), "new")
    assert answer.code == 0, answer.err
    assert "--model new" in answer.err
    assert not list((here / "new").glob("*.bin"))
    write_photo(here / "a.jpg")
    masks = np.arange(64 * 96).reshape(64, 96) // 2000 + 1
    np.save(here / "m.npy", masks)
    arguments = ["segment", "a.jpg", "-c", "cat, sofa, wall", "--masks", "m.npy", "--device", "cpu"]
    assert deop(*arguments, "--model", "new", "--labels", "new.png").code == 0
    assert deop(*arguments, "--model", tiny_clip, "--labels", "original.png").code == 0
    assert np.array_equal(*(np.asarray(Image.open(here / name)) for name in ("new.png", "original.png")))


def test_a_pickle_is_not_segmented_with_but_told_how_to_convert(deop, tiny_clip, here):
    pickled(tiny_clip, here / "old")
    write_photo(here / "a.jpg")
    answer = deop("segment", "a.jpg", "-c", "cat", "--model", "old")
    assert answer.code == 1
    assert "deop convert old" in answer.err


def test_what_is_no_checkpoint_is_told_and_leaves_nothing(deop, here):
    (here / "notes.pth").write_text("not weights")
    for source in ("notes.pth", "gone.pth"):
        answer = deop("convert", source, "out")
        assert answer.code == 1
        assert source in answer.err
        assert "Traceback" not in answer.err
    assert [path.name for path in here.iterdir()] == ["notes.pth"]


def test_a_folder_with_a_model_is_not_overwritten(deop, tiny_clip, here):
    pickled(tiny_clip, here / "old")
    shutil.copytree(tiny_clip, here / "out")
    before = (here / "out" / "model.safetensors").read_bytes()
    assert deop("convert", "old", "out").code == 1
    assert (here / "out" / "model.safetensors").read_bytes() == before
