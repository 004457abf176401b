"""Severance as a value: where and how an encoder's attention is severed (docs/method.md §3). Needs no torch."""

from dataclasses import dataclass, replace
from typing import Any

from deop.errors import SettingError

KINDS = ("none", "self", "gate", "gate-normalized", "affinity", "affinity-normalized")
CLASS_TOKEN = ("ordinary", "severed")


@dataclass(frozen=True)
class Severance:
    """Where and how attention is severed.

    Attributes:
        kind: the result of attention before the output projection. With v_l the value of token l and M_{n,l} the
            probability that proposal n covers patch l:

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
            * ``affinity-normalized``: the rows of M^T M are divided by their sum instead of a softmax, without the
              class token. Unlike ``affinity``, a patch receives the average value of the patches that it shares
              proposals with, for any N; a patch without a proposal keeps its own value. Needs no L x L matrix.
        layers: severed blocks, counted from 0, or from the end if negative. Released model: the last block.
        residual: weight of the residual stream in a severed block, x <- residual * x + attention(x); one number, or
            one per layer. 1.0 in the original, but 0.2 in the last block of its tower without learned positions.
        class_token: "ordinary": in severed blocks the class token still attends to all tokens, with a residual weight
            of 1; where only the last block is severed, the image embedding is therefore CLIP's own. "severed": the
            class token is mixed as described above, as in the original and in checkpoints converted from it. The
            choice affects patch features only in ordinary blocks after a severed one, and with ``affinity`` in more
            than one block.

    Raises:
        SettingError: an unknown kind, or layers and residual weights that do not fit together.

    >>> Severance("self", layers=(-2, -1), residual=0.2).residuals(12)
    {10: 0.2, 11: 0.2}
    """

    kind: str = "none"
    layers: tuple[int, ...] = (-1,)
    residual: float | tuple[float, ...] = 1.0
    class_token: str = "ordinary"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingError(f"unknown severance {self.kind!r}: choose one of {', '.join(KINDS)}")
        if self.class_token not in CLASS_TOKEN:
            raise SettingError(f"unknown class_token {self.class_token!r}: choose one of {', '.join(CLASS_TOKEN)}")
        if isinstance(self.layers, int | str):
            raise SettingError(f"severed layers must be a list of integers such as (-1,), not {self.layers!r}")
        object.__setattr__(self, "layers", tuple(self.layers))
        if isinstance(self.residual, (list, tuple)):
            object.__setattr__(self, "residual", tuple(self.residual))
            if len(self.residual) != len(self.layers):
                raise SettingError(
                    f"{len(self.residual)} residual weights for {len(self.layers)} severed layers: give one number, or "
                    "one for each layer"
                )

    @classmethod
    def parse(cls, value: "str | Severance | None", default: "Severance | None" = None) -> "Severance":
        """Convert what a user gives: a kind, a ``Severance``, or None for ``default``.

        A kind alone keeps all other fields of ``default``.

        >>> Severance.parse("gate", Severance("self", layers=(3,))).layers
        (3,)
        """
        default = default or cls()
        if value is None:
            return default
        if isinstance(value, cls):
            return value
        return replace(default, kind=str(value))

    @property
    def needs_masks(self) -> bool:
        """Whether the encoder needs masks."""
        return self.kind not in ("none", "self")

    def record(self) -> dict[str, Any]:
        """What a result reports: the kind, the severed layers and the residual weight."""
        if self.kind == "none":
            return {"severance": "none", "severed_layers": [], "residual": None}
        return {"severance": self.kind, "severed_layers": list(self.layers), "residual": self.residual}

    def residuals(self, depth: int) -> dict[int, float]:
        """Index of each severed block -> weight of its residual stream.

        Args:
            depth: blocks of the encoder.

        Raises:
            SettingError: a layer that the encoder does not have.
        """
        if self.kind == "none":
            return {}
        weights = self.residual if isinstance(self.residual, tuple) else (self.residual,) * len(self.layers)
        severed = {}
        for layer, weight in zip(self.layers, weights, strict=True):
            if not -depth <= layer < depth:
                raise SettingError(f"cannot sever layer {layer}: the encoder has layers 0 to {depth - 1}")
            severed[layer % depth] = float(weight)
        return severed
