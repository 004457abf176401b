"""Options that several commands share, the panels of the help pages, and command lines to print."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from deop.cli import completion
from deop.errors import SettingError

METHOD, RUNTIME, OUTPUT = "Method", "Runtime", "Output"
"""Titles of panels."""


def option(*flags: str, help: str, panel: str | None = None, metavar: str = "", **more: Any) -> Any:
    """An option in a panel of the help page, whose default is named in ``help`` unless ``show_default`` is set.

    A flag has no ``metavar``: without the empty one, typer would call its value "bool".
    """
    return typer.Option(*flags, help=help, rich_help_panel=panel, metavar=metavar, **{"show_default": False, **more})


@dataclass(frozen=True)
class InFile:
    """How an option is written in deop.toml, if not as its type says. Part of the option's annotation.

    Attributes:
        hint: type of the value in the file.
        convert: called with the value and the directory of the file; returns the value as on the command line.
    """

    hint: Any
    convert: Callable[[Any, Path], Any]


def name_list(value: str | list[str], directory: Path) -> str:
    """Class names of the file, as one string or a list of them, as on the command line."""
    return value if isinstance(value, str) else "".join(f"{name};" for name in value)


NameList = InFile(str | tuple[str, ...], name_list)
"""An option with class names, which a file may also have as a list."""


def model_place(value: str, directory: Path) -> str:
    """A model of the file: a path is relative to the file; a name and a hub repo are kept."""
    place = directory / Path(value).expanduser()
    return str(place) if "/" in value and place.is_dir() else value


Model = Annotated[
    str,
    InFile(str, model_place),
    option(
        "--model", "-m", metavar="MODEL", panel=METHOD, autocompletion=completion.models,
        help="A name that `deop models` lists, a directory, or a hub repo (org/name). Default: nano.",
    ),
]  # fmt: skip
Severance = Annotated[
    str | None,
    option(
        "--severance", metavar="NAME", panel=METHOD, autocompletion=completion.severances,
        help="How attention is severed: a kind or a published method, as listed by `deop models --severances`; "
        "values may follow, as in region:similarity=k:residual=0. Default: the model's setting.",
    ),
]  # fmt: skip
Anchors = Annotated[
    str | None,
    option(
        "--anchors", metavar="KIND", panel=METHOD, autocompletion=completion.anchors,
        help="How masks are classified: decoder (by the anchor decoder), pool (by the mean of their patches), tokens "
        "(by that mean and a token of their own) or patch (each patch votes). Default: the model's setting.",
    ),
]  # fmt: skip
Proposer = Annotated[
    str | None,
    option(
        "--proposer", metavar="MODEL", panel=METHOD,
        help="The network that proposes masks: a directory or hub repo with a MaskFormer, Mask2Former, OneFormer, EoMT "
        "or SAM. Default: the model's own.",
    ),
]  # fmt: skip
SmallestRegion = Annotated[
    float | None,
    option(
        "--smallest-region", metavar="SHARE", min=0, max=0.99, panel=METHOD,
        help="Share of the photo, from 0 to below 1: smaller connected regions get the name of their surroundings. "
        "0 keeps all. Default: the model's setting.",
    ),
]  # fmt: skip
Proxy = Annotated[
    str | None,
    InFile(str, model_place),
    option(
        "--proxy", metavar="MODEL", panel=METHOD,
        help="A second network whose features weigh attention, for severances such as proxyclip: a directory or hub "
        "repo with a DINO, DINOv2 or DINOv3, such as facebook/dino-vitb8.",
    ),
]  # fmt: skip
Windows = Annotated[
    str | None,
    option(
        "--windows", metavar="SIZE:STRIDE", panel=METHOD,
        help="Encode windows of this size in pixels, which overlap, instead of the whole photo: 336:224 suits an "
        "encoder trained at 336 pixels. Default: the model's setting.",
    ),
]  # fmt: skip
Partition = Annotated[
    Literal["none", "score"] | None,
    option(
        "--partition", metavar="RULE", panel=METHOD,
        help="What happens to pixels that several masks cover. none: all of the masks count. score: they belong to the "
        "mask with the highest score, or to a small mask inside it. Default: the model's setting.",
    ),
]  # fmt: skip
Prior = Annotated[
    float | None,
    option(
        "--prior", metavar="NUMBER", panel=METHOD, min=0, max=1,
        help="Weight, 0 to 1, of the class scores of the network that proposes masks, for names that it was trained "
        "with. 0 ignores them. Default: the model's setting.",
    ),
]  # fmt: skip
Scores = Annotated[
    Literal["softmax", "sigmoid"] | None,
    option(
        "--scores", metavar="FORM", panel=METHOD,
        help="softmax: the scores of the names add up to 1. sigmoid: each name by itself, for models that were trained "
        "so, such as SigLIP. Default: the model's setting.",
    ),
]  # fmt: skip
Engine = Annotated[
    Literal["onnx", "torch"] | None,
    option(
        "--engine", metavar="ENGINE", panel=RUNTIME,
        help="onnx (ONNX Runtime) or torch. Default: onnx if the model has ONNX graphs, as nano does, and no other "
        "option needs torch.",
    ),
]  # fmt: skip
EngineDevice = Annotated[
    str | None,
    option(
        "--device", metavar="DEVICE", panel=RUNTIME, autocompletion=completion.devices,
        help="auto, cpu, cuda or cuda:1; with torch also mps; with ONNX Runtime also webgpu, coreml or directml. "
        "Default: auto, a GPU that the engine can use, else the CPU.",
    ),
]  # fmt: skip
EngineDataType = Annotated[
    str | None,
    option(
        "--dtype", metavar="TYPE", panel=RUNTIME, autocompletion=completion.dtypes,
        help="Precision: float32, bfloat16, float16 or int8 (CPU only); with ONNX Runtime one of the model's graphs. "
        "Default: float32.",
    ),
]  # fmt: skip
"""``Engine``, ``EngineDevice`` and ``EngineDataType`` are for commands that run with every engine; ``Device`` and
``DataType`` for those that need torch."""
Device = Annotated[
    str | None,
    option(
        "--device", metavar="DEVICE", panel=RUNTIME, autocompletion=completion.torch_devices,
        help="cpu, cuda, cuda:1 or mps. Default: a GPU if there is one, else the CPU.",
    ),
]  # fmt: skip
DataType = Annotated[
    str | None,
    option(
        "--dtype", metavar="TYPE", panel=RUNTIME, autocompletion=completion.dtypes,
        help="Precision of the weights: float32, bfloat16, float16 or int8 (CPU only). Default: float32.",
    ),
]  # fmt: skip
Threads = Annotated[
    int | None,
    option(
        "--threads", metavar="N", panel=RUNTIME, min=1,
        help="Number of CPU threads. Default: one per core, or OMP_NUM_THREADS.",
    ),
]  # fmt: skip
Debug = Annotated[bool, option("--debug", panel=RUNTIME, help="Show the traceback if an error occurs.")]


def quiet_option(panel: str | None = None) -> Any:
    """``--quiet``."""
    return option("--quiet", "-q", panel=panel, help="Print only warnings and errors.")


def batch_option(panel: str) -> Any:
    """``--batch`` of commands that process many photos."""
    return option(
        "--batch",
        metavar="N",
        panel=panel,
        min=1,
        help="Number of photos that are processed together. Default: 8 on a GPU, 1 on a CPU.",
    )


def tolerance_option(panel: str | None = None, **more: Any) -> Any:
    """``--tolerance`` of commands that write polygons."""
    return option(
        "--tolerance",
        metavar="PIXELS",
        panel=panel,
        help="How far polygons may be from the exact outlines; 0 follows the edges of pixels. Default: 1.",
        **more,
    )


def parse_windows(value: str | None) -> tuple[int, int] | None:
    """The value of ``--windows``.

    Raises:
        SettingError: another form than SIZE:STRIDE.

    >>> parse_windows("336:224")
    (336, 224)
    """
    if value is None:
        return None
    size, separator, stride = value.partition(":")
    if not (separator and size.isdecimal() and stride.isdecimal()):
        raise SettingError(f"--windows {value!r}: expected two numbers of pixels, SIZE:STRIDE, such as 336:224")
    return int(size), int(stride)


def change_settings(network: Any, *, scores: str | None = None, **values: Any) -> None:
    """Change settings of a loaded model; those that are None stay.

    Args:
        network: the model.
        scores: value of ``--scores``.
        values: fields of its settings.

    Raises:
        SettingError: a value out of range, or sigmoid scores of a model without a bias.
    """
    given = {name: value for name, value in values.items() if value is not None}
    if scores == "softmax":
        given["logit_bias"] = None
    elif scores == "sigmoid" and network.settings.logit_bias is None:
        raise SettingError(
            "--scores sigmoid needs a model that was trained with a sigmoid, such as SigLIP, whose weights have its "
            "bias: omit it"
        )
    if given:
        network.settings = replace(network.settings, **given)


def command_line(context: typer.Context) -> str:
    """The command line of a context as a shell takes it, without options that have their default value."""
    words = context.command_path.split()
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if value is None or value == parameter.default or parameter.name in ("config", "no_config"):
            continue
        if value is True or value is False:
            words += [parameter.opts[0]] if value else parameter.secondary_opts[:1]
            continue
        for item in value if isinstance(value, (list, tuple)) else [value]:
            text = str(item.value if isinstance(item, Enum) else item)
            words += [text] if parameter.param_type_name == "argument" else [parameter.opts[0], text]
    return shlex.join(words)
