"""Run lengths of masks, compared with pycocotools and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deop.errors import SettingError
from deop.images.rle import compress_counts, decode_rle, decompress_counts, encode_crop

masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def runs_by_hand(mask: np.ndarray) -> list[int]:
    counts, last, run = [], False, 0
    for value in mask.ravel(order="F"):
        if value != last:
            counts.append(run)
            last, run = value, 0
        run += 1
    return [*counts, run]


@given(masks, st.tuples(*[st.integers(0, 3)] * 4))
def test_run_lengths_by_hand(crop, margins):
    whole = np.pad(crop, (margins[:2], margins[2:]))
    assert encode_crop(crop, margins[2], margins[0], whole.shape) == runs_by_hand(whole)


@given(masks, st.tuples(*[st.integers(0, 3)] * 4))
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_pycocotools_reads_our_run_lengths(crop, margins):
    from pycocotools import mask as tools

    whole = np.pad(crop, (margins[:2], margins[2:]))
    counts = encode_crop(crop, margins[2], margins[0], whole.shape)
    packed = tools.frPyObjects({"size": list(whole.shape), "counts": counts}, *whole.shape)
    np.testing.assert_array_equal(tools.decode(packed), whole)
    assert tools.area(packed) == whole.sum()


@given(arrays(bool, st.tuples(st.integers(1, 60), st.integers(1, 60)), fill=st.booleans()))
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_compressed_run_lengths_are_those_of_pycocotools(mask):
    from pycocotools import mask as tools

    counts = encode_crop(mask, 0, 0, mask.shape)
    text = compress_counts(counts)
    assert text == tools.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert decompress_counts(text) == counts
    for form in (text, counts):
        np.testing.assert_array_equal(decode_rle({"size": list(mask.shape), "counts": form}), mask)


@given(st.lists(st.integers(0, 2**36), min_size=1, max_size=9))
def test_long_runs_are_restored(counts):
    assert decompress_counts(compress_counts(counts)) == counts


def test_damaged_run_lengths():
    with pytest.raises(SettingError, match="do not fit a mask of 3 x 2 px"):
        decode_rle({"size": [2, 3], "counts": [2, 2]})
    for text in ("2é2", "\ud8002", "\U0001f600", "\x7f"):  # COCO's characters are those from 0 to o
        with pytest.raises(SettingError, match="damaged"):
            decode_rle({"size": [2, 3], "counts": text})
