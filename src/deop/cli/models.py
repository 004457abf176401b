"""``deop models``: the models that have a name."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from deop.cli.console import PlainConsole
from deop.cli.options import Debug

_DOWNLOADED = {(True, True): "yes", (True, False): "encoder", (False, True): "masks", (False, False): "no"}


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per model, with all details.")] = False,
    debug: Debug = False,
) -> None:
    """List the named models, and which of them are on this machine."""
    from deop.files import read_json
    from deop.zoo import NANO, ZOO, on_this_machine

    card = read_json(NANO / "config.json")["card"]
    megabytes = round(sum(file.stat().st_size for file in NANO.iterdir()) / 1e6)
    purpose = "small and fast, part of the package: common things and stuff, works offline"
    downloaded = {name: on_this_machine(entry) for name, entry in ZOO.items()}
    if as_json:
        state = {"encoder": True, "proposer": True}
        nano = {"name": "nano", "purpose": purpose, **card, "megabytes": megabytes, "on_this_machine": state}
        typer.echo(json.dumps(nano))
        for name, entry in ZOO.items():
            encoder, proposer = downloaded[name]
            state = {"encoder": encoder, "proposer": proposer}
            typer.echo(json.dumps({**asdict(entry), "megabytes": entry.megabytes, "on_this_machine": state}))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Name", no_wrap=True, style="cyan")
    table.add_column("Purpose")
    table.add_column("Licence of the weights")
    table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("Here", no_wrap=True)
    table.add_row("nano", purpose, card["license"], str(megabytes), "yes")
    for name, entry in ZOO.items():
        licences = f"{entry.clip.license}; masks: {entry.proposer.license}"
        table.add_row(name, entry.purpose, licences, str(entry.megabytes), _DOWNLOADED[downloaded[name]])
    console = PlainConsole()
    console.print(table)
    console.print("\nA model is downloaded when it is first used, for example by:")
    console.print('  deop segment PHOTO --classes "cat, sofa, wall" --model clip-b16', soft_wrap=True)
    console.print("--model also takes any directory or hub repo (org/name) with a CLIP or a model saved by deop.")
