"""Measures how much accuracy int8 costs: the small model with int8 linear layers, compared with float32.

    python benchmarks/int8_accuracy.py ../shared/data/coco-mini

The small model is used because no CLIP weights are available where this benchmark runs. The masks are the true ones,
so that only the classification is measured. Intervals of the difference are from a paired bootstrap over the photos.
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
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N photos.")] = None,
) -> None:
    """Compare the scores in float32 and in int8."""
    data, bootstrap = open_folder(dataset), Bootstrap()
    options = {"limit": limit, "proposals": "oracle"}
    setting = Setting(None, "one-pass", "pool")
    before, after = (
        measure(
            load("nano", engine="torch", device="cpu", dtype=dtype),
            data,
            setting,
            options,
            bootstrap,
            lambda done, total: None,
        )
        for dtype in ("float32", "int8")
    )
    gains = compare(after, before, bootstrap)
    console = Console(highlight=False)
    for key, gain in gains.items():
        low, high = (100 * value for value in gain["interval"])
        console.print(
            f"{key}: {100 * before.scores[key]:.1f} % in float32, {100 * after.scores[key]:.1f} % in int8, "
            f"{100 * gain['gain']:+.1f} ({low:+.1f} to {high:+.1f})"
        )


if __name__ == "__main__":
    try:
        typer.run(main)
    except DeopError as error:
        raise SystemExit(f"error: {error}") from error
