"""Write rle.json, masks and their run lengths by deop.images.rle: python web/tests/unit/make_rle.py"""

import json
from pathlib import Path

import numpy as np

from deop.images.rle import compress_counts, encode_crop

generator = np.random.default_rng(0)
masks = [np.zeros((3, 4), bool), np.ones((3, 4), bool), np.eye(1, dtype=bool)]
for height, width in [(1, 7), (7, 1), (5, 9), (40, 33), (64, 48)]:
    masks.append(generator.random((height, width)) < 0.4)
    coarse = generator.random((1 + height // 8, 1 + width // 8)) < 0.5
    masks.append(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])
cases = [
    {
        "size": list(mask.shape),
        "rows": ["".join(map(str, row)) for row in mask.astype(int)],
        "counts": compress_counts(encode_crop(mask, 0, 0, mask.shape)),
    }
    for mask in masks
]
Path(__file__).with_name("rle.json").write_text(json.dumps(cases, indent=1) + "\n")
