"""``deop models``: the zoo, and what of it is on this machine."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deop.cli.console import Debug


def models(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each model, with all it has.")
    ] = False,
    debug: Debug = False,
) -> None:
    """List the models that have a name, and which of them are on this machine."""
    from deop.files import read_json
    from deop.zoo import NANO, ZOO, on_this_machine

    shipped = read_json(NANO / "config.json")["card"]
    megabytes = round(sum(file.stat().st_size for file in NANO.iterdir()) / 1e6)
    purpose = "small and quick, inside the package: common things and stuff, needs no network"
    here = {name: on_this_machine(entry) for name, entry in ZOO.items()}
    if as_json:
        state = {"encoder": True, "proposer": True}
        small = {"name": "nano", "purpose": purpose, **shipped, "megabytes": megabytes, "on_this_machine": state}
        typer.echo(json.dumps(small))
        for name, entry in ZOO.items():
            encoder, masks = here[name]
            state = {"encoder": encoder, "proposer": masks}
            typer.echo(json.dumps({**asdict(entry), "megabytes": entry.megabytes, "on_this_machine": state}))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Name", no_wrap=True, style="cyan")
    table.add_column("What it is good for")
    table.add_column("Licence of its weights")
    table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("Here", no_wrap=True)
    table.add_row("nano", purpose, shipped["license"], str(megabytes), "yes")
    for name, entry in ZOO.items():
        licences = f"{entry.clip.license}; masks: {entry.proposer.license}"
        table.add_row(name, entry.purpose, licences, str(entry.megabytes), _state(*here[name]))
    console = Console()
    console.print(table)
    console.print(
        '\nFetched once, at the first use:  deop segment PHOTO --classes "cat, sofa, wall" --model clip-b16\n'
        "Any folder or hub repo (org/name) with a CLIP or with deop's own format can be given as --model too.",
        highlight=False,
        soft_wrap=True,
    )


def _state(encoder: bool, masks: bool) -> str:
    return {(True, True): "yes", (True, False): "encoder", (False, True): "masks", (False, False): "no"}[encoder, masks]
