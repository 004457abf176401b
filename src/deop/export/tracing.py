"""From modules of torch to ONNX graphs."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from deop.errors import MissingDependencyError, SettingError
from deop.export.traceable import traceable
from deop.export.translations import translations

if TYPE_CHECKING:
    import onnx

OPSET = 20
"""Version of the ONNX operators. onnxruntime-web runs it too."""


def trace(
    network: nn.Module,
    example: Sequence[Tensor],
    shapes: Mapping[str, Any],
    outputs: Sequence[str],
    what: str,
) -> "onnx.ModelProto":
    """The ONNX graph of a module, with its weights as initializers.

    Args:
        network: in evaluation mode, on the CPU, in float32.
        example: its arguments.
        shapes: name of each argument, in order -> its dimensions that vary, as ``torch.export`` takes them, or None.
        outputs: names of the results.
        what: what is exported, for the message.

    Raises:
        MissingDependencyError: ``onnx`` or ``onnxscript`` is not installed.
        SettingError: the module cannot be exported.
    """
    need_onnx()
    with torch.no_grad(), _quietly():
        try:
            # Exported here, since torch.onnx.export falls back to other ways, some of which keep sizes as constants.
            with traceable():
                exported = torch.export.export(network, tuple(example), dynamic_shapes=dict(shapes), strict=False)
            _drop_guards(exported)
            program: Any = torch.onnx.export(
                exported,
                dynamo=True,
                input_names=list(shapes),
                output_names=list(outputs),
                opset_version=OPSET,
                custom_translation_table=translations(OPSET),
                verbose=False,
            )
        except Exception as error:  # the exporter wraps errors of many kinds
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = " ".join(str(cause).split())[:300]
            raise SettingError(
                f"torch {torch.__version__} cannot export {what}: {reason}. Use it with torch, or export the model "
                "with another part"
            ) from error
    graph: onnx.ModelProto = program.model_proto
    strip(graph)
    return graph


def need_onnx() -> None:
    """Check that the libraries of the exporter are installed.

    Raises:
        MissingDependencyError: naming the extra.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError('export needs onnx and onnxscript: pip install "deop[export]"') from error


def strip(graph: "onnx.ModelProto") -> None:
    """Remove debugging information, which would name folders of this machine and is larger than the graph."""
    for node in graph.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for message in (*graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        message.ClearField("doc_string")
        message.ClearField("metadata_props")
    for field in ("value_info", "metadata_props", "doc_string"):
        graph.graph.ClearField(field)
    graph.ClearField("metadata_props")
    graph.ClearField("functions")
    graph.producer_name, graph.producer_version = "deop", ""


def _drop_guards(exported: "torch.export.ExportedProgram") -> None:
    """Remove checks of sizes, which have no form in ONNX; evaluating them for the example would fix its sizes."""
    for node in list(exported.graph.nodes):
        if node.op == "call_module" and str(node.target).startswith("_guards"):
            exported.graph.erase_node(node)
    exported.graph_module.recompile()


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the exporter from printing its progress and warning about its own internals."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "torch.fx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
