"""Conversion of published checkpoints: complete ones run, and the keys that are wrong in others are named."""

import json
import pickle
import re

import numpy as np
import pytest
import torch

import deop
from deop.errors import CheckpointError, OutputError
from deop.weights.conversion import ConversionWarning, convert, convert_original
from tests.conftest import checkpoint_keys
from tests.tiny import write_tiny_clip
from tests.tiny_towers import write_tiny_metaclip2, write_tiny_tips


def original_shapes(stage):
    """Key -> shape of the authors' checkpoints, from the list of keys in the parity files."""
    text = checkpoint_keys()
    body = text.split("=" * 20)[0]
    shapes = {
        key: tuple(int(size) for size in shape.split(",") if size.strip())
        for key, shape in re.findall(r"^[Tfb]  (\S+)  \[([\d, ]*)\]", body, re.M)
    }
    only_3 = {key for key in shapes if key.startswith(("decoder.", "query_emb")) or "learned_position" in key}
    prompts = {key: shape for key, shape in shapes.items() if key.startswith("clip_adapter.") and "non_obj" not in key}
    assert len(shapes) == 1020, text
    return {
        3: shapes,
        2: {key: shape for key, shape in shapes.items() if key not in only_3}
        | {"clip_adapter.pixel_mean": (1, 3, 1, 1), "clip_adapter.pixel_std": (1, 3, 1, 1)},
        1: {key: shape for key, shape in prompts.items() if key not in only_3},
    }[stage]


def random_state(shapes):
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in shapes.items():
        state[key] = torch.randn(shape, generator=generator) * 0.02
        if key.endswith(("running_var", "norm.weight")) or re.search(r"(ln_|norm)\w*\.weight$", key):
            state[key] = state[key].abs() + 1
    return state


def photo():
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_full_size_checkpoints_load_and_run(stage, tmp_path, tiny_clip):
    shapes = original_shapes(stage)
    assert len(shapes) == {1: 307, 2: 987, 3: 1020}[stage]
    path = tmp_path / "model_final.pth"
    torch.save({"model": random_state(shapes), "iteration": 59999, "optimizer": {"state": {}}}, path)
    folder = convert(path, tmp_path / "out", tokenizer=tiny_clip)
    path.unlink()
    model = deop.load(folder, device="cpu")
    masks = np.arange(50 * 70).reshape(50, 70) // 1000 if stage == 1 else None
    actual = model.segment(photo(), "cat, dog|puppy, wall", masks=masks)
    assert actual.label_map.shape == (50, 70)
    assert actual.settings["severance"] == ("gate" if stage == 3 else "region")
    assert actual.settings["anchors"] == ("decoder" if stage == 3 else "pool")
    if stage > 1:
        assert (actual.label_map >= 0).all()
        assert model.segment(photo(), "cat, dog", classifier="two-stream").label_map.shape == (50, 70)


def test_missing_and_unknown_keys_are_named():
    state = {key: torch.zeros(()).expand(shape) for key, shape in original_shapes(3).items()}
    for key in ["criterion.empty_weight", "clip_adapter.non_object_embedding", "query_embedding.weight"]:
        with pytest.raises(CheckpointError, match=re.escape(key) + " is missing"):
            convert_original({name: value for name, value in state.items() if name != key})
    for key in [
        "backbone.res4.7.conv2.weight",
        "sem_seg_head.predictor.query_embed.weight",
        "clip_adapter.clip_model.visual.ln_post.bias",
        "clip_adapter.clip_model.ln_final.weight",
        "clip_adapter.prompt_learner.dot_signal",
        "decoder.layers.0.norm3.weight",
    ]:
        with pytest.raises(CheckpointError, match=r"missing|lacks"):
            convert_original({name: value for name, value in state.items() if name != key})
    for key in ["surplus", "backbone.surplus", "decoder.surplus", "clip_adapter.clip_model.visual.surplus"]:
        with pytest.raises(CheckpointError, match="surplus"):
            convert_original(state | {key: torch.zeros(1)})


def openai_state(folder):
    """A tiny CLIP in OpenAI's layout, renamed as documented by transformers."""
    from safetensors.torch import load_file

    theirs = load_file(str(folder / "model.safetensors"))
    names = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "logit_scale": "logit_scale",
    }
    state = {ours: theirs[key] for ours, key in names.items()}
    state["visual.proj"] = theirs["visual_projection.weight"].T
    state["text_projection"] = theirs["text_projection.weight"].T
    for ours, key in [("visual.ln_pre", "vision_model.pre_layrnorm"), ("visual.ln_post", "vision_model.post_layernorm"),
                      ("ln_final", "text_model.final_layer_norm")]:  # fmt: skip
        for part in ("weight", "bias"):
            state[f"{ours}.{part}"] = theirs[f"{key}.{part}"]
    inside = {
        "attn.out_proj": "self_attn.out_proj",
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for tower, model, depth in [("visual.", "vision_model", 4), ("", "text_model", 2)]:
        for layer in range(depth):
            ours, key = f"{tower}transformer.resblocks.{layer}", f"{model}.encoder.layers.{layer}"
            for part in ("weight", "bias"):
                state[f"{ours}.attn.in_proj_{part}"] = torch.cat(
                    [theirs[f"{key}.self_attn.{x}_proj.{part}"] for x in "qkv"]
                )
                for one, other in inside.items():
                    state[f"{ours}.{one}.{part}"] = theirs[f"{key}.{other}.{part}"]
    return state


def write_open_clip_config(folder, *, vision=None, text=None, preprocess=None, **model):
    """The open_clip_config.json of the tiny CLIP of ``openai_state``, with changes."""
    vision = {"image_size": 64, "layers": 4, "width": 64, "head_width": 16, "mlp_ratio": 2, "patch_size": 16} | (
        vision or {}
    )
    text = {"context_length": 77, "vocab_size": 524, "width": 32, "heads": 4, "layers": 2, "mlp_ratio": 2} | (
        text or {}
    )
    config = {"embed_dim": 32, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text} | model
    path = folder / "open_clip_config.json"
    path.write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess or {}}))
    return path


def test_openai_layout(tmp_path):
    """A tiny CLIP against transformers. Nothing but open_clip's configuration says how many heads such a CLIP has."""
    from transformers import CLIPModel

    source = write_tiny_clip(tmp_path / "clip", width=64)
    theirs, pixels = CLIPModel.from_pretrained(source).eval(), torch.randn(1, 3, 64, 64)
    torch.save(openai_state(source), tmp_path / "ViT-tiny.pt")
    with pytest.raises(CheckpointError, match=r"heads of the vision transformer is not known.*width 64.*--config FILE"):
        convert(tmp_path / "ViT-tiny.pt", tmp_path / "out", tokenizer=source)
    write_open_clip_config(tmp_path)
    model = deop.load(convert(tmp_path / "ViT-tiny.pt", tmp_path / "out", tokenizer=source), device="cpu")
    with torch.no_grad():
        expected = theirs.visual_projection(theirs.vision_model(pixels).pooler_output)
        torch.testing.assert_close(model.encoder(pixels).image, expected, atol=1e-4, rtol=1e-3)
        ids = theirs.text_model(torch.tensor([[522, 513, 523]])).pooler_output
        actual = model.text.encode_tokens(torch.tensor([[522, 513, 523]]))
        torch.testing.assert_close(actual, theirs.text_projection(ids), atol=1e-4, rtol=1e-3)
    assert model.card.license == "unknown"


def test_hub_folder_with_pickled_weights(tmp_path, tiny_clip):
    import shutil

    from safetensors.torch import load_file

    source = tmp_path / "pickled"
    shutil.copytree(tiny_clip, source)
    state = load_file(str(source / "model.safetensors"))
    (source / "model.safetensors").unlink()
    torch.save(state, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="deop convert"):
        deop.load(source)
    folder = convert(source, tmp_path / "out")
    assert deop.load(folder, device="cpu").segment(photo(), "cat", masks=np.ones((1, 50, 70), bool)).segments
    with pytest.raises(OutputError, match="contains a model already"):
        convert(source, tmp_path / "out")


@pytest.mark.parametrize("write", [write_tiny_metaclip2, write_tiny_tips])
def test_hub_folder_of_another_encoder_with_pickled_weights(tmp_path, write):
    import transformers
    from safetensors.torch import load_file

    if write is write_tiny_tips and not hasattr(transformers, "Tipsv2Config"):
        pytest.skip("TIPSv2 needs transformers 5.14 or later")
    source = write(tmp_path / "pickled")
    expected = deop.load(source, device="cpu").text.embed(["cat"])
    state = load_file(str(source / "model.safetensors"))
    (source / "model.safetensors").unlink()
    torch.save(state, source / "pytorch_model.bin")
    converted = convert(source, tmp_path / "out")
    assert torch.equal(deop.load(converted, device="cpu").text.embed(["cat"]), expected)
    (source / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="no tokenizer"):
        convert(source, tmp_path / "other")


def test_without_a_tokenizer(tmp_path, monkeypatch, tiny_clip):
    """Weights are converted without a tokenizer too; the warning and the model say what is missing."""
    import huggingface_hub

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    torch.save(openai_state(tiny_clip), tmp_path / "clip.pt")
    write_open_clip_config(tmp_path)
    with pytest.warns(ConversionWarning, match="without a tokenizer"):
        folder = convert(tmp_path / "clip.pt", tmp_path / "out")
    with pytest.raises(CheckpointError, match="tokenizer"):
        deop.load(folder, device="cpu").segment(photo(), "cat", masks=np.ones((1, 50, 70), bool))
    with pytest.raises(CheckpointError, match="tokenizer"):
        convert(tmp_path / "clip.pt", tmp_path / "other", tokenizer=tmp_path / "nowhere")


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/deop-was-here",)


def test_bad_files_are_refused(tmp_path):
    evil = tmp_path / "evil.pth"
    evil.write_bytes(pickle.dumps({"model": Evil()}))
    with pytest.raises(CheckpointError, match="without running code"):
        convert(evil, tmp_path / "out")
    (tmp_path / "cut.pth").write_bytes(b"PK\3\4")
    with pytest.raises(CheckpointError, match="cannot read"):
        convert(tmp_path / "cut.pth", tmp_path / "out")
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        convert(tmp_path / "absent.pth", tmp_path / "out")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="neither a checkpoint of DeOP's authors"):
        convert(tmp_path / "other.pth", tmp_path / "out")
    torch.save({"model": {"weight": torch.zeros(2), "epoch": 3}}, tmp_path / "mixed.pth")
    with pytest.raises(CheckpointError, match="not tensors: epoch"):
        convert(tmp_path / "mixed.pth", tmp_path / "out")
    scripted = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    scripted.save(str(tmp_path / "scripted.pt"))
    with pytest.raises(CheckpointError, match="TorchScript archive"):
        convert(tmp_path / "scripted.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_with_wrong_shapes_is_reported_with_its_file(tmp_path, tiny_clip):
    state = openai_state(tiny_clip)
    write_open_clip_config(tmp_path)
    for key in ("visual.conv1.weight", "visual.positional_embedding", "token_embedding.weight", "ln_final.weight"):
        torch.save(state | {key: torch.zeros(3)}, tmp_path / "clip.pt")
        with pytest.raises(CheckpointError):
            convert(tmp_path / "clip.pt", tmp_path / "out", tokenizer=tiny_clip)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_pickled_weights_is_refused(tmp_path, tiny_clip):
    with pytest.raises(CheckpointError, match="no pickled weights to convert"):
        convert(tiny_clip, tmp_path / "out")
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        convert("x" * 5000, tmp_path / "out")


def test_a_failure_of_the_hub_without_a_message_is_reported(tmp_path, monkeypatch, tiny_clip):
    import huggingface_hub

    def fail(*_, **__):
        raise OSError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    torch.save(openai_state(tiny_clip), tmp_path / "clip.pt")
    write_open_clip_config(tmp_path)
    with pytest.raises(CheckpointError, match="cannot fetch the tokenizer of some/repo: OSError"):
        convert(tmp_path / "clip.pt", tmp_path / "out", tokenizer="some/repo")
