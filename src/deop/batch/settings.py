"""What the results of a batch depend on: recorded in the output, and compared when a batch is resumed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from deop.errors import SettingError

NAME = "_deop/settings.json"
VERSION = 1
"""Version of the files of a batch."""
_LONG = 60  # characters of a value in a message


def model_facts(model: Any, vocabulary: Any, classes: Any) -> dict[str, Any]:
    """Everything about a model and its names that results depend on, as JSON values.

    Args:
        model: the model.
        vocabulary: the names.
        classes: their embeddings by the model.
    """
    config = getattr(model, "config", None)
    files = getattr(getattr(config, "onnx", None), "files", None)  # of ONNX Runtime: the hashes of its files
    if files is not None:
        weights = _digest(json.dumps(dict(files), sort_keys=True).encode())
    elif hasattr(model, "state_dict"):
        from deop.networks.state_hash import StateHash

        weights = StateHash().digest(model.state_dict())
    else:
        weights = ""
    facts = {
        "model": model.card.name,
        "weights": weights,
        "runtime": getattr(model, "engine", ""),
        "precision": str(getattr(model, "precision", "")),
        "model settings": asdict(model.settings),
        "names": [list(texts) for texts in vocabulary.synonyms],
        "background": list(vocabulary.background),
        "embeddings": _digest(np.ascontiguousarray(classes.rows).tobytes()),
    }
    if vocabulary.bank is not None:
        facts |= {"bank": vocabulary.bank.digest, "bank weight": vocabulary.bank_weight}
    normal: dict[str, Any] = json.loads(json.dumps(facts, default=str))
    return normal


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def settings_hash(settings: Mapping[str, Any]) -> str:
    """The first 16 hexadecimal digits of the hash of some settings.

    >>> settings_hash({"mode": "semantic"}) == settings_hash({"mode": "instance"})
    False
    """
    return _digest(json.dumps(settings, sort_keys=True).encode())[:16]


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], output: str) -> None:
    """Compare the settings of a batch that was begun with those of this command.

    Raises:
        SettingError: they differ; it names the settings.
    """
    before, now = (_by_name(settings) for settings in (before, now))
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if "embeddings" in keys and len(keys) > 1:
        keys.remove("embeddings")  # which follow from the names and the model
    if keys:
        lines = [f"  {key}: {_shorten(before.get(key))}, now {_shorten(now.get(key))}\n" for key in keys]
        raise SettingError(
            f"{output} has a batch with other settings:\n{''.join(lines)}Repeat its command to resume it, choose "
            "another output, or add --overwrite to delete its results"
        )


def _by_name(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with those of the model one by one, since a message shows only the beginning of a long value."""
    of_model: Mapping[str, Any] = settings.get("model settings") or {}
    rest = {name: value for name, value in settings.items() if name != "model settings"}
    return rest | {f"{name} (of the model)": value for name, value in of_model.items()}


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONG else text[: _LONG - 3] + "..."
