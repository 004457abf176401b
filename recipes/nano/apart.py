"""The training photos that a run with ``tune`` kept apart, as folders that ``deop evaluate`` reads.

    python recipes/nano/apart.py --data ../shared/data --out APART [--tune 4] [--fold 0]

``APART/coco-mini``, ``APART/coco-things`` and so on hold links to the photos.
"""

import argparse
from pathlib import Path

from sets import PLACES

from deop.data.folder import open_folder


def main() -> None:
    """Link the photos, their masks and what is said of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tune", type=int, default=4)
    parser.add_argument("--fold", type=int, default=0)
    args = parser.parse_args()
    for place in PLACES.values():
        index = 0
        for split in place.splits:
            folder = open_folder(args.data / place.folder, split, skip_unpaired=True)
            # What comes of several splits lies in a folder for each, as panoptic.json does.
            target = args.out / place.folder / (split if len(place.splits) > 1 else "")
            for pair in folder.pairs:
                if index % args.tune == args.tune - 1 - args.fold:
                    panoptic = folder.root / "panoptic" / f"{pair.photo.stem}.png"
                    for file in (pair.photo, pair.mask, panoptic):
                        if file.exists():
                            link(file, target / file.parent.name / file.name)
                index += 1
            for listing in (folder.root / "classes.json", folder.root.parent / "classes.json"):
                if listing.exists():
                    link(listing, target / "classes.json")
                    break
            if (folder.root / "panoptic.json").exists():
                link(folder.root / "panoptic.json", target / "panoptic.json")


def link(file: Path, target: Path) -> None:
    """A symbolic link, in place of one that is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.symlink_to(file.resolve())


if __name__ == "__main__":
    main()
