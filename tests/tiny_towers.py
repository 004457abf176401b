"""Small random MetaCLIP 2 and TIPSv2 models in the hub's layout, which tests write so that they need no hub."""

import json
from pathlib import Path

import torch

WORDS = ("▁cat", "▁dog", "▁a", "▁sofa", "▁and", "▁photo", "▁of", "▁wall", "▁")
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz.,")


def write_tiny_metaclip2(folder: Path, *, patch: int = 16, activation: str = "gelu", seed: int = 0) -> Path:
    """Write transformers' MetaClip2Model with random weights, its tokenizer and its preprocessor_config.json."""
    from transformers import MetaClip2Config, MetaClip2Model, XLMRobertaTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    special = ("<s>", "<pad>", "</s>", "<unk>")
    pieces = [*special, *WORDS, *LETTERS, "<mask>"]
    scores = [0.0 if piece in special else -1.0 - len(LETTERS) * (len(piece) == 1) for piece in pieces]
    XLMRobertaTokenizer(vocab=list(zip(pieces, scores, strict=True))).save_pretrained(folder)
    torch.manual_seed(seed)
    config = MetaClip2Config(
        text_config={
            "vocab_size": len(pieces), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 77, "projection_dim": 32, "hidden_act": activation,
            "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
        },
        vision_config={
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
            "image_size": 4 * patch, "patch_size": patch, "projection_dim": 32, "hidden_act": activation,
        },
        projection_dim=32,
    )  # fmt: skip
    write(MetaClip2Model(config), folder)
    statistics = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    (folder / "preprocessor_config.json").write_text(json.dumps(statistics))
    return folder


def write(model: torch.nn.Module, folder: Path) -> None:
    """Save a model of transformers after changing all its parameters, since some are initialised to 0 or 1."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim:  # not the factor of the scores
                parameter.add_(0.05 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder, safe_serialization=True)


def write_tiny_tips(folder: Path, *, patch: int = 14, registers: int = 1, swiglu: bool = False, seed: int = 0) -> Path:
    """Write transformers' Tipsv2Model with random weights and its tokenizer."""
    from transformers import Tipsv2Config, Tipsv2Model, Tipsv2Tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    merges = [("▁", "c"), ("a", "t"), ("▁c", "at"), ("▁", "d"), ("o", "g"), ("▁d", "og"), ("▁", "a")]
    pieces = ["<pad>", "<unk>", "▁", *LETTERS, *("".join(pair) for pair in merges)]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    Tipsv2Tokenizer(vocab=vocab, merges=merges).save_pretrained(folder)
    torch.manual_seed(seed)
    config = Tipsv2Config(
        text_config={
            "vocab_size": len(pieces), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 64,
        },
        vision_config={
            "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 4 * patch,
            "patch_size": patch, "num_register_tokens": registers, "use_swiglu_ffn": swiglu,
        },
    )  # fmt: skip
    write(Tipsv2Model(config), folder)
    return folder
