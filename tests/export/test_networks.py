"""The modules that are traced, run by torch in the form in which they are traced, against the model itself."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deop.encoders.clip_positions import interpolate_positions, positions_within
from deop.errors import SettingError
from deop.images.canvas import canvas_of
from deop.images.preprocessing import CLIP, IMAGENET, Normalization, pixel_array, resize_photo
from deop.networks.resampling import to_patches
from deop.networks.resize_matrices import bicubic_weights, to_patches_by_matrices
from deop.proposals.filtering import drop_redundant
from deop.proposals.sam import SamProposer
from deop.proposals.types import Proposals
from deop.severance import KINDS, Severance
from tests.export import small
from tests.proposals import tiny_networks

from deop.export.networks import EncodeGraph, RegionGraph, distinct, renormalized  # isort: skip


@pytest.fixture
def exporting(monkeypatch):
    """Modules take the form in which they are traced."""
    return lambda: monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)


def inputs(model, photo):
    """Pixels and size of a photo as the graphs take them."""
    resize = model.settings.resize
    pixels = pixel_array(resize_photo(photo, resize), model.encoder.normalization, resize.divisor)
    return torch.from_numpy(pixels)[None], torch.tensor(canvas_of(photo, resize).resized)


def compare(model, exporting, severance=None, sizes=((70, 90), (50, 50), (130, 60))):
    """The graphs of a model, with its proposer's masks, given masks and no masks, against ``DeOP.encode``."""
    severed = Severance.parse(severance, model.settings.severance)
    photos = [small.photo(size[0], size[1], seed=index) for index, size in enumerate(sizes)]
    given = [
        np.random.default_rng(1).random((count, *size)) > 0.6 for count, size in zip((4, 1, 0), sizes, strict=True)
    ]
    expected = model.encode(photos, severance=severed) if model.proposer is not None else [None] * len(photos)
    expected_given = model.encode(photos, given, severance=severed)
    exporting()
    for index, photo in enumerate(photos):
        pixels, size = inputs(model, photo)
        with torch.inference_mode():
            masks = torch.from_numpy(expected_given[index].masks.logits)
            regions = RegionGraph(model, severed)(pixels, size, masks)
            torch.testing.assert_close(regions, expected_given[index].regions.clone(), atol=2e-5, rtol=0)
            if model.proposer is not None:
                logits, valid, regions = EncodeGraph(model, severed)(pixels, size)
                one = expected[index]
                torch.testing.assert_close(logits[valid], torch.from_numpy(one.masks.logits), atol=2e-4, rtol=0)
                torch.testing.assert_close(regions[valid], one.regions.clone(), atol=2e-5, rtol=0)
                assert regions.isfinite().all()


@pytest.mark.parametrize("class_token", ["ordinary", "severed"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_severance(exporting, kind, class_token):
    compare(small.model(), exporting, Severance(kind, (-2, -1), 0.3, class_token))


@pytest.mark.parametrize("padding", ["inside", "outside"])
@pytest.mark.parametrize("redundant", [True, False])
def test_padding_and_redundant_masks(exporting, padding, redundant):
    compare(small.model(padding=padding, drop_redundant=redundant), exporting, "gate")


@pytest.mark.parametrize("padding", ["inside", "outside"])
@pytest.mark.parametrize("query", ["mask", "slot"])
@pytest.mark.parametrize("gated", [True, False])
def test_anchor_decoders(exporting, padding, query, gated):
    decoder = small.anchors(query, layers=1, gated_layers=gated)
    compare(small.model(decoder=decoder, padding=padding), exporting)


@pytest.mark.parametrize("rule", ["grid", "count"])
def test_learned_positions(exporting, rule):
    encoder = small.clip(learned_at_input=True, learned_in_blocks=(1,), position_rule=rule, grid=4, learned_grid=6)
    # 96 x 96 has the 36 patches of the learned table, and 64 x 144 as well.
    compare(small.model(encoder=encoder, decoder=None), exporting, sizes=((96, 96), (70, 90), (64, 144)))


def test_patches_that_do_not_divide_the_padding(exporting):
    compare(small.model(encoder=small.clip(patch=14), normalize_patches=True), exporting)


def test_proposer_of_the_same_normalization(exporting):
    compare(small.model(encoder=small.clip(normalization=IMAGENET)), exporting)


def test_transformers_proposers(exporting):
    from deop.proposals.transformers_networks import TransformersProposer

    proposer = TransformersProposer(tiny_networks.mask2former(), IMAGENET)
    compare(small.model(proposer=proposer), exporting)


def test_segment_anything_is_refused():
    proposer = SamProposer(tiny_networks.sam(), IMAGENET)
    with pytest.raises(SettingError, match="--proposer given"):
        EncodeGraph(small.model(proposer=proposer))


def test_unknown_layers_are_refused():
    with pytest.raises(SettingError, match="layer 7"):
        RegionGraph(small.model(), Severance("self", (7,)))


def test_renormalized_pixels_keep_padding_of_zero():
    photo = small.photo(40, 50)
    one, other = (torch.from_numpy(pixel_array(photo, kind, 32))[None] for kind in (CLIP, IMAGENET))
    encoder, proposer = small.clip(), small.maskformer()
    torch.testing.assert_close(renormalized(one, torch.tensor([40, 50]), encoder, proposer), other)
    assert encoder.normalization != proposer.normalization == IMAGENET
    assert renormalized(other, torch.tensor([40, 50]), proposer, proposer) is other
    assert isinstance(CLIP, Normalization)


def masks_with_duplicates():
    torch.manual_seed(0)
    masks = 3 * F.interpolate(torch.randn(1, 12, 5, 5), size=(24, 24), mode="bilinear")[0]
    masks[3] = masks[1] + 0.05  # larger than mask 1
    masks[7] = masks[1]
    masks[5] = -4.0  # empty
    masks[9] = masks[2]
    masks[10] = masks[9] - 0.02
    masks[11] = masks[4].clone()
    masks[11][masks[4].argmax() // 24, masks[4].argmax() % 24] = -1  # one cell less, and one more elsewhere
    masks[11].view(-1)[masks[4].argmin()] = 1
    return masks


def test_distinct_masks_are_those_of_drop_redundant():
    masks = masks_with_duplicates()
    slots = drop_redundant(Proposals(masks, torch.arange(len(masks)))).slots
    kept = distinct(masks, torch.ones(len(masks), dtype=torch.bool))
    assert kept.nonzero()[:, 0].tolist() == slots.tolist()
    assert len(slots) < len(masks) - 3
    assert not distinct(masks, torch.zeros(len(masks), dtype=torch.bool)).any()


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("image", "masks", "patch"), [
    ((64, 96), (16, 24), 16), ((64, 96), (16, 24), 14), ((96, 32), (33, 17), 32), ((96, 128), (96, 128), 16),
    ((64, 96), (2, 3), 8),
])  # fmt: skip
def test_patches_by_matrices(image, masks, patch, antialias):
    torch.manual_seed(0)
    maps = torch.randn(2, 3, *masks)
    actual = to_patches_by_matrices(maps, image, patch, antialias=antialias)
    if image[1] == patch:  # torch returns the first row in all rows of a result that is one cell wide
        expected = to_patches(maps.mT.contiguous(), image[::-1], patch, antialias=antialias).mT
    else:
        expected = to_patches(maps, image, patch, antialias=antialias)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_masks_of_a_photo_one_patch_wide():
    maps = torch.arange(16.0)[:, None].expand(1, 1, 16, 4)
    covered = to_patches(maps, (64, 16), 16, antialias=True)[0, 0, :, 0]
    assert (covered.diff() > 1).all()


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9])
def test_bicubic_weights(count):
    torch.manual_seed(0)
    maps = torch.randn(1, 3, 4, 6)
    expected = F.interpolate(maps, (count, count + 1), mode="bicubic", align_corners=False)
    actual = bicubic_weights(4, count, count) @ maps @ bicubic_weights(6, torch.tensor(count + 1), count + 1).mT
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rule", ["grid", "count", "offset", "antialiased"])
@pytest.mark.parametrize("grid", [(4, 4), (2, 8), (3, 5), (16, 1)])
def test_positions_within_an_image(grid, rule):
    torch.manual_seed(0)
    table = torch.randn(17, 6)
    actual = positions_within(table, (17, 9), tuple(map(torch.tensor, grid)), rule)
    cells = actual[1:].unflatten(0, (17, 9))[: grid[0], : grid[1]].flatten(0, 1)
    expected = interpolate_positions(table, grid, rule)
    torch.testing.assert_close(torch.cat([actual[:1], cells]), expected, atol=1e-5, rtol=0)
