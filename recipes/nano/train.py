"""Train the small model: trunk, encoder and proposals, end to end.

    python recipes/nano/train.py --data DATA --pack PACK --out OUT [key=value ...]

PACK holds the trunk's weights (``lite2.safetensors``) and the vectors of names (``names.npz``); see NOTES.md.
"""

import argparse
import copy
import json
import math
import random
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "src")]
import measure  # noqa: E402
from losses import coverage_of, cross_entropy, divide_loss, pool, similarity  # noqa: E402
from text_table import read_lists  # noqa: E402

import data  # noqa: E402
from deop.encoders.efficientnet import EfficientNetLite, SharedTrunk  # noqa: E402
from deop.encoders.nano import NanoConfig, NanoEncoder, confident  # noqa: E402
from deop.encoders.severance import Severance  # noqa: E402
from deop.proposals.nano import NanoProposer, NanoProposerConfig  # noqa: E402

HERE = Path(__file__).parent
SEGMENTS = 40  # segments a crop that are trained on


@dataclass
class Settings:
    """What can be set on the command line."""

    seed: int = 0
    steps: int = 3000
    seconds: float = 1e9  # the schedule is shortened to fit
    crop: int = 512
    short: int = 512  # the photo's shorter side at scale 1, and in evaluation
    coco: int = 12
    camvid: int = 4
    mosaics: int = 2
    singles: int = 16
    rate: float = 8e-4
    trunk_rate: float = 2e-4
    decay: float = 0.05
    ema: float = 0.998
    low: float = 0.5
    high: float = 2.0
    paste: float = 0.5
    noise: float = 0.15
    alias: float = 0.4
    smooth: float = 0.05
    region: float = 1.0
    proposal: float = 0.7
    cell: float = 0.7
    tile: float = 0.5
    image: float = 0.2
    distil: float = 0.3
    divide: float = 1.0
    dropout: float = 0.1
    text_map: float = 0.0  # learning rate of a linear map of the text space, 0: none
    held_out: str = ""  # names not trained on, comma-separated
    tune: int = 0  # every n-th training photo is kept for tuning; 0: all are trained on
    validate: bool = False  # look at the validation photos at the end
    layers: int = 3
    residual: float = 0.2
    region_width: int = 256
    region_hidden: int = 512
    device: str = "cuda"
    benchmark: bool = False
    profile: bool = False
    save: str = "nano.safetensors"


class Names:
    """A vocabulary with its aliases as vectors."""

    def __init__(
        self, names: list[str], vectors: dict[str, Tensor], aliases: dict[str, list[str]], device: str
    ) -> None:
        self.names = names
        groups = [[name, *(alias for alias in aliases.get(name, []) if alias in vectors)] for name in names]
        longest = max(len(group) for group in groups)
        self.table = torch.stack(
            [torch.stack([vectors[group[index % len(group)]] for index in range(longest)]) for group in groups]
        ).to(device)  # (K, A, C), the name itself first

    def rows(self) -> Tensor:
        """(K, C), L2-normalised."""
        return F.normalize(self.table[:, 0], dim=-1)

    def sample(self, alias: float, noise: float) -> Tensor:
        """(K, C): now and then an alias in a name's place, and noise."""
        count, others, width = self.table.shape
        device = self.table.device
        pick = torch.randint(0, others, (count,), device=device)
        pick = torch.where(torch.rand(count, device=device) < alias, pick, 0)
        rows = F.normalize(self.table[torch.arange(count, device=device), pick], dim=-1)
        return F.normalize(rows + noise * width**-0.5 * torch.randn_like(rows), dim=-1)


class Nano(nn.Module):
    """All parts; the map of the text space, where there is one, is folded into the word table afterwards."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.trunk = SharedTrunk(EfficientNetLite())
        config = NanoConfig(
            layers=settings.layers,
            residual=settings.residual,
            region_width=settings.region_width,
            region_hidden=settings.region_hidden,
            dropout=settings.dropout,
        )
        self.encoder = NanoEncoder(config, self.trunk)
        self.proposer = NanoProposer(NanoProposerConfig(), self.trunk)
        self.text_map = nn.Parameter(torch.eye(config.text))

    def map_text(self, rows: Tensor) -> Tensor:
        """Names (K, C) into the joint space."""
        return F.normalize(rows @ self.text_map, dim=-1)


def parents(names: list[str], imagenet: list[str]) -> Tensor:
    """For each ImageNet class the index of the name that it is a kind of, or -1 (``parents.txt``)."""
    first = {}
    for index, name in enumerate(imagenet):
        first.setdefault(name, index)
    result = torch.full((len(imagenet),), -1)
    for parent, kinds in read_lists(HERE / "parents.txt").items():
        if parent not in names:
            continue
        for kind in kinds:
            low, _, high = kind.partition("..")
            if low not in first or (high and high not in first):
                raise SystemExit(f"parents.txt: no ImageNet class {kind!r}")
            start, stop = first[low], first[high or low] + 1
            # Some names occur twice, and a range may begin after its end for the second of them.
            result[start : max(stop, start + 1)] = names.index(parent)
    return result


def split_tuning(photos: data.Photos, every: int) -> tuple[data.Photos, data.Photos | None]:
    """Training photos, and each ``every``-th kept apart."""
    if not every:
        return photos, None
    kept = [index for index in range(len(photos)) if index % every != every - 1]
    apart = [index for index in range(len(photos)) if index % every == every - 1]
    return photos.take(kept), photos.take(apart)


def sampler(photos: data.Photos) -> Tensor:
    """Chances of photos: those with rare names come more often."""
    held = torch.stack([(photos.classes == value + 1).flatten(1).any(1) for value in range(len(photos.names))], 1)
    frequency = held.float().mean(0).clamp_min(1e-6)
    repeat = (0.1 / frequency).sqrt().clamp(1, 3)
    return torch.where(held, repeat, torch.ones_like(repeat)).amax(1)


def main() -> None:
    """Train, measure, save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    chosen = {}
    kinds = {field.name: type(field.default) for field in fields(Settings)}
    for pair in args.settings:
        key, _, value = pair.partition("=")
        chosen[key] = value == "True" if kinds[key] is bool else kinds[key](value)
    train(Settings(**chosen), args.data, args.pack, args.out)


def train(settings: Settings, folder: Path, pack: Path, out: Path) -> None:
    """One run."""
    device = settings.device
    torch.manual_seed(settings.seed)
    random.seed(settings.seed)
    torch.backends.cudnn.benchmark = settings.benchmark
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    amp = torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda")

    coco, coco_tune = split_tuning(data.load(folder / "coco-mini", "train", 640), settings.tune)
    camvid, camvid_tune = split_tuning(data.load(folder / "camvid-mini", "train", 480), settings.tune)
    imagenet, kinds = data.load_imagenet(folder / "imagenet-mini")
    stored = np.load(pack / "names.npz")
    vectors = dict(zip(stored["words"].tolist(), torch.from_numpy(stored["rows"]).float(), strict=True))
    aliases = read_lists(HERE / "aliases.txt")
    all_names = [Names(list(names), vectors, {}, device) for names in (coco.names, camvid.names)]
    forbidden = [name.strip() for name in settings.held_out.split(",") if name.strip()]
    unseen = torch.tensor([name in forbidden for name in coco.names], device=device)
    if int(unseen.sum()) != len(forbidden):
        raise SystemExit(f"not all of {forbidden} are names of the data set")
    coco = coco.without(forbidden)
    parent = parents(list(coco.names), kinds).to(device)
    vocabularies = [
        Names(list(names), vectors, aliases if number < 2 else {}, device)
        for number, names in enumerate((coco.names, camvid.names, kinds))
    ]
    coco, camvid, imagenet = coco.to(device), camvid.to(device), imagenet.to(device)
    chances = [sampler(coco), sampler(camvid)]

    weights = load_file(pack / "lite2.safetensors", device=device)
    model = Nano(settings).to(device)
    model.trunk.trunk.load_state_dict(
        {key.removeprefix("trunk."): value.float() for key, value in weights.items() if key.startswith("trunk.")}
    )
    teacher = copy.deepcopy(model.trunk.trunk).eval().requires_grad_(False)
    head = [weights[key].float() for key in ("head.weight", "head.bias", "classifier.weight", "classifier.bias")]
    ema = copy.deepcopy(model).eval().requires_grad_(False)

    trunk_ids = {id(parameter) for parameter in model.trunk.parameters()}
    groups = [
        {"params": list(model.trunk.parameters()), "lr": settings.trunk_rate, "weight_decay": 0.01},
        {
            "params": [
                p for p in model.parameters() if id(p) not in trunk_ids and p.ndim > 1 and p is not model.text_map
            ],
            "lr": settings.rate,
            "weight_decay": settings.decay,
        },
        {"params": [p for p in model.parameters() if id(p) not in trunk_ids and p.ndim < 2], "lr": settings.rate,
         "weight_decay": 0.0},
        {"params": [model.text_map], "lr": settings.text_map, "weight_decay": 0.0},
    ]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=device == "cuda")
    rates = [group["lr"] for group in groups]
    severed = model.encoder.severance
    log = (out / (settings.save.rsplit(".", 1)[0] + ".log")).open("w")

    def say(**values: object) -> None:
        line = json.dumps(
            {key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()}
        )
        print(settings.save, line, flush=True)
        print(line, file=log, flush=True)

    say(settings=asdict(settings), weights=sum(p.numel() for p in model.parameters()))
    start, step, progress = time.time(), 0, 0.0
    sums: dict[str, Tensor] = {}
    model.train()
    while progress < 1:
        progress = max(step / settings.steps, (time.time() - start) / settings.seconds)
        factor = min(1.0, (step + 1) / 150) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * factor
        losses = losses_of(
            model, teacher, head, settings, coco, camvid, imagenet, vocabularies, chances, parent, amp, severed
        )
        loss = sum(losses.values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        if settings.profile and step == 15:
            profile(
                lambda: losses_of(
                    model, teacher, head, settings, coco, camvid, imagenet, vocabularies, chances, parent, amp, severed
                )
            )
        keep = min(settings.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - keep)
        for key, value in {**losses, "norm": norm}.items():
            sums[key] = sums.get(key, 0) + value.detach()
        step += 1
        if step in (1, 2, 3, 5, 10):
            if device == "cuda":
                torch.cuda.synchronize()
            say(step=step, seconds=time.time() - start)
        if step in (20, 100) or step % 250 == 0:
            values = {key: float(value) for key, value in sums.items()}
            since = 20 if step == 20 else 80 if step == 100 else 150 if step == 250 else 250
            say(step=step, seconds=time.time() - start, **{key: value / since for key, value in values.items()})
            sums = {}
    say(step=step, seconds=time.time() - start, finished=True)
    state = {key: value.half().contiguous() for key, value in ema.state_dict().items()}
    state = {key: value for key, value in state.items() if not key.startswith(("encoder.trunk.", "proposer.trunk."))}
    save_file(state, out / settings.save, {"settings": json.dumps(asdict(settings))})
    torch.backends.cudnn.benchmark = False
    ema.trunk.forget()
    for which, sets in (("tune", (coco_tune, camvid_tune)), ("val", None)):
        if which == "val":
            if not settings.validate:
                continue
            sets = (data.load(folder / "coco-mini", "val", 640), data.load(folder / "camvid-mini", "val", 480))
        if sets[0] is not None:
            report(ema, sets, all_names, settings, unseen, which, say)
    say(total=time.time() - start)


def profile(make) -> None:  # type: ignore[no-untyped-def]
    """Where the time of a step goes."""
    for _ in range(1):
        times = []
        for _ in range(4):
            torch.cuda.synchronize()
            a = time.time()
            losses = make()
            torch.cuda.synchronize()
            b = time.time()
            sum(losses.values()).backward()
            torch.cuda.synchronize()
            times.append((round(b - a, 4), round(time.time() - b, 4)))
        print("forward, backward", times, flush=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as record:
        sum(make().values()).backward()
        torch.cuda.synchronize()
    table = record.key_averages()
    print(table.table(sort_by="self_cuda_time_total", row_limit=22, max_name_column_width=70))
    raise SystemExit


def losses_of(
    model: Nano,
    teacher: EfficientNetLite,
    head: list[Tensor],
    settings: Settings,
    coco: data.Photos,
    camvid: data.Photos,
    imagenet: Tensor,
    vocabularies: list[Names],
    chances: list[Tensor],
    parent: Tensor,
    amp: torch.autocast,
    severed: Severance,
) -> dict[str, Tensor]:
    """One batch and its losses."""
    device = settings.device
    parts = []
    for number, (photos, count) in enumerate(((coco, settings.coco), (camvid, settings.camvid))):
        rows = torch.multinomial(chances[number], count, replacement=count > len(photos))
        short = settings.short
        crop = data.warp(photos, rows, settings.crop, short, (settings.low, settings.high))
        if number == 0:
            crop = data.paste(*crop, coco.things, settings.paste)
        parts.append(crop)
    if settings.mosaics:
        parts.append(data.mosaic(imagenet, settings.mosaics, settings.crop))
    image, classes, segments = (torch.cat(values) for values in zip(*parts, strict=True))
    pixels = data.normalize(data.colour(image))
    classes = classes - 1
    labelled = settings.coco + settings.camvid
    numbers = renumbered = data.renumber(segments, SEGMENTS)
    if random.random() < 0.5:  # one region a name, as it is tested
        numbers = data.renumber((classes + 1).clamp_max(127), SEGMENTS)
        numbers[labelled:] = renumbered[labelled:]

    text = [model.map_text(names.sample(settings.alias, settings.noise)) for names in vocabularies]
    losses: dict[str, Tensor] = {}
    with amp:
        features = model.trunk(pixels)
        patches = encode(model.encoder, features, severed)[0]
        whole = encode(model.encoder, features, Severance(), cells=False)[1]
        outputs = model.proposer.divide([feature[:labelled] for feature in features])
        with torch.no_grad():
            old = teacher(pixels)[-1]
            hidden = F.relu6(F.conv2d(old, head[0][:, :, None, None], head[1]))

    # True regions.
    coverage = coverage_of(numbers, SEGMENTS, 8)
    regions = pool(patches, coverage)  # (B, S, C + 1)
    size = coverage.sum((2, 3))
    pixel_class = torch.zeros(len(image), SEGMENTS, dtype=torch.int64, device=device)
    flat = numbers.flatten(1)
    pixel_class.scatter_(1, flat.clamp_min(0), torch.where(flat >= 0, classes.flatten(1) + 1, 0))
    # A void pixel may have written segment 0's class: write those once more.
    pixel_class = fix_first(pixel_class, flat, classes.flatten(1)) - 1
    weight = ((size > 0.5) & (pixel_class >= 0)).float() * size.clamp_max(16).div(16).sqrt()
    bounds = (0, settings.coco, labelled, len(image))
    for number, key in enumerate(("region", "camvid_region", "tile")):
        rows = slice(bounds[number], bounds[number + 1])
        if bounds[number] == bounds[number + 1]:
            continue
        target = F.one_hot(pixel_class[rows].clamp_min(0), len(text[number])).float()
        loss = cross_entropy(similarity(regions[rows], text[number]), target, weight[rows], settings.smooth)
        if number == 2:
            above = parent[pixel_class[rows].clamp_min(0)]
            target = F.one_hot(above.clamp_min(0), len(text[0])).float()
            loss = loss + cross_entropy(
                similarity(regions[rows], text[0]), target, weight[rows] * (above >= 0), settings.smooth
            )
        losses[key] = loss * (
            settings.tile if number == 2 else settings.region if number == 0 else settings.region * 0.3
        )

    # What the ImageNet classifier sees in a region.
    coarse = F.avg_pool2d(coverage, 4)
    seen = torch.einsum("bnhw,bchw->bnc", coarse, hidden.float()) / coarse.sum((2, 3)).clamp_min(1e-4)[..., None]
    belief = (seen @ head[2].T + head[3]).softmax(-1)
    trust = weight * belief.amax(-1)
    losses["distil"] = settings.distil * cross_entropy(similarity(regions, text[2]), belief, trust)

    # Cells and proposals.
    cells = classes[:, 4::8, 4::8].flatten(1)
    for number, rows in enumerate((slice(0, settings.coco), slice(settings.coco, labelled))):
        own = patches[rows].flatten(2).mT
        logits = similarity(own, text[number])
        valid = (cells[rows] >= 0).float()
        frequency = F.one_hot(cells[rows].clamp_min(0), len(text[number])).float()
        amount = (frequency * valid[..., None]).sum((0, 1)).clamp_min(1)
        balance = valid * (1 + amount.mean() / amount.sqrt() / amount.mean().sqrt())[
            cells[rows].clamp_min(0)
        ].clamp_max(4)
        share = 1.0 if number == 0 else 0.5
        key = "cell" if number == 0 else "camvid_cell"
        losses[key] = settings.cell * share * cross_entropy(logits, frequency, balance, settings.smooth)

        division = outputs[-1][rows].detach().float().softmax(1)
        quarter = classes[rows, 2::4, 2::4]
        histogram = torch.einsum(
            "bqhw,bhwk->bqk",
            division.to(amp.fast_dtype if settings.device == "cuda" else torch.float32),
            (quarter[..., None] + 1 == torch.arange(len(text[number]) + 1, device=device)).to(
                amp.fast_dtype if settings.device == "cuda" else torch.float32
            ),
        ).float()
        total = histogram.sum(-1)
        inside = histogram[..., 1:]
        known = inside.sum(-1)
        wanted = inside / known.clamp_min(1e-3)[..., None]
        trust = ((known > 0.5 * total) & (total > 0.001 * quarter[0].numel())).float() * total.sqrt()
        logits = similarity(pool(patches[rows], F.avg_pool2d(division, 2)), text[number])
        key = "proposal" if number == 0 else "camvid_proposal"
        losses[key] = settings.proposal * share * cross_entropy(logits, wanted, trust, settings.smooth)

    # Whole photos, nothing severed: what the class token learns from.
    for number in range(3):
        rows = slice(bounds[number], bounds[number + 1])
        if bounds[number] < bounds[number + 1]:
            present = F.one_hot(pixel_class[rows].clamp_min(0), len(text[number])) * weight[rows][..., None]
            present = present.sum(1) / weight[rows].sum(1).clamp_min(1e-3)[:, None]
            sure = (weight[rows].sum(1) > 0).float()
            losses[f"image{number}"] = settings.image * cross_entropy(
                similarity(whole[rows], text[number]), present, sure
            )
    if settings.singles and random.random() < 0.25:
        chosen = torch.randint(0, len(imagenet), (settings.singles,), device=device)
        side = random.choice((160, 192, 224, 256))
        photo = F.interpolate(imagenet[chosen].float(), size=(side, side), mode="bilinear", align_corners=False)
        photo = torch.where(torch.rand(len(photo), 1, 1, 1, device=device) < 0.5, photo, photo.flip(-1))
        photo = data.normalize(data.colour(photo))
        with amp:
            whole = encode(model.encoder, model.trunk(photo), Severance())[1]
            with torch.no_grad():
                hidden = F.relu6(F.conv2d(teacher(photo)[-1], head[0][:, :, None, None], head[1])).mean((2, 3))
        belief = (hidden.float() @ head[2].T + head[3]).softmax(-1)
        target = 0.5 * belief + 0.5 * F.one_hot(chosen, 1000)
        one = torch.ones(len(whole), device=device)
        losses["single"] = 2 * settings.image * cross_entropy(similarity(whole, text[2]), target, one)

    # Masks last: matching waits for the device.
    divide, _ = divide_loss(outputs, renumbered[:labelled], SEGMENTS)
    losses["divide"] = settings.divide * divide * 0.5
    return losses


def fix_first(table: Tensor, numbers: Tensor, classes: Tensor) -> Tensor:
    """The class (+ 1) of region 0 anew: the largest class index among its own pixels."""
    own = torch.where(numbers == 0, classes + 1, 0)
    table = table.clone()
    table[:, 0] = own.amax(1)
    return table


def encode(
    encoder: NanoEncoder, features: list[Tensor], severance: Severance, cells: bool = True
) -> tuple[Tensor, Tensor]:
    """The encoder on features that are there already: patches and images."""
    residuals = severance.residuals(len(encoder.blocks))
    x = encoder.tokens(features)
    for index, block in enumerate(encoder.blocks):
        x = block(x, None, (lambda values: values) if index in residuals else None, residuals.get(index, 1.0))
    if not cells:
        return x, confident(encoder.projection(encoder.norm(x[:, 0])))
    image, patches = encoder.finish(x, features)
    return confident(patches), confident(image)


def report(
    model: Nano,
    sets: tuple[data.Photos, ...],
    vocabularies: list[Names],
    settings: Settings,
    unseen: Tensor,
    which: str,
    say,
) -> None:  # type: ignore[no-untyped-def]
    """All figures of a split."""
    device = settings.device
    with torch.inference_mode():
        text = [model.map_text(names.rows()) for names in vocabularies]
    ready = [measure.prepare(photos, settings.short, device) for photos in sets]
    things = sets[0].things.to(device)
    for kind in ("self", "none", "gate", "gate-normalized", "affinity", "affinity-normalized"):
        result = measure.oracle(model.encoder, ready[0], text[0], things, kind)
        hits, _ = result.pop("hits"), result.pop("wanted")
        say(split=which, true_masks="coco", severance=kind, regions_counted=len(hits), **result)
        if bool(unseen.any()) and kind == "self":
            for lower in (0, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 10, 12, 15):
                again = measure.oracle(model.encoder, ready[0], text[0], things, kind, bias=lower * (~unseen).float())
                seen, fresh, mean = measure.held_out(again, unseen)
                say(split=which, lowered=lower, seen=seen, unseen=fresh, harmonic=mean)
    for present in (False, True):
        say(
            split=which,
            own_masks="coco",
            present=present,
            **measure.own_masks(model.encoder, model.proposer, ready[0], text[0], present=present),
        )
    say(
        split=which,
        own_masks="coco",
        severance="none",
        **measure.own_masks(model.encoder, model.proposer, ready[0], text[0], kind="none"),
    )
    for short in (448, 576, 640) if which == "tune" else ():
        other = measure.prepare(sets[0], short, device)
        result = measure.oracle(model.encoder, other, text[0], things, "self")
        own = measure.own_masks(model.encoder, model.proposer, other, text[0])
        say(split=which, short=short, regions=result["regions"], true_miou=result["miou"], **own)
    for sharpen in (0.5, 2.0) if which == "tune" else ():
        own = measure.own_masks(model.encoder, model.proposer, ready[0], text[0], sharpen=sharpen)
        say(split=which, sharpen=sharpen, **own)
    say(split=which, cells="coco", **measure.cells(model.encoder, ready[0], text[0]))
    result = measure.oracle(model.encoder, ready[1], text[1], sets[1].things.to(device), "self")
    result.pop("hits"), result.pop("wanted")
    say(split=which, true_masks="camvid", **result)
    say(split=which, own_masks="camvid", **measure.own_masks(model.encoder, model.proposer, ready[1], text[1]))


if __name__ == "__main__":
    main()
