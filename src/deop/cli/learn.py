"""``deop learn``: examples of names from photos with marked regions, kept in a bank."""

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from deop.cli.console import PlainConsole, progress_bar, say
from deop.cli.examples import example_option
from deop.cli.options import Debug, Engine, EngineDataType, EngineDevice, Model, Threads, option
from deop.errors import SettingError
from deop.files import check_writable

if TYPE_CHECKING:
    from deop.bank import Bank
    from deop.bank.learning import MarkedPhoto

BANK, EXAMPLES = "Bank", "Examples"


def learn(
    name: Annotated[
        Path, option("--name", "-n", metavar="BANK", panel=BANK, help="The file of the bank: BANK.safetensors.")
    ],
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA",
            help="Labelled data (a directory with images/, masks/ and classes.json, Parquet or tar files), COCO JSON "
            "files, captions (.jsonl, .csv, .tsv), or other banks, whose examples are added. Without any, the content "
            "of the bank is listed.",
            show_default=False,
        ),
    ] = None,
    example: Annotated[list[str] | None, example_option(EXAMPLES, "An example")] = None,
    split: Annotated[
        str | None,
        option("--split", metavar="NAME", panel=EXAMPLES, help="The split of the data. Default: train, if it has any."),
    ] = None,
    images: Annotated[
        Path | None,
        option(
            "--images", metavar="DIR", panel=EXAMPLES,
            help="The directory of the photos of COCO JSON or captions. Default: that of the file, or images/ in it.",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        option(
            "--classes", "-c", metavar="NAMES", panel=EXAMPLES,
            help='The names to look for in captions: "cow, sofa|couch, grass".',
        ),
    ] = None,
    photos: Annotated[
        int | None,
        option("--photos", metavar="N", panel=EXAMPLES, min=1, help="Learn the first N photos only."),
    ] = None,
    add: Annotated[bool, option("--add", panel=BANK, help="Add to a bank that exists.")] = False,
    overwrite: Annotated[bool, option("--overwrite", panel=BANK, help="Replace a bank that exists.")] = False,
    limit: Annotated[
        int | None,
        option(
            "--limit", metavar="N", panel=BANK, min=1,
            help="Keep at most N regions of each name, of as many photos as possible. Without DATA: prune the bank. "
            "Default: 1000.",
        ),
    ] = None,
    forget: Annotated[
        str | None,
        option("--forget", metavar="NAMES", panel=BANK, help='Remove the examples of these names: "cup, -mug".'),
    ] = None,
    note: Annotated[
        str,
        option("--note", metavar="TEXT", panel=BANK, help="A text to keep in the bank, such as a licence."),
    ] = "",
    model: Model = "nano",
    engine: Engine = None,
    device: EngineDevice = None,
    dtype: EngineDataType = None,
    threads: Threads = None,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Learn names from photos with marked regions, for --bank of the other commands.

    A bank keeps embeddings of the regions, not the photos. It works with the model that computed it. Several banks are
    merged by `deop learn ONE.safetensors OTHER.safetensors --name BOTH`.
    """
    from deop.bank import Bank, load_bank
    from deop.bank.captions import SUFFIXES, learn_captions, read_captions
    from deop.bank.learning import REGIONS_PER_NAME, learn_photos
    from deop.bank.sources import parse_examples
    from deop.bank.storage import SUFFIX, bank_path
    from deop.files import existing_path

    target, given = bank_path(name), data or []
    examples = parse_examples(example or [])
    exists, learning = target.exists(), bool(given or examples)
    if add and overwrite:
        raise SettingError("--add and --overwrite exclude each other: omit one of them")
    if learning and exists and not (add or overwrite):
        raise SettingError(f"{target} exists: add to it with --add, or replace it with --overwrite")
    check_writable([target] if learning else [])
    before = load_bank(target) if exists and not (learning and overwrite) else None
    if not learning:
        bank = load_bank(target) if before is None else before
        changed = _pruned(bank, forget, limit)
        if changed != bank:
            changed.save(target)
        _describe(changed, target)
        return
    banks = [before] if before is not None else []
    others = [place for place in given if place.endswith(SUFFIX)]
    missing = [place for place in others if existing_path(place) is None]
    if missing:
        raise SettingError(f"there is no bank at {missing[0]}: check the path")
    banks += [load_bank(place) for place in others]
    texts = [place for place in given if place.endswith(SUFFIXES)]
    if images is not None and not texts and not any(place.endswith(".json") for place in given):
        raise SettingError("--images applies to COCO JSON and captions, and none is given: omit it")
    if bool(texts) != (classes is not None):
        missing_part = "give the names to look for in the captions (--classes)" if texts else "omit it"
        raise SettingError(f"--classes goes with captions ({', '.join(SUFFIXES)}): {missing_part}")
    captioned = [one for place in texts for one in read_captions(Path(place), images)][:photos]
    sources, count = _photos_of([place for place in given if place not in (*others, *texts)], split, images)
    count = min(count, photos or count)
    total = count + len(examples)
    if total or captioned:
        from deop.bank.space import check_bank
        from deop.runtime.engine import engine_for
        from deop.zoo import load

        network = load(
            model,
            engine=engine or engine_for(model, None, None, "one-pass"),
            device=device,
            dtype=dtype,
            threads=threads,
        )
        for one in banks:
            check_bank(network, one)
        kept: dict[str, Any] = {"note": note, "limit": limit or REGIONS_PER_NAME}
        if total:
            with progress_bar() as advance:
                photos_and_marks = chain(islice(sources, count), examples)
                banks.append(learn_photos(network, photos_and_marks, total, progress=advance, **kept))
        if captioned and classes is not None:
            with progress_bar() as advance:
                banks.append(learn_captions(network, captioned, classes, progress=advance, **kept))
    bank = _pruned(Bank.merged(banks), forget, limit or REGIONS_PER_NAME)
    bank.save(target)
    _describe(bank, target)


def _photos_of(places: list[str], split: str | None, images: Path | None) -> "tuple[Iterator[MarkedPhoto], int]":
    """The marked photos of data, and their number."""
    from deop.bank.sources import photos_of_coco, photos_of_data
    from deop.data.source import open_data

    parts: list[Any] = []
    count = 0
    for place in places:
        if place.endswith(".json"):
            found = photos_of_coco(Path(place), images)
            count += len(found)
            parts.append(found)
        else:
            opened = open_data(place, split, default="train", skip_unpaired=True)
            count += len(opened.pairs)
            parts.append(photos_of_data(opened))
    return chain.from_iterable(parts), count


def _pruned(bank: "Bank", forget: str | None, limit: int | None) -> "Bank":
    if forget is not None:
        bank = bank.without([part.strip() for part in forget.split(",") if part.strip()])
    return bank if limit is None else bank.limited(limit)


def _describe(bank: "Bank", path: Path) -> None:
    """List the names of a bank."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("Name", no_wrap=True)
    for label in ("regions", "photos", "kB"):
        table.add_column(label, justify="right", no_wrap=True)
    per_region = 2 * bank.regions.shape[1] + 13
    for name, (regions, photos) in bank.counts().items():
        size = f"{regions * per_region / 1000:.1f}"
        table.add_row(name or "(not marked)", f"{regions:,}", f"{photos:,}", size)
    PlainConsole().print(table)
    space = bank.space
    licence = f", licence of the weights: {space.license}" if space.license else ""
    size = f"{len(bank):,} regions of {len(bank.photos):,} photos"
    say(f"{path}: {size}, model {space.model} ({space.precision}){licence}")
    if space.note:
        say(f"note: {space.note}")
