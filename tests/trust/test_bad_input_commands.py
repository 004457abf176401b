"""Bad input on the surfaces that the other files of the table leave out: masks, lists and folders given to commands.

Every command refuses it with one message that names the input, and writes nothing.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deop
from deop.errors import DeopError
from deop.text.vocabulary import Vocabulary
from tests.trust.bad_input import (
    HEIGHT,
    SCRIPTS,
    WIDTH,
    control_characters,
    encoded,
    hostile_files,
    write_quick_model,
)
from tests.trust.test_bad_input_labels import MASKS, NAMES, labelled

PHOTO = "photo.png"


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """What it wrote, without the line breaks of a narrow terminal."""
        return "".join((self.out + self.err).split())


@pytest.fixture
def run(capfd, monkeypatch, tmp_path) -> Callable[..., Done]:
    """A command in an empty working directory, which no message shows a traceback of."""
    from deop.cli import main

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("typer.get_app_dir", lambda name: str(tmp_path / "configuration" / name))

    def run(*arguments: object) -> Done:
        capfd.readouterr()  # what was written before
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        assert "unexpected" not in err, err
        assert not control_characters(out + err)
        return Done(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> Path:
    return write_quick_model(tmp_path_factory.mktemp("models") / "quick")


def files_here() -> set[str]:
    return {path.as_posix() for path in Path().rglob("*")}


def write_photo() -> None:
    Path(PHOTO).write_bytes(encoded("PNG"))


# ---- masks and lists of names


@pytest.mark.parametrize("name", MASKS)
def test_masks_on_the_command_line(name, run, quick, tmp_path):
    write_photo()
    MASKS[name](tmp_path / name)
    done = run("segment", PHOTO, "-c", "cat", "--masks", tmp_path / name, "--model", quick, "--device", "cpu")
    assert done.code in (1, 2), done.err
    assert name in done.words or str(tmp_path) in done.words
    assert files_here() == {PHOTO}


@pytest.mark.parametrize("name", NAMES)
def test_lists_of_names_on_the_command_line(name, run, quick, tmp_path):
    write_photo()
    NAMES[name](tmp_path / name)
    done = run("segment", PHOTO, "--classes-file", tmp_path / name, "--model", quick, "--device", "cpu")
    assert done.code == 2, done.err
    assert name in done.words
    assert files_here() == {PHOTO}


@pytest.mark.parametrize("command", ["batch", "export", "evaluate", "learn"])
def test_every_command_with_a_list_of_names_refuses_a_damaged_one(command, run, quick, tmp_path):
    """The same reader stands behind them."""
    if command == "batch":
        pytest.importorskip("pyarrow")
    if command == "export":
        pytest.importorskip("onnxscript")
    data = labelled(tmp_path / "data", '[{"id": 1, "name": "a"}]')
    NAMES["cut.json"](tmp_path / "cut.json")
    arguments = {
        "batch": [data / "images", "out", "--classes-file", tmp_path / "cut.json", "--model", quick],
        "export": [quick, "out", "--classes-file", tmp_path / "cut.json"],
        "evaluate": [shutil.copy(tmp_path / "cut.json", data / "classes.json").parent, "--model", quick],
        "learn": [data, "--name", "bank", "--model", quick],
    }[command]
    done = run(command, *arguments)
    assert done.code in (1, 2), done.err
    assert ("classes.json" if command in ("evaluate", "learn") else "cut.json") in done.words
    assert not files_here()


@pytest.mark.parametrize("name", ["x" * 5000, "x " * 2500, "x|" * 2499 + "x", "猫" * 5000, "x\x1b" * 2500])
@pytest.mark.filterwarnings("ignore")
def test_names_of_5000_characters_on_the_command_line(name, run, quick):
    """In every form of result: or refused, in a message that does not repeat it."""
    write_photo()
    options = ["--labels", "l.png", "--json", "r.jsonl", "--coco", "c.json", "-o", "p.png", "--polygons", "g.geojson"]
    done = run("segment", PHOTO, "-c", f"{name},wall", *options, "--model", quick, "--device", "cpu", "--no-cache")
    if done.code == 0:
        line = json.loads(Path("r.jsonl").read_text(encoding="utf-8"))
        assert line["names"] == list(Vocabulary.parse(f"{name},wall").names)
        assert {category["name"] for category in json.loads(Path("c.json").read_text())["categories"]} >= {"wall"}
    else:
        assert done.code == 2, done.err
        assert files_here() == {PHOTO}
    assert len(done.out + done.err) < 8000


@pytest.mark.parametrize("name", [name for name in MASKS if name.endswith(".png")])
def test_masks_of_a_labelled_folder(name, run, quick, tmp_path):
    data = labelled(tmp_path / "data", '[{"id": 1, "name": "a"}]')
    (data / "masks" / "a.png").unlink()
    MASKS[name](data / "masks" / "a.png")
    done = run("evaluate", data, "--model", quick, "--device", "cpu", "--json", "scores.json")
    assert done.code in (1, 2), done.err
    assert "a.png" in done.words or "loop" in done.words
    assert not files_here()


@pytest.mark.parametrize("size", [(WIDTH + 1, HEIGHT), (HEIGHT, WIDTH), (1, 1)], ids=str)
def test_masks_of_a_labelled_folder_of_another_size(size, run, quick, tmp_path):
    data = labelled(tmp_path / "data", '[{"id": 1, "name": "a"}]')
    Image.new("L", size, 1).save(data / "masks" / "a.png")
    done = run("evaluate", data, "--model", quick, "--device", "cpu", "--json", "scores.json")
    assert done.code in (1, 2), done.err
    assert "a.png" in done.words
    assert not files_here()


# ---- objects in Python


@pytest.fixture(scope="module", params=["onnx", "torch"])
def model(request, quick):
    loaded = deop.load(quick, engine=request.param, device="cpu", threads=1)
    loaded.cache = None
    return loaded


OBJECTS = (
    np.full((HEIGHT, WIDTH, 3), np.nan, np.float32), np.full((HEIGHT, WIDTH, 3), np.inf, np.float32),
    np.full((HEIGHT, WIDTH, 3), 1e6, np.float32), np.full((HEIGHT, WIDTH, 3), -1.0), np.full((HEIGHT, WIDTH, 3), 300),
    np.zeros((3, HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH, 5), np.uint8), np.zeros((0, WIDTH, 3), np.uint8),
    np.zeros((HEIGHT, 0, 3), np.uint8), np.zeros(7, np.uint8), np.array("x"), np.array([None]),
    np.zeros((2, 2), "M8[s]"), np.full((HEIGHT, WIDTH, 3), {}), b"", b"x", bytes(5000), 7, 1.5, None, {}, object, "",
)  # fmt: skip


@pytest.mark.parametrize("photo", OBJECTS, ids=lambda photo: ascii(getattr(photo, "dtype", photo))[:40])
def test_objects_that_are_no_photos(photo, model):
    with pytest.raises(DeopError) as caught:
        model.segment(photo, ["cat", "wall"])
    assert len(str(caught.value)) < 700
    assert not control_characters(str(caught.value))


# ---- folders of models, on every command


def change(folder: Path, update: Callable[[dict], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    update(config)
    (folder / "config.json").write_text(json.dumps(config))


def write(name: str, content: bytes) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(content)

    return write


MISTAKES: dict[str, Callable[[Path], object]] = {
    "no config": lambda folder: (folder / "config.json").unlink(),
    "empty config": write("config.json", b""),
    "binary config": write("config.json", bytes(range(256))),
    "cut config": write("config.json", b'{"format": "deop", '),
    "config is a list": write("config.json", b"[]"),
    "deep config": write("config.json", b"[" * 100_000),
    "another format": lambda folder: change(folder, lambda config: config.update(format="\x1b[31mother")),
    "no settings": lambda folder: change(folder, lambda config: config.pop("settings")),
    "settings of another type": lambda folder: change(folder, lambda config: config.update(settings=[1])),
    "a negative size": lambda folder: change(folder, lambda config: config["settings"]["resize"].update(short_side=-1)),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "empty weights": write("model.safetensors", b""),
    "cut words": write("words.txt", b"cat"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("command", ["segment", "export", "evaluate", "batch", "serve", "learn", "bench"])
def test_malformed_folders_are_refused_by_every_command(command, mistake, run, quick, tmp_path):
    for library in {"batch": ["pyarrow"], "export": ["onnxscript"], "serve": ["fastapi", "uvicorn"]}.get(command, []):
        pytest.importorskip(library)
    folder = shutil.copytree(quick, tmp_path / "model", symlinks=True)
    MISTAKES[mistake](folder)
    data = labelled(tmp_path / "data", '[{"id": 1, "name": "a"}]')
    arguments = {
        "segment": [data / "images" / "a.png", "-c", "cat", "-o", "out.png", "--model", folder, "--device", "cpu"],
        "export": [folder, "out"],
        "evaluate": [data, "--model", folder, "--device", "cpu", "--json", "out.json"],
        "batch": [data / "images", "out", "-c", "cat", "--model", folder, "--device", "cpu"],
        "serve": ["--model", folder, "--port", "0", "--device", "cpu"],
        "learn": [data, "--name", "out", "--model", folder, "--device", "cpu"],
        "bench": ["engines", folder],
    }[command]
    done = run(command, *arguments)
    assert done.code, done.out
    assert str(folder) in done.words or folder.name in done.words
    assert len(done.err) < 3000
    assert not files_here()


# ---- folders with links


def write_linked_photos(folder: Path, outside: Path) -> None:
    """A photo, a link to a photo elsewhere, one to a secret, one to the folder itself and one to its parent."""
    folder.mkdir()
    outside.mkdir()
    (folder / PHOTO).write_bytes(encoded("PNG"))
    (outside / "other.png").write_bytes(encoded("PNG"))
    (outside / "secret.txt").write_text("hunter2-is-the-secret " * 20)
    (folder / "linked.png").symlink_to(outside / "other.png")
    (folder / "secret.png").symlink_to(outside / "secret.txt")
    (folder / "itself").symlink_to(folder)
    (folder / "parent").symlink_to("..")


def check_linked(photos: list[str], outside: Path, before: set[Path], texts: str) -> None:
    assert sorted(Path(name).name for name in photos).count("other.png") <= 1
    assert {"photo.png", "linked.png"} <= {Path(name).name for name in photos}
    assert set(outside.iterdir()) == before
    assert "hunter2" not in texts


def test_folders_of_photos_with_links(run, quick, tmp_path):
    """Links are followed once, nothing is written to where they lead, and no message repeats what is there."""
    outside = tmp_path / "outside"
    write_linked_photos(Path("photos"), outside)
    before = set(outside.iterdir())
    done = run(
        "segment", "photos", "-c", "cat, wall", "-o", "out", "--json", "r.jsonl", "--model", quick, "--device", "cpu"
    )
    lines = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    photos = [line["photo"] for line in lines if "error" not in line]
    check_linked(photos, outside, before, done.out + done.err + Path("r.jsonl").read_text())
    assert len(lines) < 10


def test_batches_with_links(run, quick, tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    outside = tmp_path / "outside"
    write_linked_photos(Path("photos"), outside)
    before = set(outside.iterdir())
    done = run("batch", "photos", "out", "-c", "cat, wall", "--model", quick, "--device", "cpu", "--workers", "1")
    rows = [row for part in Path("out").glob("part-*.parquet") for row in pq.read_table(part).to_pylist()]
    photos = [row["path"] for row in rows if row["error"] is None]
    check_linked(photos, outside, before, done.out + done.err + json.dumps(rows, default=str))
    assert len(rows) < 10


def test_results_replace_links_and_do_not_write_through_them(run, quick, tmp_path):
    """A link of somebody else in the folder of results, to a file of yours."""
    victim = tmp_path / "victim"
    victim.write_text("unchanged")
    (tmp_path / "here" / "photos").mkdir()
    (tmp_path / "here" / "out").mkdir()
    (tmp_path / "here" / "photos" / PHOTO).write_bytes(encoded("PNG"))
    for name in ("photo.png", "photo.deop.png", "photo.geojson", "photo.npz", "r.jsonl", "c.json"):
        (tmp_path / "here" / "out" / name).symlink_to(victim)
    run(
        "segment", "photos", "-c", "cat, wall", "-o", "out", "--json", "out/r.jsonl", "--coco", "out/c.json",
        "--model", quick, "--device", "cpu",
    )  # fmt: skip
    run("segment", "photos", "-c", "cat, wall", "--labels", "out", "--model", quick, "--device", "cpu")
    run("segment", "photos", "-c", "cat, wall", "--polygons", "out", "--model", quick, "--device", "cpu")
    assert victim.read_text() == "unchanged"


# ---- names of files and classes in batches and exports


@pytest.mark.filterwarnings("ignore")
def test_batches_with_every_name_of_a_file(run, quick):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    Path("photos").mkdir()
    names = [name for name in hostile_files() if "\udcff" not in name]
    for name in names:
        (Path("photos") / name).write_bytes(encoded("PNG"))
    done = run("batch", "photos", "out", "-c", "cat, wall", "--model", quick, "--device", "cpu", "--workers", "1")
    assert done.code == 0, done.err
    rows = [row for part in Path("out").glob("part-*.parquet") for row in pq.read_table(part).to_pylist()]
    assert {Path(row["path"]).name for row in rows} == {name for name in names if not name.startswith(".")}
    assert not [row["error"] for row in rows if row["error"]]


@pytest.mark.slow
def test_an_exported_table_of_every_name(run, tmp_path):
    """Names in every script come back from an exported folder as they were given."""
    pytest.importorskip("onnxscript")
    from tests.tiny import write_tiny_clip
    from tests.trust.test_bad_input_names import VISIBLE

    tiny = write_tiny_clip(tmp_path / "clip", layers=2)
    names = [name for name in {*VISIBLE, *SCRIPTS} if "," not in name]
    Path("names.json").write_text(json.dumps(names), encoding="utf-8")
    done = run("export", tiny, "out", "--classes-file", "names.json")
    assert done.code == 0, done.err
    model = deop.load("out", engine="onnx", device="cpu")
    vocabulary = Vocabulary.parse(names)
    rows = np.asarray(model.embed(model.vocabulary(list(vocabulary.names))).rows)
    assert len(rows) >= len(vocabulary.names)
    assert np.isfinite(rows).all()
