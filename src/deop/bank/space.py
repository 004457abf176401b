"""Which model computed embeddings: what must be equal so that they can be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deop.arrays import to_float32
from deop.errors import SettingError
from deop.text.vocabulary import quoted

if TYPE_CHECKING:
    from deop.bank.bank import Bank
    from deop.surface import ModelSurface

SAME = 0.999
"""Cosine of the embeddings of the test regions from which two models count as the same: engines round differently."""

_RELEARN = "learn the examples again with this model (deop learn)"


@dataclass(frozen=True, eq=False)
class Space:
    """The model that computed embeddings, and how.

    A model is recognised by what it computes, not by its files, since the same model has other files in ONNX Runtime
    than in torch: by the embeddings of three regions of a drawn picture.

    Attributes:
        probe: (3, C) float32, the embeddings of these regions.
        precision: "float32", "float16", "bfloat16" or "int8".
        encoding: how regions are embedded: classifier, severance, anchors.
        model: name of the model.
        license: of its weights.
        note: who may use the examples, or where the photos are from; any text.
    """

    probe: np.ndarray
    precision: str
    encoding: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    license: str = "unknown"
    note: str = ""

    def key(self) -> tuple[Any, ...]:
        """What the digest of a bank depends on."""
        return self.precision, sorted(self.encoding.items(), key=str), self.model, self.license, self.note

    def check_same(self, other: "Space", problem: str) -> None:
        """Refuse embeddings of another model.

        Args:
            other: what they are compared with.
            problem: beginning of the message.

        Raises:
            SettingError: the models, their precision or the encoding differ.
        """
        if self.precision != other.precision:
            raise SettingError(
                f"{problem}: one was learned in {self.precision}, the other in {other.precision}. Choose one precision "
                f"(dtype=..., --dtype), or {_RELEARN}"
            )
        if not same_probe(self.probe, other.probe):
            names = f"{self.model or 'a model'} and {other.model or 'a model'}"
            which = names if self.model != other.model else f"two versions of {self.model or 'a model'}"
            raise SettingError(f"{problem}: they are from {which}, whose embeddings differ. {_RELEARN.capitalize()}")
        self.check_encoding(other.encoding, problem)

    def check_encoding(self, encoding: Mapping[str, Any], problem: str) -> None:
        """Refuse embeddings that were computed with other options.

        Raises:
            SettingError: naming the option.
        """
        for key in COMPARED:
            if self.encoding.get(key) != encoding.get(key):
                raise SettingError(
                    f"{problem}: the examples were learned with {key} {self.encoding.get(key)!r}, and this is "
                    f"{key} {encoding.get(key)!r}. Use the same options, or {_RELEARN}"
                )

    def joined(self, spaces: Sequence["Space"]) -> "Space":
        """This description with the notes of several, without repetitions."""
        notes = sorted({note for space in spaces for note in space.note.split("; ") if note})
        return replace(self, note="; ".join(notes))


COMPARED = ("classifier", "severance", "severed_layers", "residual", "severance_values", "anchors", "windows")
"""The options that embeddings depend on, as ``EncodedPhoto.settings`` has them."""


def encoding_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an encoded photo that its embeddings depend on."""
    return {key: settings[key] for key in COMPARED if settings.get(key) is not None}


def same_probe(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether the embeddings of the test regions are those of one model."""
    return first.shape == second.shape and bool(((first * second).sum(1) >= SAME).all())


def probe_of(model: "ModelSurface") -> np.ndarray:
    """The embeddings of three regions of a drawn picture, (3, C) float32; kept until the settings change.

    Raises:
        SettingError: a model of ONNX Runtime whose folder has no graph for given masks.
    """
    last = model._last_probe
    if last is not None and last[0] == model.settings:
        return last[1]
    picture, masks = _drawn()
    encoded = model.encode([picture], [masks])[0]
    probe = to_float32(encoded.regions)
    model._last_probe = (model.settings, probe)
    return probe


def check_bank(model: "ModelSurface", bank: "Bank") -> None:
    """Refuse a bank whose embeddings are not those of a model.

    Raises:
        SettingError: the models or their precision differ.
    """
    if not isinstance(getattr(bank, "space", None), Space):
        raise SettingError(f"bank must be a bank of examples, from deop.learn or deop.load_bank, not {quoted(bank)}")
    if bank.space.precision == model.precision and bank.regions.shape[1] != model.text.width:
        problem = f"the bank has embeddings of {bank.regions.shape[1]} channels, and this model of {model.text.width}"
        raise SettingError(f"{problem}: it is of another model ({bank.space.model}). {_RELEARN.capitalize()}")
    space = Space(probe_of(model), model.precision, bank.space.encoding, model.card.name)
    bank.space.check_same(space, "the bank does not fit this model")


def _drawn() -> tuple[np.ndarray, np.ndarray]:
    """A picture (96, 128, 3) uint8 with a disc, stripes and a gradient, and their masks (3, 96, 128) bool."""
    rows, columns = np.mgrid[0:96, 0:128]
    disc = (rows - 48) ** 2 + (columns - 36) ** 2 < 30**2
    stripes = (columns >= 76) & (rows < 60)
    picture = np.stack([rows * 2, columns * 2 - 1, 255 - rows * 2], -1).clip(0, 255)
    picture[disc] = (200, 40, 30)
    picture[stripes] = np.where((columns[stripes] // 6 % 2)[:, None], (240, 240, 235), (30, 60, 150))
    return picture.astype(np.uint8), np.stack([disc, stripes, ~(disc | stripes)])
