"""Settings and description of a model, stored with its weights."""

from dataclasses import dataclass, field

from deop.arguments import check_fields
from deop.errors import SettingError
from deop.images.preprocessing import Resize
from deop.severance import TRAINING_FREE, Severance
from deop.text.calibration import Calibration

ANCHORS = ("decoder", "pool", "tokens", "attention-pool", "patch")
"""Ways to compute region embeddings, or the classes of regions."""

PARTITIONS = ("none", "score")
"""What happens to pixels that several masks cover."""

TEMPERATURE = 100.0
"""Factor of cosine similarities: the original's constant. CLIP's learned scale is not used."""


@dataclass(frozen=True)
class Settings:
    """Default behaviour of a model; arguments of ``DeOP.segment`` override it.

    Attributes:
        resize: size of a photo at the input of the networks.
        severance: where and how the encoder's attention is severed. The default is for encoders that were not trained
            for it (docs/method.md §12).
        templates: name of a template set, or templates with ``{}`` (docs/method.md §4); unused with a learned prompt.
        temperature: factor of cosine similarities.
        anchors: how regions are embedded. "decoder": by the anchor decoder of the model. "pool": as the mean feature of
            the mask. "tokens": as that mean plus ``token_weight`` times the embedding of a token that attends to the
            mask in every block. "attention-pool": by the encoder's pooling head restricted to the mask (SigLIP).
            "patch": every patch is classified by itself, and the patches of a mask vote.
        normalize_patches: L2-normalise patch features before mask pooling; the decoder always receives normalised ones.
        drop_redundant: drop empty and duplicate proposals (``proposals.filtering``); ignored if anchor queries are tied
            to slots, since these attend to each other.
        padding: "outside": padding at the bottom and the right is ignored; "inside": it is encoded like image content,
            as in the original.
        threshold: minimum score of a pixel or a segment, in [0, 1]; below it the result is -1, none of the names.
        calibration: calibration of the scores.
        claim: pixels whose mask probabilities add up to no more than this are -1. 0 in the original.
        smallest_region: share of the photo, in [0, 1); smaller connected regions in semantic and panoptic maps get the
            label of their surroundings (``labelling.small_regions``). 0, as in the original: no change.
        smallest_thing: share of the photo, in [0, 1). If the proposer's masks are not instances
            (``Proposer.masks_are_instances``), the things of panoptic and instance mode are the connected pieces of the
            semantic map; pieces smaller than this get the label of their surroundings. Chosen by
            ``benchmarks/smallest_thing.py``.
        thing_score: if the proposer's masks are not instances, things with a lower score, in [0, 1], are no segments of
            panoptic mode; instance mode has them, with their score.
        token_weight: weight of the token's embedding with ``anchors="tokens"``; CorrCLIP's is 0.5.
        windows: (size, stride) in pixels: encode windows of the size that the encoder was trained for, and join them
            before the severed block (docs/method.md §3, "Windows"); None: the whole photo.
        partition: what happens to pixels that several masks cover. "none": the masks overlap, and all of them count.
            "score": each pixel belongs to the mask with the highest score, except that a small mask keeps its pixels
            inside a larger one (``proposals.partition``).
        prior: weight, in [0, 1], of the proposer's own class scores for the requested names that it was trained with;
            the sum of their probabilities does not change, so that other names keep theirs (docs/method.md §6). 0: its
            classes are ignored. Needs torch.
        logit_bias: the score of each name is sigmoid(temperature * cosine + this), independent of the other names, as
            SigLIP was trained; None: softmax over the names.

    Raises:
        SettingError: a value out of range.
    """

    resize: Resize = field(default_factory=Resize)
    severance: Severance = field(default_factory=lambda: TRAINING_FREE)
    templates: str | tuple[str, ...] = "vild"
    temperature: float = TEMPERATURE
    anchors: str = "pool"
    normalize_patches: bool = False
    drop_redundant: bool = True
    padding: str = "outside"
    threshold: float = 0.0
    calibration: Calibration = field(default_factory=Calibration)
    claim: float = 0.0
    smallest_region: float = 0.0
    smallest_thing: float = 0.005
    thing_score: float = 0.0
    token_weight: float = 0.5
    windows: tuple[int, int] | None = None
    partition: str = "none"
    prior: float = 0.0
    logit_bias: float | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.anchors not in ANCHORS:
            raise SettingError(f"unknown anchors {self.anchors!r}: choose one of {', '.join(ANCHORS)}")
        if not 0 <= self.token_weight < float("inf"):
            raise SettingError(f"token_weight must be a number of 0 or more, not {self.token_weight}")
        if self.windows is not None:
            sides = tuple(self.windows)
            if not 0 < sides[1] <= sides[0]:
                raise SettingError(
                    f"windows are {self.windows}: give their side and their distance in pixels, such as (336, 224); "
                    "the distance is at most the side"
                )
            object.__setattr__(self, "windows", sides)
        if self.partition not in PARTITIONS:
            raise SettingError(f"unknown partition {self.partition!r}: choose {' or '.join(PARTITIONS)}")
        if not 0 <= self.prior <= 1:
            raise SettingError(f"prior {self.prior} is not in [0, 1]")
        if self.padding not in ("outside", "inside"):
            raise SettingError(f"unknown padding {self.padding!r}: choose 'outside' or 'inside'")
        if not 0 <= self.threshold <= 1:
            raise SettingError(f"threshold {self.threshold} is not in [0, 1]")
        if not 0 <= self.smallest_region < 1:
            raise SettingError(f"smallest_region {self.smallest_region} is not in [0, 1)")
        if not 0 <= self.smallest_thing < 1:
            raise SettingError(f"smallest_thing {self.smallest_thing} is not in [0, 1)")
        if not 0 <= self.thing_score <= 1:
            raise SettingError(f"thing_score {self.thing_score} is not in [0, 1]")
        if not 0 < self.temperature < float("inf"):
            raise SettingError(f"temperature must be a positive number, not {self.temperature}")
        if self.logit_bias is not None and not abs(self.logit_bias) < float("inf"):
            raise SettingError(f"logit_bias must be a finite number or None, not {self.logit_bias}")
        if not self.claim >= 0:
            raise SettingError(f"claim must be at least 0, not {self.claim}")
        if not isinstance(self.templates, str):
            object.__setattr__(self, "templates", tuple(self.templates))


@dataclass(frozen=True)
class Card:
    """Description of a model.

    Attributes:
        name: name of the model.
        license: of the weights, as SPDX identifiers; one per part if they differ.
        source: origin of the weights: hub repos with revisions, or the file that was converted.
        training_data: data that the model was trained on.
        scores: measured scores, and the photos they were measured on.
    """

    name: str = ""
    license: str = "unknown"
    source: str = ""
    training_data: str = ""
    scores: str = ""
