"""Given masks: coverage by hand, all accepted forms and files, and errors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deop.errors import ProposalError
from deop.proposals.given import as_masks, given_proposals, read_masks
from deop.proposals.types import Proposals


def coverage_by_hand(mask, input_shape, padded_shape, stride):
    """Covered share of each cell inside the photo, from the intersection of each cell with each pixel."""
    (height, width), cells = mask.shape, [-(-side // stride) for side in padded_shape]
    share = np.full(cells, np.nan)
    for row in range(cells[0]):
        top, bottom = (min(edge * stride, input_shape[0]) * height / input_shape[0] for edge in (row, row + 1))
        for column in range(cells[1]):
            left, right = (min(e * stride, input_shape[1]) * width / input_shape[1] for e in (column, column + 1))
            if bottom <= top or right <= left:
                continue
            y, x = np.arange(height), np.arange(width)
            tall = np.clip(np.minimum(y + 1, bottom) - np.maximum(y, top), 0, None)
            wide = np.clip(np.minimum(x + 1, right) - np.maximum(x, left), 0, None)
            share[row, column] = (tall[:, None] * wide * mask).sum() / ((bottom - top) * (right - left))
    return share


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 23), st.integers(1, 23)),
    st.tuples(st.integers(1, 31), st.integers(1, 31)),
    st.sampled_from([1, 3, 4, 8]),
    st.integers(0, 2**32 - 1),
)
def test_coverage_is_the_area_average(photo, resized, stride, seed):
    masks = np.random.default_rng(seed).random((2, *photo)) > 0.5
    padded = tuple(-(-side // 8) * 8 for side in resized)
    proposals = given_proposals(masks, photo, resized, padded, stride)
    assert proposals.slots is None
    assert torch.equal(proposals.exact, torch.from_numpy(masks))
    for mask, logits in zip(masks, proposals.logits, strict=True):
        expected = coverage_by_hand(mask, resized, padded, stride)
        inside = ~np.isnan(expected)
        assert (logits.numpy()[~inside] == -20).all()
        assert np.abs(torch.sigmoid(logits).numpy() - expected)[inside].max() < 1e-5
        assert logits.abs().max() <= 20


def test_full_mask_covers_all_cells_of_the_photo():
    logits = given_proposals(np.ones((1, 375, 500), bool), (375, 500), (512, 683), (512, 704)).logits
    assert logits.shape == (1, 128, 176)
    assert (logits[:, :, :171] == 20).all()  # 683 / 4 = 170.75: the last cell has 3 of 4 columns in the photo
    assert (logits[:, :, 171:] == -20).all()


def test_all_forms_of_masks_are_equivalent():
    rng = np.random.default_rng(0)
    masks = rng.random((3, 8, 10)) > 0.6
    label_map = np.where(masks[2], 300, np.where(masks[1], 7, np.where(masks[0], 2, 0))).astype(np.uint16)
    for form in (
        masks,
        masks.astype(np.uint8) * 255,
        masks.astype(np.float32),
        torch.from_numpy(masks),
        list(masks),
        [torch.from_numpy(m) for m in masks],
        [m.astype(int).tolist() for m in masks],
    ):
        assert np.array_equal(as_masks(form, (8, 10)), masks)
    separate = np.stack([label_map == i for i in (2, 7, 300)])
    assert np.array_equal(as_masks(label_map), separate)
    assert np.array_equal(as_masks(torch.from_numpy(label_map.astype(np.int64))), separate)
    assert np.array_equal(as_masks(masks[0]), masks[:1])


def test_flipped_and_read_only_arrays_are_accepted():
    masks = np.random.default_rng(0).random((2, 8, 8)) > 0.5
    flipped = masks[:, ::-1]
    masks.flags.writeable = False
    for form in (masks, flipped):
        proposals = given_proposals(form, (8, 8), (8, 8), (8, 8))
        assert np.array_equal(proposals.exact.numpy(), form)


@pytest.mark.parametrize("masks", [np.zeros((0, 6, 8), bool), [], np.zeros((6, 8), np.uint8)])
def test_no_masks_give_no_proposals(masks):
    proposals = given_proposals(masks, (6, 8), (12, 16), (32, 32))
    assert len(proposals) == 0
    assert proposals.logits.shape == (0, 8, 8)
    assert proposals.exact.shape == (0, 6, 8)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.ones((2, 5, 8), bool), r"5 x 8.*6 x 8"),
        ([np.ones((6, 8)), np.ones((6, 9))], r"6 x 9.*6 x 8"),
        (np.ones((1, 2, 6, 8), bool), r"\(1, 2, 6, 8\)"),
        (np.full((1, 6, 8), 0.5), "only 0 and 1"),
        (np.full((6, 8), -1), "negative"),
        (np.full((1, 6, 8), "a"), "give bool"),
        ([np.ones((1, 6, 8))], "each must be"),
        ("masks.png", r"read the file first with deop\.images\.masks\.read_masks\('masks\.png'\)"),
    ],
)
def test_wrong_masks_raise(masks, message):
    with pytest.raises(ProposalError, match=message):
        given_proposals(masks, (6, 8), (6, 8), (8, 8))


@pytest.fixture
def label_map():
    ids = np.zeros((6, 8), np.uint16)
    ids[:3, :4], ids[4:, 5:] = 3, 200
    return ids


def test_a_set_of_masks_is_refused():
    with pytest.raises(ProposalError, match="the masks are a set, which has no order"):
        as_masks({torch.ones(4, 6), torch.zeros(4, 6)})


def test_label_images_of_8_and_16_bits(tmp_path, label_map):
    expected = np.stack([label_map == 3, label_map == 200])
    Image.fromarray(label_map.astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(label_map * 200).save(tmp_path / "16.png")
    palette = Image.fromarray(label_map.astype(np.uint8), mode="P")
    palette.putpalette([7] * 768)
    palette.save(tmp_path / "palette.png")
    for name in ("8.png", "16.png", "palette.png"):
        assert np.array_equal(read_masks(tmp_path / name), expected), name


def test_array_files(tmp_path, label_map):
    masks = np.stack([label_map == 3, label_map == 200])
    np.save(tmp_path / "masks.npy", masks)
    np.save(tmp_path / "labels.npy", label_map)
    np.savez_compressed(tmp_path / "one.npz", anything=masks)
    np.savez(tmp_path / "two.npz", masks=masks, scores=np.ones(2))
    for name in ("masks.npy", "labels.npy", "one.npz", "two.npz"):
        assert np.array_equal(read_masks(tmp_path / name), masks), name


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_label_images_of_few_bits(tmp_path, bits):
    """Pillow scales grey values of 1, 2 and 4 bits to 0..255."""
    from tests.images.test_id_maps import png

    ids = np.arange(48).reshape(6, 8) % (1 << bits)
    (tmp_path / "m.png").write_bytes(png(ids, bits))
    assert np.array_equal(read_masks(tmp_path / "m.png"), np.stack([ids == label for label in range(1, 1 << bits)]))


def test_a_folder_of_masks_leaves_out_hidden_files_and_refuses_what_would_be_lost(tmp_path, label_map):
    Image.fromarray(label_map > 0).save(tmp_path / "a.PNG")  # 1 bit
    Image.fromarray(((label_map == 3) * 255).astype(np.uint8)).convert("RGB").save(tmp_path / "b.tif")
    (tmp_path / "._a.png").write_bytes(b"Mac OS X")
    (tmp_path / "link.png").symlink_to("a.PNG")
    assert np.array_equal(read_masks(tmp_path), np.stack([label_map > 0, label_map == 3, label_map > 0]))
    Image.fromarray(label_map.astype(np.uint8)).save(tmp_path / "c.jpg")
    with pytest.raises(ProposalError, match=r"c\.jpg is a JPEG file, whose compression changes ids"):
        read_masks(tmp_path)
    (tmp_path / "c.jpg").unlink()
    np.save(tmp_path / "d.npy", label_map)
    with pytest.raises(ProposalError, match=r"d\.npy is in a directory with one mask per image"):
        read_masks(tmp_path)


def test_folder_of_binary_images(tmp_path, label_map):
    for name, ids in (("b.png", 200), ("a.png", 3)):
        Image.fromarray((label_map == ids).astype(np.uint8) * 255).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a mask")
    assert np.array_equal(read_masks(tmp_path), np.stack([label_map == 3, label_map == 200]))


def test_errors_name_the_file(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "mixed" / "a.png")
    Image.new("L", (5, 4)).save(tmp_path / "mixed" / "b.png")
    Image.new("RGB", (4, 4), "red").save(tmp_path / "colour.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "broken.npy").write_bytes(b"nothing")
    np.savez_compressed(tmp_path / "cut.npz", masks=np.random.default_rng(0).random((9, 9)) > 0.5)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:150])
    np.savez(tmp_path / "damaged.npz", masks=np.ones((40, 40), bool))
    content = bytearray((tmp_path / "damaged.npz").read_bytes())
    content[300] ^= 255  # the checksum of the member no longer matches
    (tmp_path / "damaged.npz").write_bytes(bytes(content))
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "flat.npy", np.zeros(4))
    np.savez(tmp_path / "two.npz", a=np.ones(1), b=np.ones(1))
    cases = {
        "absent.png": "no masks at",
        "empty": "expected PNG",
        "mixed": "b.png",
        "colour.png": "RGB",
        "broken.png": "cannot read",
        "broken.npy": "cannot read",
        "object.npy": "cannot read",
        "cut.npz": "cannot read",
        "damaged.npz": "cannot read",
        "flat.npy": "flat.npy.*shape",
        "two.npz": "a, b",
    }
    for name, message in cases.items():
        with pytest.raises(ProposalError, match=message) as caught:
            read_masks(tmp_path / name)
        assert str(tmp_path) in str(caught.value), name


@pytest.mark.parametrize("form", ["label map", "list", "keep"])
def test_masks_are_in_memory_once(form):
    import tracemalloc

    side, count = 512, 40
    labels = np.arange(side * side, dtype=np.int64).reshape(side, side) % count + 1
    planes = [labels == index for index in range(1, count + 1)]
    proposals = Proposals(torch.zeros(count, 4, 4), exact=torch.from_numpy(np.stack(planes)))
    tracemalloc.start()
    if form == "keep":  # if all are kept, nothing is copied (tracemalloc does not see torch's memory)
        assert proposals.keep(torch.arange(count)).exact is proposals.exact
        assert proposals.keep(torch.ones(count, dtype=torch.bool)).exact is proposals.exact
    else:
        assert len(as_masks(labels if form == "label map" else planes)) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.6 * count * side * side


@pytest.mark.slow
def test_large_masks_are_not_all_copied_to_float():
    import tracemalloc

    side, count = 4096, 12
    masks = np.zeros((count, side, side), bool)
    masks[:, 100:900, 50:60] = True
    tracemalloc.start()
    proposals = given_proposals(masks, (side, side), (512, 512), (512, 512))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * side * side * 4
    assert proposals.exact.data_ptr() == masks.ctypes.data


def test_a_mask_with_a_damaged_header_is_reported(tmp_path):
    """Pillow raises errors of many kinds for damaged files; a PNG of 0 x 0 pixels is one of them."""
    path = tmp_path / "mask.png"
    Image.new("L", (6, 4)).save(path)
    content = bytearray(path.read_bytes())
    for damaged in (content[:20], content[:34], content[:16] + b"\0" * 8 + content[24:]):
        path.write_bytes(damaged)
        with pytest.raises(ProposalError, match=r"mask\.png"):
            read_masks(path)


def test_annotations_of_sam_and_run_lengths():
    """What SAM's mask generator returns, with masks as arrays, and as RLE of pycocotools (here from deop's encoder)."""
    from deop.images.rle import compress_counts

    mask = np.zeros((4, 3), bool)
    mask[1:3, 1] = True
    counts = [5, 2, 5]  # column by column
    forms = [mask, counts, compress_counts(counts), compress_counts(counts).encode()]
    rles = [form if form is mask else {"size": [4, 3], "counts": form} for form in forms]
    annotations = [{"segmentation": rle, "area": 2, "predicted_iou": 0.9} for rle in rles]
    assert np.array_equal(as_masks(annotations, (4, 3)), np.stack([mask] * 4))
    for wrong, message in (
        ({"segmentation": [[0, 0, 1, 1, 2, 2]]}, "draw polygons"),
        ({"area": 3}, "without a mask"),
        ({"segmentation": {"size": [4, 3], "counts": [5]}}, "damaged RLE"),
        ({"segmentation": {"size": [4, 3]}}, "damaged RLE"),
    ):
        with pytest.raises(ProposalError, match=message):
            as_masks([wrong], (4, 3))
