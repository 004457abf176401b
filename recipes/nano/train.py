"""Train the small model: trunk, encoder and proposals end to end, or all but the trunk on two CPU cores.

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
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "src")]
from batches import Sources, from_pools, live, make_pools  # noqa: E402
from objective import losses_of  # noqa: E402
from report import report  # noqa: E402
from settings import HERE, Names, Nano, Settings, parents, sampler, split_tuning  # noqa: E402
from text_table import read_lists  # noqa: E402

import data  # noqa: E402
from deop.encoders.efficientnet import EfficientNetLite  # noqa: E402


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
    coco, coco_tune = split_tuning(data.load(folder / "coco-mini", "train", 640), settings.tune, settings.fold)
    camvid, camvid_tune = split_tuning(data.load(folder / "camvid-mini", "train", 480), settings.tune, settings.fold)
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
    if settings.start:
        before = {key: value for key, value in load_file(settings.start).items() if not key.startswith("trunk.")}
        model.load_state_dict({key: value.float() for key, value in before.items()}, strict=False)
    teacher = EfficientNetLite(dense=False).to(device).eval().requires_grad_(False)
    teacher.load_state_dict(model.trunk.trunk.state_dict())
    if settings.trunk_rate == 0:
        model.trunk.requires_grad_(False)
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
    sources = Sources(coco, camvid, imagenet, chances)
    pools = make_pools(sources, settings, model.trunk, teacher, out / settings.crops) if settings.pool else None
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
        cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        factor = min(1.0, (step + 1) / settings.warmup) * (0.02 + 0.98 * cosine)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * factor
        batch = live(sources, settings, model.trunk, teacher) if pools is None else from_pools(pools, settings)
        divide = step % settings.divide_every == 0
        losses = losses_of(model, batch, teacher, head, settings, imagenet, vocabularies, parent, divide)
        loss = sum(losses.values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
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
        if sets[0] is not None and settings.report:
            report(ema, sets, all_names, settings, unseen, which, say)
    say(total=time.time() - start)


if __name__ == "__main__":
    main()
