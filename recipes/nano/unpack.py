"""Make a model folder from the snapshot of a run.

python -m recipes.nano.unpack seed0.safetensors OUT
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
    """Write a model folder with the word table and the settings of the shipped model, but the run's trained names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("snapshot", type=Path, help="the recipe's snapshot file")
    parser.add_argument("out", type=Path, help="the model folder to write")
    args = parser.parse_args()
    with safe_open(args.snapshot, "pt") as stored:
        about = json.loads(stored.metadata()["about"])
        tensors = {key: stored.get_tensor(key).float() for key in stored.keys()}  # noqa: SIM118 - not a dict

    encoder = NanoEncoder.from_config(about["encoder"])
    proposer = NanoProposer.from_config(about["proposer"])
    proposer.share_trunk(encoder.trunk)
    for part, module in (("trunk", encoder.trunk.trunk), ("encoder", encoder), ("proposer", proposer)):
        weights = {key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")}
        missing, unexpected = module.load_state_dict(weights, strict=False)
        missing = [key for key in missing if not key.startswith("trunk.")]
        if missing or unexpected:
            raise SystemExit(f"error: {args.snapshot} does not fit the {part}: {[*missing, *unexpected][:5]}")
    shipped = load("nano")
    trained_names, rivals = (tuple(about["settings"]["calibration"][key]) for key in ("trained_names", "rivals"))
    calibration = replace(shipped.settings.calibration, trained_names=trained_names, rivals=rivals)
    settings = replace(shipped.settings, calibration=calibration)
    card = replace(shipped.card, training_data=about["card"]["training_data"], scores="")
    model = DeOP(encoder, shipped.text, proposer, settings=settings, card=card).eval()
    print(f"wrote {model.save_pretrained(args.out)}, {sum(entry['steps'] for entry in about['history'])} steps")


if __name__ == "__main__":
    main()
