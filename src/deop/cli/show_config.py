"""``deop config``: which configuration files are read, and what they set."""

from pathlib import Path
from typing import Annotated

import typer

from deop.cli.config_file import FILE_NAME, all_commands, configurable, find_files, read_defaults, settable
from deop.cli.console import say
from deop.cli.options import Debug, option


def config(
    context: typer.Context,
    file: Annotated[
        Path | None, option("--config", metavar="FILE", help="Show this file instead of those that are found.")
    ] = None,
    keys: Annotated[bool, option("--keys", help="Also list the keys that each section can have.")] = False,
    debug: Debug = False,
) -> None:
    """Show the defaults of options that deop.toml sets, and check the file."""
    files = find_files() if file is None else [file]
    root = all_commands(context)
    if files:
        say("read: " + ", ".join(map(str, files)))
    else:
        user = Path(typer.get_app_dir("deop")) / FILE_NAME
        say(f"no {FILE_NAME} in this directory or above it, and no {user}")
    for name, command in configurable(root).items():
        defaults = read_defaults(root, name, files)
        if not (defaults.values or keys):
            continue
        typer.echo(f"[{name}]")
        for parameter, value in defaults.values.items():
            typer.echo(f"{defaults.keys[parameter]} = {_toml(value)}  # {defaults.files[parameter]}")
        if keys:
            typer.echo("# " + " ".join(key for key in sorted(settable(command)) if key not in defaults.keys.values()))


def _toml(value: object) -> str:
    """A string, number, flag or list in TOML, which for these has JSON's form."""
    import json

    return json.dumps(value, ensure_ascii=False)
