"""The vision encoder of CLIP: the common suite, equality with transformers, padded batches, and loading."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deop.encoders.clip import CLIPVision, VisionConfig
from deop.encoders.clip_positions import interpolate_positions
from deop.encoders.severance import KINDS, Severance
from deop.errors import CheckpointError
from tests.encoders.suite import EncoderSuite, check_compiled, check_exported
from tests.tiny import write_tiny_clip

SMALL = VisionConfig(width=64, layers=3, heads=4, hidden=128, patch=16, grid=4, output=32)


def tower(config=SMALL, seed=0):
    torch.manual_seed(seed)
    return CLIPVision(config).eval()


class TestCLIPVision(EncoderSuite):
    half_dtypes = (torch.bfloat16, torch.float16)

    @pytest.fixture
    def encoder(self):
        return tower()

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", KINDS)
    @torch.no_grad()
    def test_every_kind_is_exported_and_compiled(self, encoder, kind):
        """Severance is the same code in all encoders."""
        check_exported(encoder, kind)
        check_compiled(encoder, kind)


class TestLearnedPositions(EncoderSuite):
    @pytest.fixture
    def encoder(self):
        return tower(replace(SMALL, patch=14, learned_at_input=True, learned_in_blocks=(1, 2), learned_grid=6))


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
        features = ours(pixels)
        assert (features.patches.flatten(2).mT - patches).abs().max() < 1e-4
        assert (features.image - theirs.visual_projection(expected.pooler_output)).abs().max() < 1e-4


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(10, 80), st.integers(10, 80), st.integers(0, 5)), min_size=1, max_size=3),
    st.integers(0, 3),
)
@torch.no_grad()
def test_a_batch_of_unequal_images_equals_single_images(kind, images, extra):
    """Neither padding nor other images with other numbers of proposals have an effect."""
    model = tower()
    severance = Severance(kind, (-2, -1))
    height = (-(-max(height for height, _, _ in images) // 32) + extra) * 32
    width = -(-max(width for _, width, _ in images) // 32) * 32
    largest = max(count for *_, count in images)
    pixels = torch.zeros(len(images), 3, height, width)
    masks = torch.zeros(len(images), largest, height // 4, width // 4)
    valid = torch.zeros(len(images), largest, dtype=torch.bool)
    single = []
    for index, (rows, columns, count) in enumerate(images):
        image, logits = torch.randn(1, 3, rows, columns), torch.randn(1, count, -(-rows // 4), -(-columns // 4))
        canvas = (4 * logits.shape[-2], 4 * logits.shape[-1])
        image = torch.nn.functional.pad(image, (0, canvas[1] - columns, 0, canvas[0] - rows))
        single.append(model(image, logits, severance=severance))
        pixels[index, :, : canvas[0], : canvas[1]] = image
        if count:
            # The last cells are repeated, as the encoder does for a single image whose side is not a multiple of 16.
            padding = (0, masks.shape[-1] - logits.shape[-1], 0, masks.shape[-2] - logits.shape[-2])
            masks[index, :count] = torch.nn.functional.pad(logits, padding, mode="replicate")[0]
        valid[index, :count] = True
    sizes = [(-(-rows // 4) * 4, -(-columns // 4) * 4) for rows, columns, _ in images]
    together = model(pixels, masks, severance=severance, valid=valid, sizes=sizes)
    for index, alone in enumerate(single):
        rows, columns = alone.patches.shape[-2:]
        patches = together.patches[index, :, :rows, :columns]
        torch.testing.assert_close(patches, alone.patches[0], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(together.image[index], alone.image[0], atol=2e-5, rtol=1e-4)
        assert together.patches[index, :, rows:].abs().sum() == 0


@pytest.mark.parametrize("rule", ["grid", "offset", "antialiased"])
@pytest.mark.parametrize("grid", [(8, 8), (3, 9), (5, 1), (2, 2), (37, 50)])
def test_positions_are_resized_as_by_torch(grid, rule):
    torch.manual_seed(0)
    table = torch.randn(17, 8)
    options = {
        "grid": {"size": grid, "mode": "bicubic"},
        "offset": {"scale_factor": ((grid[0] + 0.1) / 4, (grid[1] + 0.1) / 4), "mode": "bicubic"},
        "antialiased": {"size": grid, "mode": "bilinear", "antialias": True},
    }
    square = table[1:].T.reshape(1, 8, 4, 4)
    if rule == "antialiased" and grid[1] == 1:  # of results with one column, torch 2.13 repeats the first row
        expected = torch.nn.functional.interpolate(square.mT, size=grid[::-1], mode="bilinear", antialias=True).mT
    else:
        expected = torch.nn.functional.interpolate(square, **options[rule])
    expected = expected.flatten(2)[0].T
    fitted = interpolate_positions(table, grid, rule)
    torch.testing.assert_close(fitted[1:], expected, atol=5e-5, rtol=0)
    assert torch.equal(fitted[0], table[0])
    half = interpolate_positions(table.bfloat16(), grid, rule)
    assert half.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(interpolate_positions(table, grid, rule), fitted)


def test_positions_are_trained_after_they_were_used_without_gradients():
    table = torch.randn(17, 8)
    with torch.inference_mode():
        first = interpolate_positions(table, (6, 7))
    table.requires_grad_(True)
    second = interpolate_positions(table, (6, 7))
    second.sum().backward()
    assert torch.equal(second, first)
    assert table.grad.sum().item() == pytest.approx(8 * (1 + 6 * 7), rel=1e-4)


def test_position_rules():
    """A grid with the table's number of cells but another shape is interpolated, or read row by row ("count")."""
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
    removed = state.pop("vision_model.encoder.layers.1.mlp.fc1.weight")
    save_file(state, str(tmp_path / "model.safetensors"))
    with pytest.raises(CheckpointError, match=r"blocks\.1\.up\.weight is missing"):
        CLIPVision.from_folder(tmp_path)
    state |= {"vision_model.encoder.layers.1.mlp.fc1.weight": removed, "vision_model.surplus": removed}
    save_file({key: value.clone() for key, value in state.items()}, str(tmp_path / "model.safetensors"))
    with pytest.raises(CheckpointError, match="surplus is not known"):
        CLIPVision.from_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="cannot read"):
        CLIPVision.from_folder(tmp_path)
