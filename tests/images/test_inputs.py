"""Photos from file objects and tensors: the same pixels as from the file, or an error with the remedy."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from deop.errors import ImageError
from deop.images.reading import count_pixels, read_photo


@pytest.fixture
def photo():
    return np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.fixture
def png(photo):
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "PNG")
    return buffer.getvalue()


def test_file_objects_are_read_from_their_start(tmp_path, photo, png):
    (tmp_path / "a.png").write_bytes(png)
    buffer = io.BytesIO(png)
    buffer.seek(0, io.SEEK_END)  # as after Image.save
    assert count_pixels(buffer) == 600
    assert buffer.tell() == len(png)
    np.testing.assert_array_equal(read_photo(buffer), photo)
    np.testing.assert_array_equal(read_photo(buffer), photo)
    with (tmp_path / "a.png").open("rb") as file:
        assert count_pixels(file) == 600
        np.testing.assert_array_equal(read_photo(file), photo)


def test_streams_that_cannot_be_moved_are_read_from_where_they_are(photo, png):
    class Stream(io.RawIOBase):
        def __init__(self):
            self.rest = png

        def readable(self):
            return True

        def readinto(self, target):
            part, self.rest = self.rest[: len(target)], self.rest[len(target) :]
            target[: len(part)] = part
            return len(part)

    stream = Stream()
    assert count_pixels(stream) == 0
    np.testing.assert_array_equal(read_photo(stream), photo)
    with pytest.raises(ImageError, match="empty"):
        read_photo(stream)


def test_files_opened_as_text_are_refused(tmp_path, png):
    (tmp_path / "a.png").write_bytes(png)
    with (tmp_path / "a.png").open(encoding="latin-1") as file, pytest.raises(ImageError, match='with mode "rb"'):
        read_photo(file)
    with pytest.raises(ImageError, match='with mode "rb"'):
        read_photo(io.StringIO("text"))
    closed = io.BytesIO(png)
    closed.close()
    with pytest.raises(ImageError, match="closed"):
        read_photo(closed)


def test_tensors_of_all_layouts(photo):
    tensor = torch.from_numpy(photo)
    first = tensor.permute(2, 0, 1)
    for form in (tensor, first, tensor / 255, (first / 255).requires_grad_(), torch.nn.Parameter(first / 255)):
        np.testing.assert_array_equal(read_photo(form), photo)
        assert count_pixels(form) == 600
    half = read_photo((first / 255).bfloat16())
    assert np.abs(half.astype(int) - photo).max() <= 1  # bfloat16 has 8 bits
    grey = tensor[..., :1]
    for form in (grey, grey.permute(2, 0, 1), grey[..., 0], grey[..., 0] > 300):
        assert read_photo(form).shape == (20, 30, 3)
    np.testing.assert_array_equal(read_photo(grey.permute(2, 0, 1))[..., 2], photo[..., 0])
    rgba = torch.cat([first, torch.full((1, 20, 30), 255, dtype=torch.uint8)])
    np.testing.assert_array_equal(read_photo(rgba), photo)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(3, 20, 3), "first or last"),
        (torch.zeros(1, 20, 3), "first or last"),
        (torch.zeros(2, 3, 20, 30), r"list\(tensor\)"),
        (torch.zeros(5, 20, 30), r"\(3, H, W\)"),
        (torch.zeros(7), r"\(3, H, W\)"),
        (torch.full((3, 20, 30), 255.0), "divide by 255"),
        (torch.full((3, 20, 30), -0.5), "not from 0 to 1"),
    ],
)
def test_tensors_that_are_not_photos(tensor, message):
    with pytest.raises(ImageError, match=message) as caught:
        read_photo(tensor)
    assert "Tensor (" in str(caught.value)


def test_a_narrow_photo_is_not_ambiguous():
    """Only the first and the last dimension decide."""
    assert read_photo(torch.zeros(3, 3, 40)).shape == (3, 40, 3)
    assert read_photo(torch.zeros(40, 3, 3)).shape == (40, 3, 3)
