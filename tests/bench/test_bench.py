"""The bench counts right, compares like with like, and says what it measured."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deop.bench import subjects
from deop.bench.flops import encoder_flops
from deop.bench.report import Goal, Part, Row, faster
from deop.bench.run import PARTS, run
from deop.bench.setup import Setup
from deop.bench.sizes import CHILD
from deop.bench.stages import STAGES, walk
from deop.bench.streams import Scene
from deop.bench.subjects import CLIPSegUsed, Words, blobs, clip_model, names, synthetic_photo
from deop.bench.timing import Times, take_turns
from deop.encoders.clip import CLIPVision, VisionConfig
from deop.encoders.severance import Severance
from deop.regions.two_stream import crop_proposals
from deop.zoo import load

CPU = torch.device("cpu")
TINY = VisionConfig(width=64, layers=2, heads=2, hidden=128, patch=16, grid=4, output=32)


@pytest.fixture
def tiny_towers(monkeypatch):
    monkeypatch.setattr(subjects, "TOWERS", {"B/16": TINY, "L/14": TINY})
    monkeypatch.setattr(subjects, "SIDES", {"B/16": 64, "L/14": 64})
    for module in ("streams", "encoder", "variants"):
        monkeypatch.setattr(f"deop.bench.{module}.SIDES", subjects.SIDES)
    monkeypatch.setattr("deop.bench.encoder.TOWERS", subjects.TOWERS)


def setup(**changes):
    return Setup(**{"device": CPU, "dtype": torch.float32, "photo": synthetic_photo(48, 64), "repeats": 1,
                    "quick": True, **changes})  # fmt: skip


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
@pytest.mark.parametrize("severed", [0, 1])
def test_operations_are_those_that_torch_counts(size, severed):
    tower = CLIPVision(TINY).eval()
    severance = Severance("self", (-1,), class_token="severed") if severed else None
    # Torch counts the products of attention where they are products, not its fused kernel on the CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        tower(torch.zeros(1, 3, *size), severance=severance)
    assert encoder_flops(TINY, size, severed) == counter.get_total_flops()


def test_vit_b_16_at_224_has_the_operations_that_the_field_knows():
    """17.5 GMAC, as published for ViT-B/16 at 224 pixels (17.56 with its head)."""
    assert encoder_flops(VisionConfig(), (224, 224)) / 2 == pytest.approx(17.5e9, rel=0.01)


def test_median_and_percentile_by_hand():
    times = Times(tuple(range(1, 101)))
    assert (times.p50, times.p95, times.least) == (50.5, 95, 1)
    assert Times((3.0, 1.0, 2.0)).p95 == 3.0


def test_subjects_take_turns_there_and_back():
    order = []
    found = take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, CPU)
    assert order == list("abbaabba")
    assert [len(times.seconds) for times in found.values()] == [3, 3]


def test_goals():
    row = faster("x", Times((1.0,)), Times((3.0,)), "other", least=4.0)
    assert row.figures["ratio"] == 3.0
    assert row.met is False
    assert Row("y", figures={"share": 0.5}, goal=Goal("share", 0.6, least=False)).met
    assert row.entries()["goal"] == {"ratio": "≥ 4"}
    assert Row("z").met is None


def test_masks_are_such_as_can_be_cropped():
    masks = blobs(100, (128, 128))
    covered = (masks > 0).float().mean((1, 2))
    assert (covered > 0).all()
    assert covered.median() < 0.2
    crops = crop_proposals(torch.zeros(3, 128, 128), masks.sigmoid(), side=8)
    assert crops.valid.all()
    assert torch.equal(blobs(5, (16, 16), 1), blobs(5, (16, 16), 1))


def test_both_streams_do_the_whole_work(tiny_towers):
    model = clip_model("B/16", depth=None)
    scene = Scene.of(model, setup(), 7)
    once, crops = scene.once(), scene.crops()
    assert once.shape == crops.shape == (7, 21)
    assert not torch.allclose(once, crops)


def test_the_stages_give_the_map_of_the_model(tmp_path, monkeypatch):
    """What is timed is what ``segment`` does."""
    from PIL import Image

    from deop.results.segmentation import Segmentation

    photo = synthetic_photo(96, 128)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    model = load("nano", device="cpu")
    words = model.vocabulary(["cat", "wall", "sky"])
    made = []
    original = Segmentation.overlay
    monkeypatch.setattr(Segmentation, "overlay", lambda self: (made.append(self), original(self))[1])
    laps = walk(model, tmp_path / "photo.png", words)
    assert tuple(laps) == STAGES
    assert np.array_equal(made[0].label_map, model.segment(photo, words).label_map)


@pytest.mark.slow
def test_clipseg_encoding_once_gives_the_answer_of_clipseg_as_documented():
    other = CLIPSegUsed(CPU, torch.float32)
    photo = synthetic_photo(60, 80)
    torch.manual_seed(0)
    documented = other.documented(photo, 3)
    torch.manual_seed(0)
    once = other.once(photo, 3)
    assert documented.shape == once.shape == (60, 80)
    assert (documented == once).mean() > 0.999


def test_names_are_embedded_alike_each_time():
    words = Words(16)
    assert torch.equal(words.embed(["a", "b"]), words.embed(["a", "b"]))
    assert len(set(names(50))) == 50


class Quick:
    """In CLIPSeg's place, which takes minutes; the test above has the real one."""

    def __init__(self, *arguments):
        pass

    def documented(self, photo, prompts):
        return np.zeros(photo.shape[:2])

    once = documented


@pytest.mark.slow
@pytest.mark.parametrize("key", [key for key in PARTS if key not in ("sizes", "start")])
def test_every_part_runs_and_says_what_it_measured(key, tiny_towers, capsys, monkeypatch):
    monkeypatch.setattr("deop.bench.names.CLIPSegUsed", Quick)
    line = run(setup(), [key])
    found = json.loads(line)
    rows = found["parts"][key]["rows"]
    assert rows
    assert all(row["p50"] > 0 for row in rows if "p50" in row)
    assert found["threads"] == torch.get_num_threads()
    assert {"torch", "deop"} <= set(found["versions"])
    assert found["quick"] is True
    assert found["peak_memory_MiB"] > 100
    shown = capsys.readouterr().out
    assert found["parts"][key]["title"].split(",")[0][:30] in shown


def test_parts_are_shown_with_their_goals(capsys):
    from rich.console import Console

    from deop.bench.report import show

    rows = (Row("one", Times((0.5,)), figures={"share": 0.7}, goal=Goal("share", 0.65)), Row("two", Times((2.0,))))
    show(Part("x", "A title", rows, "A note."), Console(width=100))
    shown = capsys.readouterr().out
    assert "500.0 ms" in shown
    assert "70 %" in shown
    assert "≥ 0.65 met" in shown
    assert "A note." in shown


def python(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_peak_memory_grows_with_what_is_held():
    code = "import numpy as np; from deop.bench.report import peak_memory as peak; before = peak(); "
    assert 400 < float(python(code + "held = np.ones((64, 1 << 20)); print(peak() - before)")) < 700


def test_a_size_in_a_process_of_its_own():
    asked = {"model": "nano", "side": 64, "repeats": 3, "seed": 0, "device": "cpu", "dtype": "float32"}
    found = json.loads(python(CHILD, json.dumps(asked)))
    assert len(found["seconds"]) == 3
    assert found["peak"] >= found["before"] > 100
