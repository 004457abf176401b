"""The vision encoder of SigLIP: the common suite, equality with transformers, the pooling head, and loading."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.encoders.from_folder import vision_from_folder
from deop.encoders.severance import KINDS, Severance, mixer
from deop.encoders.siglip import SiglipVision, SiglipVisionConfig
from deop.encoders.siglip_keys import read_sigmoid
from deop.errors import CheckpointError, SettingError
from deop.severance import PRESETS
from tests.encoders.suite import EncoderSuite, scene
from tests.tiny import write_tiny_siglip

SMALL = SiglipVisionConfig(width=64, layers=3, heads=4, hidden=128, grid=4)


def tower(config=SMALL, seed=0):
    torch.manual_seed(seed)
    return SiglipVision(config).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("siglip")
    return {flexible: write_tiny_siglip(root / str(flexible), flexible=flexible) for flexible in (False, True)}


class TestSiglipVision(EncoderSuite):
    half_dtypes = (torch.bfloat16, torch.float16)

    @pytest.fixture
    def encoder(self):
        return tower()


class TestFlexible(EncoderSuite):
    @pytest.fixture
    def encoder(self):
        return tower(replace(SMALL, patch=14, flexible=True))


def theirs_of(folder, pixels, patch=16):
    """transformers' vision model, and its output for pixels of whole patches."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).eval().vision_model
    if not hasattr(model.config, "num_patches"):
        return model, model(pixels, interpolate_pos_encoding=True)
    batch, _, height, width = pixels.shape
    rows, columns = height // patch, width // patch
    cells = pixels.reshape(batch, 3, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
    shapes = torch.tensor([[rows, columns]] * batch)
    return model, model(cells.flatten(3).flatten(1, 2), torch.ones(batch, rows * columns, dtype=torch.long), shapes)


@pytest.mark.parametrize("flexible", [False, True], ids=["fixed", "NaFlex"])
@pytest.mark.parametrize("grid", [(4, 4), (3, 7), (6, 2), (8, 2), (1, 3)])
@torch.no_grad()
def test_equals_transformers(folders, flexible, grid):
    """The image embedding is theirs; a patch feature is their pooling head applied to this patch alone."""
    pixels = torch.randn(2, 3, 16 * grid[0], 16 * grid[1])
    model, expected = theirs_of(folders[flexible], pixels)
    features = vision_from_folder(folders[flexible])(pixels)
    assert (features.image - expected.pooler_output).abs().max() < 1e-4
    states = expected.last_hidden_state
    patches = torch.stack([model.head(states[:, index : index + 1]) for index in range(states.shape[1])], 1)
    assert (features.patches.flatten(2).mT - patches).abs().max() < 1e-4


@torch.no_grad()
def test_padding_equals_that_of_transformers(folders):
    """An image in a padded batch, as their pixel_attention_mask excludes padding."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folders[True]).eval().vision_model
    pixels = torch.randn(1, 3, 48, 32)
    cells = pixels.reshape(1, 3, 3, 16, 2, 16).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    cells = torch.cat([cells, torch.randn(1, 10, cells.shape[2])], 1)
    inside = (torch.arange(16) < 6).long()[None]
    expected = model(cells, inside, torch.tensor([[3, 2]])).pooler_output
    padded = torch.nn.functional.pad(pixels, (0, 48, 0, 32), value=3.0)
    features = SiglipVision.from_folder(folders[True])(padded, sizes=[(48, 32)])
    assert (features.image - expected).abs().max() < 1e-4
    assert features.patches[..., 3:, :].abs().max() == features.patches[..., 2:].abs().max() == 0


@pytest.mark.parametrize("flexible", [False, True], ids=["fixed", "NaFlex"])
@torch.no_grad()
def test_pooling_head_on_masks(folders, flexible):
    """A mask of everything has the embedding of the image; a mask of some patches, that of their pooled states."""
    pixels = torch.randn(1, 3, 64, 48)
    model, expected = theirs_of(folders[flexible], pixels)
    masks = torch.full((1, 4, 4, 3), 30.0)
    masks[:, 1] = -40  # nothing
    masks[:, 2, 1:] = -40  # the first row of patches
    masks[:, 3, :, 1:] = -40
    masks[:, 3, 1:] = -40  # one patch
    features = SiglipVision.from_folder(folders[flexible])(pixels, masks, attention_pool=True)
    states = expected.last_hidden_state
    for index, part in ((0, states), (2, states[:, :3]), (3, states[:, :1])):
        assert (features.regions[:, index] - model.head(part)).abs().max() < 1e-4
    assert features.regions[:, 1].abs().max() == 0
    assert (features.regions[:, 3] - features.patches[:, :, 0, 0]).abs().max() < 1e-4


@torch.no_grad()
def test_soft_masks_multiply_the_weights():
    """With coverage m, the weights of the pooling head are m_l exp(s_l), normalised."""
    head, tokens = tower().head, torch.randn(1, 6, 64)
    coverage = torch.rand(1, 2, 6)
    width = tokens.shape[-1]
    query = (head.qkv.weight[:width] @ head.probe + head.qkv.bias[:width]).unflatten(0, (4, 16))
    keys, values = (head.qkv(tokens)[0, :, part * width : (part + 1) * width].unflatten(1, (4, 16)) for part in (1, 2))
    weights = torch.einsum("hd,lhd->hl", query, keys).div(4).exp() * coverage[0, :, None]
    mixed = torch.einsum("nhl,lhd->nhd", weights / weights.sum(-1, keepdim=True), values).flatten(1)
    out = head.out(mixed)
    expected = out + head.down(head.activation(head.up(head.norm(out))))
    torch.testing.assert_close(head.of_masks(tokens, coverage)[0], expected, atol=1e-5, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.booleans(),
    st.lists(st.tuples(st.integers(10, 80), st.integers(10, 80), st.integers(0, 5)), min_size=1, max_size=3),
)
@torch.no_grad()
def test_a_batch_of_unequal_images_equals_single_images(kind, flexible, images):
    """Neither padding nor other images with other numbers of proposals have an effect, on no kind of feature."""
    model, severance = tower(replace(SMALL, flexible=flexible)), Severance(kind, (-2, -1))
    sizes = [(-(-rows // 16) * 16, -(-columns // 16) * 16) for rows, columns, _ in images]
    height, width = (max(size[side] for size in sizes) + 16 for side in (0, 1))
    count = max(count for *_, count in images)
    pixels, valid = torch.randn(len(images), 3, height, width), torch.zeros(len(images), count, dtype=torch.bool)
    masks = torch.randn(len(images), count, height // 16, width // 16)
    for index, (*_, own) in enumerate(images):
        valid[index, :own] = True
    together = model(pixels, masks, severance=severance, valid=valid, sizes=sizes, attention_pool=True)
    for index, ((rows, columns), (*_, own)) in enumerate(zip(sizes, images, strict=True)):
        image = pixels[index : index + 1, :, :rows, :columns]
        own_masks = masks[index : index + 1, :own, : rows // 16, : columns // 16]
        alone = model(image, own_masks, severance=severance, attention_pool=True)
        patches = together.patches[index, :, : rows // 16, : columns // 16]
        torch.testing.assert_close(patches, alone.patches[0], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(together.image[index], alone.image[0], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(together.regions[index, :own], alone.regions[0], atol=2e-5, rtol=1e-4)
        assert together.regions[index, own:].abs().sum() == 0


@pytest.mark.parametrize("preset", PRESETS)
@torch.no_grad()
def test_published_severances(preset):
    pixels, masks = scene()
    severance, encoder = PRESETS[preset].severance, tower()
    proxy = torch.randn(2, 8, 8, 12) if severance.needs_proxy else None
    features = encoder(pixels, masks, severance=severance, proxy=proxy, attention_pool=True)
    assert features.patches.shape == (2, 64, *((8, 12) if severance.needs_proxy else (4, 6)))
    assert all(part.isfinite().all() for part in features)
    torch.testing.assert_close(features.image, encoder(pixels).image)
    assert not torch.allclose(features.regions, encoder(pixels, masks, attention_pool=True).regions, atol=1e-3)


@pytest.mark.parametrize("kind", ["similar:similarity=q", "similar:similarity=qk:neighbours=2", "affinity", "self"])
@torch.no_grad()
def test_patches_do_not_depend_on_the_unused_token(kind):
    """SigLIP has no class token: what is in its place never reaches a patch."""
    pixels, masks = scene()
    encoder = tower()
    severance = Severance.parse(kind + ":class_key=yes")
    before = encoder(pixels, masks, severance=severance)
    enter = encoder._enter
    encoder._enter = lambda *arguments: enter(*arguments) + torch.eye(25)[:1].mT * 9
    after = encoder(pixels, masks, severance=severance)
    for one, other in zip(before[:2], after[:2], strict=True):
        torch.testing.assert_close(one, other)


@torch.no_grad()
def test_the_unused_token_is_no_key_of_the_mixing_functions():
    values, coverage = torch.randn(1, 7, 8), torch.rand(1, 2, 6)
    changed = values.clone()
    changed[:, 0] += 5
    for kind in KINDS[1:]:
        mix = mixer(kind, coverage, grid=(2, 3), class_token=False)
        torch.testing.assert_close(mix(values)[:, 1:], mix(changed)[:, 1:])


@torch.no_grad()
def test_severance_of_the_last_block_is_that_of_clips_block():
    """With one token that nothing attends to, the severed block equals the formula on patches alone."""
    encoder = tower()
    pixels, _ = scene((32, 48), batch=1)
    severed = encoder(pixels, severance=Severance("similar", residual=0.0, similarity="k", mlp=False))
    x = encoder._enter(encoder.patch_embedding(pixels), None, 0)
    for block in encoder.blocks[:-1]:
        x = block(x)
    attention = encoder.blocks[-1].attention
    _, key, value = attention.qkv(encoder.blocks[-1].norm1(x[:, 1:])).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
    mixed = (key @ key.mT / 4).softmax(-1) @ value
    expected = encoder.head.of_patches(encoder.norm_post(attention.out(mixed.transpose(1, 2).flatten(2))))
    torch.testing.assert_close(severed.patches.flatten(2).mT, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("windows", [(64, 64), (32, 16)])
@torch.no_grad()
def test_windows(windows):
    encoder, (pixels, masks) = tower(), scene((64, 64))
    severance = Severance("region", residual=0.0, mlp=False)
    whole = encoder(pixels, masks, severance=severance, attention_pool=True)
    parts = encoder(pixels, masks, severance=severance, windows=windows, attention_pool=True)
    assert parts.patches.shape == whole.patches.shape
    assert (windows == (64, 64)) == torch.allclose(parts.patches, whole.patches, atol=1e-5)


@torch.no_grad()
def test_the_image_is_not_computed_if_it_is_not_needed():
    encoder, (pixels, masks) = tower(), scene()
    features = encoder(pixels, masks, severance=Severance("self"), image=False)
    assert features.image.abs().sum() == 0
    torch.testing.assert_close(features.patches, encoder(pixels, masks, severance=Severance("self")).patches)


def test_masks_are_needed():
    with pytest.raises(SettingError, match="attention-pooled embeddings need masks"):
        tower()(torch.randn(1, 3, 32, 32), attention_pool=True)


def test_sigmoid_of_the_weights(folders):
    factor, bias = read_sigmoid(folders[False])
    assert factor == pytest.approx(109.947, abs=1e-2)
    assert bias == -16.5


def test_loading_is_strict(tmp_path, folders):
    from safetensors.torch import load_file, save_file

    config = json.loads((folders[False] / "config.json").read_text())
    state = load_file(str(folders[False] / "model.safetensors"))
    removed = state.pop("vision_model.head.probe")
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(state, str(tmp_path / "model.safetensors"))
    with pytest.raises(CheckpointError, match=r"head\.probe is missing"):
        SiglipVision.from_folder(tmp_path)
    save_file(
        state | {"vision_model.head.probe": removed, "vision_model.more": removed.clone()},
        str(tmp_path / "model.safetensors"),
    )
    with pytest.raises(CheckpointError, match="more is not known"):
        SiglipVision.from_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"vision_config": {"vision_use_head": False}}))
    with pytest.raises(CheckpointError, match="pooling head"):
        SiglipVision.from_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "blip"}))
    with pytest.raises(CheckpointError, match="blip"):
        vision_from_folder(tmp_path)
    with pytest.raises(CheckpointError, match="unknown activation"):
        SiglipVisionConfig(activation="relu6")
    with pytest.raises(CheckpointError, match="not divisible"):
        SiglipVisionConfig(heads=7)


@pytest.mark.parametrize("flexible", [False, True], ids=["fixed", "NaFlex"])
@torch.no_grad()
def test_a_folder_of_the_vision_tower_alone(tmp_path, folders, flexible):
    from transformers import AutoModel

    AutoModel.from_pretrained(folders[flexible]).vision_model.save_pretrained(tmp_path)
    pixels = torch.randn(1, 3, 64, 32)
    torch.testing.assert_close(
        vision_from_folder(tmp_path)(pixels).patches, vision_from_folder(folders[flexible])(pixels).patches
    )
