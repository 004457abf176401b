"""``deop bench`` counts operations correctly, compares equal work, and reports what it measured."""

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deop.bench import MINUTES, SHORT, Topic, subjects
from deop.bench.comparisons import ClassificationInputs
from deop.bench.encoder_speed import encoder_flops
from deop.bench.end_to_end import CHILD, STAGES, time_one_photo
from deop.bench.memory import CHILD as MEMORY_CHILD
from deop.bench.memory import largest_side
from deop.bench.race import SIDE, SmallerProposals, count_flops, fold_norms, race_model
from deop.bench.run import MEASUREMENTS, run
from deop.bench.subjects import (
    BenchOptions,
    RandomCLIPSeg,
    RandomText,
    clip_model,
    distinct_names,
    elliptic_masks,
    synthetic_photo,
)
from deop.bench.tables import Goal, Measurement, Row, compare, show
from deop.bench.timing import Times, observed, report, time_alternately, time_stages
from deop.encoders.clip import CLIPVision, VisionConfig
from deop.encoders.severance import Severance
from deop.model import DeOP
from deop.regions.two_stream import crop_proposals
from deop.results.segmentation import Segmentation
from deop.zoo import load

CPU = torch.device("cpu")
TINY = VisionConfig(width=64, layers=2, heads=2, hidden=128, patch=16, grid=4, output=32)


@pytest.fixture
def tiny_towers(monkeypatch):
    monkeypatch.setattr(subjects, "TOWERS", {"B/16": TINY, "L/14": TINY})
    monkeypatch.setattr(subjects, "SIDES", {"B/16": 64, "L/14": 64})
    for module in ("comparisons", "encoder_speed"):
        monkeypatch.setattr(f"deop.bench.{module}.SIDES", subjects.SIDES)
    monkeypatch.setattr("deop.bench.encoder_speed.TOWERS", subjects.TOWERS)


def options(**changes):
    defaults = {"device": CPU, "dtype": torch.float32, "photo": synthetic_photo(48, 64), "repeats": 1, "quick": True}
    return BenchOptions(**defaults | changes)


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
@pytest.mark.parametrize("severed", [0, 1])
def test_flops_equal_the_count_of_torch(size, severed):
    tower = CLIPVision(TINY).eval()
    severance = Severance("self", (-1,), class_token="severed") if severed else None
    # torch counts the products of attention only without its fused kernel.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        tower(torch.zeros(1, 3, *size), severance=severance)
    assert encoder_flops(TINY, size, severed) == counter.get_total_flops()


def test_flops_of_vit_b_16_at_224_equal_the_published_number():
    """17.5 GMAC, as published for ViT-B/16 at 224 pixels (17.56 with its head)."""
    assert encoder_flops(VisionConfig(), (224, 224)) / 2 == pytest.approx(17.5e9, rel=0.01)


def test_median_and_percentile_by_hand():
    times = Times(tuple(range(1, 101)))
    assert (times.p50, times.p95, times.minimum) == (50.5, 95, 1)
    assert Times((3.0, 1.0, 2.0)).p95 == 3.0


def test_cases_alternate_forwards_and_backwards():
    order = []
    times = time_alternately({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, CPU)
    assert order == list("abbaabba")
    assert [len(case.seconds) for case in times.values()] == [3, 3]


def test_goals():
    row = compare("x", Times((1.0,)), Times((3.0,)), "other", goal=4.0)
    assert row.figures["ratio"] == 3.0
    assert row.met is False
    assert Row("y", figures={"share": 0.5}, goal=Goal("share", 0.6, higher_is_better=False)).met
    assert row.to_json()["goal"] == {"ratio": "≥ 4"}
    assert Row("z").met is None


def test_json_of_a_row_has_the_published_keys():
    row = compare("x", Times((1.0,)), Times((3.0,)), "other", goal=4.0).to_json()
    assert list(row) == [
        "label", "p50", "p95", "least", "turns", "against_p50", "against_p95", "against_least", "against_turns",
        "against", "ratio", "goal", "met",
    ]  # fmt: skip


def test_masks_can_be_cropped():
    masks = elliptic_masks(100, (128, 128))
    covered = (masks > 0).float().mean((1, 2))
    assert (covered > 0).all()
    assert covered.median() < 0.2
    crops = crop_proposals(torch.zeros(3, 128, 128), masks.sigmoid(), side=8)
    assert crops.valid.all()
    assert torch.equal(elliptic_masks(5, (16, 16), 1), elliptic_masks(5, (16, 16), 1))


def test_both_classifiers_do_the_whole_work(tiny_towers):
    model = clip_model("B/16", depth=None)
    inputs = ClassificationInputs.prepare(model, options(), 7)
    one_pass, two_stream = inputs.one_pass(), inputs.two_stream()
    assert one_pass.shape == two_stream.shape == (7, 21)
    assert not torch.allclose(one_pass, two_stream)


def test_each_stage_of_a_photo_is_timed(tmp_path):
    """A function that is renamed or no longer called in the model would leave its stage at zero."""
    from PIL import Image

    path = tmp_path / "photo.png"
    Image.fromarray(synthetic_photo(96, 128)).save(path)
    model = load("nano", engine="torch", device="cpu")
    vocabulary = model.vocabulary(["cat", "wall", "sky"])
    started = time.perf_counter()
    seconds = time_one_photo(model, path, vocabulary)
    total = time.perf_counter() - started
    assert list(seconds) == ["read", "resize", "proposals", "encoder", "anchors", "classify", "assemble", "draw"]
    assert all(duration > 0 for duration in seconds.values())
    assert sum(seconds.values()) <= total


def test_every_timed_function_is_called_by_the_model(tmp_path, monkeypatch):
    from PIL import Image

    path = tmp_path / "photo.png"
    Image.fromarray(synthetic_photo(96, 128)).save(path)
    calls = set()

    def recorded(name, function):
        def call(*arguments, **keywords):
            calls.add(name)
            return function(*arguments, **keywords)

        return call

    functions = [pair for pairs in STAGES.values() for pair in pairs]
    for owner, name in functions:
        monkeypatch.setattr(owner, name, recorded(name, getattr(owner, name)))
    time_one_photo(load("nano", engine="torch", device="cpu"), path, ["cat", "wall"])
    assert calls == {name for _, name in functions}


class Work:
    """Functions with known durations on a clock of their own, one of which calls the other."""

    clock = 0.0

    def outer(self):
        Work.clock += 2
        self.inner()
        Work.clock += 1

    def inner(self):
        Work.clock += 5


def test_nested_stages_are_counted_once(monkeypatch):
    monkeypatch.setattr("deop.bench.timing.time", SimpleNamespace(perf_counter=lambda: Work.clock))
    original = Work.outer, Work.inner
    with time_stages({"outer": [(Work, "outer")], "inner": [(Work, "inner")]}, CPU) as seconds:
        Work().outer()
        Work.clock += 100  # outside all stages
        Work().inner()
    assert seconds == {"outer": 3, "inner": 10}
    assert (Work.outer, Work.inner) == original


def test_functions_are_restored_after_an_error():
    original = DeOP.encode, Segmentation.overlay
    with pytest.raises(AttributeError), time_stages({**STAGES, "new": [(DeOP, "no_such_function")]}, CPU):
        pass
    with pytest.raises(ZeroDivisionError), time_stages(STAGES, CPU):
        1 / 0
    assert (DeOP.encode, Segmentation.overlay) == original


@pytest.mark.slow
def test_clipseg_encoding_once_gives_the_map_of_clipseg_as_documented():
    clipseg = RandomCLIPSeg(CPU, torch.float32)
    photo = synthetic_photo(60, 80)
    torch.manual_seed(0)
    documented = clipseg.documented(photo, 3)
    torch.manual_seed(0)
    once = clipseg.once(photo, 3)
    assert documented.shape == once.shape == (60, 80)
    assert (documented == once).mean() > 0.999


def test_random_embeddings_are_reproducible():
    text = RandomText(16)
    assert torch.equal(text.embed(["a", "b"]), text.embed(["a", "b"]))
    assert len(set(distinct_names(50))) == 50


class FastCLIPSeg:
    """Replaces CLIPSeg, which takes minutes; the test above covers the real one."""

    def __init__(self, *arguments):
        pass

    def documented(self, photo, prompts):
        return np.zeros(photo.shape[:2])

    once = documented


def test_every_topic_has_a_measurement():
    assert list(MEASUREMENTS) == list(Topic)
    assert set(MINUTES) == set(Topic)
    assert set(SHORT) < set(Topic)


@pytest.mark.slow
@pytest.mark.parametrize("topic", [topic for topic in Topic if topic not in ("sizes", "memory", "start")])
def test_every_topic_runs_and_reports(topic, tiny_towers, capsys, monkeypatch):
    monkeypatch.setattr("deop.bench.comparisons.RandomCLIPSeg", FastCLIPSeg)
    monkeypatch.setattr("deop.bench.race.RandomCLIPSeg", FastCLIPSeg)
    report = json.loads(run(options(), [topic]))
    rows = report["parts"][topic]["rows"]
    assert rows
    assert all(row["p50"] > 0 for row in rows if "p50" in row)
    assert report["threads"] == torch.get_num_threads()
    assert {"torch", "deop"} <= set(report["versions"])
    assert report["quick"] is True
    assert report["peak_memory_MiB"] > 100
    assert report["parts"][topic]["title"][:30] in capsys.readouterr().out


def test_the_short_form_says_what_is_longer_and_shows_progress(capsys, monkeypatch):
    """The last line of stdout stays JSON; progress goes to stderr."""
    rows = (Row("a case", Times((0.5,))),)
    stub = {topic: lambda options, topic=topic: Measurement(topic, f"Title of {topic}", rows) for topic in Topic}
    monkeypatch.setattr("deop.bench.run.MEASUREMENTS", stub)
    report = json.loads(run(options(short=True), list(SHORT)))
    printed = capsys.readouterr()
    assert list(report["parts"]) == list(SHORT)
    assert report["short"] is True
    assert all(f"{topic} ({MINUTES[topic]} min)" in " ".join(printed.out.split()) for topic in Topic)
    assert [line.split()[1] for line in printed.err.splitlines()] == list(SHORT)
    run(options(), [Topic.machine])
    assert "short form" not in capsys.readouterr().out


def test_the_short_form_has_few_cases(tiny_towers):
    short = MEASUREMENTS[Topic.stage](options(quick=False, short=True, towers=("B/16",)))
    assert [row.label for row in short.rows] == ["B/16 at 64, 25 masks", "B/16 at 64, 100 masks"]


def test_cases_report_what_runs_now():
    seen = []
    with observed(seen.append):
        time_alternately({"a": lambda: None}, 2, CPU)
        report("something else")
    report("nobody listens")
    assert seen == ["a, run 1 of 3", "a, run 2 of 3", "a, run 3 of 3", "something else"]


@pytest.mark.parametrize("inference", [False, True])
def test_operations_are_counted_in_inference_mode_too(inference):
    """torch's own counter fails there; it counts the same as the formula, which is tested above."""
    tower = CLIPVision(TINY).eval()
    with torch.inference_mode(inference):
        assert count_flops(lambda: tower(torch.zeros(1, 3, 64, 48))) == encoder_flops(TINY, (64, 48))


def test_variants_of_the_race_compute_the_same_thing(tiny_towers):
    """Folded norms change nothing; masks of a smaller input cover the same photo."""
    model = race_model(options())
    for layer in model.proposer.modules():
        if hasattr(layer, "running_var"):
            layer.running_var.uniform_(0.5, 2)
            layer.running_mean.normal_()
    network = model.proposer.network
    pixels = torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        expected = network(pixels)[0].logits
        torch.testing.assert_close(fold_norms(network)(pixels)[0].logits, expected, atol=1e-3, rtol=1e-3)
        smaller = SmallerProposals(network, SIDE // 2)(pixels)[0].logits
    assert smaller.shape == (100, 16, 8)  # 48 and 32 pixels, rounded to multiples of 32, at stride 4
    assert expected.shape == (100, 24, 16)


def test_the_largest_photo_by_hand():
    """Memory grows by 30 MiB for 30,000 pixels: 1 MiB for each 1,000, and 110 MiB are left above 20."""
    assert largest_side({10: 1.0, 100: 20.0, 200: 50.0}, 130.0) == pytest.approx(120_000**0.5)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process")
def test_the_memory_of_one_cell_without_torch():
    job = {
        "engine": "onnx", "side": 128, "count": 7, "masks": 3, "picture": True, "seed": 0, "threads": 1,
        "names": ["cat"],
    }  # fmt: skip
    output = json.loads(python(MEMORY_CHILD + "\nassert 'torch' not in sys.modules", json.dumps(job)))
    assert output["peak"] >= output["before"] > 50


def test_tables_show_goals(capsys):
    from rich.console import Console

    rows = (Row("one", Times((0.5,)), figures={"share": 0.7}, goal=Goal("share", 0.65)), Row("two", Times((2.0,))))
    show(Measurement("x", "A title", rows, "A note."), Console(width=100))
    printed = capsys.readouterr().out
    assert "500.0 ms" in printed
    assert "70 %" in printed
    assert "≥ 0.65 met" in printed
    assert "A note." in printed


def python(code, *arguments):
    process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return process.stdout.splitlines()[-1]


def test_peak_memory_grows_with_allocations():
    code = "import numpy as np; from deop.bench.tables import peak_memory as peak; before = peak(); "
    assert 400 < float(python(code + "array = np.ones((64, 1 << 20)); print(peak() - before)")) < 700


def test_one_photo_size_in_its_own_process():
    job = {"model": "nano", "side": 64, "repeats": 3, "seed": 0, "device": "cpu", "dtype": "float32"}
    output = json.loads(python(CHILD, json.dumps(job)))
    assert len(output["seconds"]) == 3
    assert output["peak"] >= output["before"] > 100
