"""How a model is used and what it is: values that travel with its weights."""

from dataclasses import dataclass, field

from deop.encoders.severance import Severance
from deop.errors import SettingError
from deop.images.preprocessing import Resize
from deop.text.calibration import Calibration

ANCHORS = ("decoder", "pool")

TEMPERATURE = 100.0
"""Factor of the cosine similarities; the original's constant (CLIP's learned scale is not used)."""


@dataclass(frozen=True)
class Settings:
    """How a model is used when nothing else is asked for.

    Attributes:
        resize: the size at which the networks see a photo.
        severance: where and how the encoder's attention is severed. The default is METHOD section 12's.
        templates: name of a template set, or templates with ``{}`` (METHOD section 4); unused with a learned prompt.
        temperature: what cosine similarities are multiplied by.
        anchors: "decoder" or "pool"; the decoder needs one in the model.
        normalize_patches: patch features are L2-normalised before mask pooling; the decoder always has them so.
        drop_redundant: empty and duplicate proposals of the proposer are dropped (``proposals.filtering``); never
            where anchor queries are tied to slots, which attend to each other, also to the dropped.
        padding: "outside": padding at the bottom and the right takes no part; "inside": the encoder takes it for image,
            as the original does.
        threshold: least score of a pixel or a segment; below it: none of the names.
        calibration: what is known of the scores.
        claim: pixels whose masks add up to no more than this are claimed by nobody: -1. The original has 0.
        smallest_region: share of the photo, in [0, 1): smaller stretches of one name, or of none, in semantic and
            panoptic maps are given to what surrounds them (``islands``). 0, as the original: all stay.
    """

    resize: Resize = field(default_factory=Resize)
    severance: Severance = field(default_factory=lambda: Severance("self", residual=0.2))
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

    def __post_init__(self) -> None:
        if self.anchors not in ANCHORS:
            raise SettingError(f"unknown anchors {self.anchors!r}: choose one of {', '.join(ANCHORS)}")
        if self.padding not in ("outside", "inside"):
            raise SettingError(f"unknown padding {self.padding!r}: 'outside' or 'inside'")
        if not 0 <= self.smallest_region < 1:
            raise SettingError(f"smallest_region {self.smallest_region} is no share of a photo: give one in [0, 1)")
        if not isinstance(self.templates, str):
            object.__setattr__(self, "templates", tuple(self.templates))


@dataclass(frozen=True)
class Card:
    """What a model is and where it comes from.

    Attributes:
        name: what people call it.
        license: of the weights: SPDX identifiers, one a part where they differ.
        source: where the weights come from: hub repos with revisions, or the file that was converted.
        training_data: what they were trained on.
        scores: what they reach, on which photos.
    """

    name: str = ""
    license: str = "unknown"
    source: str = ""
    training_data: str = ""
    scores: str = ""
