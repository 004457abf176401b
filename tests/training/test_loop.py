"""The loop: runs that are killed and go on, checkpoints that are always whole, one process and two."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deop.errors import SettingError, TrainingError
from deop.training import checkpoint
from deop.training.loop import fit
from deop.training.schedules import Schedule
from deop.training.task import LoopSettings, Optimizer, split_groups
from tests.training.tiny_task import Circle, settings_of

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")
ROOT = Path(__file__).parents[2]


def start(*arguments, launcher=()):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *launcher, "-m", "tests.training.tiny_task", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def in_process(out, **changes):
    torch.set_num_threads(1)
    resume = changes.pop("resume", False)
    if resume:
        # TensorBoard names files by second, process and a counter, and reads them in order of their names: the tenth of
        # a process within one second would come before the ninth.
        time.sleep(1.1)
    return fit(Circle(), settings_of(**changes), out, resume=resume, device="cpu", progress=False)


def weights(out):
    return load_file(out / "model" / "net.safetensors")


def last_state(out):
    return checkpoint.latest(out / "checkpoints")


def assert_same(first, second):
    """Bit for bit: what is exported, and everything that a further step would start from."""
    one, other = last_state(first), last_state(second)
    assert one.step == other.step
    for a, b in ((weights(first), weights(second)), (one.tensors, other.tensors)):
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert torch.equal(value, b[key]), key
    assert one.entries["best"] == other.entries["best"]


def logged(out, key="loss"):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "log"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(key)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("run") / "whole"
    in_process(out)
    return out


def test_it_learns(tmp_path):
    task = Circle(noise=False, dropout=0.0)
    changes = {"iterations": 150, "batch": 32, "validate_every": 0, "best": "", "save_every": 0}
    fit(task, settings_of(**changes), tmp_path, device="cpu", progress=False)
    losses = [value for _, value in logged(tmp_path)]
    assert len(losses) == 150
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


@pytest.mark.parametrize("step", [1, 4, 7, 11])
def test_going_on_is_bit_identical(whole, tmp_path, step, monkeypatch):
    """Stopped in the middle by an error of another's, at any step."""
    calls = Circle.forward

    def broken(self, batch):
        if self.calls == 2 * step:
            raise RuntimeError("the machine is gone")
        return calls(self, batch)

    monkeypatch.setattr(Circle, "forward", broken)
    with pytest.raises(RuntimeError, match="is gone"):
        in_process(tmp_path)
    monkeypatch.undo()
    in_process(tmp_path, resume=True)
    assert_same(whole, tmp_path)
    assert logged(tmp_path) == logged(whole)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [("die_at=5",), ("die_at=8", "workers=2")])
def test_kill_9(whole, tmp_path, asked):
    killed = start(tmp_path, *asked)
    # A worker that dies takes the run with it, in its own words.
    assert killed.returncode == -signal.SIGKILL or "workers=2" in asked
    assert killed.returncode
    assert 0 < last_state(tmp_path).step < 12
    assert start(tmp_path, "resume=yes").returncode == 0
    assert_same(whole, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("corner", [1, 3, 4, 6, 13])  # 4: the first has its name; 13: an old one goes
def test_kill_9_in_the_middle_of_saving(whole, tmp_path, corner):
    killed = start(tmp_path, f"die_in_save={corner}")
    assert killed.returncode == -signal.SIGKILL
    left = [path.suffix for path in (tmp_path / "checkpoints").iterdir()]
    found = last_state(tmp_path)
    assert (found.step if found else 0) == {1: 0, 3: 0, 4: 2, 6: 2, 13: 6}[corner]
    assert (".part" in left, ".old" in left) == (corner in (1, 3, 6), corner == 13)
    assert start(tmp_path, "resume=yes").returncode == 0
    assert_same(whole, tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000010", "step-00000012"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_asked_to_stop_it_saves_first(whole, tmp_path, name):
    stopped = start(tmp_path, "die_at=6", f"signal={name}")
    assert stopped.returncode
    assert "stopped after step 7; go on with --resume" in stopped.stderr
    assert last_state(tmp_path).step == 7
    assert start(tmp_path, "resume=yes").returncode == 0
    assert_same(whole, tmp_path)


@pytest.mark.slow
def test_no_room(tmp_path):
    """The disk has no room for the checkpoint: an error of ours, and the last one is still whole."""
    in_process(tmp_path, iterations=4)
    before = last_state(tmp_path)
    (tmp_path / "model" / "net.safetensors").unlink()
    for place in (tmp_path / "checkpoints").iterdir():
        state = place / "state.json"
        state.write_text(state.read_text().replace('"iterations": 4', '"iterations": 12'))
    failed = start(tmp_path, "resume=yes", "room=3000")
    assert failed.returncode == 1
    assert "TrainingError: cannot save the checkpoint" in failed.stderr
    assert f"the last whole one is {before.folder}" in failed.stderr
    assert last_state(tmp_path).step == 4
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path):
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1",
                "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m")  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    two = subprocess.run(
        [sys.executable, *launcher, "tests.training.tiny_task", str(tmp_path / "two"), "plain=yes"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert two.returncode == 0, two.stderr
    one = start(tmp_path / "one", "plain=yes", "accumulate=1")
    assert one.returncode == 0, one.stderr
    first, second = logged(tmp_path / "one"), logged(tmp_path / "two")
    assert [step for step, _ in first] == [step for step, _ in second]
    assert [value for _, value in second] == pytest.approx([value for _, value in first], rel=1e-5)
    for key, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[key], value, rtol=1e-5, atol=1e-6)


def test_accumulation_changes_nothing_but_memory(tmp_path):
    results = []
    for parts in (1, 4):
        task = Circle(noise=False, dropout=0.0)
        out = tmp_path / str(parts)
        fit(task, settings_of(accumulate=parts, validate_every=0, best="", save_every=0), out, progress=False)
        results.append(weights(out))
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-4, atol=1e-5)


def test_workers_change_nothing(whole, tmp_path):
    in_process(tmp_path, workers=1)
    assert_same(whole, tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_weights(tmp_path):
    task = Circle(nan_at=15)  # step 8, of two parts a step
    with pytest.raises(TrainingError, match=r"not finite any more at step 8 .*entropy.*step-00000006.*learning rate"):
        fit(task, settings_of(), tmp_path, device="cpu", progress=False)
    found = last_state(tmp_path)
    assert found.step == 6
    assert all(value.isfinite().all() for value in found.tensors.values())


def test_a_damaged_checkpoint_is_passed_over(whole, tmp_path):
    in_process(tmp_path)
    tensors = tmp_path / "checkpoints" / "step-00000012" / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-5] ^= 1
    tensors.write_bytes(content)
    assert last_state(tmp_path).step == 10
    in_process(tmp_path, resume=True)
    assert_same(whole, tmp_path)


def test_a_folder_with_a_run_is_not_overwritten(whole):
    with pytest.raises(SettingError, match=r"of 12 steps: go on with --resume"):
        in_process(whole)


def test_another_recipe_is_refused_by_what_differs(tmp_path):
    in_process(tmp_path, iterations=2)
    with pytest.raises(TrainingError, match=r"loop.clip was 1.0, now 2.0; loop.schedule.kind was cosine, now poly"):
        in_process(tmp_path, iterations=2, clip=2.0, schedule=Schedule("poly", warmup=3), log_every=7, resume=True)


def test_the_best_weights_are_taken_and_patience_ends(tmp_path, monkeypatch):
    """Validation is best in the middle: those weights are exported, and two worse ones end the run."""
    values = iter([0.1, 0.9, 0.2, 0.3, 0.95])
    kept = []

    def validate(self):
        kept.append({key: value.clone() for key, value in self.net.state_dict().items()})
        return {"right": next(values)}

    monkeypatch.setattr(Circle, "validate", validate)
    run = fit(Circle(), settings_of(iterations=30, patience=2), tmp_path, device="cpu", progress=False)
    assert (run.steps, run.best) == (12, 0.9)
    for key, value in weights(tmp_path).items():
        if "running" not in key and "tracked" not in key:
            assert torch.equal(value, kept[1][key]), key


def test_a_batch_that_cannot_be_shared(tmp_path):
    with pytest.raises(SettingError, match="multiple of 3"):
        fit(Circle(), settings_of(accumulate=3), tmp_path, device="cpu", progress=False)


def test_time_shortens_the_schedule(tmp_path):
    run = in_process(tmp_path, iterations=10**6, seconds=0.5, validate_every=0, best="", save_every=0)
    assert 0 < run.steps < 10**6
    rates = [value for _, value in logged(tmp_path, "rate")]
    assert rates[-1] < 0.2 * max(rates)


@pytest.mark.parametrize(
    ("schedule", "step", "done", "share"),
    [
        (Schedule("poly", 0.9), 30, 0.5, 0.5**0.9),
        (Schedule("cosine"), 30, 0.5, 0.5),
        (Schedule("cosine", floor=0.02, warmup=150), 74, 0.0, 0.5),
        (Schedule("cosine", warmup=100, warmup_kind="constant", warmup_share=0.005), 99, 0.0, 0.005),
        (Schedule("constant"), 5, 0.9, 1.0),
    ],
)
def test_schedules_by_hand(schedule, step, done, share):
    assert schedule.share(step, done) == pytest.approx(share)


def test_a_step_is_that_of_the_optimizer_by_hand(tmp_path):
    """One step of SGD with clipping: weight - rate * (gradient * clip / norm + decay * weight)."""
    task = Circle(noise=False, dropout=0.0)
    before = {key: value.clone() for key, value in task.net.state_dict().items()}
    settings = LoopSettings(
        iterations=1, batch=8, clip=0.01, optimizer=Optimizer("sgd"), schedule=Schedule("constant"), save_every=0
    )
    sum(task(task.batches(range(8))).values()).backward()
    gradients = {key: value.grad.clone() for key, value in task.net.named_parameters()}
    norm = torch.cat([value.flatten() for value in gradients.values()]).norm()
    assert norm > 0.01
    fit(task, replace(settings), tmp_path, device="cpu", progress=False)
    groups = {name.removeprefix("net."): group for group in task.groups() for name in group.names}
    for key, value in weights(tmp_path).items():
        group = groups[key]
        expected = before[key] - group.rate * (gradients[key] * 0.01 / (norm + 1e-6) + group.decay * before[key])
        torch.testing.assert_close(value, expected)


def test_norms_tables_and_queries_do_not_decay():
    module = torch.nn.ModuleDict({"norm": torch.nn.LayerNorm(2), "table": torch.nn.Embedding(2, 2)})
    module["line"] = torch.nn.Linear(2, 2)
    module.queries = torch.nn.Parameter(torch.zeros(2))
    names = [name for name, _ in module.named_parameters()]
    groups = split_groups(module, names, 1.0, 0.5, slower=lambda name: 0.1 if name.startswith("line") else 1.0)
    found = {name: (group.rate, group.decay) for group in groups for name in group.names}
    assert {name for name, value in found.items() if value[1] == 0} == {
        "queries", "norm.weight", "norm.bias", "table.weight",
    }  # fmt: skip
    assert found["line.bias"] == (0.1, 0.5)
