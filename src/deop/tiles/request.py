"""The arguments of a call, checked before an image is read, and what follows from them."""

from collections.abc import Mapping, Sequence
from typing import Any

from deop.batch.settings import model_facts
from deop.errors import SettingError
from deop.images.preprocessing import Resize, resized_shape
from deop.labelling.assembly import limits_of
from deop.labelling.masks import SemanticRule
from deop.labelling.result import raw_limits
from deop.model_names import Names
from deop.results.checks import check_request
from deop.settings import Settings
from deop.surface import ModelSurface
from deop.text.thresholds import Thresholds, ThresholdValue
from deop.text.vocabulary import Vocabulary
from deop.tiles.plan import OVERLAP, TilePlan, TileSize, check_tiles, parse_tiles, plan_tiles
from deop.tiles.scenes import Scene

CONTEXT = 0.15
"""Automatic weight of the coarse view of a photo. ``benchmarks/tiles.py``: it helps where the image is one scene."""
MAX_REDUCTION = 16
"""How much larger than the network input an image may be to have a coarse view by default; beyond, it shows little."""
TILE_SHARE = 1.0
"""Automatic tile size as a multiple of the shorter side of the network input, chosen by benchmarks/tiles.py."""
INPUT = 512
"""Shorter side of the network input that is assumed for a model that does not resize photos."""
_MULTIPLE = 32  # of the automatic tile size


def auto_size(shape: tuple[int, int], resize: Resize) -> int:
    """The automatic tile size for an image (H, W): the image itself, if it is not much larger than a tile."""
    side = (resize.short_side or INPUT) * TILE_SHARE
    size = max(_MULTIPLE, round(side / _MULTIPLE) * _MULTIPLE)
    longest = max(shape)
    return longest if longest <= size else size


def coarse_side(shape: tuple[int, int], resize: Resize) -> int:
    """Longer side of the coarse copy of an image: twice that of the network input, which is resized from it."""
    chosen = resize if resize.short_side is not None else Resize(short_side=INPUT)
    return 2 * max(resized_shape(*shape, chosen))


def rule_of(model_settings: Settings, vocabulary: Vocabulary, thresholds: Sequence[float]) -> SemanticRule:
    """Which pixels get no name, by the settings of a model."""
    limits = limits_of(raw_limits(vocabulary, model_settings, thresholds), len(vocabulary.names))
    rest = -1 if vocabulary.everything_else is None else vocabulary.everything_else
    return SemanticRule(limits, model_settings.claim, rest)


class Request:
    """The arguments of a call, checked before an image is read."""

    def __init__(
        self,
        model: ModelSurface,
        names: Names | None,
        tiles: TileSize,
        window: str,
        context: float | None,
        threshold: ThresholdValue,
        background: Sequence[str] | str,
        templates: str | Sequence[str] | None,
        batch: int,
        options: Mapping[str, Any],
    ) -> None:
        check_request("semantic", batch)
        self._tiles = parse_tiles(tiles)
        check_tiles(1024, 0, window)
        if context is not None and (
            isinstance(context, bool) or not isinstance(context, int | float) or not 0 <= context < 1
        ):
            raise SettingError(f"context must be a number in [0, 1), not {context!r}")
        if wrong := set(options) - {"severance", "anchors", "bank", "bank_weight"}:
            raise SettingError(f"segment_tiles has no option {sorted(wrong)[0]!r}: omit it")
        examples = {key: options[key] for key in ("bank", "bank_weight") if key in options}
        self.options = {key: value for key, value in options.items() if key not in examples}
        self.model, self.batch = model, batch
        self.window, self._context = window, context
        thresholds = Thresholds.parse(threshold)
        self.vocabulary = model.vocabulary(names, background=background, templates=templates, **examples)
        limits = thresholds.values(self.vocabulary, model.settings.threshold)
        self._threshold_record = thresholds.record(model.settings.threshold)
        self.rule = rule_of(model.settings, self.vocabulary, limits)
        self.classes = model.embed(self.vocabulary)

    def plan(self, scene: Scene) -> tuple[TilePlan, float]:
        """The tiles of an image, and the weight of its coarse view."""
        resize = self.model.settings.resize
        if self._tiles is None:
            size = auto_size(scene.shape, resize)
            plan = plan_tiles(scene.shape, size, round(size * OVERLAP), self.window)
        else:
            plan = plan_tiles(scene.shape, *self._tiles, self.window)
        if self._context is not None:
            return plan, float(self._context)
        is_scene = scene.georeference is None and min(scene.shape) <= MAX_REDUCTION * (resize.short_side or INPUT)
        return plan, CONTEXT if is_scene else 0.0

    def smallest_region(self, plan: TilePlan) -> float:
        """Regions of fewer pixels get the label of their surroundings: the model's share, of a tile."""
        return self.model.settings.smallest_region * plan.rows.tile * plan.columns.tile

    def description(self, plan: TilePlan, context: float) -> dict[str, Any]:
        """How a label map is made, as JSON values."""
        return {
            "tiles": [plan.size, plan.overlap],
            "window": self.window,
            "context": context,
            "threshold": self._threshold_record,
            "synonyms": [list(texts) for texts in self.vocabulary.synonyms],
            "background": list(self.vocabulary.background),
            **self.model.record_of_bank(self.vocabulary),
        }

    def record(self, plan: TilePlan, context: float) -> dict[str, Any]:
        """Everything that the label map depends on beside the image, as JSON values."""
        return {
            **model_facts(self.model, self.vocabulary, self.classes),
            "options": {key: str(value) for key, value in self.options.items() if value is not None},
            **self.description(plan, context),
        }
