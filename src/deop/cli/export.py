"""``deop export``: a model as ONNX graphs, which run without torch, or as a static web page."""

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from deop.cli import completion
from deop.cli.console import say
from deop.cli.options import METHOD, RUNTIME, Debug, Partition, change_settings, option
from deop.dependencies import require
from deop.errors import SettingError


def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A name that `deop models` lists, a directory, or a hub repo (org/name).",
            show_default=False,
        ),
    ],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory to write.", show_default=False)],
    classes: Annotated[
        str,
        option(
            "--classes", "-c", metavar="NAMES",
            help="Write the embeddings of these names instead of the text encoder: a smaller directory, which knows no "
            "other names.",
        ),
    ] = "",
    classes_file: Annotated[
        Path | None, option("--classes-file", metavar="FILE", help="The same, with one name per line of a text file.")
    ] = None,
    proposer: Annotated[
        str | None,
        option(
            "--proposer", metavar="MODEL", panel=METHOD,
            help="Where masks come from: a directory or hub repo with MaskFormer or Mask2Former; given: programs pass "
            "the masks. Default: that of the model.",
        ),
    ] = None,
    severance: Annotated[
        str | None,
        option(
            "--severance", metavar="KIND", panel=METHOD, autocompletion=completion.severances,
            help="How attention is severed: a kind or a published method, as listed by `deop models --severances`. It "
            "cannot be changed afterwards. Default: the model's setting.",
        ),
    ] = None,
    partition: Partition = None,
    dtype: Annotated[
        Literal["float32", "float16", "int8"],
        option(
            "--dtype", metavar="TYPE", panel=RUNTIME,
            help="float32, float16 (weights of half the size) or int8 (a quarter, and faster; less exact). "
            "Default: float32.",
        ),
    ] = "float32",
    calibrate: Annotated[
        Path | None,
        option(
            "--calibrate", metavar="DIR", panel=RUNTIME,
            help="A directory with some dozens of photos, which --dtype int8 needs to choose its ranges.",
        ),
    ] = None,
    web: Annotated[
        bool, option("--web", help="Write a static web page that runs the model in the browser (nano only).")
    ] = False,
    onnxruntime_web: Annotated[
        Path | None,
        option(
            "--onnxruntime-web", metavar="DIR",
            help="The unpacked npm package onnxruntime-web, which --web needs. Default: web/node_modules of deop's "
            "source.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Write a model as ONNX graphs that run without torch, also from other languages.

    The directory appears whole or not at all. Options that belong to the graphs, such as the severance, cannot be
    changed afterwards.
    """
    if web:
        _export_page(model, directory, onnxruntime_web)
        return
    require("deop export", "torch", "transformers", "safetensors", "onnx", "onnxscript")
    if dtype == "int8" and calibrate is None:
        raise SettingError("--dtype int8 needs photos: add --calibrate DIR with some dozens like those to be segmented")
    names = _names(classes, classes_file)
    photos = [] if calibrate is None else _photos(calibrate)

    from deop.export.folder import check_folder, export_model
    from deop.zoo import load

    check_folder(directory)
    network = load(model, engine="torch", proposer=proposer, device="cpu")
    change_settings(network, partition=partition)
    folder = export_model(
        network,
        directory,
        severance=severance,
        precision=dtype,
        names=names,
        calibrate=photos,
        progress=say,
    )
    megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    example = shlex.join(["deop", "segment", "PHOTO", "--classes", "cat, sofa, wall", "--model", str(folder)])
    say(f"wrote {folder} ({megabytes:.0f} MB). To use it, run:\n  {example}")


def _names(classes: str, classes_file: Path | None) -> Any:
    """The names of the table that is written instead of the text encoder; None: the text encoder is written."""
    if classes.strip() and classes_file is not None:
        raise SettingError("--classes and --classes-file exclude each other: give one of them")
    if classes_file is not None:
        from deop.text.names_file import read_class_names

        return read_class_names(classes_file)
    return classes.strip() or None


def _photos(directory: Path) -> list[Path]:
    from deop.images.collection import SUFFIXES

    if not directory.is_dir():
        raise SettingError(f"--calibrate {directory} is not a directory: give one with photos")
    photos = sorted(file for file in directory.iterdir() if file.suffix.lower() in SUFFIXES)
    if not photos:
        raise SettingError(f"--calibrate {directory} has no photos: give a directory with some dozens")
    return photos


def _export_page(model: str, directory: Path, runtime: Path | None) -> None:
    """Write the static page of a model that has graphs."""
    from deop.export.web import export_site
    from deop.zoo import NANO

    page = export_site(NANO if model == "nano" else Path(model), directory, runtime=runtime)
    serve = shlex.join(["python", "-m", "http.server", "--directory", str(page.parent)])
    say(f"wrote {page}. To see it, run\n  {serve}\nand open http://localhost:8000 in a browser")
