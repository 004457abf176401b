"""The README.md of an exported folder."""

from collections.abc import Mapping
from typing import Any

_TEXT = {
    "words": "a table of words",
    "clip": "CLIP's text tower (`text.onnx`) and its tokenizer",
    "names": "a table of names that were chosen at export; others cannot be requested",
}


def text(config: Mapping[str, Any]) -> str:
    """The model card, in the form of the hub's, from the content of ``config.json``."""
    card, settings, onnx = config["card"], config["settings"], config["onnx"]
    graphs = next(iter(onnx["graphs"].values()))
    severance = settings["severance"]
    masks = "proposed by the model (`encode.onnx`)" if graphs["encode"] else "given with each call (`regions.onnx`)"
    return f"""---
library_name: deop
pipeline_tag: image-segmentation
tags: [open-vocabulary, semantic-segmentation, deop, onnx]
---

# {card["name"] or "A deop model"}

Open-vocabulary segmentation: takes a photo and a list of names, and gives every pixel one of them. This folder has ONNX
graphs, which run without torch.

```python
import deop

model = deop.load("FOLDER_OR_REPO")
model.segment("photo.jpg", ["cat", "sofa|couch", "wall"]).save("out.png")
```

docs/export.md of deop describes the files, and how to use them from other languages.

| | |
|---|---|
| licence of the weights | {card["license"]} |
| source | {card["source"] or "not recorded"} |
| trained on | {card["training_data"] or "not recorded"} |
| scores of the model before export | {card["scores"] or "not recorded"} |
| precision | {", ".join(onnx["graphs"])} |
| severance | `{severance["kind"]}`, layers {list(severance["layers"])} |
| masks | {masks} |
| names | {_TEXT[onnx["text"]["kind"]]} |
| exported with | deop {config["deop"]} |
"""
