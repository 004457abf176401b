"""Severance: parity with the original, the formulas by hand, and properties."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.encoders.clip import CLIPVision, VisionConfig
from deop.encoders.severance import KINDS, Severance, mixer, patch_coverage
from deop.errors import SettingError
from deop.severance import PRESETS, TRAINING_FREE
from tests.conftest import assert_parity

ORIGINAL = {"none": "none", "maskgate": "gate", "identity": "self", "masksim": "affinity"}


def original_tower(file, name, kind):
    state = file.below(f"{name}.state.")
    if kind == "plain":
        state = {key: value for key, value in state.items() if "learned_position" not in key}
    return CLIPVision.from_openai(state, heads=file.info[name]["heads"], position_rule="count")


def original_severance(file, name, kind, variant):
    """docs/method.md §3, "Residual scale": 0.2 in block 11 of the tower without learned positions, else 1."""
    depth = file.info[name]["layers"]
    layers = (depth - 2, depth - 1) if variant.endswith("_last2") else (depth - 1,)
    residual = tuple(0.2 if kind == "plain" and layer == 11 else 1.0 for layer in layers)
    return Severance(ORIGINAL[variant.removesuffix("_last2")], layers, residual, class_token="severed")


def cases(file, section):
    """(key, encoder, plain or learnpos, variant, input) of all stored outputs of a section."""
    for key in file.tensors:
        tower, part, *rest = key.split(".")
        if part == section:
            yield key, tower, *rest


@torch.no_grad()
def test_parity_patch_features(parity):
    file = parity("severance")
    stored = list(cases(file, "out"))
    assert {variant.removesuffix("_last2") for *_, variant, _ in stored} == set(ORIGINAL)
    for key, name, kind, variant, image in stored:
        tower = original_tower(file, name, kind)
        features = tower(
            file[f"{name}.image.{image}"],
            file[f"{name}.mask_logits.{image}"],
            severance=original_severance(file, name, kind, variant),
        )
        assert_parity(features.patches.permute(0, 2, 3, 1), file[key])


@torch.no_grad()
def test_parity_class_token(parity):
    file = parity("severance")
    for key, name, kind, variant, image in cases(file, "cls"):
        tower = original_tower(file, name, kind)
        features = tower(
            file[f"{name}.image.{image}"],
            file[f"{name}.mask_logits.{image}"],
            severance=original_severance(file, name, kind, variant),
        )
        assert_parity(features.image, file[key])


@torch.no_grad()
def test_parity_last_block(parity):
    """The last block alone, from the tokens stored before it to those after it."""
    file = parity("severance")
    for key, name, kind, variant, image in cases(file, "tokens_after_last"):
        tower = original_tower(file, name, kind)
        severance = original_severance(file, name, kind, variant)
        residuals = severance.residuals(len(tower.blocks))
        last = len(tower.blocks) - 1
        pixels, masks = file[f"{name}.image.{image}"], file[f"{name}.mask_logits.{image}"]
        mix = None
        if last in residuals:
            coverage = patch_coverage(masks, tuple(pixels.shape[-2:]), tower.patch).flatten(2)
            mix = mixer(severance.kind, coverage)
        before = file[key.replace("after", "before")].transpose(0, 1)
        if str(last) in tower.learned_positions:
            pytest.fail("the stored tokens are taken after the learned positions: the test would add them twice")
        after = tower.blocks[last](before, None, mix, residuals.get(last, 1.0), severance.class_token)
        assert_parity(after.transpose(0, 1), file[key])


def by_hand(kind, coverage, values):
    """The table of docs/method.md §3 for one image, written as loops."""
    proposals, patches = coverage.shape
    mixed = torch.zeros_like(values)
    if kind == "self":
        return values
    if kind.startswith("gate"):
        gains = [float(proposals)] + [sum(float(c) for c in coverage[:, patch]) for patch in range(patches)]
        if kind == "gate-normalized":
            mean = sum(gains[1:]) / patches
            gains = [1.0] + [gain / mean for gain in gains[1:]]
        for token, gain in enumerate(gains):
            mixed[token] = gain * values[token]
        return mixed
    tokens = torch.cat([torch.ones(proposals, 1), coverage], 1)
    affinity = torch.zeros(patches + 1, patches + 1)
    for i in range(patches + 1):
        for j in range(patches + 1):
            affinity[i, j] = sum(tokens[n, i] * tokens[n, j] for n in range(proposals))
    if kind == "affinity":
        return affinity.softmax(1) @ values
    mixed[0] = values[0]
    if kind == "similar":
        affinity[:] = 1
    for i in range(1, patches + 1):
        mixed[i] = affinity[i, 1:] @ values[1:] / affinity[i, 1:].sum()
    return mixed


@pytest.mark.parametrize("kind", KINDS[1:])
def test_mixing_by_hand(kind):
    torch.manual_seed(0)
    coverage, values = torch.rand(2, 5, 6), torch.randn(2, 7, 8)
    mixed = mixer(kind, coverage)(values)
    for image in range(2):
        torch.testing.assert_close(mixed[image], by_hand(kind, coverage[image], values[image]))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(KINDS[1:]), st.integers(0, 6), st.integers(0, 3), st.integers(0, 10_000))
def test_padding_and_order_of_proposals(kind, proposals, padding, seed):
    """Neither proposals that are not valid nor the order of the others have an effect."""
    torch.manual_seed(seed)
    coverage, values = torch.rand(1, proposals, 6), torch.randn(1, 7, 8)
    expected = mixer(kind, coverage)(values)
    assert expected.isfinite().all()
    padded = torch.cat([coverage, torch.rand(1, padding, 6)], 1)
    order = torch.randperm(proposals + padding)
    mixed = mixer(kind, padded[:, order], (order < proposals)[None])(values)
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["gate-normalized", "region"]), st.integers(1, 6), st.integers(0, 10_000))
def test_normalised_kinds_do_not_depend_on_the_number_of_proposals(kind, proposals, seed):
    """Neither empty proposals nor repeating all proposals have an effect, unlike in the original."""
    torch.manual_seed(seed)
    coverage, values = torch.rand(1, proposals, 6), torch.randn(1, 7, 8)
    expected = mixer(kind, coverage)(values)
    empty = torch.cat([coverage, torch.zeros(1, 3, 6)], 1)
    torch.testing.assert_close(mixer(kind, empty)(values), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mixer(kind, coverage.repeat(1, 3, 1))(values), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("proposals", [0, 1, 5])
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_patches_in_padding_have_no_effect(kind, proposals, scale):
    """Images of 6 and 4 patches in one batch: the others, whatever they hold, change nothing."""
    torch.manual_seed(0)
    coverage, values = scale * torch.rand(2, proposals, 6), torch.randn(2, 7, 8)
    inside = torch.tensor([[True] * 6, [True, True, False, True, True, False]])
    mixed = mixer(kind, coverage, inside=inside)(values)
    assert mixed.shape == values.shape
    for image in range(2):
        kept = torch.cat([torch.tensor([True]), inside[image]])
        if kind == "gate-normalized" and not proposals:
            expected = values[image, kept]  # without coverage it equals "self"
        elif kind == "region" and not proposals:
            expected = values[image, kept]
        else:
            expected = by_hand(kind, coverage[image][:, inside[image]], values[image, kept])
        torch.testing.assert_close(mixed[image, kept], expected)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_tower_without_class_token(kind):
    """Its first token is unused: patches receive nothing from it."""
    torch.manual_seed(0)
    coverage, values = torch.rand(2, 3, 6), torch.randn(2, 7, 8)
    mix = mixer(kind, coverage, class_token=False)
    mixed = mix(values)[:, 1:]
    other = values.clone()
    other[:, 0] = 1e6
    assert torch.equal(mix(other)[:, 1:], mixed)
    for image in range(2):
        if kind == "affinity":
            affinity = (coverage[image].T @ coverage[image]).softmax(1)
            torch.testing.assert_close(mixed[image], affinity @ values[image, 1:])
        else:
            torch.testing.assert_close(mixed[image], by_hand(kind, coverage[image], values[image])[1:])


def test_gate_normalized_without_coverage_keeps_the_values():
    values = torch.randn(2, 7, 8)
    assert torch.equal(mixer("gate-normalized", torch.zeros(2, 3, 6))(values), values)


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_mixed_values_keep_their_type(kind, dtype):
    torch.manual_seed(0)
    coverage, values = torch.rand(1, 3, 6), torch.randn(1, 7, 8)
    mixed = mixer(kind, coverage)(values.to(dtype))
    assert mixed.dtype == dtype
    torch.testing.assert_close(mixed.float(), mixer(kind, coverage)(values), atol=0.1, rtol=0.05)


def test_a_function_as_kind_receives_tokens():
    coverage, values = torch.rand(1, 3, 6), torch.randn(1, 7, 8)
    inside, received = torch.ones(1, 6, dtype=torch.bool), []

    def project(name):
        return name

    def doubled(tokens):
        received.append(tokens)
        return 2 * tokens.values

    mixed = mixer(Severance(doubled), coverage, inside=inside, grid=(2, 3))(values, project)
    assert torch.equal(mixed, 2 * values)
    (tokens,) = received
    assert torch.equal(tokens.values, values)
    assert torch.equal(tokens.coverage, coverage)
    assert torch.equal(tokens.inside, inside)
    assert (tokens.project, tokens.grid) == (project, (2, 3))
    assert torch.equal(mixer(Severance(doubled), grid=(2, 3))(values, project), 2 * values)  # masks may be missing
    assert received[1].coverage is None
    assert received[1].inside is None

    def cut(tokens):
        return tokens.values[:, 1:]

    with pytest.raises(SettingError, match=r"'cut' returned values of shape \(1, 6, 8\): expected \(1, 7, 8\)"):
        mixer(Severance(cut), grid=(2, 3))(values, project)


def test_gate_depends_on_the_number_of_proposals():
    """The last test would fail for the original's gate."""
    coverage, values = torch.rand(1, 3, 6), torch.randn(1, 7, 8)
    twice = mixer("gate", coverage.repeat(1, 2, 1))(values)
    torch.testing.assert_close(twice, 2 * mixer("gate", coverage)(values))


def test_affinity_normalized_stays_inside_segments():
    """If masks are a partition, each patch receives the mean value of its own segment."""
    coverage = torch.full((1, 2, 6), -20.0).sigmoid()  # the coverage of given masks outside a mask
    coverage[0, 0, :2] = coverage[0, 1, 2:5] = 1  # patch 5 is in no mask
    values = torch.randn(1, 7, 4)
    mixed = mixer("region", coverage)(values)[0, 1:]
    patches = values[0, 1:]
    torch.testing.assert_close(mixed[:2], patches[:2].mean(0).expand(2, -1))
    torch.testing.assert_close(mixed[2:5], patches[2:5].mean(0).expand(3, -1))
    torch.testing.assert_close(mixed[5], patches[5])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("proposals", [0, 1, 7, 130])
@pytest.mark.parametrize(
    ("patch", "stride", "size"), [(16, 4, (64, 96)), (14, 4, (64, 100)), (32, 8, (70, 90)), (16, 1, (50, 33))]
)
@torch.no_grad()
def test_any_number_stride_patch_and_size(kind, proposals, patch, stride, size):
    torch.manual_seed(0)
    tower = CLIPVision(VisionConfig(32, 3, 4, 64, patch, 4, 16))
    masks = torch.randn(2, proposals, -(-size[0] // stride), -(-size[1] // stride))
    features = tower(torch.randn(2, 3, *size), masks, severance=Severance(kind, (1, -1)))
    assert features.patches.shape == (2, 16, -(-size[0] // patch), -(-size[1] // patch))
    assert features.patches.isfinite().all()


@pytest.mark.parametrize("kind", KINDS[1:])
@torch.no_grad()
def test_severed_blocks_do_not_use_queries_and_keys(kind):
    torch.manual_seed(0)
    tower = CLIPVision(VisionConfig(32, 2, 4, 64, 16, 4, 16))
    pixels, masks = torch.randn(1, 3, 64, 64), torch.randn(1, 5, 16, 16)
    severance = Severance(kind, (0, 1), class_token="severed")
    expected = tower(pixels, masks, severance=severance)
    for block in tower.blocks:
        block.attention.qkv.weight[:64] = float("nan")
    torch.testing.assert_close(tower(pixels, masks, severance=severance), expected)


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("sizes", [None, [(64, 96), (40, 50)]])
@torch.no_grad()
def test_the_image_embedding_is_that_of_an_unsevered_encoder(kind, sizes):
    """The class token stays ordinary by default; with "severed", patches are the same and the image differs."""
    torch.manual_seed(0)
    tower = CLIPVision(VisionConfig(32, 3, 4, 64, 16, 4, 16))
    for block in tower.blocks:  # larger than a fresh layer's, so that attention is far from uniform
        block.attention.qkv.weight.mul_(3)
        block.attention.qkv.bias.normal_()
    pixels, masks = torch.randn(2, 3, 64, 96), torch.randn(2, 5, 16, 24)
    plain = tower(pixels, sizes=sizes)
    ordinary = tower(pixels, masks, severance=Severance(kind, residual=0.2), sizes=sizes)
    severed = tower(pixels, masks, severance=Severance(kind, residual=0.2, class_token="severed"), sizes=sizes)
    torch.testing.assert_close(ordinary.image, plain.image, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(severed.image, plain.image, atol=0.1)
    assert torch.equal(severed.patches, ordinary.patches)


@torch.no_grad()
def test_the_class_token_does_not_change_patches_of_severed_blocks():
    """Blocks -2 and -1 severed, as in the small model: the figures measured before the choice existed stay valid."""
    torch.manual_seed(0)
    tower = CLIPVision(VisionConfig(32, 3, 4, 64, 16, 4, 16))
    pixels, masks = torch.randn(2, 3, 64, 96), torch.randn(2, 5, 16, 24)
    for kind in ("self", "gate", "gate-normalized", "region"):
        choices = [Severance(kind, (-2, -1), 0.2, choice) for choice in ("ordinary", "severed")]
        first, second = (tower(pixels, masks, severance=severance) for severance in choices)
        assert torch.equal(first.patches, second.patches)
        assert not torch.equal(first.image, second.image)


def test_errors():
    with pytest.raises(SettingError, match="unknown severance 'gat'"):
        Severance("gat")
    with pytest.raises(SettingError, match="unknown class_token 'none'"):
        Severance("self", class_token="none")
    with pytest.raises(SettingError, match=r"a list of integers such as \(-1,\), not 11"):
        Severance("self", 11)
    with pytest.raises(SettingError, match="cannot sever layer 12"):
        Severance("self", (12,)).residuals(12)
    with pytest.raises(SettingError, match="needs masks"):
        mixer("gate")
    with pytest.raises(SettingError, match="2 residual weights for 1"):
        Severance("self", (1,), (1.0, 0.2))
    assert Severance("gate", (-1, 0), (0.2, 1.0)).residuals(12) == {11: 0.2, 0: 1.0}
    default = Severance("self", (3,), 0.2, "severed")
    assert Severance.parse("gate", default) == Severance("gate", (3,), 0.2, "severed")


@pytest.mark.parametrize("severance", [
    *(preset.severance for preset in PRESETS.values()), TRAINING_FREE, Severance(),
    Severance("self", layers=(-2, -1), residual=(0.0, 0.2)), Severance("region", levels=(5, 6), neighbours=2.5),
], ids=lambda severance: severance.text)  # fmt: skip
def test_text_is_what_parse_reads(severance):
    assert Severance.parse(severance.text) == severance
