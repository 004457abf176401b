"""What int8 costs in accuracy: the small model with its linear layers multiplying in int8, on labelled photos.

    python benchmarks/int8_accuracy.py ../shared/data/coco-mini

Weights of CLIP cannot be had where deop is built, so the small model stands for the others. True masks, so that naming
alone is measured; intervals of the difference are of a paired bootstrap over the photos.
"""

from pathlib import Path
from typing import Annotated

import typer
from ablation import Setting, compare, measure
from rich.console import Console

from deop import load
from deop.data.folder import open_folder
from deop.errors import DeopError
from deop.evaluation.bootstrap import Bootstrap


def main(
    dataset: Annotated[Path, typer.Argument(help="A labelled folder.")],
    limit: Annotated[int | None, typer.Option(help="Only the first photos.")] = None,
) -> None:
    """Measure before and after."""
    data, bootstrap = open_folder(dataset), Bootstrap()
    asked = {"limit": limit, "proposals": "oracle"}
    setting = Setting(None, "one-pass", "pool")
    before, after = (
        measure(load("nano", device="cpu", dtype=dtype), data, setting, asked, bootstrap, lambda done, total: None)
        for dtype in ("float32", "int8")
    )
    gains = compare(after, before, bootstrap)
    console = Console(highlight=False)
    for key, gain in gains.items():
        low, high = (100 * value for value in gain["interval"])
        console.print(
            f"{key}: {100 * before.found[key]:.1f} % in float32, {100 * after.found[key]:.1f} % in int8, "
            f"{100 * gain['gain']:+.1f} ({low:+.1f} to {high:+.1f})"
        )


if __name__ == "__main__":
    try:
        typer.run(main)
    except DeopError as error:
        raise SystemExit(f"error: {error}") from error
