"""Segment-anything models as proposers: a grid of points, three masks per point, filtered by quality."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from deop.errors import CheckpointError, SettingError
from deop.images.preprocessing import IMAGENET, Normalization
from deop.networks.loading import list_some, read_normalization
from deop.networks.pretrained import build_network, config_of, load_network
from deop.proposals.filtering import drop_small_regions, keep_first
from deop.proposals.frames import place_in_frame, shape_in_frame
from deop.proposals.types import Proposals

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Published folders of SAM 2, SAM 2.1 and SAM 3 contain the configuration of the video model; these classes read the
# part of it that segments images. SAM 3's detector, which is prompted with names, is not used.
CLASSES = {
    "sam": "SamModel",
    "sam2": "Sam2Model",
    "sam2_video": "Sam2Model",
    "sam3_tracker": "Sam3TrackerModel",
    "sam3_tracker_video": "Sam3TrackerModel",
    "sam3_video": "Sam3TrackerModel",
}
"""Supported model types of transformers -> the class that loads them."""

HALVES = Normalization((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
"""SAM 3's normalisation, for folders that do not say: pixels from -1 to 1."""


@dataclass(frozen=True)
class SamSettings:
    """How masks are generated and filtered. The defaults are those of docs/method.md §12 and of SAM.

    Attributes:
        points_per_side: points per side of the grid.
        points_per_batch: points processed together; affects only memory.
        min_iou: minimum predicted IoU of a mask, exclusive.
        min_stability: minimum IoU of the areas of a mask at logit 1 and -1, in [0, 1], exclusive.
        box_iou: of masks whose boxes have a higher IoU than this, the one with the highest predicted IoU is kept.
        min_region_area: connected regions and holes below this area are removed, in pixels of the network input; 0:
            none.

    Raises:
        SettingError: fewer than one point.
    """

    points_per_side: int = 20
    points_per_batch: int = 64
    min_iou: float = 0.88
    min_stability: float = 0.95
    box_iou: float = 0.7
    min_region_area: int = 100

    def __post_init__(self) -> None:
        if self.points_per_side < 1 or self.points_per_batch < 1:
            raise SettingError(
                f"points_per_side ({self.points_per_side}) and points_per_batch ({self.points_per_batch}) "
                "must be at least 1"
            )


class SamProposer(nn.Module):
    """A SAM, SAM 2, SAM 2.1 or SAM 3 of transformers, prompted with a grid of points (docs/method.md §12).

    Args:
        network: ``SamModel``, ``Sam2Model`` or ``Sam3TrackerModel``.
        normalization: normalisation that its pixels need.
        settings: how masks are generated and filtered.
    """

    kind = "sam"
    masks_are_instances = False
    """Each point proposes a thing, a part and a part of the part, which all get the name of the thing: a cat, its head
    and its ear would be three cats. It may be set to True for settings that only leave masks of whole things."""

    def __init__(
        self, network: "PreTrainedModel", normalization: Normalization, settings: SamSettings | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.normalization = normalization
        self.settings = settings or SamSettings()
        self.train(network.training)  # loaded networks are in evaluation mode
        # SAM pads the photo to a square frame; SAM 2 and SAM 3 stretch it to the frame.
        self.keeps_shape = network.config.model_type == "sam"
        config = network.config
        size = config.vision_config.image_size if self.keeps_shape else config.prompt_encoder_config.image_size
        self.frame = size if isinstance(size, int) else size[0]

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> list[Proposals]:
        """Propose masks.

        Args:
            pixels: (B, 3, H, W) float, normalised with ``self.normalization`` and padded.

        Returns:
            One ``Proposals`` per image with all masks that pass the settings, highest predicted IoU first: float32
            logits at the resolution of the model's masks (a quarter of its frame; for SAM 3 two sevenths), without
            slots; scores = predicted IoU.
        """
        return [self._propose(image) for image in pixels]

    def _propose(self, image: Tensor) -> Proposals:
        height, width = image.shape[-2:]
        rows, columns = self._shape_in_frame(height, width)
        masks, scores = [], []
        for logits, ious in self._predict(image, rows, columns):
            good = (ious > self.settings.min_iou) & (stability(logits) > self.settings.min_stability)
            masks.append(logits[good])
            scores.append(ious[good])
        logits, ious = torch.cat(masks), torch.cat(scores)
        kept = _distinct(logits, ious, self.settings.box_iou)
        logits, ious = logits[kept], ious[kept]
        cell = height * width / (logits.shape[-2] * logits.shape[-1])
        if self.settings.min_region_area > 0 and len(logits):
            logits, ious = self._without_small_regions(logits, ious, self.settings.min_region_area / cell)
        return Proposals(logits, scores=ious.clamp(0, 1))

    def _shape_in_frame(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the image in the frame; multiples of 4, so that cells of the masks end with the image."""
        if not self.keeps_shape:
            return self.frame, self.frame
        return shape_in_frame(height, width, self.frame, 4)

    def _predict(self, image: Tensor, rows: int, columns: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Mask logits (3 * points, h, w) float32 and predicted IoU (3 * points,) of one batch of points at a time."""
        dtype = self.network.dtype
        framed = place_in_frame(image[None], rows, columns, self.frame)
        network: Any = self.network
        embeddings = network.get_image_embeddings(framed.to(dtype))
        side = self.settings.points_per_side
        steps = (torch.arange(side, device=image.device) + 0.5) / side
        points = torch.cartesian_prod(steps, steps).flip(1) * torch.tensor([columns, rows], device=image.device)
        for batch in points.split(self.settings.points_per_batch):
            output = network(
                image_embeddings=embeddings, input_points=batch[None, :, None].to(dtype), multimask_output=True
            )
            logits = output.pred_masks.flatten(0, 2).float()
            inside = (rows * logits.shape[-2] // self.frame, columns * logits.shape[-1] // self.frame)
            yield logits[:, : inside[0], : inside[1]], output.iou_scores.flatten().float()

    def _without_small_regions(self, logits: Tensor, ious: Tensor, min_area: float) -> tuple[Tensor, Tensor]:
        """Flip the cells of small regions and holes; of masks that become duplicates, unchanged ones are preferred.

        Returns:
            The logits (M, h, w) and predicted IoU (M,) of the masks that remain.
        """
        masks = logits > 0
        cleaned = torch.stack([torch.from_numpy(drop_small_regions(m.cpu().numpy(), min_area)) for m in masks])
        changed = cleaned.to(masks.device) != masks
        logits = torch.where(changed, -logits, logits)
        unchanged = ~changed.flatten(1).any(1)
        kept = _distinct(logits, unchanged.float(), self.settings.box_iou)
        return logits[kept], ious[kept]

    @classmethod
    def from_folder(cls, folder: str | Path, *, settings: SamSettings | None = None) -> "SamProposer":
        """Load a model from a folder in the hub's layout, in evaluation mode, as float32 on the CPU.

        Args:
            folder: a folder with config.json and safetensors weights, for example from ``deop.weights.hub.fetch``.
            settings: how masks are generated and filtered.

        Raises:
            CheckpointError: another type of model, or weights that are pickled or incomplete.
            MissingDependencyError: transformers is too old for the model.
        """
        path = Path(folder)
        network = load_network(path, CLASSES)
        usual = HALVES if network.config.model_type.startswith("sam3") else IMAGENET
        return cls(network, read_normalization(path, usual), settings)

    def config_dict(self) -> dict[str, Any]:
        """The configuration as JSON-compatible values; ``from_config`` reads it."""
        return {
            "network": config_of(self.network),
            "normalization": asdict(self.normalization),
            "settings": asdict(self.settings),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "SamProposer":
        """Create a proposer with random weights, in evaluation mode, from the values of ``config_dict``.

        Raises:
            CheckpointError: unknown or missing entries, or another type of model.
            MissingDependencyError: transformers is too old for the model.
        """
        if differing := sorted(set(config) ^ {"network", "normalization", "settings"}):
            raise CheckpointError(f"unknown or missing entries in the proposer's configuration: {list_some(differing)}")
        if unknown := sorted(set(config["settings"]) - set(SamSettings.__dataclass_fields__)):
            raise CheckpointError(f"unknown SAM settings: {list_some(unknown)}")
        network = build_network(config["network"], CLASSES)
        return cls(network, Normalization(**config["normalization"]), SamSettings(**config["settings"]))


def stability(logits: Tensor) -> Tensor:
    """Stability of masks under a change of the threshold: area at logit > 1 divided by area at logit > -1.

    Args:
        logits: (N, h, w) float.

    Returns:
        (N,) float32 in [0, 1]; 0 for a mask that is empty at both thresholds.
    """
    inner = (logits > 1).flatten(1).sum(1)
    outer = (logits > -1).flatten(1).sum(1)
    return inner / outer.clamp_min(1)


def _distinct(logits: Tensor, scores: Tensor, limit: float) -> Tensor:
    """Indices (M,) of non-empty masks by descending score, without those whose box overlaps a better one's too much."""
    masks = logits > 0
    nonempty = masks.flatten(1).any(1)
    boxes = mask_boxes(masks)
    order = [i for i in scores.argsort(descending=True, stable=True).tolist() if nonempty[i]]
    kept = keep_first(order, (box_iou(boxes) > limit).cpu().numpy())
    return torch.tensor(kept, dtype=torch.long, device=logits.device)


def mask_boxes(masks: Tensor) -> Tensor:
    """Tight boxes of masks (N, h, w) bool: (N, 4) float32 x0, y0, x1, y1, right and bottom exclusive; 0 if empty."""
    spans = []
    for cells in (masks.any(1), masks.any(2)):  # columns, rows
        positions = torch.arange(cells.shape[1], device=masks.device)
        end = (cells * (positions + 1)).amax(1)
        start = torch.where(cells, positions, cells.shape[1]).amin(1)
        spans.append((start.minimum(end), end))
    (left, right), (top, bottom) = spans
    return torch.stack([left, top, right, bottom], dim=1).float()


def box_iou(boxes: Tensor) -> Tensor:
    """IoU of all pairs of boxes (N, 4) float x0, y0, x1, y1: (N, N)."""
    corner = torch.maximum(boxes[:, None, :2], boxes[:, :2])
    shared = (torch.minimum(boxes[:, None, 2:], boxes[:, 2:]) - corner).clamp_min(0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return shared / (area[:, None] + area - shared).clamp_min(1e-9)
