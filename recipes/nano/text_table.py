"""Distil a sentence encoder into a table of words: what the text side of the small model is made of.

Every word piece, and every name and alias of the recipe as a whole, goes through the encoder alone; the vectors are
reduced by principal components and weighted by how rare the piece is (Zipf's law over the vocabulary's order).

    python recipes/nano/text_table.py --encoder DIR --data DATA --out FILE
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import torch
from names import HERE, read_lists


def embed(folder: Path, texts: list[str], batch: int = 256) -> np.ndarray:
    """Mean-pooled sentence embeddings (n, 384), not normalised."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    rows = np.zeros((len(texts), model.config.hidden_size), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            inputs = tokenizer([texts[index] for index in chosen], padding=True, return_tensors="pt")
            hidden = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"][..., None].float()
            rows[chosen] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    return rows


def main() -> None:
    """Write the table: float16 rows, the pieces and the phrases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=int, default=256)
    args = parser.parse_args()

    vocabulary = (args.encoder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    pieces = [word for word in vocabulary if re.fullmatch(r"(##)?[a-z]+('[a-z]+)?|(##)?[0-9]", word)]
    phrases: dict[str, None] = {}
    for name, others in read_lists(HERE / "aliases.txt").items():
        phrases.update(dict.fromkeys([name, *others]))
    for name in json.loads((args.data / "imagenet-mini/names.json").read_text(encoding="utf-8")).values():
        phrases[name.lower()] = None
    known = [phrase for phrase in phrases if phrase not in set(pieces)]

    rows = embed(args.encoder, [piece.removeprefix("##") for piece in pieces] + known)
    # A "##" piece alone reads as a word; that is what model2vec-like tables do as well.
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
        words=np.array(pieces + known),
        pieces=len(pieces),
    )
    print(f"{len(pieces)} pieces, {len(known)} phrases, {kept:.3f} of the variance kept")


if __name__ == "__main__":
    main()
