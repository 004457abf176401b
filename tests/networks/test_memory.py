"""A photo that does not fit in memory is named; the errors are those of torch's devices and of NumPy."""

import numpy as np
import pytest
import torch
from PIL import Image

from deop.errors import ResourceError
from deop.networks.memory import is_out_of_memory, naming_photo
from deop.zoo import load

ERRORS = {
    "numpy": MemoryError("Unable to allocate 9.31 GiB for an array"),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"),
    "cuda": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
}
MARK = 77


@pytest.fixture(scope="module")
def nano():
    return load("nano", engine="torch", device="cpu")


@pytest.fixture
def failing(nano, monkeypatch):
    """Make ``nano`` fail in a stage wherever a photo is MARK all over."""

    def install(stage, error):
        original = getattr(nano, stage)

        def fail(photos, *arguments, **options):
            several = photos if stage == "encode" else [photos.photo]
            arrays = [np.asarray(Image.open(photo) if isinstance(photo, str) else photo) for photo in several]
            if any((array == MARK).all() for array in arrays):
                raise error
            return original(photos, *arguments, **options)

        monkeypatch.setattr(nano, stage, fail)
        return nano

    return install


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "kind"), [*(("encode", kind) for kind in ERRORS), ("label", "numpy")])
def test_the_photo_of_a_list_that_does_not_fit_is_named(failing, stage, kind, tmp_path):
    model = failing(stage, ERRORS[kind])
    small, large = np.zeros((32, 40, 3), np.uint8), np.full((40, 64, 3), MARK, np.uint8)
    with pytest.raises(ResourceError, match=r"^photo 2 of 3 \(64 x 40 px\) does not fit in memory: resize it"):
        model.segment([small, large, small], "cat, sky")
    with pytest.raises(ResourceError, match=r"^the photo \(64 x 40 px\) does not fit in memory"):
        model.segment(large, "cat, sky")
    path = str(tmp_path / "a large photo.png")
    Image.fromarray(large).save(path)
    with pytest.raises(ResourceError, match=f"^{path} does not fit in memory"):
        model.segment([small, path], "cat, sky", batch=1)
    assert len(model.segment([small, small], "cat, sky")) == 2


def test_photos_that_fit_one_by_one_are_not_an_error(nano, monkeypatch):
    original, sizes = nano.encode, []

    def encode(photos, *arguments, **options):
        sizes.append(len(photos))
        if len(photos) > 1:
            raise ERRORS["cuda"]
        return original(photos, *arguments, **options)

    photos = [np.full((32, 40, 3), value, np.uint8) for value in (0, 100, 200)]
    expected = [result.label_map for result in nano.segment(photos, "cat, sky")]
    monkeypatch.setattr(nano, "encode", encode)
    results = nano.segment(photos, "cat, sky")
    assert sizes == [3, 1, 1, 1]
    assert all(np.array_equal(result.label_map, label_map) for result, label_map in zip(results, expected, strict=True))


def test_other_errors_are_left_alone():
    device = torch.device("cpu")
    for error in (RuntimeError("shapes do not match"), KeyError("memory"), ResourceError("ours")):
        with pytest.raises(type(error), match=error.args[0]), naming_photo("a.jpg", device):
            raise error
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    remedy = r'memory of cuda:1: resize it, or use device="cpu"'
    with pytest.raises(ResourceError, match=remedy), naming_photo("a.jpg", torch.device("cuda:1")):
        raise ERRORS["cuda"]


def test_the_errors_of_onnx_runtime():
    from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

    assert is_out_of_memory(RuntimeException("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer"))
    assert is_out_of_memory(RuntimeException("std::bad_alloc"))
    assert not is_out_of_memory(RuntimeException("shapes do not match"))
