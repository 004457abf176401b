"""Commands under faults: a full disk, a read-only folder, kill -9, a second process, a clock that jumps.

Whatever happens, a file is whole or absent, the message names it, and the command succeeds when it is repeated.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from tests.trust.forked import Forks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no GPU")  # forks, mounts and /proc

RECIPE = """
model: nano
learn: [anchors]
anchors: {query: mask, heads: 1, hidden: 16}
augmentation: {short_sides: [64], crop: 64, pad: 64, colour: false}
loss_stride: 4
resize: {short_side: 64}
loop: {iterations: 3, batch: 1, log_every: 1, save_every: 1, validate_every: 0}
"""


@dataclass(frozen=True)
class Command:
    """A command whose results go to the working directory.

    Attributes:
        arguments: those of ``deop``; "IN" stands for the folder of inputs.
        outputs: the names of its results, files or folders.
        again: further arguments when it is repeated.
    """

    arguments: str
    outputs: tuple[str, ...]
    again: str = ""


COMMANDS = {
    "segment": Command(
        "segment IN/data/images/0.jpg -c cat,wall --threads 1 --labels labels.png --json a.json --coco b.json",
        ("labels.png", "a.json", "b.json"),
    ),
    "learn": Command(
        "learn --example IN/data/images/0.jpg:IN/data/masks/0.png=cat --name bank --threads 1", ("bank.safetensors",)
    ),
    "evaluate": Command(
        "evaluate IN/data --resamples 10 --threads 1 --json a.json --report report --save-maps maps",
        ("a.json", "report", "maps"),
    ),
    "convert": Command("convert IN/pickled model", ("model",)),
    "export": Command("export IN/clip model --classes cat,wall", ("model",)),
    "batch": Command("batch IN/data/images rows -c cat,wall --shards 2 --workers 1 --threads 1", ("rows",)),
    "train": Command(
        "train deop --recipe IN/small.yaml --data IN/data --device cpu --out run", ("run/model",), again="--resume"
    ),
}
SLOWEST = ("export", "batch", "train")
SLOW = ("learn", "evaluate", *SLOWEST)
ROWS = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in COMMANDS]


@pytest.fixture(scope="module")
def forks():
    imports = ("torch", "transformers", "deop.model", "deop.weights.conversion", "deop.evaluation.report")
    with Forks((*imports, "tests.trust.traced_once")) as started:
        yield started


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, tiny_clip):
    """A folder with photos, masks, names, a CLIP and one with pickled weights."""
    import torch
    from safetensors.torch import load_file

    folder = tmp_path_factory.mktemp("inputs")
    random = np.random.default_rng(0)
    for split in (folder / "data", folder / "data" / "train", folder / "data" / "val"):
        (split / "images").mkdir(parents=True)
        (split / "masks").mkdir()
        for number in range(3):
            Image.fromarray(random.integers(0, 256, (64, 96, 3), np.uint8)).save(split / "images" / f"{number}.jpg")
            mask = np.repeat(np.array([[1, 2, 2]], np.uint8), 32, axis=1).repeat(64, axis=0)
            Image.fromarray(mask).save(split / "masks" / f"{number}.png")
    (folder / "data" / "classes.json").write_text(json.dumps([{"id": 1, "name": "cat"}, {"id": 2, "name": "wall"}]))
    (folder / "small.yaml").write_text(RECIPE)
    shutil.copytree(tiny_clip, folder / "clip")
    shutil.copytree(tiny_clip, folder / "pickled")
    torch.save(load_file(folder / "clip" / "model.safetensors"), folder / "pickled" / "pytorch_model.bin")
    (folder / "pickled" / "model.safetensors").unlink()
    return folder


def arguments_of(command, inputs, *, again=False):
    words = [*command.arguments.split(), *(command.again.split() if again else [])]
    return [word.replace("IN", str(inputs)) for word in words]


def content_of(file):
    """The content of a file without times."""
    data = file.read_bytes()
    if file.suffix in (".json", ".html"):
        text = re.sub(rb"\d{4}-\d\d-\d\d[ T]\d\d:\d\d[^\"<]*", b"DATE", data)
        data = re.sub(rb'("?\w*seconds\w*"?: ?)[\d.e-]+|[\d.]+ s per photo|"?[\d.]+ s\b', b"TIME", text)
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(file)
        return table.drop_columns(["seconds"]).to_pylist()
    return hashlib.sha256(data).hexdigest()


def results(folder, command):
    """The files that a user sees as results, by their paths."""
    found = {}
    for name in command.outputs:
        place = folder / name
        files = [place] if place.is_file() else sorted(place.rglob("*")) if place.is_dir() else []
        for file in files:
            path = file.relative_to(folder)
            if file.is_file() and not any(part.startswith(".") for part in path.parts):
                found[str(path)] = content_of(file)
    return found


@pytest.fixture(scope="module")
def expected(forks, inputs, tmp_path_factory):
    """``expected("convert")``: results without a fault, and the number of file operations; each is run once."""
    seen = {}

    def find(name):
        if name not in seen:
            folder = tmp_path_factory.mktemp(f"whole-{name}")
            start = time.monotonic()
            done = forks.run(arguments_of(COMMANDS[name], inputs), folder)
            assert done.code == 0, done.err
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            found = results(folder, COMMANDS[name])
            assert found
            seen[name] = (found, done.operations, size, time.monotonic() - start)
        return seen[name]

    return find


@pytest.fixture
def disk(tmp_path):
    """A file system in memory of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(folder)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no small disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def check_message(done, text):
    """One message of ours, with the reason, and no traceback."""
    assert done.code > 0, done.err
    assert "Traceback" not in done.err, done.err
    assert text in done.err, done.err


def check_whole(found, whole):
    """What is there is whole."""
    for path, content in found.items():
        assert path in whole, path
        assert content == whole[path], f"{path} is not complete"


@pytest.mark.parametrize("name", ROWS)
def test_a_full_disk(forks, inputs, expected, disk, name):
    command, (whole, _, size, _) = COMMANDS[name], expected(name)
    for share in (0.0, 0.6):
        free = shutil.disk_usage(disk).free
        with (disk / "filling").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, free - int(size * share) // 4096 * 4096))
        done = forks.run(arguments_of(command, inputs, again=_has_begun(disk)), disk)
        (disk / "filling").unlink()
        if done.code == 0:  # what needs so little room that it fits
            assert share
            continue
        check_message(done, "No space left on device")
        check_whole(results(disk, command), whole)
        assert not list(disk.rglob("*.part")) + list(disk.rglob(".deop-*"))
    if results(disk, command) != whole:
        done = forks.run(arguments_of(command, inputs, again=_has_begun(disk)), disk)
        assert done.code == 0, done.err
    assert results(disk, command) == whole


@pytest.mark.parametrize("name", ROWS)
def test_a_read_only_folder(forks, inputs, disk, name):
    command = COMMANDS[name]
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    done = forks.run(arguments_of(command, inputs), disk)
    check_message(done, "Read-only file system")
    assert not list(disk.iterdir())
    assert not done.loaded, "it is noticed before a model is loaded"


@pytest.mark.parametrize("name", ROWS)
def test_killed_before_any_file_operation(forks, inputs, expected, tmp_path, name):
    """kill -9 at file operations from the first to the last, then the command again."""
    command, (whole, operations, _, _) = COMMANDS[name], expected(name)
    most = int(os.environ.get("DEOP_KILLS", "3"))
    moments = np.unique(np.linspace(1, operations, min(operations, most)).round().astype(int))
    for moment in moments.tolist():
        folder = tmp_path / f"{moment}"
        folder.mkdir()
        killed = forks.run(arguments_of(command, inputs), folder, kill_at=moment)
        assert killed.code == -9, killed.err
        check_whole(results(folder, command), whole)
        done = forks.run(arguments_of(command, inputs, again=_has_begun(folder)), folder)
        if done.code != 0 and re.search("exists|already", done.err) and results(folder, command) == whole:
            continue  # killed after the last result: it refuses to write it again
        assert done.code == 0, f"{moment} of {operations}: {done.err}"
        assert results(folder, command) == whole, moment
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_random_times(forks, inputs, expected, tmp_path, name):
    command, (whole, _, _, seconds) = COMMANDS[name], expected(name)
    random = np.random.default_rng(0)
    for number in range(int(os.environ.get("DEOP_KILLS", "1" if name in SLOWEST else "2"))):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        for _ in range(2):
            process = forks.start(arguments_of(command, inputs, again=_has_begun(folder)), folder)
            time.sleep(random.uniform(0, 1.2 * seconds))
            forks.kill(process)
            forks.wait(process)
            check_whole(results(folder, command), whole)
        done = forks.run(arguments_of(command, inputs, again=_has_begun(folder)), folder)
        assert done.code == 0 or re.search("exists|already", done.err), done.err
        assert results(folder, command) == whole


def _has_begun(folder):
    """Whether a training has a folder, so that it is resumed."""
    return (folder / "run").exists()


@pytest.mark.parametrize("name", ROWS)
def test_two_processes_at_once(forks, inputs, expected, tmp_path, name):
    """One writes, or both do, and the other is refused; nothing is mixed."""
    command, (whole, _, _, _) = COMMANDS[name], expected(name)
    for number in range(int(os.environ.get("DEOP_KILLS", "1"))):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        first = forks.start(arguments_of(command, inputs), folder)
        second = forks.start(arguments_of(command, inputs), folder)
        ends = [forks.wait(first), forks.wait(second)]
        assert min(end.code for end in ends) == 0, "".join(end.err for end in ends)
        for end in ends:
            assert "Traceback" not in end.err, end.err
        assert results(folder, command) == whole


@pytest.mark.parametrize("name", ROWS)
def test_a_clock_that_jumps(forks, inputs, expected, tmp_path, name):
    """The time of day jumps back and forth by years, and files are of the future."""
    command, (whole, _, _, _) = COMMANDS[name], expected(name)
    os.utime(inputs / "data" / "images" / "0.jpg", (4e9, 4e9))
    jumps = [0.0, 3e8, -3e8, 86400.0, -86400.0]
    done = forks.run(arguments_of(command, inputs), tmp_path, clock=jumps)
    assert done.code == 0, done.err
    assert results(tmp_path, command) == whole
    assert "Traceback" not in done.err
