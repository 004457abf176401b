"""Pages of the documentation: their code blocks, and a directory in which these can run."""

import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from deop.zoo import ZOO
from tests.data import miniatures
from tests.proposals import tiny_networks
from tests.tiny import write_tiny_siglip
from tests.tiny_towers import write_tiny_tips
from tests.video.test_video import make_video
from tests.weights.test_conversion import openai_state, write_open_clip_config

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "deop"
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
MARKS = ("not run", "needs", "ci", "slow with", "run with", "shell")
BLOCK = re.compile(rf"(?:^<!-- ({'|'.join(MARKS)}): (.+?) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A code block of a page."""

    line: int
    mark: str  # one of MARKS, or ""
    reason: str
    language: str
    text: str


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def section_of(page: str, heading: str) -> str:
    """The text below a heading, up to the next heading of level 2."""
    return read(DOCS / page).split(heading)[1].split("\n## ")[0]


def blocks_of(page: Path) -> list[Block]:
    text = read(page)
    return [
        Block(text.count("\n", 0, match.start(3)) + 1, match[1] or "", match[2] or "", match[3], match[4])
        for match in BLOCK.finditer(text)
    ]


def is_runnable(block: Block, slow: bool = False) -> bool:
    """Whether a test runs the block; ``slow``: with --runslow."""
    if block.mark == "needs":
        return importlib.util.find_spec(block.reason) is not None
    return block.mark in ("", "run with") or (slow and block.mark == "slow with")


def pages_with(language: str, mark: str | None = None) -> list[Path]:
    """The pages with a block of a language, and of a mark where one is given."""
    return [p for p in PAGES if any(b.language == language and mark in (None, b.mark) for b in blocks_of(p))]


def commands(block: Block) -> list[list[str]]:
    """The commands of a shell block, each as a list of words without comments, with the arguments of its mark."""
    added = shlex.split(block.reason) if block.mark in ("run with", "slow with") else []
    lines = (shlex.split(line, comments=True) for line in block.text.replace("\\\n", " ").splitlines())
    return [[*words, *added] for words in lines if words]


def fill_hub_cache(cache: Path, tiny_clip: Path) -> Path:
    """A hub cache with a small model for every repo that a page names."""
    networks = {
        "facebook/maskformer-swin-tiny-ade": tiny_networks.maskformer(),
        "facebook/sam-vit-base": tiny_networks.sam(),
    }
    for encoder in {entry.encoder for entry in ZOO.values()}:
        revision = "0" * 40 if encoder.revision == "main" else encoder.revision
        snapshot = cache / f"models--{encoder.repo.replace('/', '--')}" / "snapshots" / revision
        if "siglip" in encoder.repo:
            write_tiny_siglip(snapshot)
        elif "tips" in encoder.repo:
            write_tiny_tips(snapshot)
        else:
            shutil.copytree(tiny_clip, snapshot)
        _write_main_reference(snapshot)
    for proposer in {entry.proposer for entry in ZOO.values()}:
        networks[str(proposer)] = tiny_networks.eomt() if "eomt" in proposer.repo else tiny_networks.mask2former()
    for name, network in networks.items():
        repo, _, revision = name.partition("@")
        snapshot = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / (revision or "0" * 40)
        network.save_pretrained(snapshot)
        _write_main_reference(snapshot)
    return cache


def _write_main_reference(snapshot: Path) -> None:
    """Make a snapshot the cache's branch main."""
    reference = snapshot.parents[1] / "refs" / "main"
    reference.parent.mkdir(exist_ok=True)
    reference.write_text(snapshot.name)


class _HubThatTakesAnything:
    """Uploads go nowhere."""

    def create_repo(self, repo_id, private, exist_ok):
        return type("Repo", (), {"repo_id": repo_id})

    def upload_folder(self, repo_id, folder_path, commit_message):
        assert (Path(folder_path) / "model.safetensors").is_file()
        return f"https://hub/{repo_id}/commit/1"


@pytest.fixture(scope="session")
def hub_cache(tmp_path_factory, tiny_clip):
    return fill_hub_cache(tmp_path_factory.mktemp("hub-cache"), tiny_clip)


@pytest.fixture
def working_directory(tmp_path, monkeypatch, hub_cache, tiny_clip):
    """A working directory with every file that the pages name; the hub is offline and has its cache only.

    ``photo.jpg`` shows a cat, 96 x 64 pixels large. Addresses of the web lead to it.
    """
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub, "HfApi", _HubThatTakesAnything)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    _write_photos(tmp_path)
    photo = (tmp_path / "photo.jpg").read_bytes()
    monkeypatch.setattr("deop.images.download.fetch", lambda url: photo)
    _write_labelled_folders(tmp_path)
    miniatures.voc(tmp_path / "downloads")
    miniatures.coco_stuff(tmp_path / "downloads")
    miniatures.cityscapes(tmp_path / "downloads")
    _write_models(tmp_path, tiny_clip)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    return tmp_path


def _write_photos(folder: Path) -> None:
    with Image.open(ROOT / "examples" / "chelsea.png") as opened:
        cat = opened.convert("RGB").resize((96, 64))
    for number, name in enumerate(["photo.jpg", "coffee.jpg", "photos/a.jpg", "photos/b.jpg"]):
        (folder / name).parent.mkdir(exist_ok=True)
        cat.rotate(2 * number).save(folder / name, quality=95)
    for name in ("clip.mp4", "clip.mov"):
        make_video(folder / name, frames=3)
    (folder / "examples").mkdir()
    for file in (ROOT / "examples").iterdir():
        if file.suffix in (".jpg", ".png"):
            shutil.copy(file, folder / "examples")


def _write_labelled_folders(folder: Path) -> None:
    """``dataset`` has a validation split, ``PHOTOS`` and ``OTHER_PHOTOS`` both; names, and masks of the photos."""
    (folder / "names.txt").write_text("cat\nsofa|couch\na wall, painted\n")
    (folder / "unseen.txt").write_text("cat\n")
    caption = {"image": "photo.jpg", "caption": "Cats on a sofa at a wall, and a table"}
    (folder / "captions.jsonl").write_text(json.dumps(caption) + "\n")
    halves = np.repeat(np.array([[1, 2]], np.uint8), 48, axis=1).repeat(64, axis=0)
    for name in ["masks.png", "masks/a.png", "masks/b.png"]:
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(halves).save(folder / name)
    classes = json.dumps([{"id": 1, "name": "cat"}, {"id": 2, "name": "wall"}])
    for place, count in (("dataset/val", 3), ("PHOTOS/train", 6), ("PHOTOS/val", 2), ("OTHER_PHOTOS/train", 2)):
        for part in ("images", "masks"):
            (folder / place / part).mkdir(parents=True)
        for number in range(count):
            noise = np.random.default_rng(number).integers(0, 256, (64, 96, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / place / f"images/{number}.jpg")
            Image.fromarray(halves).save(folder / place / f"masks/{number}.png")
        (folder / place.split("/")[0] / "classes.json").write_text(classes)


def _write_models(folder: Path, tiny_clip: Path) -> None:
    shutil.copytree(tiny_clip, folder / "my-clip")
    tiny_networks.mask2former().save_pretrained(folder / "my-mask2former")
    shutil.copytree(tiny_clip, folder / "pickled-clip")
    weights = folder / "pickled-clip" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    for name in ("clip-state-dict.pt", "open_clip_pytorch_model.bin"):
        torch.save(openai_state(tiny_clip), folder / name)
    write_open_clip_config(folder)
