"""Snapshots: the weights of a run, which ``unpack.py`` makes a model of and from which another run can start.

    python -m recipes.nano.snapshot seed0.safetensors seed0.npz

A snapshot has the trunk, the encoder and the proposer as float16, but not the local branch. The command quantizes it to
8 bits per weight with one step size per output channel, half the size, for a machine to which little can be sent.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from deop.encoders.nano import NanoEncoder
from deop.errors import CheckpointError
from deop.networks.shared_trunk import SharedTrunk
from deop.proposals.nano import NanoProposer
from recipes.nano.trunk import read_quantized, write_quantized

LEVELS = 127
"""Quantization levels on either side of 0."""


def snapshot_parts(trunk: SharedTrunk, encoder: NanoEncoder, proposer: NanoProposer) -> dict[str, nn.Module]:
    """The modules in a snapshot, by the prefix of their weights. The trunk that they share is a part of its own."""
    return {"trunk": trunk.trunk, "encoder": encoder, "proposer": proposer}


def snapshot_tensors(parts: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The weights of ``snapshot_parts`` as they are in a snapshot, float16 on the CPU."""
    return {
        f"{part}.{key}": value.detach().half().cpu().contiguous()
        for part, module in parts.items()
        for key, value in module.state_dict().items()
        if not key.startswith("trunk.") or part == "trunk"
    }


def read_snapshot(file: Path) -> dict[str, Tensor]:
    """Read the weights of a snapshot, quantized or not, as float32."""
    if file.suffix == ".npz":
        return read_quantized(file)
    return {key: value.float() for key, value in load_file(file).items()}


def load_snapshot(file: Path, parts: Mapping[str, nn.Module]) -> None:
    """Load the weights of a snapshot into ``snapshot_parts``.

    Raises:
        CheckpointError: the file does not have exactly the weights of these modules.
    """
    tensors = read_snapshot(file)
    expected = {key: value.shape for key, value in snapshot_tensors(parts).items()}
    wrong = [
        key
        for key in sorted(tensors.keys() | expected.keys())
        if key not in tensors or tensors[key].shape != expected.get(key)
    ]
    if wrong:
        raise CheckpointError(
            f"{file} does not fit the model: {len(wrong)} weights differ, such as {', '.join(wrong[:3])}"
        )
    for part, module in parts.items():
        own = {key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")}
        module.load_state_dict(own, strict=part == "trunk")  # the others refer to the trunk, which was checked above


def main() -> None:
    """Quantize a snapshot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("snapshot", type=Path, help="snapshot of a run, .safetensors")
    parser.add_argument("out", type=Path, help="file to write, .npz")
    args = parser.parse_args()
    write_quantized(read_snapshot(args.snapshot), args.out, LEVELS)
    print(f"wrote {args.out}, {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
