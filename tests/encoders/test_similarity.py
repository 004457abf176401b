"""Severance by similarity: the formulas by hand, properties, region tokens, levels, parallel layers and windows."""

import copy
import io
import warnings
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from deop.encoders import similarity
from deop.encoders.clip import CLIPVision, VisionConfig
from deop.encoders.severance import Severance, mixer
from deop.errors import SettingError
from deop.severance import PRESETS, TRAINING_FREE

HEADS, DEPTH, GRID = 2, 4, (3, 4)
PATCHES = GRID[0] * GRID[1]
SIMILARITIES = ["", "q", "k", "v", "qk", "qkv", "cross"]


def tokens(batch=2, seed=0):
    """Values (B, 1 + L, C) and a projection of tokens whose attention is far from uniform."""
    torch.manual_seed(seed)
    parts = {letter: 2 * torch.randn(batch, HEADS, 1 + PATCHES, DEPTH) for letter in "qkv"}
    return parts["v"].transpose(1, 2).flatten(2), parts.__getitem__


def by_hand(severance, project, coverage=None, inside=None):
    """Mixed values (1 + L, C) of one image, written as loops over heads and patches."""
    parts = {letter: project(letter)[0] for letter in "qkv"}
    mixed = parts["v"].transpose(0, 1).flatten(1).clone()
    pairs = [("q", "k")] if severance.similarity == "cross" else [(c, c) for c in severance.similarity]
    pairs = pairs or [None]
    known = torch.ones(1 + PATCHES, dtype=torch.bool)
    if inside is not None:
        known[1:] = inside
    lengths = torch.stack(
        [parts["q"][h][known].norm(dim=1).mean() * parts["k"][h][known].norm(dim=1).mean() for h in range(HEADS)]
    )
    covered = None if coverage is None else torch.where(coverage > 1e-6, coverage, 0)
    for i in range(PATCHES):
        scope = {}
        for j in range(PATCHES):
            share = 1.0 if severance.kind == "similar" else float(covered[:, i] @ covered[:, j])
            if (inside is None or inside[j]) and share > 0:
                scope[1 + j] = share
        if not scope:
            scope = {1 + i: 1.0}
        if severance.class_key:
            scope[0] = scope.get(1 + i, 1.0)
        for head in range(HEADS):
            weights = torch.zeros(1 + PATCHES)
            for pair in pairs:
                scores = {}
                for j, share in scope.items():
                    score = 0.0
                    if pair:
                        score = float(parts[pair[0]][head, 1 + i] @ parts[pair[1]][head, j]) / DEPTH**0.5
                    if severance.neighbours and j:
                        (r, c), (s, d) = divmod(i, GRID[1]), divmod(j - 1, GRID[1])
                        near = torch.tensor(-((r - s) ** 2 + (c - d) ** 2) / (2 * severance.neighbours**2)).exp()
                        score += float(near) * (1.0 if pair else float(lengths.mean()) / DEPTH**0.5)
                    scores[j] = severance.sharpness * score if pair or severance.neighbours else 0.0
                    scores[j] += float(torch.tensor(share).log())
                total = torch.tensor(list(scores.values())).softmax(0)
                for j, weight in zip(scores, total, strict=True):
                    weights[j] += weight / len(pairs)
            part = slice(head * DEPTH, (head + 1) * DEPTH)
            mixed[1 + i, part] = severance.gain * weights @ parts["v"][head]
    return mixed


@pytest.mark.parametrize("kind", ["similar", "region"])
@pytest.mark.parametrize("chosen", SIMILARITIES)
@pytest.mark.parametrize(
    "more", [{}, {"neighbours": 1.5}, {"class_key": True, "gain": 2.0}, {"class_key": True, "neighbours": 1.0}]
)
def test_by_hand(kind, chosen, more):
    severance = Severance(kind, similarity=chosen, **more)
    values, project = tokens(1)
    coverage = torch.rand(1, 3, PATCHES).round(decimals=1) * (torch.rand(1, 3, PATCHES) > 0.4)
    coverage[:, :, 5] = 1e-9  # covered by nothing
    inside = torch.arange(PATCHES)[None] % GRID[1] < 3
    for limits in (None, inside):
        mixed = mixer(severance, coverage, inside=limits, grid=GRID)(values, project)
        limit = None if limits is None else limits[0]
        shown = coverage[0] if limits is None else coverage[0] * limits[0]
        expected = by_hand(severance, project, shown, limit)
        keep = torch.cat([torch.tensor([True]), torch.ones(PATCHES, dtype=torch.bool) if limit is None else limit])
        torch.testing.assert_close(mixed[0, keep], expected[keep], atol=1e-5, rtol=1e-4)
        assert mixed.isfinite().all()


def test_sharpness_by_hand():
    values, project = tokens(1)
    for chosen in ("k", "cross"):
        severance = Severance("similar", similarity=chosen, sharpness=0.3)
        torch.testing.assert_close(mixer(severance, grid=GRID)(values, project)[0], by_hand(severance, project))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(SIMILARITIES),
    st.booleans(),
    st.booleans(),
    st.integers(0, 5),
    st.integers(0, 3),
    st.integers(0, 99),
)
def test_order_repetition_and_padding_of_proposals(chosen, neighbours, class_key, proposals, padding, seed):
    severance = Severance("region", similarity=chosen, neighbours=2.0 * neighbours, class_key=class_key)
    values, project = tokens(1, seed)
    coverage = torch.rand(1, proposals, PATCHES) * (torch.rand(1, proposals, PATCHES) > 0.5)
    expected = mixer(severance, coverage, grid=GRID)(values, project)
    assert expected.isfinite().all()
    repeated = coverage[:, torch.randperm(proposals)].repeat(1, 2, 1)
    padded = torch.cat([repeated, torch.rand(1, padding, PATCHES)], 1)
    valid = torch.arange(padded.shape[1])[None] < 2 * proposals
    mixed = mixer(severance, padded, valid, grid=GRID)(values, project)
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("chosen", SIMILARITIES)
def test_region_on_disjoint_masks_is_similar_on_each_region_alone(chosen):
    values, project = tokens(2)
    owner = torch.arange(PATCHES) * 7 % 3
    coverage = torch.stack([(owner == number).float() for number in range(3)]).expand(2, -1, -1)
    mixed = mixer(Severance("region", similarity=chosen), coverage, grid=GRID)(values, project)
    for number in range(3):
        chosen_tokens = torch.cat([torch.tensor([0]), 1 + (owner == number).nonzero()[:, 0]])
        alone = mixer(Severance("similar", similarity=chosen), grid=(1, len(chosen_tokens) - 1))(
            values[:, chosen_tokens], lambda letter, rows=chosen_tokens: project(letter)[:, :, rows]
        )
        torch.testing.assert_close(mixed[:, chosen_tokens], alone, atol=1e-5, rtol=1e-4)


def test_uncovered_patches_can_receive_from_all():
    values, project = tokens(1)
    coverage = torch.zeros(1, 1, PATCHES)
    coverage[0, 0, :4] = 1
    for chosen in ("", "k"):
        mixed = mixer(Severance("region", similarity=chosen, uncovered="similar"), coverage, grid=GRID)(values, project)
        everywhere = mixer(Severance("similar", similarity=chosen), grid=GRID)(values, project)
        inside = mixer(Severance("region", similarity=chosen), coverage, grid=GRID)(values, project)
        torch.testing.assert_close(mixed[:, 5:], everywhere[:, 5:])
        torch.testing.assert_close(mixed[:, 1:5], inside[:, 1:5])


@pytest.mark.parametrize(
    "severance",
    [
        Severance("region", similarity="k"), Severance("region", similarity="qk", class_key=True),
        Severance("similar", similarity="k", neighbours=2.0), Severance("region", neighbours=2.0),
    ],
)  # fmt: skip
def test_rows_computed_in_parts_equal_all_at_once(severance, monkeypatch):
    values, project = tokens(2)
    coverage = torch.rand(2, 3, PATCHES)
    expected = mixer(severance, coverage, grid=GRID)(values, project)
    monkeypatch.setattr(similarity, "LIMIT", 5 * PATCHES)
    torch.testing.assert_close(mixer(severance, coverage, grid=GRID)(values, project), expected)


def test_rows_have_no_more_numbers_than_the_limit():
    for count, batch in ((5476, 1), (5476, 8), (1024, 8), (196, 1)):
        rows = list(similarity._rows(count, batch * count**2))
        assert [part.start for part in rows[1:]] == [part.stop for part in rows[:-1]]
        assert (rows[0].start, rows[-1].stop) == (0, count)
        assert max(part.stop - part.start for part in rows) * batch * count <= similarity.LIMIT


class LargestResult(TorchDispatchMode):
    """Remember the number of elements of the largest tensor that an operation returns."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, (tuple, list)) else [result]:
            self.largest = max(self.largest, one.numel() if isinstance(one, torch.Tensor) else 0)
        return result


@pytest.mark.parametrize("kind", ["similar", "region"])
@pytest.mark.parametrize("uncovered", ["self", "similar"])
def test_uniform_similarity_needs_no_matrix_of_pairs(kind, uncovered):
    side, channels, masks = 24, 8, 5
    values, coverage = torch.randn(1, 1 + side**2, channels), torch.rand(1, masks, side**2)
    heads = values.unflatten(-1, (2, -1)).transpose(1, 2)
    severance = Severance(kind, uncovered=uncovered if kind == "region" else "self")
    with torch.no_grad(), LargestResult() as seen:
        mixer(severance, coverage, grid=(side, side))(values, lambda letter: heads)
    assert 0 < seen.largest <= 2 * (1 + side**2) * max(channels, masks)
    with torch.no_grad(), LargestResult() as seen:
        mixer(replace(severance, kind="region", similarity="k"), coverage, grid=(side, side))(
            values, lambda letter: heads
        )
    assert seen.largest >= side**4  # the scope of all pairs, which this similarity needs


# In a tower

CONFIG = VisionConfig(32, 4, 4, 64, 16, 4, 16)
SEVERANCES = [
    *(preset.severance for preset in PRESETS.values()),
    Severance("region", (-2, -1), (1.0, 0.2), similarity="k"),
    Severance("region", similarity="qk", class_key=True, neighbours=3.0, residual=0.0, mlp=False),
    Severance("similar", similarity="cross", layers=(1, 3)),
    Severance("similar", neighbours=2.0),
    Severance("region", similarity="k", residual=0.0, mlp=False, levels=(0, 1), level_weight=0.7),
    Severance("similar", (-2, -1), 0.0, similarity="q", mlp=False, parallel=True),
]
EVERY_OPERATION = [one for one in SEVERANCES[-6:] if one != Severance("similar", neighbours=2.0)]
"""Together they use every operation of the others."""


def ids(severance):
    return "-".join(str(value) for value in severance.record().values())


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    tower = CLIPVision(CONFIG).eval()
    for block in tower.blocks:  # larger than a fresh layer's, so that attention is far from uniform
        block.attention.qkv.weight.data.mul_(4)
        block.attention.qkv.bias.data.normal_()
    return tower.requires_grad_(False)


def scene(size=(64, 96), batch=2, proposals=3):
    torch.manual_seed(1)
    masks = 4 * torch.randn(batch, proposals, size[0] // 4, size[1] // 4)
    proxy = torch.randn(batch, 8, size[0] // 8, size[1] // 8)
    return torch.randn(batch, 3, *size), masks, proxy


@pytest.mark.parametrize("severance", SEVERANCES, ids=ids)
def test_any_number_of_proposals_and_the_class_token(tower, severance):
    pixels, _, proxy = scene()
    plain = tower(pixels)
    for proposals in (0, 1, 17):
        masks = scene(proposals=proposals)[1]
        features = tower(pixels, masks, severance=severance, proxy=proxy)
        assert features.patches.isfinite().all()
        if min(severance.layers) == -1 or severance.parallel:
            torch.testing.assert_close(features.image, plain.image, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("severance", SEVERANCES, ids=ids)
def test_padding_and_unequal_numbers_of_proposals(tower, severance):
    """A photo gives the same features alone, in a batch, and with padding."""
    pixels, masks, proxy = scene()
    pixels[1, :, 48:], pixels[1, :, :, 64:] = 7, 7
    valid = torch.tensor([[True, True, True], [True, False, True]])
    together = tower(pixels, masks, severance=severance, valid=valid, sizes=[(64, 96), (48, 64)], proxy=proxy)
    alone = tower(pixels[1:, :, :48, :64], masks[1:, [0, 2], :12, :16], severance=severance, proxy=proxy[1:, :, :6, :8])
    rows, columns = alone.patches.shape[-2:]
    torch.testing.assert_close(together.patches[1:, :, :rows, :columns], alone.patches, atol=1e-4, rtol=1e-3)
    assert not together.patches[1, :, rows:].any()
    torch.testing.assert_close(together.image[1:], alone.image, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("severance", SEVERANCES, ids=ids)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tower, severance, dtype):
    pixels, masks, proxy = scene(batch=1, proposals=12)
    expected = tower(pixels, masks, severance=severance, proxy=proxy).patches
    half = copy.deepcopy(tower).to(dtype)
    patches = half(pixels.to(dtype), masks.to(dtype), severance=severance, proxy=proxy.to(dtype)).patches
    assert torch.cosine_similarity(patches.float(), expected, dim=1).min() > 0.98


class Severed(torch.nn.Module):
    def __init__(self, tower, severance):
        super().__init__()
        self.tower, self.severance = tower, severance

    def forward(self, pixels, masks):
        return self.tower(pixels, masks, severance=self.severance).patches


@pytest.mark.slow
@pytest.mark.parametrize(
    "severance", [one for one in SEVERANCES if not one.needs_proxy and one not in EVERY_OPERATION], ids=ids
)
def test_export_with_dynamic_sizes(tower, severance):
    """Those whose graphs in ONNX are not compared below, which are exported in the same way first."""
    height, width, count = (torch.export.Dim(name, min=2, max=20) for name in ("height", "width", "count"))
    shapes = ({2: 16 * height, 3: 16 * width}, {1: count, 2: 4 * height, 3: 4 * width})
    pixels, masks, _ = scene(batch=1)
    module = Severed(tower, severance).eval()
    exported = torch.export.export(module, (pixels, masks), dynamic_shapes=shapes).module()
    for size, proposals in (((64, 96), 3), ((48, 144), 5)):
        pixels, masks, _ = scene(size, 1, proposals)
        torch.testing.assert_close(exported(pixels, masks), module(pixels, masks), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "severance",
    [TRAINING_FREE, *(pytest.param(one, marks=pytest.mark.slow) for one in EVERY_OPERATION)],
)
@torch.no_grad()
def test_onnx_with_dynamic_sizes(tower, severance):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    height, width, count = (torch.export.Dim(name, min=2, max=64) for name in ("height", "width", "count"))
    shapes = ({2: 16 * height, 3: 16 * width}, {1: count, 2: 4 * height, 3: 4 * width})
    pixels, masks, _ = scene(batch=1)
    module = Severed(tower, severance).eval()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, (pixels, masks), dynamo=True, dynamic_shapes=shapes, opset_version=20, verbose=False
        )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    names = [one.name for one in session.get_inputs()]  # without the masks, if they have no effect
    for size, proposals in (((64, 96), 3), ((48, 144), 5), ((128, 64), 1)):
        pixels, masks, _ = scene(size, 1, proposals)
        given = dict(zip(names, (pixels.numpy(), masks.numpy()), strict=False))
        patches = torch.from_numpy(session.run(None, given)[0])
        torch.testing.assert_close(patches, module(pixels, masks), atol=1e-4, rtol=1e-3)


def test_gradients_with_masks_that_cover_nothing(tower):
    pixels, masks, _ = scene()
    pixels.requires_grad_(True)
    masks = (masks - 60).requires_grad_(True)
    tower(pixels, masks, severance=Severance("region", similarity="k")).patches.square().sum().backward()
    assert pixels.grad.isfinite().all()
    assert pixels.grad.abs().sum() > 0


def streams(tower, *arguments, **options):
    """The streams that enter the blocks, and the features."""
    entering = []
    hooks = [
        block.register_forward_pre_hook(lambda module, inputs: entering.append(inputs[0])) for block in tower.blocks
    ]
    features = tower(*arguments, **options)
    for hook in hooks:
        hook.remove()
    return entering, features


def test_parallel_layers_by_hand(tower):
    """ClearCLIP: the stream is that of an unsevered tower; the severed blocks' results for it are summed."""
    pixels, _, _ = scene()
    severance = Severance("similar", (-2, -1), 0.0, similarity="q", mlp=False, parallel=True)
    entering = []
    hooks = [
        block.register_forward_pre_hook(lambda module, inputs: entering.append(inputs[0])) for block in tower.blocks
    ]
    tower(pixels)
    for hook in hooks:
        hook.remove()
    total = 0
    for index in (2, 3):
        mix = mixer(severance, grid=(4, 6))
        total = total + tower.blocks[index](entering[index], None, mix, 0.0, mlp=False)[:, 1:]
    expected = tower.norm_post(total) @ tower.projection
    actual = tower(pixels, severance=severance).patches.flatten(2).mT
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_levels_by_hand(tower):
    pixels, masks, _ = scene()
    single = Severance("region", residual=0.0, mlp=False)  # the weights do not depend on the stream
    entering, features = streams(tower, pixels, masks, severance=single)
    mean = (entering[1] + entering[3]) / 2  # the streams after blocks 0 and 2
    coverage = torch.nn.functional.interpolate(masks, (4, 6), mode="bilinear").sigmoid().flatten(2)
    other = tower.blocks[3](mean, None, mixer(single, coverage), 0.0, mlp=False)[:, 1:]
    expected = features.patches + 0.5 * (tower.norm_post(other) @ tower.projection).mT.unflatten(2, (4, 6))
    severance = replace(single, levels=(0, -2), level_weight=0.5)
    torch.testing.assert_close(tower(pixels, masks, severance=severance).patches, expected, atol=1e-5, rtol=1e-4)


# Region tokens


def test_a_region_token_of_the_whole_image_is_the_class_token(tower):
    pixels, masks, _ = scene()
    masks[:, 1] = 40
    masks[:, 2] = -40
    for severance in (None, Severance("region", residual=0.0, similarity="k", mlp=False), Severance("self", (-2, -1))):
        without = tower(pixels, masks, severance=severance)
        features = tower(pixels, masks, severance=severance, region_tokens=True)
        torch.testing.assert_close(features.patches, without.patches, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(features.image, without.image, atol=1e-5, rtol=1e-4)
        assert features.regions.shape == (2, 3, 16)
        torch.testing.assert_close(features.regions[:, 1], features.image, atol=1e-4, rtol=1e-3)
        assert not torch.allclose(features.regions[:, 0], features.image, atol=0.1)
        assert features.regions.isfinite().all()


def test_region_tokens_do_not_see_each_other_or_other_patches(tower):
    pixels, masks, _ = scene()
    masks[:, 0] = torch.where(torch.arange(24) < 8, 50.0, -50.0)  # the two columns of patches on the left
    alone = tower(pixels, masks[:, :1], region_tokens=True).regions
    torch.testing.assert_close(tower(pixels, masks, region_tokens=True).regions[:, :1], alone, atol=1e-5, rtol=1e-4)
    shallow = CLIPVision(replace(CONFIG, layers=1)).eval()
    changed = pixels.clone()
    changed[..., 64:] += 1
    before, after = (shallow(one, masks[:, :1], region_tokens=True).regions for one in (pixels, changed))
    torch.testing.assert_close(before, after)
    assert tower(pixels, masks[:, :0], region_tokens=True).regions.shape == (2, 0, 16)
    with pytest.raises(SettingError, match="region tokens need masks"):
        tower(pixels, region_tokens=True)


# Windows


REGION = Severance("region", residual=0.0, similarity="k", mlp=False)


def test_one_window_changes_nothing(tower):
    pixels, masks, _ = scene()
    for severance in (None, REGION):
        expected = tower(pixels, masks, severance=severance)
        for windows in ((96, 32), (224, 112)):
            features = tower(pixels, masks, severance=severance, windows=windows)
            assert torch.equal(features.patches, expected.patches)
            assert torch.equal(features.image, expected.image)


def test_windows_by_hand(tower):
    """Without overlap: the blocks before the last on each window alone, then the last one on all patches."""
    pixels, masks, _ = scene((64, 128), batch=1)
    inner = copy.deepcopy(tower)
    inner.blocks = inner.blocks[:-1]
    inner.norm_post, inner.projection = torch.nn.Identity(), torch.nn.Parameter(torch.eye(32), requires_grad=False)
    parts = [inner(pixels[..., start : start + 64]) for start in (0, 64)]
    patches = torch.cat([part.patches for part in parts], 3).flatten(2).mT
    image = (parts[0].image + parts[1].image)[:, None] / 2
    coverage = torch.nn.functional.interpolate(masks, (4, 8), mode="bilinear").sigmoid().flatten(2)
    mix = mixer(REGION, coverage, grid=(4, 8))
    x = tower.blocks[-1](torch.cat([image, patches], 1), None, mix, 0.0, mlp=False)
    expected = (tower.norm_post(x[:, 1:]) @ tower.projection).mT.unflatten(2, (4, 8))
    actual = tower(pixels, masks, severance=REGION, windows=(64, 64)).patches
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_windows_leave_no_seam(tower):
    """Steps between neighbouring columns are no larger where a window begins or ends than elsewhere."""
    pixels = torch.randn(1, 3, 1, 1).expand(-1, -1, 64, 16 * 40).contiguous()  # only positions tell patches apart
    patches = tower(pixels, windows=(16 * 20, 16 * 4)).patches
    features = tower(pixels, windows=(16 * 20, 16 * 4), severance=Severance("self")).patches
    for maps in (patches, features):
        steps = (maps[..., 1:] - maps[..., :-1]).norm(dim=1)[0].mean(0)
        borders = {start - 1 for start in range(4, 24, 4)} | {start + 19 for start in range(0, 20, 4)}
        edge = torch.stack([steps[column] for column in sorted(borders)])
        rest = torch.stack([steps[column] for column in range(39) if column not in borders])
        assert edge.mean() < 1.3 * rest.mean()
        assert edge.max() < 1.3 * rest.max()


def test_windows_with_padding_and_region_tokens(tower):
    pixels, masks, _ = scene((96, 128))
    masks[:, 0] = 40
    options = {"severance": REGION, "windows": (64, 32), "region_tokens": True}
    together = tower(pixels, masks, sizes=[(96, 128), (96, 64)], **options)
    alone = tower(pixels[1:, :, :, :64], masks[1:, :, :, :16], **options)
    torch.testing.assert_close(together.patches[1:, :, :, :4], alone.patches, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(together.regions[1:], alone.regions, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(together.regions[:, 0], together.image, atol=1e-4, rtol=1e-3)
    assert not together.patches[1, :, :, 4:].any()


def test_windows_that_do_not_cover_the_image(tower):
    pixels, _, _ = scene()
    for windows, message in (((32, 48), "at most the side"), ((0, 0), "side and their distance"), ((8, 8), "smaller")):
        with pytest.raises(SettingError, match=message):
            tower(pixels, windows=windows)


# Values


def test_errors():
    with pytest.raises(SettingError, match="unknown similarity 'kq'"):
        Severance("region", similarity="kq")
    with pytest.raises(SettingError, match="neighbours must be"):
        Severance("similar", neighbours=-1)
    with pytest.raises(SettingError, match='shift applies to similarity="proxy" only'):
        Severance("similar", similarity="k", shift=1.0)
    with pytest.raises(SettingError, match="one severed layer with residual=0"):
        Severance("similar", similarity="proxy")
    with pytest.raises(SettingError, match="level 3 does not precede"):
        Severance("region", levels=(3,)).residuals(4)
    with pytest.raises(SettingError, match="features of a second network"):
        mixer(PRESETS["proxyclip"].severance, grid=GRID)
    values, project = tokens()
    with pytest.raises(SettingError, match="neighbours need the patch grid"):
        mixer(Severance("similar", similarity="k", neighbours=1.0))(values, project)


def test_parse():
    default = Severance("self", (3,), 0.2)
    assert Severance.parse("naclip", default) == PRESETS["naclip"].severance
    assert Severance.parse("affinity-normalized", default) == replace(default, kind="region")
    assert Severance("affinity-normalized") == Severance("region")
    assert Severance.parse("region:similarity=k:residual=0:mlp=no:layers=-2/-1", default) == Severance(
        "region", (-2, -1), 0.0, similarity="k", mlp=False
    )
    assert Severance.parse("region:residual=1/0.2:layers=-2 -1").residual == (1.0, 0.2)
    for text, message in (
        ("naclipp", "unknown severance 'naclipp'"), ("region:colour=1", "'colour=1' after severance 'region'"),
        ("region:mlp=maybe", "expected yes or no"), ("region:residual=x", "expected a number"),
        ("region:similarity=z", "unknown similarity 'z'"),
    ):  # fmt: skip
        with pytest.raises(SettingError, match=message):
            Severance.parse(text)


def test_all_values_of_neighbouring_presets_differ():
    names = [name for name in PRESETS if name != "trident"]  # its first stage is proxyclip's
    assert all(PRESETS[first] != PRESETS[second] for first, second in pairwise(names))
