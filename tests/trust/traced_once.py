"""Import this in a process of ``Forks``: its commands trace a model once, since that takes most of an export.

What an export writes, and when, is as ever.
"""

import tempfile
from pathlib import Path

import onnx
import torch.onnx  # noqa: F401  (imported once instead of in each command)

from deop.export import folder

_PLACE = Path.home() / "traced"  # the home of the commands is a temporary directory
_trace = folder.trace_model


def trace_once(*arguments, **options):
    """The graphs of the only model that is exported."""
    if not _PLACE.exists():
        graphs = _trace(*arguments, **options)
        beside = Path(tempfile.mkdtemp(dir=_PLACE.parent))
        for name, graph in graphs.items():
            (beside / name).write_bytes(graph.SerializeToString())
        if not _PLACE.exists():
            beside.rename(_PLACE)
    return {file.name: onnx.load_model_from_string(file.read_bytes()) for file in _PLACE.iterdir()}


folder.trace_model = trace_once
