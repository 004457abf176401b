"""``deop models``: the models that have a name."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from deop.cli.console import PlainConsole
from deop.cli.options import Debug

if TYPE_CHECKING:
    from deop.named_models import Usage, ZooModel

_DOWNLOADED = {(True, True): "yes", (True, False): "encoder", (False, True): "masks", (False, False): "no"}


def models(
    severances: Annotated[
        bool, typer.Option("--severances", help="List what --severance takes, with references, instead of the models.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line, with all details.")] = False,
    debug: Debug = False,
) -> None:
    """List the named models, and which of them are on this machine."""
    if severances:
        _list_severances(as_json)
        return
    from deop.files import read_json
    from deop.zoo import NANO, ZOO, on_this_machine

    card = read_json(NANO / "config.json")["card"]
    megabytes = round(sum(file.stat().st_size for file in NANO.iterdir()) / 1e6)
    purpose = "small and fast, part of the package: common things and stuff, works offline"
    downloaded = {name: on_this_machine(entry) for name, entry in ZOO.items()}
    if as_json:
        state = {"encoder": True, "proposer": True}
        nano = {"name": "nano", "purpose": purpose, **card, "megabytes": megabytes, "measured": True}
        nano["on_this_machine"] = state
        typer.echo(json.dumps(nano))
        for name, entry in ZOO.items():
            encoder, proposer = downloaded[name]
            state = {"encoder": encoder, "proposer": proposer}
            details = {**asdict(entry), "megabytes": entry.megabytes, "measured": False, "on_this_machine": state}
            typer.echo(json.dumps(details))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Name", no_wrap=True, style="cyan")
    table.add_column("Purpose")
    table.add_column("Licence of the weights")
    table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("Here", no_wrap=True)
    table.add_row("nano", purpose, card["license"], str(megabytes), "yes")
    for name, entry in ZOO.items():
        licences = f"{entry.encoder.license}; masks: {entry.proposer.license}"
        table.add_row(name, entry.purpose, licences, str(entry.megabytes), _DOWNLOADED[downloaded[name]])
    console = PlainConsole()
    console.print(table)
    console.print(
        "\nSettings, and the published results that they follow: mean mIoU in per cent over eight data sets, if "
        "nothing else is stated, with other code, which classifies patches. Only nano was measured with deop: see its "
        "card.\n"
    )
    console.print(_settings_table(ZOO))
    console.print("\nOn your own data, benchmarks/zoo.py of the repository measures models and settings.")
    console.print("\nA model is downloaded when it is first used, for example by:")
    console.print('  deop segment PHOTO --classes "cat, sofa, wall" --model clip-b16', soft_wrap=True)
    console.print("--model also takes any directory or hub repo (org/name) with a CLIP, SigLIP or TIPSv2, or of deop.")


def _settings_table(zoo: "dict[str, ZooModel]") -> Table:
    """How each model is used, and what that is based on."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Name", no_wrap=True, style="cyan")
    table.add_column("Settings")
    table.add_column("Published result")
    for name, entry in zoo.items():
        table.add_row(name, _in_words(entry.usage), entry.usage.basis)
    return table


def _in_words(usage: "Usage") -> str:
    """The settings of a model, for reading; ``--json`` has all values."""
    severance = usage.severance
    words = [severance.name + (f" by {severance.similarity}" if severance.similarity else "")]
    words.append("residual and MLP" if severance.mlp else "no residual, no MLP")
    if severance.levels:
        words.append(f"levels {severance.levels[0]} to {severance.levels[-1]}")
    if usage.anchors != "pool":
        words.append(f"anchors {usage.anchors}")
    if usage.windows:
        words.append(f"windows {usage.windows[0]}:{usage.windows[1]}")
    return ", ".join([*words, f"{usage.short_side} pixels"])


_KINDS = {
    "none": "ordinary attention",
    "self": "each patch keeps its own value",
    "gate": "its own value times the number of masks that cover it (DeOP)",
    "gate-normalized": "as gate, relative to the mean over the photo",
    "affinity": "softmax of the masks that two patches share (DeOP)",
    "similar": "the values of all patches, weighted by a similarity",
    "region": "as similar, within the masks that two patches share",
    "affinity-normalized": "region with a uniform similarity",
}


def _list_severances(as_json: bool) -> None:
    """Print the kinds of severance and the published methods."""
    from deop.severance import PRESETS

    deop = "Han et al., Open-Vocabulary Semantic Segmentation with Decoupled One-Pass Network, ICCV 2023"
    kinds = {name: deop if name in ("self", "gate", "affinity") else "deop" for name in _KINDS}
    if as_json:
        for name, summary in _KINDS.items():
            typer.echo(json.dumps({"name": name, "summary": summary, "reference": kinds[name], "values": None}))
        for name, preset in PRESETS.items():
            entry = {"name": name, "summary": preset.summary, "reference": preset.reference}
            typer.echo(json.dumps({**entry, "values": asdict(preset.severance)}))
        return
    console = PlainConsole()
    for title, rows in (
        ("Kind", [(name, _KINDS[name], kinds[name]) for name in _KINDS]),
        ("Method", [(name, preset.summary, preset.reference) for name, preset in PRESETS.items()]),
    ):
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(title, no_wrap=True, style="cyan")
        table.add_column("What a patch receives")
        table.add_column("Reference", no_wrap=True)
        for name, summary, reference in rows:
            authors, _, rest = reference.partition(", ")
            table.add_row(name, summary, f"{authors}, {rest.rpartition(', ')[2]}" if rest else "")
        console.print(table)
        console.print()
    console.print("A kind keeps the other values of the model; a method replaces all of them. Values may follow:")
    console.print("  --severance region:similarity=k:residual=0:mlp=no", soft_wrap=True)
