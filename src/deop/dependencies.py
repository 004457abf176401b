"""Libraries that the base install leaves out: which extra of deop brings each, and the error where one is missing."""

from importlib.util import find_spec

from deop.errors import MissingDependencyError

EXTRAS = {
    **dict.fromkeys(("torch", "scipy", "safetensors", "huggingface_hub", "transformers"), "torch"),
    "jinja2": "report",
    **dict.fromkeys(("onnx", "onnxscript"), "export"),
    **dict.fromkeys(("accelerate", "tensorboard", "yaml", "kornia"), "train"),
    **dict.fromkeys(("av",), "video"),
    **dict.fromkeys(("fastapi", "uvicorn", "prometheus_client", "python_multipart"), "serve"),
    **dict.fromkeys(("rasterio",), "geo"),
    **dict.fromkeys(("tifffile",), "tiff"),
    **dict.fromkeys(("pyarrow", "fsspec"), "batch"),
    **dict.fromkeys(("ray",), "ray"),
}
"""The extra that installs a library, by the name that is imported."""


def require(purpose: str, *libraries: str, extra: str | None = None) -> None:
    """Check that libraries are installed, without importing them.

    Args:
        purpose: what needs them, the subject of the message, such as "deop train".
        libraries: names to import, keys of ``EXTRAS``.
        extra: the extra that brings all of them; None: that of the missing library.

    Raises:
        MissingDependencyError: naming the first library that is not installed and the extra that brings it.
    """
    for library in libraries:
        if find_spec(library) is None:
            raise missing(purpose, library, extra)


def missing(purpose: str, library: str, extra: str | None = None) -> MissingDependencyError:
    """The error that ``purpose`` needs a library that is not installed.

    >>> print(missing("deop bench", "torch"))
    deop bench needs torch, which is not installed: pip install "deop[torch]"
    """
    return MissingDependencyError(
        f'{purpose} needs {library}, which is not installed: pip install "deop[{extra or EXTRAS[library]}]"'
    )


def explained(error: ImportError, purpose: str) -> ImportError:
    """A failed import as the error that names the extra; the error itself if no extra brings the library.

    Args:
        error: what the import raised.
        purpose: what needs the library, the subject of the message.
    """
    library = (error.name or "").partition(".")[0]
    return missing(purpose, library) if library in EXTRAS and find_spec(library) is None else error
