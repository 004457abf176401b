"""The vision tower against transformers' CLIP, in other precisions, compiled, exported and in padded batches."""

import json
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.config import from_json
from deop.encoders.clip import CLIPVision, VisionConfig, interpolate_positions
from deop.encoders.severance import KINDS, Severance
from deop.errors import CheckpointError
from tests.tiny import write_tiny_clip

SMALL = VisionConfig(width=64, layers=3, heads=4, hidden=128, patch=16, grid=4, output=32)


def tower(config=SMALL, seed=0):
    torch.manual_seed(seed)
    return CLIPVision(config).eval()


@pytest.mark.parametrize(
    ("patch", "width", "layers", "activation"),
    [(32, 96, 3, "quick_gelu"), (16, 64, 4, "quick_gelu"), (14, 64, 5, "gelu")],
    ids=["B32-like", "B16-like", "L14-like"],
)
@torch.no_grad()
def test_equals_transformers(tmp_path, patch, width, layers, activation):
    from transformers import CLIPModel

    folder = write_tiny_clip(tmp_path, patch=patch, width=width, layers=layers)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["hidden_act"] = activation
    (folder / "config.json").write_text(json.dumps(config))
    theirs, ours = CLIPModel.from_pretrained(folder).eval(), CLIPVision.from_folder(folder)
    for rows, columns in [(4, 4), (3, 7), (6, 2), (8, 2)]:
        pixels = torch.randn(2, 3, rows * patch, columns * patch)
        expected = theirs.vision_model(pixels, interpolate_pos_encoding=True)
        patches = theirs.visual_projection(theirs.vision_model.post_layernorm(expected.last_hidden_state[:, 1:]))
        found = ours(pixels)
        assert (found.patches.flatten(2).mT - patches).abs().max() < 1e-4
        assert (found.image - theirs.visual_projection(expected.pooler_output)).abs().max() < 1e-4


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(10, 80), st.integers(10, 80), st.integers(0, 5)), min_size=1, max_size=3),
    st.integers(0, 3),
)
@torch.no_grad()
def test_a_batch_of_unequal_images_equals_one_at_a_time(kind, images, extra):
    """Images of other sizes, other numbers of proposals, and padding beside them change nothing."""
    model = tower()
    severance = Severance(kind, (-2, -1))
    height = (-(-max(height for height, _, _ in images) // 32) + extra) * 32
    width = -(-max(width for _, width, _ in images) // 32) * 32
    most = max(count for *_, count in images)
    pixels, masks = (
        torch.zeros(len(images), 3, height, width),
        torch.zeros(len(images), most, height // 4, width // 4),
    )
    valid = torch.zeros(len(images), most, dtype=torch.bool)
    alone = []
    for index, (rows, columns, count) in enumerate(images):
        image, own = torch.randn(1, 3, rows, columns), torch.randn(1, count, -(-rows // 4), -(-columns // 4))
        own_canvas = (4 * own.shape[-2], 4 * own.shape[-1])
        image = torch.nn.functional.pad(image, (0, own_canvas[1] - columns, 0, own_canvas[0] - rows))
        alone.append(model(image, own, severance=severance))
        pixels[index, :, : own_canvas[0], : own_canvas[1]] = image
        # The canvas repeats the last cells, as a tower does for a single image whose side is no multiple of the patch.
        whole = torch.nn.functional.pad(
            own, (0, masks.shape[-1] - own.shape[-1], 0, masks.shape[-2] - own.shape[-2]), mode="replicate"
        ) if count else own  # fmt: skip
        if count:
            masks[index, :count] = whole
        valid[index, :count] = True
    sizes = [(-(-rows // 4) * 4, -(-columns // 4) * 4) for rows, columns, _ in images]
    together = model(pixels, masks, severance=severance, valid=valid, sizes=sizes)
    for index, one in enumerate(alone):
        grid = one.patches.shape[-2:]
        found = together.patches[index, :, : grid[0], : grid[1]]
        torch.testing.assert_close(found, one.patches[0], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(together.image[index], one.image[0], atol=2e-5, rtol=1e-4)
        assert together.patches[index, :, grid[0] :].abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_half_precision(dtype, kind):
    model, pixels, masks = tower(), torch.randn(1, 3, 64, 96), torch.randn(1, 20, 16, 24) - 2
    expected = model(pixels, masks, severance=Severance(kind)).patches
    found = model.to(dtype)(pixels.to(dtype), masks.to(dtype), severance=Severance(kind)).patches
    assert found.dtype == dtype
    similarity = torch.cosine_similarity(found.float(), expected, dim=1)
    assert similarity.min() > 0.99


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_export(kind):
    class Severed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tower = tower()

        def forward(self, pixels, masks):
            return self.tower(pixels, masks, severance=Severance(kind)).patches

    inputs = (torch.randn(1, 3, 64, 96), torch.randn(1, 5, 16, 24))
    exported = torch.export.export(Severed().eval(), inputs)
    torch.testing.assert_close(exported.module()(*inputs), Severed()(*inputs), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_compile(kind):
    model, pixels, masks = tower(), torch.randn(1, 3, 64, 96), torch.randn(1, 5, 16, 24)
    compiled = torch.compile(model)
    found = compiled(pixels, masks, severance=Severance(kind)).patches
    expected = model(pixels, masks, severance=Severance(kind)).patches
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_position_rules():
    """A grid with the table's number of cells but another shape: interpolated, or read row by row as the original."""
    table = torch.randn(17, 8)
    assert interpolate_positions(table, (2, 8), "count") is table
    fitted = interpolate_positions(table, (2, 8), "grid")
    square = table[1:].T.reshape(1, 8, 4, 4)
    expected = torch.nn.functional.interpolate(square, size=(2, 8), mode="bicubic").flatten(2)[0].T
    torch.testing.assert_close(fitted[1:], expected)
    torch.testing.assert_close(fitted[0], table[0])
    assert interpolate_positions(table, (4, 4), "grid") is table


def test_loading_is_strict(tmp_path, tiny_clip):
    from safetensors.torch import load_file, save_file

    (tmp_path / "config.json").write_text((tiny_clip / "config.json").read_text())
    with pytest.raises(CheckpointError, match="no weights at"):
        CLIPVision.from_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="deop convert"):
        CLIPVision.from_folder(tmp_path)
    state = load_file(str(tiny_clip / "model.safetensors"))
    lost = state.pop("vision_model.encoder.layers.1.mlp.fc1.weight")
    save_file(state, str(tmp_path / "model.safetensors"))
    with pytest.raises(CheckpointError, match=r"blocks\.1\.up\.weight is missing"):
        CLIPVision.from_folder(tmp_path)
    state |= {"vision_model.encoder.layers.1.mlp.fc1.weight": lost, "vision_model.surplus": lost}
    save_file({key: value.clone() for key, value in state.items()}, str(tmp_path / "model.safetensors"))
    with pytest.raises(CheckpointError, match="surplus is not known"):
        CLIPVision.from_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="cannot read"):
        CLIPVision.from_folder(tmp_path)


def test_config_rejects_unknown_keys():
    assert from_json(VisionConfig, json.loads(json.dumps(asdict(SMALL))), "the tower") == SMALL
    with pytest.raises(CheckpointError, match="wdith"):
        from_json(VisionConfig, {"wdith": 3}, "the tower")
