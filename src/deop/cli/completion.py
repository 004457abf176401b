"""Values that the shell completes, besides those of options with fixed choices."""

DTYPES = ("float32", "bfloat16", "float16", "int8")


def models() -> list[tuple[str, str]]:
    """The named models and what they are good for. ``deop.zoo`` imports no large library."""
    from deop.zoo import ZOO

    named = [(name, entry.purpose) for name, entry in ZOO.items()]
    return [("nano", "small and fast, part of the package"), *named]


def severances() -> list[str]:
    """The kinds of severance and the published methods."""
    from deop.severance import KINDS, PRESETS

    return [*KINDS, "affinity-normalized", *PRESETS]


def anchors() -> list[str]:
    """The ways to embed a mask."""
    return ["decoder", "pool", "tokens", "attention-pool", "patch"]


def dtypes() -> list[str]:
    """The precisions of the weights."""
    return list(DTYPES)


def devices() -> list[str]:
    """The kinds of devices of all engines, whether or not this machine has them: finding out would take too long."""
    return ["auto", *torch_devices(), "webgpu", "coreml", "directml"]


def torch_devices() -> list[str]:
    """The kinds of devices of torch."""
    return ["cpu", "cuda", "mps"]


def templates() -> list[str]:
    """The sets of prompt templates."""
    return ["single", "photo", "vild", "imagenet", "none"]
