"""Make a model folder of the weights that a run has written as its snapshot.

python recipes/nano/unpack.py seed0.safetensors OUT
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from safetensors import safe_open

from deop import load
from deop.encoders.nano import NanoEncoder
from deop.model import DeOP
from deop.proposals.nano import NanoProposer


def main() -> None:
    """Write the folder; the words, and how it is used, are those of the model that ships."""
    parser = argparse.ArgumentParser()
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    with safe_open(args.snapshot, "pt") as stored:
        about = json.loads(stored.metadata()["about"])
        tensors = {key: stored.get_tensor(key).float() for key in stored.keys()}  # noqa: SIM118 - no mapping

    encoder = NanoEncoder.from_config(about["encoder"])
    proposer = NanoProposer.from_config(about["proposer"])
    proposer.share_trunk(encoder)
    for part, module in (("trunk", encoder.trunk.trunk), ("encoder", encoder), ("proposer", proposer)):
        own = {key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")}
        missing, strange = module.load_state_dict(own, strict=False)
        if strange or any(not key.startswith("trunk.") for key in missing):
            raise SystemExit(f"error: {args.snapshot} does not fit: {[*missing, *strange][:5]}")
    shipped = load("nano")
    learned = {key: tuple(about["settings"]["calibration"][key]) for key in ("trained_names", "rivals")}
    settings = replace(shipped.settings, calibration=replace(shipped.settings.calibration, **learned))
    card = replace(shipped.card, training_data=about["card"]["training_data"], scores="")
    model = DeOP(encoder, shipped.text, proposer, settings=settings, card=card).eval()
    print(f"wrote {model.save_pretrained(args.out)}, {sum(entry['steps'] for entry in about['history'])} steps")


if __name__ == "__main__":
    main()
