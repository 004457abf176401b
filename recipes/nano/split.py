"""Collect the training photos that a run with ``tune`` holds out, as directories that ``deop evaluate`` reads.

    python -m recipes.nano.split --data ../shared/data --out HELD_OUT [--tune 4] [--fold 0]

HELD_OUT/coco-mini, HELD_OUT/coco-things and so on contain links to the photos.
"""

import argparse
from pathlib import Path

from deop.data.folder import open_folder
from recipes.nano.sets import DATA_SETS


def main() -> None:
    """Link the held-out photos, their masks, and the files that describe them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--tune", type=int, default=4, help="as in the recipe (default: 4)")
    parser.add_argument("--fold", type=int, default=0, help="as in the recipe (default: 0)")
    args = parser.parse_args()
    for data_set in DATA_SETS.values():
        index = 0  # continues over the splits, as in training
        for split in data_set.splits:
            folder = open_folder(args.data / data_set.folder, split, skip_unpaired=True)
            # Several splits go to one directory each, because each has its own panoptic.json.
            target = args.out / data_set.folder / (split if len(data_set.splits) > 1 else "")
            root = Path(folder.root)
            for pair in folder.pairs:
                if index % args.tune == args.tune - 1 - args.fold:
                    for file in (*map(Path, map(str, (pair.photo, pair.mask))), root / "panoptic" / f"{pair.key}.png"):
                        if file.exists():
                            link(file, target / file.parent.name / file.name)
                index += 1
            for listing in (root / "classes.json", root.parent / "classes.json"):
                if listing.exists():
                    link(listing, target / "classes.json")
                    break
            if (root / "panoptic.json").exists():
                link(root / "panoptic.json", target / "panoptic.json")


def link(file: Path, target: Path) -> None:
    """Create or replace a symbolic link ``target`` to a file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.symlink_to(file.resolve())


if __name__ == "__main__":
    main()
