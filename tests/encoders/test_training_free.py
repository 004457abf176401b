"""Published training-free attentions: parity with their code, on full and cut files (DEOP_TRAINING_FREE)."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from deop.encoders.blocks import Block
from deop.encoders.clip import CLIPVision, VisionConfig
from deop.encoders.severance import Severance, mixer, patch_coverage
from deop.encoders.similarity import similar_masks
from deop.networks.resampling import grid_of
from deop.regions.classification import cell_votes
from deop.severance import PRESETS
from tests.conftest import assert_parity

ALONE = {"residual": 0.0, "mlp": False}
PUBLISHED = {name: preset.severance for name, preset in PRESETS.items()}
REGION = Severance("region", **ALONE)

VARIANTS = {
    "maskclip": {
        "plain": Severance(),
        "value_block": PUBLISHED["maskclip"],
        "value_only": replace(PUBLISHED["maskclip"], **ALONE),
    },
    "sclip": {
        "plain": Severance(),
        "csa": PUBLISHED["sclip"],
        "csa_only": replace(PUBLISHED["sclip"], **ALONE),
    },
    "clearclip": {
        "qq": PUBLISHED["clearclip"],
        "qq_block": replace(PUBLISHED["clearclip"], residual=1.0, mlp=True),
        "qq_last2": replace(PUBLISHED["clearclip"], layers=(-2, -1), parallel=True),
        "qk_only": replace(PUBLISHED["clearclip"], similarity="cross"),
    },
    "naclip": {
        "naclip": PUBLISHED["naclip"],
        "naclip_std1": replace(PUBLISHED["naclip"], neighbours=1.0),
        "kk": replace(PUBLISHED["naclip"], neighbours=0.0),
        "naclip_block": replace(PUBLISHED["naclip"], residual=1.0, mlp=True),
        "neighbours_only": replace(PUBLISHED["naclip"], similarity=""),
    },
    "proxyclip": {"proxy": PUBLISHED["proxyclip"]},
    "region": {
        "uniform": REGION,
        "qq": replace(REGION, similarity="q"),
        "kk": replace(REGION, similarity="k"),
        "vv": replace(REGION, similarity="v"),
        "qq_kk": replace(REGION, similarity="qk"),
    },
}
"""File -> variant -> its values."""


def severance_of(name, variant):
    variants = VARIANTS[name]
    return replace(variants[variant], sharpness=3.0, shift=1.2) if name == "proxyclip" else variants[variant]


def cases(file, section):
    """(key, variant, position rule, input) of all stored tensors of a section."""
    for key in file.tensors:
        part, *rest = key.split(".")
        if part == section and len(rest) > 1:
            yield key, rest[0], "offset" if rest[1] == "offset_positions" else "grid", rest[-1]


def tower_of(file, rule):
    return CLIPVision.from_openai(file.below("state."), heads=file.info["heads"], position_rule=rule)


def last_block(file):
    """The last block and the final projection of a file, whose tower may have been cut."""
    info, state = file.info, file.below("state.")
    config = VisionConfig(info["width"], 1, info["heads"], 4 * info["width"], info["patch"], info["grid"], info["out"])
    block = Block(config).eval()
    prefix = f"transformer.resblocks.{info['layers'] - 1}."
    names = {
        "attention.qkv.weight": "attn.in_proj_weight", "attention.qkv.bias": "attn.in_proj_bias",
        "attention.out.weight": "attn.out_proj.weight", "attention.out.bias": "attn.out_proj.bias",
        "norm1.weight": "ln_1.weight", "norm1.bias": "ln_1.bias",
        "norm2.weight": "ln_2.weight", "norm2.bias": "ln_2.bias",
        "up.weight": "mlp.c_fc.weight", "up.bias": "mlp.c_fc.bias",
        "down.weight": "mlp.c_proj.weight", "down.bias": "mlp.c_proj.bias",
    }  # fmt: skip
    block.load_state_dict({ours: state[prefix + name] for ours, name in names.items() if prefix + name in state}, False)

    def finish(x):
        x = F.layer_norm(x, x.shape[-1:], state["ln_post.weight"], state["ln_post.bias"])
        return x @ state["proj"]

    return block, finish


def scene(file, image):
    """What a mixer needs besides the severance: coverage, grid and the features of another network."""
    patch = file.info["patch"]
    keys = [key for key in file.tensors if key.startswith(("out.", "logits.")) and key.endswith(f".{image}")]
    out = file[keys[0]]
    grid = (out.shape[2], out.shape[3])
    proxy = file.tensors.get(f"proxy.{image}")
    if proxy is not None:
        count = file[f"tokens.before_last.{image}"].shape[1] - 1
        scale = round((grid[0] * grid[1] / count) ** 0.5)
        grid = (grid[0] // scale, grid[1] // scale)
    coverage = None
    if f"mask_logits.{image}" in file:
        size = (grid[0] * patch, grid[1] * patch)
        coverage = patch_coverage(file[f"mask_logits.{image}"], size, patch).flatten(2)
        assert_parity(coverage, file[f"coverage.{image}"])
    return coverage, grid, proxy


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_parity_last_block(training_free, name):
    """From the tokens that enter the last block to patch features and class similarities."""
    file = training_free(name)
    block, finish = last_block(file)
    for key, variant, rule, image in cases(file, "out"):
        severance = severance_of(name, variant)
        if rule != "grid" or severance.parallel:  # these depend on earlier blocks
            continue
        coverage, grid, proxy = scene(file, image)
        mix = None if severance.kind == "none" else mixer(severance, coverage, grid=grid, proxy=proxy)
        tokens = file[f"tokens.before_last.{image}"]
        x = block(tokens, None, mix, severance.residual, severance.class_token, severance.mlp)
        features = finish(x)[:, 1:].mT.unflatten(2, file[key].shape[-2:])
        assert_parity(features, file[key])
        if f"logits.{variant}.{image}" in file:
            cosines = torch.einsum("bdhw,kd->bkhw", F.normalize(features, dim=1), file["text"])
            assert_parity(cosines, file[f"logits.{variant}.{image}"])


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_parity_whole_tower(training_free, name):
    file = training_free(name)
    if "image.0" not in file:
        return  # the cut file has the last block only
    for key, variant, rule, image in cases(file, "out"):
        _, _, proxy = scene(file, image)
        masks = file.tensors.get(f"mask_logits.{image}")
        features = tower_of(file, rule)(
            file[f"image.{image}"], masks, severance=severance_of(name, variant), proxy=proxy
        )
        assert_parity(features.patches, file[key])
        if name == "region":
            assert_parity(features.image, file[f"cls.{image}"])
        elif variant == "plain":
            assert_parity(features.image, file[f"cls.plain.{image}"])


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "maskclip"])
@torch.no_grad()
def test_parity_attention_weights(training_free, name):
    file = training_free(name)
    block, _ = last_block(file)
    heads, depth = file.info["heads"], file.info["width"] // file.info["heads"]
    for key, variant, _, image in cases(file, "attention"):
        severance = severance_of(name, variant)
        coverage, grid, proxy = scene(file, image)
        mix = mixer(severance, coverage, grid=grid, proxy=proxy)
        normed = block.norm1(file[f"tokens.before_last.{image}"])
        project = block.attention.projections(normed, block.attention.values(normed))
        expected, tokens = file[key], normed.shape[1]
        if proxy is not None and tuple(proxy.shape[-2:]) != grid:
            continue  # the weights are between cells of another grid, and the values are resized to it first
        columns = []
        for first in range(0, tokens, depth):
            basis = torch.zeros(len(normed), tokens, heads, depth)
            for offset in range(min(depth, tokens - first)):
                basis[:, first + offset, :, offset] = 1
            columns.append(mix(basis.flatten(2), project).unflatten(2, (heads, depth)).transpose(1, 2))
        weights = torch.cat(columns, -1)[..., 1:, :tokens]
        if severance.class_key:
            assert_parity(weights, expected[:, :, 1:])
        else:
            expected = expected if expected.dim() == 4 else expected[:, None]
            assert_parity(weights[..., 1:], expected.expand(-1, heads, -1, -1))


# CorrCLIP with all branches


def images(file):
    """The inputs that a file has: all three, or only the first if it was cut."""
    return [key.split(".")[1] for key in file.tensors if key.startswith("image.")]


def nearest(labels, size):
    return F.interpolate(labels[None, None].float(), size=size, mode="nearest")[0, 0].int()


def as_logits(labels, numbers):
    """Mask logits (1, N, h, w) of a label map whose sigmoid is 1 or below what counts as covered."""
    return torch.stack([torch.where(labels == number, 50.0, -50.0) for number in numbers])[None]


def corrclip_inputs(file, image):
    """Regions on the grid of the other network, the numbers of true regions, and the features."""
    target = file[f"region_merged.{image}"].shape
    fine = nearest(file[f"region.{image}"], target)
    numbers = sorted(fine.unique().tolist())[1:]  # the smallest is "in no mask", whatever it is
    return fine, numbers, file[f"proxy.{image}"].mT.unflatten(2, target)


@torch.no_grad()
def test_parity_corrclip_merging(training_free):
    file = training_free("corrclip")
    for image in images(file):
        fine, numbers, proxy = corrclip_inputs(file, image)
        covered = torch.stack([fine == number for number in numbers]).float().flatten(1)[None]
        group = similar_masks(covered, proxy.flatten(2).mT, file.info["eps"])[0]
        merged = fine.clone()
        next_number = 10000
        for index, number in enumerate(numbers):
            first = int(group[index].nonzero()[0])
            if first == index:
                if len(numbers) > 1:
                    merged[fine == number] = next_number
                    next_number += 1
            else:
                merged[fine == number] = merged[fine == numbers[first]].flatten()[0]
        assert torch.equal(merged, file[f"region_merged.{image}"])


def corrclip_features(file, image, rule="grid", levels=(), tokens=True):
    """CorrCLIP's patch features: severed, spatial and semantic branch; and the three branches' sum by region."""
    fine, numbers, proxy = corrclip_inputs(file, image)
    severance = replace(PUBLISHED["corrclip-proxy"], levels=levels, level_weight=file.info["alpha"])
    tower, pixels = tower_of(file, rule), file[f"image.{image}"]
    patches = tower(pixels, as_logits(fine, numbers), severance=severance, proxy=proxy).patches
    if not tokens:
        return patches
    merged = file[f"region_merged.{image}"]
    coarse = nearest(merged, grid_of(tuple(pixels.shape[-2:]), tower.patch))
    every = sorted(merged.unique().tolist())
    regions = tower(pixels, as_logits(coarse, every), region_tokens=True).regions[0]
    # A cell gets the token of the region that its patch belongs to.
    index = torch.searchsorted(torch.tensor(every), nearest(coarse, merged.shape).flatten().long())
    return patches + file.info["beta"] * regions[index].T.unflatten(1, merged.shape)[None]


@torch.no_grad()
def test_parity_corrclip_features(training_free):
    file = training_free("corrclip")
    for key, variant, rule, image in cases(file, "out"):
        levels = tuple(file.info["spatial_blocks"]) if variant == "all" else ()
        features = corrclip_features(file, image, rule, levels, variant == "all")
        assert_parity(features, file[key])


@torch.no_grad()
def test_parity_corrclip_branches(training_free):
    """Main, spatial and semantic branch after the final norm, projected to the joint space."""
    file = training_free("corrclip")
    levels = tuple(file.info["spatial_blocks"])
    for image in images(file):
        shape = file[f"region_merged.{image}"].shape
        projection = file["state.proj"]
        parts = {
            part: (file[f"branch.{part}.{image}"] @ projection).mT.unflatten(2, shape)
            for part in ("main", "spatial", "semantic")
            if f"branch.{part}.{image}" in file
        }
        main = corrclip_features(file, image, tokens=False)
        found = {
            "main": main,
            "spatial": corrclip_features(file, image, levels=levels, tokens=False) - main,
            "semantic": (corrclip_features(file, image) - main) / file.info["beta"],
        }
        for part, expected in parts.items():
            assert_parity(found[part], expected)


@torch.no_grad()
def test_parity_corrclip_votes(training_free):
    """From class similarities of the cells to labels of the pixels, before and after each region votes."""
    file = training_free("corrclip")
    for image in images(file):
        regions = file[f"region.{image}"]
        cosines = torch.einsum("bdhw,kd->bkhw", F.normalize(file[f"out.all.{image}"], dim=1), file["text"])
        pixels = F.interpolate(cosines, size=regions.shape, mode="bilinear", align_corners=False)
        logits = file.info["scale"] * pixels[0].flatten(1).T
        scores, labels = logits.softmax(-1).max(-1)
        labels = torch.where(scores < file.info["thresholds"][int(image)], 0, labels)
        assert torch.equal(labels.view(regions.shape).int(), file[f"labels_before_vote.{image}"])
        numbers = sorted(regions.unique().tolist())[1:]
        masks = torch.stack([regions == number for number in numbers]).flatten(1).float()
        votes = cell_votes(F.one_hot(labels, logits.shape[1]).float(), masks).argmax(1)
        voted = labels.view(regions.shape).int()
        for number, vote in zip(numbers, votes.tolist(), strict=True):
            voted[regions == number] = vote
        assert torch.equal(voted, file[f"labels.{image}"])
