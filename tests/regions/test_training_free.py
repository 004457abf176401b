"""Training-free methods from the command line, Python and recipes: anchors, windows and a second network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deop import load
from deop.encoders.feature_network import FeatureNetwork
from deop.encoders.severance import KINDS, Severance
from deop.errors import CheckpointError, SettingError
from deop.networks.resampling import to_patches
from deop.regions.encoding import fit_proxy
from deop.severance import PRESETS, TRAINING_FREE
from deop.training.recipe import read_recipe
from deop.training.stages.deop_recipe import DeOPRecipe

RECIPE = Path(__file__).parents[2] / "recipes" / "coco-stuff" / "deop.yaml"
NAMES = ["cat", "dog", "sofa", "wall"]


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def masks():
    masks = np.zeros((3, 64, 96), bool)
    masks[0, :, :40] = masks[1, 20:, 40:] = masks[2, :20, 48:80] = True
    return masks


@pytest.fixture
def model(tiny_clip):
    return load(tiny_clip, device="cpu")


def segment(model, photo, masks, **options):
    model.settings = replace(model.settings, resize=replace(model.settings.resize, short_side=64))
    return model.encode([photo], [masks], **options)[0]


def test_models_without_training_have_the_default_of_the_method(model):
    assert model.settings.severance == TRAINING_FREE == Severance("region", residual=0.0, similarity="k", mlp=False)


def test_other_models_keep_their_own():
    nano = load("nano", engine="torch")
    assert nano.settings.severance == Severance("self", (-2, -1), 0.2)


@pytest.mark.parametrize("name", PRESETS)
def test_every_method_in_python_and_a_recipe(name, tiny_clip, tiny_dino, photo, masks):
    preset = PRESETS[name].severance
    model = load(tiny_clip, proxy=tiny_dino, device="cpu")
    encoded = segment(model, photo, masks, severance=name)
    assert encoded.settings["severance"] == preset.kind
    assert encoded.settings["residual"] == preset.residual
    result = model.label(encoded, NAMES)
    assert result.label_map.shape == (64, 96)
    for text in (f"severance={name}", f"severance={{kind: {preset.kind}}}"):
        recipe = read_recipe(DeOPRecipe, RECIPE, [text])
        assert recipe.severance.kind == preset.kind
    assert read_recipe(DeOPRecipe, RECIPE, [f"severance={name}"]).severance == preset


@pytest.mark.parametrize("severance", ["region", "region:similarity=k", "gate-normalized", "affinity", "corrclip"])
@pytest.mark.parametrize("anchors", ["pool", "tokens", "patch"])
def test_order_and_repetition_of_all_masks(model, photo, masks, severance, anchors):
    """Each mask keeps its embedding, and each pixel its name."""
    # affinity is a sum over the masks, which grows with their number, as in the original.
    order = [2, 0, 1] if severance == "affinity" else [2, 0, 1, 0, 1, 2]
    expected = segment(model, photo, masks, severance=severance, anchors=anchors)
    actual = segment(model, photo, masks[order], severance=severance, anchors=anchors)
    torch.testing.assert_close(actual.regions, expected.regions[order], atol=1e-5, rtol=1e-4)
    labels = [model.label(one, NAMES).label_map for one in (expected, actual)]
    assert (labels[0] == labels[1]).all()


def test_region_tokens_are_added_to_the_mean(model, photo, masks):
    pooled = segment(model, photo, masks, anchors="pool")
    encoded = segment(model, photo, masks, anchors="tokens")
    assert encoded.settings["anchors"] == "tokens"
    model.settings = replace(model.settings, token_weight=0.0)
    torch.testing.assert_close(segment(model, photo, masks, anchors="tokens").regions, pooled.regions)
    model.settings = replace(model.settings, token_weight=1e4)
    tokens = segment(model, photo, masks, anchors="tokens").regions
    assert not torch.allclose(tokens, pooled.regions, atol=0.01)
    between = F.cosine_similarity(encoded.regions, pooled.regions) - F.cosine_similarity(tokens, pooled.regions)
    assert (between > 0).all()


def test_patches_vote_inside_their_mask(model, photo, masks):
    encoded = segment(model, photo, masks, anchors="patch")
    shares = model.class_probabilities(encoded, NAMES)
    classes = model.class_tensors(model.vocabulary(NAMES))
    best = (encoded.cells @ classes.rows.T).argmax(1)
    best = classes.owner[best]
    coverage = to_patches(encoded.proposals.logits[None].sigmoid(), (64, 96), 16, antialias=True)[0].flatten(1)
    for mask, share in zip(coverage, shares, strict=True):
        expected = torch.tensor([float(mask[best == name].sum() / mask.sum()) for name in range(len(NAMES))])
        torch.testing.assert_close(share[:-1], expected, atol=1e-5, rtol=1e-4)
    assert model.label(encoded, NAMES).label_map.max() < len(NAMES)


@pytest.mark.parametrize("kept", [slice(0, 1), slice(0, 0)])
def test_patches_outside_every_mask_name_their_pixels(model, photo, masks, kept):
    encoded = segment(model, photo, masks[kept], anchors="patch")
    result = model.label(encoded, NAMES, heatmaps=NAMES)
    classes = model.class_tensors(model.vocabulary(NAMES))
    logits = torch.full((len(NAMES), 4, 6), -1.0)
    for row, name in enumerate(classes.owner):
        logits[name] = torch.maximum(logits[name], (encoded.cells @ classes.rows[row]).unflatten(0, (4, 6)))
    winners = logits.argmax(0).unique()
    maps = F.interpolate(logits[None, winners], (16, 24), mode="bilinear")[0]  # at the centres of the cells of masks
    free = ~masks[kept].any(0)
    found, clear = torch.from_numpy(result.label_map)[2::4, 2::4], torch.from_numpy(free)[2::4, 2::4]
    if len(winners) > 1:
        first, second = maps.topk(2, 0).values
        clear &= first - second > 1e-4
    assert torch.equal(found[clear], winners[maps.argmax(0)][clear].int())
    assert clear.sum() > 100
    assert (result.label_map >= 0).all()
    assert sum(result.heatmaps.values())[free].min() == pytest.approx(1)
    segments = model.label(encoded, NAMES, mode="panoptic")
    assert (segments.label_map[free] == -1).all()  # there, segments are masks


def test_windows_are_a_setting(model, photo, masks):
    whole = segment(model, photo, masks)
    model.settings = replace(model.settings, windows=(224, 112))
    assert torch.equal(segment(model, photo, masks).regions, whole.regions)  # one window
    model.settings = replace(model.settings, windows=(32, 16))
    encoded = segment(model, photo, masks)
    assert not torch.allclose(encoded.regions, whole.regions, atol=1e-3)
    assert encoded.settings["windows"] == [32, 16]


def test_a_second_network_changes_the_grid(tiny_clip, tiny_dino, photo, masks):
    model = load(tiny_clip, proxy=tiny_dino, device="cpu")
    encoded = segment(model, photo, masks, severance="proxyclip")
    assert encoded.heatmaps.shape[-2:] == (8, 12)  # its patches of 8 pixels instead of CLIP's 16
    assert segment(model, photo, masks).heatmaps.shape[-2:] == (4, 6)


def test_features_of_a_second_network_equal_those_of_transformers(tiny_dino):
    from transformers import ViTModel

    network = FeatureNetwork.from_folder(tiny_dino)
    pixels = torch.randn(1, 3, 32, 32)
    expected = ViTModel.from_pretrained(tiny_dino, add_pooling_layer=False).eval()(pixels).last_hidden_state[:, 1:]
    torch.testing.assert_close(network(pixels).flatten(2).mT, expected)
    assert network(torch.randn(1, 3, 40, 52)).shape == (1, 16, 5, 7)


def test_heatmaps_on_the_grid_of_a_second_network_cover_their_mask(tiny_clip, tiny_dino, photo, masks):
    model = load(tiny_clip, proxy=tiny_dino, device="cpu")
    encoded = segment(model, photo, masks[:1], severance="proxyclip")
    heatmaps = model.anchor_heatmaps(encoded, ["cat"], ["cat"])["cat"]
    assert heatmaps[:, :32].min() > 0.8
    assert heatmaps[:, 48:].max() < 0.2


def test_features_are_fitted_to_the_patch_grid():
    for grid, cell, shape in (
        ((8, 12), 8, (8, 12)),
        ((5, 7), 16, (4, 6)),
        ((10, 15), 8, (8, 12)),
        ((4, 6), 16, (4, 6)),
    ):
        features, side = fit_proxy(torch.randn(1, 3, *grid), (64, 96), 16)
        assert (tuple(features.shape[-2:]), side) == (shape, cell)


def test_a_second_network_is_not_saved(tiny_clip, tiny_dino, tmp_path):
    model = load(tiny_clip, proxy=tiny_dino, device="cpu")
    model.save_pretrained(tmp_path / "model")
    assert load(tmp_path / "model", device="cpu").proxy is None


def own_row(tokens):
    """A function as severance: each patch receives the mean of its row of patches."""
    rows = tokens.values[:, 1:].unflatten(1, tokens.grid).mean(2, keepdim=True).expand(-1, -1, tokens.grid[1], -1)
    return torch.cat([tokens.values[:, :1], rows.flatten(1, 2)], 1)


def test_a_function_as_severance(model, photo, masks, tmp_path):
    encoded = segment(model, photo, masks, severance=own_row)
    assert encoded.settings["severance"] == "own_row"
    model.settings = replace(model.settings, severance=replace(TRAINING_FREE, kind=own_row))
    torch.testing.assert_close(segment(model, photo, masks).regions, encoded.regions)
    with pytest.raises(SettingError, match="'own_row' is a function, which cannot be saved"):
        model.save_pretrained(tmp_path / "model")
    with pytest.raises(SettingError, match="returned values of shape"):
        segment(model, photo, masks, severance=lambda tokens: tokens.values[:, 1:])


def test_errors(model, photo, masks, tiny_clip):
    with pytest.raises(SettingError, match="features of a second network"):
        segment(model, photo, masks, severance="proxyclip")
    with pytest.raises(CheckpointError, match="a second network must be one of vit"):
        load(tiny_clip, proxy=tiny_clip, device="cpu")
    with pytest.raises(SettingError, match="windows are"):
        replace(model.settings, windows=(16, 32))
    nano = load("nano", engine="torch")
    with pytest.raises(SettingError, match=r'NanoEncoder\) does not support anchors="tokens"'):
        nano.encode([photo], [masks], anchors="tokens")
    with pytest.raises(SettingError, match="does not support severance 'similar' with a second network"):
        nano.encode([photo], [masks], severance="proxyclip")
    nano.settings = replace(nano.settings, windows=(224, 112))
    with pytest.raises(SettingError, match="does not support windows"):
        nano.encode([photo], [masks])


@pytest.mark.parametrize("name", [*KINDS, *(name for name in PRESETS if not PRESETS[name].severance.needs_proxy)])
def test_every_kind_and_method_with_the_small_model(name, photo, masks):
    nano = load("nano", engine="torch")
    assert segment(nano, photo, masks, severance=name).regions.isfinite().all()
