"""Small random models in the hub's layout, which tests write so that they need no hub."""

import json
from pathlib import Path

import torch


def write_tiny_tokenizer(folder: Path) -> None:
    """Write a byte-pair vocabulary of CLIP's kind: all bytes and a few merges."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    merges = ["c a", "ca t</w>", "d o", "do g</w>", "s o", "f a</w>", "so fa</w>", "w a", "l l</w>", "wa ll</w>"]
    tokens = letters + [letter + "</w>" for letter in letters] + [merge.replace(" ", "") for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)


def write_tiny_clip(folder: Path, *, patch: int = 16, width: int = 64, layers: int = 4, seed: int = 0) -> Path:
    """Write transformers' CLIPModel with random weights, its tokenizer and its preprocessor_config.json."""
    from transformers import CLIPConfig, CLIPModel

    folder.mkdir(parents=True, exist_ok=True)
    write_tiny_tokenizer(folder)
    vocab = json.loads((folder / "vocab.json").read_text())
    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config={
            "vocab_size": len(vocab), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 77, "projection_dim": 32,
            "bos_token_id": vocab["<|startoftext|>"], "eos_token_id": vocab["<|endoftext|>"],
            "pad_token_id": vocab["<|endoftext|>"],
        },
        vision_config={
            "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers,
            "num_attention_heads": 4, "image_size": 4 * patch, "patch_size": patch, "projection_dim": 32,
        },
        projection_dim=32,
    )  # fmt: skip
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
                "size": {"shortest_edge": 4 * patch},
                "resample": 3,
            }
        )
    )
    return folder


def write_tiny_siglip(folder: Path, *, flexible: bool = False, patch: int = 16, seed: int = 0) -> Path:
    """Write transformers' SiglipModel, or Siglip2Model, with random weights, its tokenizer and its preprocessor.

    The tokenizer is of SigLIP 2's kind: byte pairs, an end token, padding at the end.
    """
    from tokenizers import processors
    from transformers import Siglip2Config, Siglip2Model, Siglip2Tokenizer, SiglipConfig, SiglipModel

    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    tokens += [*"abcdefghijklmnopqrstuvwxyz.,", "ca", "cat", "do", "dog"]
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Siglip2Tokenizer(
        vocab=vocab,
        # The tokenizer's annotation says strings, but tokenizers takes pairs.
        merges=[("c", "a"), ("ca", "t"), ("d", "o"), ("do", "g")],  # type: ignore[list-item]
        padding_side="right",
        model_input_names=["input_ids"],
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", vocab["<eos>"])]
    )
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    text = {"vocab_size": len(vocab), "num_hidden_layers": 2, "max_position_embeddings": 40, **sizes}
    text |= {"bos_token_id": vocab["<bos>"], "eos_token_id": vocab["<eos>"], "pad_token_id": vocab["<pad>"]}
    vision = {"num_hidden_layers": 3, "patch_size": patch, **sizes}
    torch.manual_seed(seed)
    model = (
        Siglip2Model(Siglip2Config(text_config=text, vision_config=vision | {"num_patches": 16}))
        if flexible
        else SiglipModel(SiglipConfig(text_config=text, vision_config=vision | {"image_size": 4 * patch}))
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        model.logit_scale.fill_(4.7)
        model.logit_bias.fill_(-16.5)
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]})
    )
    return folder
