"""A snapshot on the line through two others: continues the way from the first to the second, or stops before its end.

    python -m recipes.nano.extrapolate FIRST.safetensors SECOND.safetensors OUT.safetensors --factor 1.4

Each weight becomes first + factor * (second - first). With a factor below 1 this is WiSE-FT (Wortsman et al., CVPR
2022); beyond 1 it extends what the second run learned. Only a run that started from the first snapshot has weights that
can be combined with it. Choose the factor on held-out training photos; NOTES.md has the values that were tried.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from deop.errors import CheckpointError, DeopError
from deop.files import replacing


def extrapolate(first: Mapping[str, Tensor], second: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """The weights of two snapshots combined, float16.

    Raises:
        CheckpointError: the snapshots are of different models.
    """
    if {key: value.shape for key, value in first.items()} != {key: value.shape for key, value in second.items()}:
        raise CheckpointError("the two snapshots are of different models: the second must continue the first")
    return {
        key: start.float().lerp(second[key].float(), factor).half().contiguous() for key, start in first.items()
    }  # fmt: skip


def main() -> None:
    """Write the snapshot, with the second's description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="the snapshot that the second run started from")
    parser.add_argument("second", type=Path, help="the snapshot of the second run")
    parser.add_argument("out", type=Path, help="the snapshot to write")
    parser.add_argument("--factor", type=float, required=True, help="0: the first; 1: the second; 1.4: beyond it")
    args = parser.parse_args()
    tensors = extrapolate(load_file(args.first), load_file(args.second), args.factor)
    with safe_open(args.second, "pt") as stored:
        metadata = stored.metadata()
    with replacing(args.out) as temporary:
        save_file(tensors, temporary.name, metadata)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    try:
        main()
    except DeopError as error:
        raise SystemExit(f"error: {error}") from error
