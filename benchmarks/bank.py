"""What examples beside words gain: mIoU with banks of 5, 20 and 80 photos, against words alone and fine-tuning.

    python -m benchmarks.bank ../shared/data/msrc --finetune --plot bank.png

For each number of photos and each draw, photos are drawn from the training split, as `deop train finetune` draws them
with the same seed, and learned as examples. Scores are measured on the validation split, which is in no bank. Gains
are paired: their intervals are computed from the same resamples of the validation photos. With --finetune, the model is
also tuned on the same photos (on four fifths of them: the others choose the weights). Banks and finished runs in --out
are used again: use another folder for other data or another model.

Choices of the method are not made on validation photos, but on photos of the training split kept apart from the banks:

    python -m benchmarks.bank ../shared/data/msrc --kept-apart 60 --fold 1 --hide --quantile 0.8 --out runs/bank-fold-1
"""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from benchmarks.finetune_gain import check_same_recipe, numbers_in
from rich.console import Console
from rich.table import Table

from deop import load
from deop.bank import fitting, kernels
from deop.bank.bank import Bank, load_bank
from deop.bank.captions import Captioned, learn_captions
from deop.bank.learning import learn_photos
from deop.bank.sources import photos_of_data
from deop.bank.space import check_bank
from deop.data.folder import open_folder
from deop.data.labelled import LabelledData
from deop.errors import DeopError
from deop.evaluation.bootstrap import Bootstrap
from deop.evaluation.comparison import Scored, evaluate_with_draws
from deop.evaluation.protocol import Protocol
from deop.files import replacing


class EncodedOnce:
    """A model that encodes each photo once: the validation photos are labelled with many banks."""

    def __init__(self, model: Any) -> None:
        self._model, self._encoded = model, dict[str, Any]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, photos: list[Any], masks: list[Any] | None = None, **options: Any) -> list[Any]:
        """As the model's; a photo that is given by its path, without masks, is encoded the first time."""
        given = masks is not None and any(one is not None for one in masks)
        if given or not all(isinstance(photo, (str, Path)) for photo in photos):
            return list(self._model.encode(photos, masks, **options))
        for photo in photos:
            if str(photo) not in self._encoded:
                self._encoded[str(photo)] = self._model.encode([photo], **options)[0]
        return [self._encoded[str(photo)] for photo in photos]


def kept_apart(data: LabelledData, count: int, fold: int) -> tuple[LabelledData, LabelledData]:
    """The training photos without some of them, and these."""
    order = np.random.default_rng(9).permutation(len(data.pairs))
    apart = set(order[fold * count : (fold + 1) * count].tolist())
    if len(apart) < count:
        raise SystemExit(f"error: the training split has {len(data.pairs)} photos, too few for fold {fold} of {count}")
    parts = [[pair for k, pair in enumerate(data.pairs) if (k in apart) == chosen] for chosen in (False, True)]
    return replace(data, pairs=tuple(parts[0])), replace(data, pairs=tuple(parts[1]))


def drawn(data: LabelledData, count: int, seed: int) -> LabelledData:
    """The photos that ``deop train finetune`` draws with this seed."""
    order = np.random.default_rng((seed, 8)).permutation(len(data.pairs))[:count]
    return replace(data, pairs=tuple(data.pairs[index] for index in order))


def captioned(data: LabelledData, share: float, seed: int) -> list[Captioned]:
    """Photos with the names of their ground truth as captions, each name with a chance of ``share``."""
    random = np.random.default_rng((seed, 10))
    texts = [[name for name in photo.names if random.random() < share] for photo in photos_of_data(data)]
    return [Captioned(str(pair.photo), ", ".join(text)) for pair, text in zip(data.pairs, texts, strict=True) if text]


def bank_of(model: Any, data: LabelledData, file: Path, captions: list[Captioned] | None) -> tuple[Bank, float]:
    """The bank of some photos, and the seconds that learning it took. A bank in the file is used again."""
    clock = file.with_suffix(".json")
    if file.exists() and clock.exists():
        bank = load_bank(file)
        check_bank(model, bank)
        return bank, float(json.loads(clock.read_text(encoding="utf-8")))
    started = time.perf_counter()
    if captions is None:
        bank = learn_photos(model, photos_of_data(data), len(data.pairs))
    else:
        bank = learn_captions(model, captions, list(data.names))
    seconds = time.perf_counter() - started
    file.parent.mkdir(parents=True, exist_ok=True)
    bank.save(file)
    clock.write_text(json.dumps(seconds), encoding="utf-8")
    return bank, seconds


def with_names(bank: Bank, names: list[str] | None) -> Bank:
    """The bank with the examples of some names only, and the regions without a name; None: all."""
    chosen = None if names is None else {name.casefold() for name in names}
    return bank if chosen is None else bank.filtered(lambda name: not name or name.casefold() in chosen)


def mean_difference(scored: Scored, words: Scored, names: set[str]) -> float | None:
    """Mean gain in IoU of some names."""
    pairs = [(scored.scores["per_class"][name], words.scores["per_class"][name]) for name in names]
    gains = [after - before for after, before in pairs if after is not None and before is not None]
    return float(np.mean(gains)) if gains else None


def finetuned(
    dataset: Path, model: str, count: int, seed: int, out: Path, val: LabelledData, protocol: Protocol, boot: Bootstrap
) -> tuple[Scored, float]:
    """The scores of a model that is tuned on the same photos, and the seconds that it took."""
    from deop.training.recipe import read_recipe
    from deop.training.stages.finetune import FinetuneRecipe, train

    base = {"data": {"folder": str(dataset)}, "model": model, "photos": count, "loop": {"seed": seed}}
    recipe, folder = read_recipe(FinetuneRecipe, None, (), base), out / f"{count}-photos-seed-{seed}"
    clock = folder / "seconds.json"
    if (folder / "report.json").exists() and clock.exists():
        check_same_recipe(recipe, folder)
    else:
        started = time.perf_counter()
        train(recipe, folder, resume=True)
        clock.write_text(json.dumps(time.perf_counter() - started), encoding="utf-8")
    tuned = load(folder / "model", engine="torch")
    return evaluate_with_draws(tuned, val, protocol, bootstrap=boot), float(
        json.loads(clock.read_text(encoding="utf-8"))
    )


def table_of(words: Scored, rows: list[dict[str, Any]]) -> Table:
    """One row for each number of photos and draw."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    labels = ("photos", "draw", "names", "mIoU", "gain", "interval", "names with", "names without", "s")
    for label in labels:
        table.add_column(label, justify="right", no_wrap=True)
    tuned = any("tuned_miou" in row for row in rows)
    if tuned:
        table.add_column("tuned", justify="right")
        table.add_column("s", justify="right")
    table.add_row("0", "", "", f"{100 * words.scores['miou']:.1f}")

    def points(value: float | None) -> str:
        return "" if value is None else f"{100 * value:+.1f}"

    for row in rows:
        low, high = row["interval"] or (None, None)
        cells = [row["photos"], row["draw"], row["names"], f"{100 * row['miou']:.1f}", points(row["gain"])]
        cells += [f"{points(low)} to {points(high)}", points(row["with"]), points(row["without"])]
        cells.append(f"{row['seconds']:.0f}")
        if "tuned_miou" in row:
            cells += [f"{100 * row['tuned_miou']:.1f}", f"{row['tuned_seconds']:.0f}"]
        table.add_row(*map(str, cells))
    return table


def means_of(rows: list[dict[str, Any]]) -> Table:
    """The mean over the draws for each number of photos."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    labels = ("photos", "draws", "mIoU", "gain", "names with", "names without", "least without", "hidden", "least", "s")
    for label in (*labels, "tuned", "s"):
        table.add_column(label, justify="right", no_wrap=True)
    for photos in sorted({row["photos"] for row in rows}):
        part = [row for row in rows if row["photos"] == photos]

        def mean(key: str, part: list[dict[str, Any]] = part) -> str:
            values = [row[key] for row in part if row.get(key) is not None]
            return f"{100 * np.mean(values):.1f}" if values else ""

        least = [row["without"] for row in part if row["without"] is not None]
        hidden = [change for row in part for change in row.get("hidden", {}).values()]
        seconds = f"{np.mean([row['seconds'] for row in part]):.0f}"
        tuned = [row["tuned_seconds"] for row in part if "tuned_seconds" in row]
        table.add_row(
            str(photos), str(len(part)), mean("miou"), mean("gain"), mean("with"), mean("without"),
            f"{100 * min(least):+.1f}" if least else "", f"{100 * np.mean(hidden):+.1f}" if hidden else "",
            f"{100 * min(hidden):+.1f}" if hidden else "", seconds, mean("tuned_miou"),
            f"{np.mean(tuned):.0f}" if tuned else "",
        )  # fmt: skip
    return table


def draw_plot(words: Scored, rows: list[dict[str, Any]], path: Path) -> None:
    """Plot mIoU by the number of photos: banks, and fine-tuning if it was measured."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise SystemExit("error: the plot needs matplotlib: pip install matplotlib, or omit --plot") from error
    figure, axes = plt.subplots(figsize=(6, 4), constrained_layout=True)
    counts = sorted({row["photos"] for row in rows})
    for key, seconds, label, colour in (
        ("miou", "seconds", "examples", "#1f6f8b"),
        ("tuned_miou", "tuned_seconds", "fine-tuned", "#b3541e"),
    ):
        groups = [[row for row in rows if row["photos"] == count and key in row] for count in counts]
        shown = [(place, group) for place, group in enumerate(groups, 1) if group]
        if not shown:
            continue
        means = [100 * np.mean([row[key] for row in group]) for _, group in shown]
        axes.plot([place for place, _ in shown], means, color=colour, label=label)
        for (place, group), mean in zip(shown, means, strict=True):
            axes.plot([place] * len(group), [100 * row[key] for row in group], "o", color=colour, alpha=0.5)
            took = np.mean([row[seconds] for row in group])
            axes.annotate(f"{took:.0f} s", (place, mean), (4, -12), textcoords="offset points", color=colour)
    axes.axhline(100 * words.scores["miou"], color="#555555", linestyle=":", label="words alone")
    axes.set_xticks(range(1, len(counts) + 1), [str(count) for count in counts])
    axes.set_xlabel("photos")
    axes.set_ylabel("mIoU on validation photos, per cent")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main(
    dataset: Annotated[Path, typer.Argument(help="A labelled folder with the splits train and val.")],
    model: Annotated[str, typer.Option(help="The model.")] = "nano",
    photos: Annotated[str, typer.Option(help="Numbers of photos, separated by commas.")] = "5,20,80",
    draws: Annotated[int, typer.Option(min=1, help="Number of draws of the photos.")] = 3,
    only: Annotated[Path | None, typer.Option(help="Text file with the names that get examples. Default: all.")] = None,
    unseen: Annotated[Path | None, typer.Option(help="Text file with names that training did not see.")] = None,
    weight: Annotated[float | None, typer.Option(help="Weight of the examples. Default: as fitted.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N validation photos.")] = None,
    finetune: Annotated[bool, typer.Option("--finetune", help="Also fine-tune on the same photos.")] = False,
    masks: Annotated[str, typer.Option(help="Masks that are named: model, or oracle (ground truth).")] = "model",
    captions: Annotated[
        float | None, typer.Option(min=0, max=1, help="Learn captions instead, with each true name by this chance.")
    ] = None,
    apart: Annotated[
        int | None, typer.Option("--kept-apart", min=1, help="Score on N training photos instead.")
    ] = None,
    fold: Annotated[int, typer.Option(min=0, help="Which N photos --kept-apart takes.")] = 0,
    hide: Annotated[
        bool, typer.Option("--hide", help="Also score every third name with examples as if it had none.")
    ] = False,
    quantile: Annotated[float | None, typer.Option(min=0, max=1, help="Instead of the method's quantile q.")] = None,
    sharpness: Annotated[float | None, typer.Option(min=0, help="Instead of the method's sharpness.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for banks and for the runs of --finetune.")] = Path("runs/bank"),
    plot: Annotated[Path | None, typer.Option(help="Image file for a plot.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON file for all numbers.")] = None,
) -> None:
    """Measure what examples gain over words."""
    from deop.files import read_names

    names = None if only is None else read_names(only)
    train = open_folder(dataset, "train", skip_unpaired=True)
    if apart is None:
        val = open_folder(dataset, "val", skip_unpaired=True)
    else:
        train, val = kept_apart(train, apart, fold)
    fitting.STRANGERS = fitting.STRANGERS if quantile is None else quantile
    kernels.SHARPNESS = kernels.SHARPNESS if sharpness is None else sharpness
    network: Any = EncodedOnce(load(model))
    boot = Bootstrap()
    asked = {"proposals": masks, "limit": limit, "unseen": () if unseen is None else tuple(read_names(unseen))}
    words = evaluate_with_draws(network, val, Protocol(**asked), bootstrap=boot)
    console, rows = Console(width=140), []
    for count in numbers_in(photos):
        for seed in range(draws):
            if count > len(train.pairs):
                continue
            chosen = drawn(train, count, seed)
            texts = None if captions is None else captioned(chosen, captions, seed)
            kind = "photos" if captions is None else f"captions-{captions:g}"
            file = out / "banks" / f"{count}-{kind}-seed-{seed}.safetensors"
            learned_bank, seconds = bank_of(network, chosen, file, texts)
            bank = with_names(learned_bank, names)
            protocol = Protocol(**asked, bank=bank, bank_weight=weight)
            scored = evaluate_with_draws(network, val, protocol, bootstrap=boot)
            gain = scored.minus(words, boot)
            shown = network.vocabulary(list(val.names))
            learned = {shown.names[k] for k in set(bank.columns(shown).tolist()) if 0 <= k < len(shown.names)}
            row = {
                "photos": count, "draw": seed, "names": len(learned), "regions": len(bank),
                "miou": scored.scores["miou"], "hiou": scored.scores["hiou"], "gain": gain["miou"]["gain"],
                "interval": gain["miou"]["interval"], "all": gain, "seconds": seconds,
                "with": mean_difference(scored, words, learned),
                "without": mean_difference(scored, words, set(shown.names) - learned),
            }  # fmt: skip
            if hide:
                row["hidden"] = {}
                for name in sorted(learned)[seed % 3 :: 3]:
                    part = Protocol(**asked, bank=bank.without([name]), bank_weight=weight)
                    change = mean_difference(evaluate_with_draws(network, val, part, bootstrap=boot), words, {name})
                    row["hidden"] |= {} if change is None else {name: change}
            if finetune:
                tuned, took = finetuned(dataset, model, count, seed, out, val, Protocol(**asked), boot)
                row |= {"tuned_miou": tuned.scores["miou"], "tuned_seconds": took}
            rows.append(row)
            console.print(table_of(words, [row]))
    console.print(table_of(words, rows))
    console.print(means_of(rows))
    if words.scores["hiou"] is not None:
        console.print(f"hIoU {100 * words.scores['hiou']:.1f};", *(f"{100 * row['hiou']:.1f}" for row in rows))
    if plot:
        draw_plot(words, rows, plot)
    if json_file:
        kept = {key: words.scores[key] for key in ("miou", "hiou", "seen_miou", "unseen_miou", "per_class", "images")}
        with replacing(json_file) as written:
            written.write((json.dumps({"words": kept, "rows": rows}, indent=2) + "\n").encode())


if __name__ == "__main__":
    try:
        typer.run(main)
    except DeopError as error:
        raise SystemExit(f"error: {error}") from error
