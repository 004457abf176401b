"""Models of torch as ONNX graphs, which ``deop.runtime`` runs without torch, and as a web page.

Tracing needs torch, ``onnx`` and ``onnxscript``; they are imported with the function that needs them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deop.export.folder import export_model as export_model
    from deop.export.web import export_site as export_site

__all__ = ["export_model", "export_site"]


def __getattr__(name: str) -> Any:
    if name == "export_model":
        from deop.export.folder import export_model

        return export_model
    if name == "export_site":
        from deop.export.web import export_site

        return export_site
    raise AttributeError(f"module 'deop.export' has no attribute {name!r}")
