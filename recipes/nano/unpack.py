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
from deop.errors import DeopError
from deop.model import DeOP
from deop.proposals.nano import NanoProposer
from recipes.nano.snapshot import load_snapshot, snapshot_parts


def main() -> None:
    """Write a model folder with the word table and the settings of the shipped model, but the run's trained names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("snapshot", type=Path, help="the recipe's snapshot file")
    parser.add_argument("out", type=Path, help="the model folder to write")
    args = parser.parse_args()
    with safe_open(args.snapshot, "pt") as stored:
        about = json.loads(stored.metadata()["about"])

    encoder = NanoEncoder.from_config(about["encoder"])
    proposer = NanoProposer.from_config(about["proposer"])
    proposer.share_trunk(encoder.trunk)
    load_snapshot(args.snapshot, snapshot_parts(encoder.trunk, encoder, proposer))
    shipped = load("nano", engine="torch")
    trained_names, rivals = (tuple(about["settings"]["calibration"][key]) for key in ("trained_names", "rivals"))
    calibration = replace(shipped.settings.calibration, trained_names=trained_names, rivals=rivals)
    settings = replace(shipped.settings, calibration=calibration)
    card = replace(shipped.card, training_data=about["card"]["training_data"], scores="")
    model = DeOP(encoder, shipped.text, proposer, settings=settings, card=card).eval()
    print(f"wrote {model.save_pretrained(args.out)}, {sum(entry['steps'] for entry in about['history'])} steps")


if __name__ == "__main__":
    try:
        main()
    except DeopError as error:
        raise SystemExit(f"error: {error}") from error
