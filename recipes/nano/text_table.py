"""Distil a sentence encoder into a word table, the text encoder of the small model.

Every word piece, and every name and alias of the recipe as a phrase, is embedded alone. The embeddings are reduced by
principal components and weighted by how rare the piece is (Zipf's law over the order of the vocabulary).

    python -m recipes.nano.text_table --encoder DIRECTORY --data DATA --out FILE
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import torch

from recipes.nano.names import FOLDER, read_lists


def embed(folder: Path, texts: list[str], batch: int = 256) -> np.ndarray:
    """Mean-pooled sentence embeddings (n, 384) float32, not normalized."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    rows = np.zeros((len(texts), model.config.hidden_size), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            indices = order[start : start + batch]
            inputs = tokenizer([texts[index] for index in indices], padding=True, return_tensors="pt")
            hidden = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"][..., None].float()
            rows[indices] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    return rows


def main() -> None:
    """Write the table: float16 rows, and the words they belong to, first pieces, then phrases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, required=True, help="directory of the sentence encoder")
    parser.add_argument("--data", type=Path, required=True, help="directory that contains imagenet-mini")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .npz")
    parser.add_argument("--width", type=int, default=256, help="components that are kept (default: 256)")
    args = parser.parse_args()

    vocabulary = (args.encoder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    pieces = [word for word in vocabulary if re.fullmatch(r"(##)?[a-z]+('[a-z]+)?|(##)?[0-9]", word)]
    phrases: dict[str, None] = {}
    for name, aliases in read_lists(FOLDER / "aliases.txt").items():
        phrases.update(dict.fromkeys([name, *aliases]))
    for name in json.loads((args.data / "imagenet-mini/names.json").read_text(encoding="utf-8")).values():
        phrases[name.lower()] = None
    extra_phrases = [phrase for phrase in phrases if phrase not in set(pieces)]

    rows = embed(args.encoder, [piece.removeprefix("##") for piece in pieces] + extra_phrases)
    # A piece with "##" is embedded as if it were a word, as in model2vec.
    mean = rows[: len(pieces)].mean(0)
    centred = rows - mean
    _, _, basis = np.linalg.svd(centred[: len(pieces)], full_matrices=False)
    reduced = centred @ basis[: args.width].T
    kept = (reduced**2).sum() / (centred**2).sum()
    rank = {word: index for index, word in enumerate(vocabulary)}
    order = np.array([rank[piece] for piece in pieces], np.float64)
    share = 1 / (order - order.min() + 2)
    share /= share.sum()
    weight = 1e-3 / (1e-3 + share)
    reduced[: len(pieces)] *= weight[:, None]
    np.savez(
        args.out,
        rows=reduced.astype(np.float16),
        words=np.array(pieces + extra_phrases),
        pieces=len(pieces),
    )
    print(f"{len(pieces)} pieces, {len(extra_phrases)} phrases, {kept:.3f} of the variance kept")


if __name__ == "__main__":
    main()
