"""The command line on the base install."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def ok(process):
    """The process, after checking that it succeeded."""
    assert process.returncode == 0, process.stderr
    return process


def test_the_first_command_of_the_readme(deop):
    """Its last part; .ci/run runs the whole command, with the installation."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"^<!-- ci: install -->\n```sh\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)[1]
    words = shlex.split(command.split("&&")[-1])
    assert words[0].endswith("deop")
    process = ok(deop(*(ROOT / word if word.startswith("examples/") else word for word in words[1:])))
    assert re.search(r"^pagoda +2\d", process.stdout, re.MULTILINE), process.stdout
    with Image.open(deop.folder / "pagoda.deop.png") as picture:
        assert picture.size[0] >= 640


@pytest.mark.parametrize("mode", ["semantic", "panoptic", "instance"])
def test_every_mode(deop, photo, mode):
    arguments = ("--mode", mode, "--json", "-", "--labels", "labels.png", "--coco", "coco.json", "--threshold", "0.2")
    process = ok(deop("segment", photo, "-c", "cat|kitten, wall", "--quiet", *arguments))
    result = json.loads(process.stdout)
    assert result["mode"] == mode
    assert result["segments"][0]["name"] == "cat"
    assert result["segments"][0]["share"] > 0.5
    assert {segment["name"] for segment in result["segments"]} <= {"cat", "wall"}
    assert mode != "instance" or all(segment["isthing"] for segment in result["segments"])
    with Image.open(deop.folder / "labels.png") as labels:
        assert labels.size == (451, 300)
        assert np.asarray(labels)[150, 225] == np.bincount(np.asarray(labels).ravel()).argmax()
    assert json.loads((deop.folder / "coco.json").read_text(encoding="utf-8"))["annotations"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--vocabulary", "everyday"),
        ("-c", "cat", "--background", "wall, floor"),
        ("--heatmap", "cat"),
        ("--cutout", "cat"),
        ("-c", "cat, background", "--style", "outline"),
    ],
    ids=lambda arguments: arguments[0] + arguments[-2],
)
def test_names_and_pictures(deop, photo, arguments):
    if arguments[-2] == "--style":
        help_text = deop("segment", "--help").stdout
        arguments = (*arguments[:-1], "outline" if "outline" in help_text else "contours")
    ok(deop("segment", photo, *arguments, "-o", "out.png"))
    with Image.open(deop.folder / "out.png") as picture:
        assert np.asarray(picture).std() > 10


def test_a_folder_of_photos_of_several_sizes(deop, photo):
    folder = deop.folder / "photos"
    folder.mkdir()
    for number, size in enumerate([(64, 48), (300, 200), (33, 500), (1, 1)]):
        with Image.open(photo) as image:
            image.resize(size).save(folder / f"{number}.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    process = deop("segment", folder, "-c", "cat, wall", "--labels", "maps")
    assert process.returncode == 1
    assert "broken.jpg" in process.stderr
    assert "Traceback" not in process.stderr
    for number, size in enumerate([(64, 48), (300, 200), (33, 500), (1, 1)]):
        with Image.open(deop.folder / "maps" / f"{number}.png") as labels:
            assert labels.size == size


def test_help_version_completion_and_models(deop):
    assert ok(deop("--version")).stdout.startswith("deop ")
    help_text = ok(deop("--help")).stdout
    commands = re.findall(r"^│ (\w+) ", help_text.split("Commands")[1], re.MULTILINE)
    assert {"segment", "evaluate", "train", "models", "convert", "bench", "prepare"} <= set(commands)
    for command in commands:
        assert ok(deop(command, "--help")).stdout, command
    assert '"on_this_machine": {"encoder": false, "proposer": false}' in ok(deop("models", "--json")).stdout
    assert "clip-b16" in ok(deop("models")).stdout
    assert ok(deop("config")).stderr or deop("config").stdout
    assert ok(deop("prepare", "--list")).stdout


@pytest.mark.parametrize(
    "words", ["deop segment --model ", "deop segment --severance ", "deop segment --device ", "deop "]
)
def test_completion(deop, monkeypatch, words):
    monkeypatch.setenv("_DEOP_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", words)
    process = ok(deop())
    assert process.stdout.strip()
    assert not process.stderr


TORCH = [
    ("train", "finetune", "--data", "."),
    ("bench", "--quick", "names"),
    ("convert", "checkpoint.pth", "out"),
    ("segment", "cat.png", "-c", "cat", "--engine", "torch"),
    ("segment", "cat.png", "-c", "cat", "--model", "clip-b16"),
    ("segment", "cat.png", "-c", "cat", "--model", "organisation/model"),
    ("segment", "cat.png", "-c", "cat", "--severance", "gate"),
    ("segment", "cat.png", "-c", "cat", "--classifier", "two-stream"),
    ("segment", "cat.png", "-c", "cat", "--proposer", "organisation/model"),
    ("segment", "cat.png", "-c", "cat", "--device", "mps"),
    ("evaluate", "dataset", "--model", "clip-b16"),
]


@pytest.fixture
def dataset(deop, photo):
    """A labelled data set of one photo."""
    with Image.open(photo) as image:
        for name, one in (("images", image), ("masks", Image.new("L", image.size, 1))):
            (deop.folder / "dataset" / name).mkdir(parents=True)
            one.save(deop.folder / "dataset" / name / "cat.png")
    classes = json.dumps([{"id": 1, "name": "cat"}, {"id": 2, "name": "wall"}])
    (deop.folder / "dataset" / "classes.json").write_text(classes, encoding="utf-8")
    return deop.folder / "dataset"


@pytest.mark.parametrize("arguments", TORCH, ids=" ".join)
def test_what_needs_torch_names_the_extra(deop, photo, dataset, arguments):
    process = deop(*arguments)
    assert process.returncode in (2, 4), process.stderr
    assert re.search(r'pip install "deop\[(torch|train)\]"', " ".join(process.stderr.split())), process.stderr
    assert "unexpected" not in process.stderr
    assert "Traceback" not in process.stderr
    assert process.stderr.count("error:") == 1
    assert sorted(path.name for path in deop.folder.iterdir()) == ["cat.png", "dataset"]


def test_a_video_names_the_extra(deop):
    (deop.folder / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    process = deop("segment", "clip.mp4", "-c", "cat")
    assert process.returncode == 1
    assert 'pip install "deop[video]"' in process.stderr
    assert "Traceback" not in process.stderr


def test_evaluate(deop, dataset):
    process = ok(deop("evaluate", dataset, "--json", "-"))
    scores = json.loads(process.stdout)
    assert scores["images"] == 1
    assert scores["pixel_accuracy"] > 0.5


def test_a_data_set_is_checked(deop, dataset):
    assert json.loads(ok(deop("prepare", "check", dataset, "--json")).stdout)["ok"]
