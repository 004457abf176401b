"""Severance as a value: where and how an encoder's attention is severed (docs/method.md §3). Needs no torch.

``PRESETS`` has published methods by name; docs/attention.md lists them as combinations of the values.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from deop.arguments import check_fields
from deop.errors import SettingError

KINDS = ("none", "self", "gate", "gate-normalized", "affinity", "similar", "region")
SIMILARITIES = ("", "q", "k", "v", "qk", "qv", "kv", "qkv", "cross", "proxy")
CLASS_TOKEN = ("ordinary", "severed")
UNCOVERED = ("self", "similar")


@dataclass(frozen=True)
class Severance:
    """Where and how attention is severed.

    Attributes:
        kind: which tokens a patch receives values from. With v_l the value of token l and M_{n,l} the probability that
            proposal n covers patch l:

            * ``none``: ordinary attention; nothing is severed.
            * ``self``: v_l. Tokens do not mix; masks are not used ("identity" in docs/method.md).
            * ``gate``: g_l v_l with g_l = sum_n M_{n,l}, and g = N for the class token. Used by the released model
              ("maskgate"). The gain grows with N and with overlap, so the weights only fit the number of proposals
              that they were trained with.
            * ``gate-normalized``: g_l / mean(g) v_l, the mean over the patches of the image; 1 for the class token.
              Unlike ``gate``, the mean gain is 1 for any N, so attention keeps the magnitude that CLIP was trained
              with; repeated or empty proposals change nothing. Without any coverage it equals ``self``.
            * ``affinity``: softmax over l' of (M^T M)_{l,l'} times v, where M has a first column of ones for the class
              token; all heads share one matrix ("masksim"). The entries grow with N, so the softmax saturates, mostly
              on the class token.
            * ``similar``: the values of all patches, weighted by ``similarity``.
            * ``region``: as ``similar``, with each weight multiplied by O = M^T M before normalisation: by how likely
              and how often two patches share a proposal. Repeated and empty proposals change nothing. A patch that no
              proposal covers keeps its own value (see ``uncovered``). With a uniform similarity it is the average over
              the patches that share proposals, also called ``affinity-normalized``, and needs no L x L matrix.

            Or a function from ``deop.encoders.severance.Tokens`` to values (B, 1 + L, C); see docs/attention.md.
        layers: severed blocks, counted from 0, or from the end if negative. Released model: the last block.
        residual: weight of the residual stream in a severed block, x <- residual * x + attention(x); one number, or
            one per layer. 1.0 in the original, but 0.2 in the last block of its tower without learned positions.
        class_token: "ordinary": in severed blocks the class token still attends to all tokens, with a residual weight
            of 1 and the MLP; where only the last block is severed, the image embedding is therefore CLIP's own.
            "severed": the class token is mixed as described above, as in the original and in checkpoints converted from
            it; with ``similar`` and ``region`` it keeps its own value. The choice affects patch features only in
            ordinary blocks after a severed one, and with ``affinity`` in more than one block.
        similarity: scores of ``similar`` and ``region``: letters of "q", "k", "v" (a patch's queries, keys or values
            are compared with those of the others; the softmaxes of several letters are averaged), "cross" (queries
            with keys, as in ordinary attention), "proxy" (cosine similarity of features from another network, one
            matrix for all heads), or "" (uniform).
        neighbours: standard deviation in patches of a Gaussian, with maximum 1, that is added to the scores (NACLIP);
            0: none. With a uniform similarity it is multiplied by the mean of |q| |k| / sqrt(d).
        mlp: whether a severed block applies its MLP to the patches.
        gain: factor of the severed attention's result; 2 in SCLIP.
        class_key: whether patches also receive the value of the class token, with ``similar`` and ``region``.
        sharpness: factor of the scores before the softmax.
        shift: with "proxy": subtract this many times their mean from the scores, and exclude negative ones (ProxyCLIP);
            0: neither.
        uncovered: with ``region``, what a patch receives that no proposal covers. "self": its own value. "similar": the
            values of all patches, weighted by similarity. With "proxy", covered patches also receive from uncovered
            ones, and both only where their similarity exceeds the mean (CorrCLIP).
        merge: with ``region`` and "proxy", masks whose mean features differ by no more than this (largest cosine
            similarity minus theirs), directly or through others, count as one (CorrCLIP); 0: none.
        parallel: the stream continues through ordinary blocks, and the results of the severed ones are summed before
            the final norm (ClearCLIP with several layers).
        levels: earlier blocks; the last severed block, with the same attention weights, is also applied to the mean of
            the streams after them, and both results are summed after the final norm (CorrCLIP's spatial branch).
        level_weight: weight of that second result.

    Raises:
        SettingError: an unknown kind, or values that do not fit together.

    >>> Severance("self", layers=(-2, -1), residual=0.2).residuals(12)
    {10: 0.2, 11: 0.2}
    """

    kind: str | Callable[..., Any] = "none"
    layers: tuple[int, ...] = (-1,)
    residual: float | tuple[float, ...] = 1.0
    class_token: str = "ordinary"
    similarity: str = ""
    neighbours: float = 0.0
    mlp: bool = True
    gain: float = 1.0
    class_key: bool = False
    sharpness: float = 1.0
    shift: float = 0.0
    uncovered: str = "self"
    merge: float = 0.0
    parallel: bool = False
    levels: tuple[int, ...] = ()
    level_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("layers", "levels"):
            if not isinstance(getattr(self, name), (list, tuple, range)):
                word = "severed layers" if name == "layers" else "levels"
                raise SettingError(f"{word} must be a list of integers such as (-1,), not {getattr(self, name)!r}")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_fields(self)
        if self.kind == "affinity-normalized":
            object.__setattr__(self, "kind", "region")
        if not callable(self.kind) and self.kind not in KINDS:
            raise SettingError(f"unknown severance {self.kind!r}: choose one of {', '.join(KINDS)}")
        for value, choices, name in (
            (self.class_token, CLASS_TOKEN, "class_token"),
            (self.similarity, SIMILARITIES, "similarity"),
            (self.uncovered, UNCOVERED, "uncovered"),
        ):
            if value not in choices:
                raise SettingError(f"unknown {name} {value!r}: choose one of {', '.join(map(repr, choices))}")
        if isinstance(self.residual, (list, tuple)):
            object.__setattr__(self, "residual", tuple(self.residual))
            if len(self.residual) != len(self.layers):
                raise SettingError(
                    f"{len(self.residual)} residual weights for {len(self.layers)} severed layers: give one number, or "
                    "one for each layer"
                )
        if not 0 <= self.neighbours < float("inf"):
            raise SettingError(f"neighbours must be a number of patches, 0 or more, not {self.neighbours}")
        for name in ("shift", "merge"):
            if getattr(self, name) and self.similarity != "proxy":
                raise SettingError(f'{name} applies to similarity="proxy" only: omit it')
        if self.needs_proxy and (
            self.class_key or self.parallel or len(self.layers) > 1 or self.residual not in (0, (0,))
        ):
            raise SettingError(
                'similarity="proxy" is defined for one severed layer with residual=0, without class_key and parallel: '
                "its patches lie on the grid of the other network"
            )
        if self.levels and (self.kind == "none" or self.parallel):
            raise SettingError("levels need a severed last layer, and exclude parallel: omit one of them")

    @classmethod
    def parse(
        cls, value: "str | Severance | Callable[..., Any] | None", default: "Severance | None" = None
    ) -> "Severance":
        """Convert what a user gives: a name, a ``Severance``, a function, or None for ``default``.

        A kind or a function alone keeps all other fields of ``default``; the name of a published method replaces all of
        them. Fields can follow a name: "region:similarity=k:residual=0".

        Raises:
            SettingError: an unknown name or field.

        >>> Severance.parse("gate", Severance("self", layers=(3,))).layers
        (3,)
        >>> Severance.parse("naclip:neighbours=2").neighbours
        2.0
        """
        default = default or cls()
        if value is None:
            return default
        if isinstance(value, cls):
            return value
        if callable(value):
            return replace(default, kind=value)
        name, *changes = str(value).split(":")
        if name in PRESETS:
            chosen = PRESETS[name].severance
        elif name == "affinity-normalized":
            chosen = replace(default, kind="region", similarity="", neighbours=0.0, shift=0.0, merge=0.0)
        elif name in KINDS:
            chosen = replace(default, kind=name, levels=() if name == "none" else default.levels)
        else:
            raise SettingError(
                f"unknown severance {name!r}: choose one of {', '.join(KINDS)} or a published method, "
                f"{', '.join(PRESETS)}"
            )
        return replace(chosen, **dict(_change(name, change) for change in changes))

    @property
    def name(self) -> str:
        """The kind, or the name of the function."""
        return self.kind if isinstance(self.kind, str) else getattr(self.kind, "__name__", type(self.kind).__name__)

    @property
    def uses_masks(self) -> bool:
        """Whether masks have an effect."""
        return self.kind not in ("none", "self", "similar")

    @property
    def needs_masks(self) -> bool:
        """Whether the encoder needs masks."""
        return self.uses_masks and not callable(self.kind)

    @property
    def needs_proxy(self) -> bool:
        """Whether the encoder needs features of another network."""
        return self.kind in ("similar", "region") and self.similarity == "proxy"

    @property
    def text(self) -> str:
        """The kind and all values that differ from the defaults, as ``parse`` takes them.

        >>> Severance("region", residual=0.0, similarity="k", mlp=False).text
        'region:residual=0:similarity=k:mlp=no'
        """
        changed = [(entry.name, getattr(self, entry.name)) for entry in fields(self) if entry.name != "kind"]
        values = [f"{name}={_text(value)}" for name, value in changed if value != getattr(Severance(), name)]
        return ":".join((self.name, *values))

    def residuals(self, depth: int) -> dict[int, float]:
        """Index of each severed block -> weight of its residual stream.

        Args:
            depth: blocks of the encoder.

        Raises:
            SettingError: a layer that the encoder does not have, or a level that does not precede the severed layer.
        """
        if self.kind == "none":
            return {}
        weights = self.residual if isinstance(self.residual, tuple) else (self.residual,) * len(self.layers)
        severed = {}
        for layer, weight in zip(self.layers, weights, strict=True):
            if not -depth <= layer < depth:
                raise SettingError(f"cannot sever layer {layer}: the encoder has layers 0 to {depth - 1}")
            severed[layer % depth] = float(weight)
        for level in self.levels:
            if not -depth <= level < depth or level % depth >= depth - 1 or depth - 1 not in severed:
                raise SettingError(
                    f"level {level} does not precede a severed last layer: the encoder has layers 0 to {depth - 1}"
                )
        return severed

    def record(self) -> dict[str, Any]:
        """What a result reports: the kind, the severed layers, and all values that differ from the defaults."""
        if self.kind == "none":
            return {"severance": "none", "severed_layers": [], "residual": None}
        changed = {
            entry.name: getattr(self, entry.name)
            for entry in fields(self)
            if entry.name not in ("kind", "layers", "residual") and getattr(self, entry.name) != entry.default
        }
        values = {"severance": self.name, "severed_layers": list(self.layers), "residual": self.residual}
        return {**values, **({"severance_values": changed} if changed else {})}


TRAINING_FREE = Severance("region", residual=0.0, similarity="k", mlp=False)
"""The severance of encoders that were not trained for severance (docs/method.md §12 gives the reasons)."""


@dataclass(frozen=True)
class Preset:
    """A published method.

    Attributes:
        severance: its values; the last block is severed.
        summary: what it does, in one line.
        reference: authors, title and place of publication.
    """

    severance: Severance
    summary: str
    reference: str


PRESETS = {
    "maskclip": Preset(
        Severance("self"),
        "each patch keeps its own value",
        "Zhou et al., Extract Free Dense Labels from CLIP, ECCV 2022",
    ),
    "sclip": Preset(
        Severance("similar", similarity="qk", gain=2.0, class_key=True),
        "attention of queries to queries plus keys to keys",
        "Wang et al., SCLIP: Rethinking Self-Attention for Dense Vision-Language Inference, ECCV 2024",
    ),
    "clearclip": Preset(
        Severance("similar", residual=0.0, similarity="q", mlp=False, class_key=True),
        "attention of queries to queries, without residual and MLP",
        "Lan et al., ClearCLIP: Decomposing CLIP Representations for Dense Vision-Language Inference, ECCV 2024",
    ),
    "naclip": Preset(
        Severance("similar", residual=0.0, similarity="k", neighbours=5.0, mlp=False, class_key=True),
        "attention of keys to keys with a preference for neighbours, without residual and MLP",
        "Hajimiri et al., Pay Attention to Your Neighbours: Training-Free Open-Vocabulary Semantic Segmentation, "
        "WACV 2025",
    ),
    "corrclip": Preset(
        Severance("region", residual=0.0, mlp=False),
        "the average over the masks that a patch is in, without residual and MLP; its form without a second network",
        "Zhang et al., CorrCLIP: Reconstructing Patch Correlations in CLIP for Open-Vocabulary Semantic Segmentation, "
        "ICCV 2025",
    ),
    "corrclip-proxy": Preset(
        Severance("region", residual=0.0, similarity="proxy", mlp=False, sharpness=4.0, uncovered="similar", merge=0.2),
        "as corrclip, weighted by the similarity of a second network's features (--proxy)",
        "Zhang et al., CorrCLIP: Reconstructing Patch Correlations in CLIP for Open-Vocabulary Semantic Segmentation, "
        "ICCV 2025",
    ),
    "proxyclip": Preset(
        Severance("similar", residual=0.0, similarity="proxy", mlp=False, sharpness=3.0, shift=1.2),
        "attention by the similarity of a second network's features (--proxy), without residual and MLP",
        "Lan et al., ProxyCLIP: Proxy Attention Improves CLIP for Open-Vocabulary Segmentation, ECCV 2024",
    ),
    "trident": Preset(
        Severance("similar", residual=0.0, similarity="proxy", mlp=False, sharpness=3.0, shift=1.2),
        "its first stage, whose attention is that of proxyclip; combine it with windows",
        "Shi et al., Harnessing Vision Foundation Models for High-Performance, Training-Free Open Vocabulary "
        "Segmentation, ICCV 2025",
    ),
}
"""Name -> published method."""


def _change(name: str, change: str) -> tuple[str, Any]:
    """One "field=value" as a field and its value.

    Raises:
        SettingError: an unknown field, or a value of the wrong type.
    """
    field, equals, text = change.partition("=")
    default = getattr(Severance(), field, None)
    if not equals or field == "kind" or field not in {entry.name for entry in fields(Severance)}:
        known = ", ".join(entry.name for entry in fields(Severance) if entry.name != "kind")
        raise SettingError(f"{change!r} after severance {name!r} is not a field and its value: the fields are {known}")
    try:
        if isinstance(default, bool):
            return field, {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}[text.lower()]
        if isinstance(default, tuple):
            return field, tuple(int(part) for part in text.replace("/", " ").split())
        if isinstance(default, float):
            parts = [float(part) for part in text.replace("/", " ").split()]
            return field, parts[0] if len(parts) == 1 else tuple(parts)
    except (KeyError, ValueError, IndexError):
        kind = "yes or no" if isinstance(default, bool) else "a number, or several joined by /"
        raise SettingError(f"{change!r} after severance {name!r}: expected {kind}") from None
    return field, text


def _text(value: Any) -> str:
    """A value as ``_change`` reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "/".join(map(_text, value))
    return value if isinstance(value, str) else f"{value:g}"
