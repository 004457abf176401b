"""Sizes of text encoders: the names of our configurations, and those of transformers."""

from typing import Any

_NAMES = {
    "tokens": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "intermediate_size",
    "context": "max_position_embeddings",
    "activation": "hidden_act",
    "norm_eps": "layer_norm_eps",
}


def from_transformers(config: Any) -> dict[str, Any]:
    """The sizes in a configuration of transformers, by our names."""
    return {ours: getattr(config, theirs) for ours, theirs in _NAMES.items()}


def to_transformers(config: Any) -> dict[str, Any]:
    """The sizes in one of our configurations, by the names of transformers."""
    return {theirs: getattr(config, ours) for ours, theirs in _NAMES.items()}
