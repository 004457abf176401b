"""The training loop: killed runs resume exactly, checkpoints are always complete, two processes equal one."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from deop.errors import SettingError, TrainingError
from deop.training import checkpoint
from deop.training.loop import fit
from deop.training.schedules import Schedule
from deop.training.task import Group, LoopSettings, Optimizer, Task, split_groups
from tests.training.tiny_task import Circle, settings_of

ROOT = Path(__file__).parents[2]


def start(*arguments, launcher=()):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *launcher, "-m", "tests.training.tiny_task", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def in_process(out, **changes):
    torch.set_num_threads(1)
    resume = changes.pop("resume", False)
    if resume:
        # TensorBoard names log files by second, process and a counter, and reads them in the order of their names.
        # Within one second, the tenth file of a process would sort before the ninth.
        time.sleep(1.1)
    return fit(Circle(), settings_of(**changes), out, resume=resume, device="cpu", progress=False)


def weights(out):
    return load_file(out / "model" / "net.safetensors")


def last_state(out):
    return checkpoint.latest(out / "checkpoints")


def assert_same(first, second):
    """The exported model and the uninterrupted state of the two runs are equal bit for bit."""
    state_1, state_2 = last_state(first), last_state(second)
    assert state_1.step == state_2.step
    for a, b in ((weights(first), weights(second)), (state_1.tensors, state_2.tensors)):
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert torch.equal(value, b[key]), key
    assert state_1.entries["best"] == state_2.entries["best"]


def logged(out, key="loss"):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "log"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(key)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run without interruption."""
    out = tmp_path_factory.mktemp("run") / "uninterrupted"
    in_process(out)
    return out


def test_the_loss_decreases(tmp_path):
    task = Circle(noise=False, dropout=0.0)
    changes = {"iterations": 150, "batch": 32, "validate_every": 0, "best": "", "save_every": 0}
    fit(task, settings_of(**changes), tmp_path, device="cpu", progress=False)
    losses = [value for _, value in logged(tmp_path)]
    assert len(losses) == 150
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


@pytest.mark.parametrize("step", [1, 4, 7, 11])
def test_a_resumed_run_is_bit_identical(uninterrupted, tmp_path, step, monkeypatch):
    """The run is stopped by an exception from the task."""
    forward = Circle.forward

    def broken(self, batch):
        if self.calls == 2 * step:
            raise RuntimeError("the machine is gone")
        return forward(self, batch)

    monkeypatch.setattr(Circle, "forward", broken)
    with pytest.raises(RuntimeError, match="is gone"):
        in_process(tmp_path)
    monkeypatch.undo()
    in_process(tmp_path, resume=True)
    assert_same(uninterrupted, tmp_path)
    assert logged(tmp_path) == logged(uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("options", [("die_at=5",), ("die_at=8", "workers=2")])
def test_sigkill(uninterrupted, tmp_path, options):
    killed = start(tmp_path, *options)
    # If a worker is killed, the run ends with an error of the data loader.
    assert killed.returncode == -signal.SIGKILL or "workers=2" in options
    assert killed.returncode
    assert 0 < last_state(tmp_path).step < 12
    assert start(tmp_path, "resume=yes").returncode == 0
    assert_same(uninterrupted, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("call", [1, 3, 4, 6, 13])  # 4: after the first rename; 13: while an old checkpoint is removed
def test_sigkill_during_saving(uninterrupted, tmp_path, call):
    killed = start(tmp_path, f"die_in_save={call}")
    assert killed.returncode == -signal.SIGKILL
    left = [path.suffix for path in (tmp_path / "checkpoints").iterdir()]
    state = last_state(tmp_path)
    assert (state.step if state else 0) == {1: 0, 3: 0, 4: 2, 6: 2, 13: 6}[call]
    assert (".part" in left, ".old" in left) == (call in (1, 3, 6), call == 13)
    assert start(tmp_path, "resume=yes").returncode == 0
    assert_same(uninterrupted, tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000010", "step-00000012"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_stop_signal_saves_first(uninterrupted, tmp_path, name):
    stopped = start(tmp_path, "die_at=6", f"signal={name}")
    assert stopped.returncode
    assert "stopped after step 7; continue with --resume" in stopped.stderr
    assert last_state(tmp_path).step == 7
    assert start(tmp_path, "resume=yes").returncode == 0
    assert_same(uninterrupted, tmp_path)


@pytest.mark.slow
def test_a_full_disk(tmp_path):
    """If a checkpoint does not fit on the disk, the run ends with an error and the previous checkpoint is kept."""
    in_process(tmp_path, iterations=4)
    before = last_state(tmp_path)
    (tmp_path / "model" / "net.safetensors").unlink()
    for folder in (tmp_path / "checkpoints").iterdir():
        state = folder / "state.json"
        state.write_text(state.read_text().replace('"iterations": 4', '"iterations": 12'))
    failed = start(tmp_path, "resume=yes", "room=3000")
    assert failed.returncode == 1
    assert "TrainingError: cannot save the checkpoint" in failed.stderr
    assert f"the last complete one is {before.folder}" in failed.stderr
    assert last_state(tmp_path).step == 4
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_two_processes_have_the_same_losses_as_one(tmp_path):
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


def test_workers_change_nothing(uninterrupted, tmp_path):
    in_process(tmp_path, workers=1)
    assert_same(uninterrupted, tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_weights(tmp_path):
    task = Circle(nan_at=15)  # step 8, of two parts a step
    with pytest.raises(TrainingError, match=r"not finite at step 8 .*entropy.*step-00000006.*learning rate"):
        fit(task, settings_of(), tmp_path, device="cpu", progress=False)
    state = last_state(tmp_path)
    assert state.step == 6
    assert all(value.isfinite().all() for value in state.tensors.values())


def test_a_damaged_checkpoint_is_skipped(uninterrupted, tmp_path):
    in_process(tmp_path)
    tensors = tmp_path / "checkpoints" / "step-00000012" / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-5] ^= 1
    tensors.write_bytes(content)
    assert last_state(tmp_path).step == 10
    in_process(tmp_path, resume=True)
    assert_same(uninterrupted, tmp_path)


def test_a_folder_with_a_run_is_not_overwritten(uninterrupted):
    with pytest.raises(SettingError, match=r"already contains a run of 12 steps: continue it with --resume"):
        in_process(uninterrupted)


def test_resuming_with_another_recipe_lists_the_differences(tmp_path):
    in_process(tmp_path, iterations=2)
    with pytest.raises(TrainingError, match=r"loop.clip was 1.0, now 2.0; loop.schedule.kind was cosine, now poly"):
        in_process(tmp_path, iterations=2, clip=2.0, schedule=Schedule("poly", warmup=3), log_every=7, resume=True)


def test_the_best_weights_are_exported_and_patience_ends_the_run(tmp_path, monkeypatch):
    """The second validation is the best. Two worse ones end the run."""
    values = iter([0.1, 0.9, 0.2, 0.3, 0.95])
    validated = []

    def validate(self):
        validated.append({key: value.clone() for key, value in self.net.state_dict().items()})
        return {"right": next(values)}

    monkeypatch.setattr(Circle, "validate", validate)
    run = fit(Circle(), settings_of(iterations=30, patience=2), tmp_path, device="cpu", progress=False)
    assert (run.steps, run.best) == (12, 0.9)
    for key, value in weights(tmp_path).items():
        if "running" not in key and "tracked" not in key:
            assert torch.equal(value, validated[1][key]), key


def test_a_batch_that_cannot_be_divided(tmp_path):
    with pytest.raises(SettingError, match="multiple of 3"):
        fit(Circle(), settings_of(accumulate=3), tmp_path, device="cpu", progress=False)


def test_time_shortens_the_schedule(tmp_path, monkeypatch):
    """With a clock that advances at each reading, so that the load of the machine does not matter."""
    clock = itertools.count(step=0.01)
    monkeypatch.setattr("deop.training.loop.time", SimpleNamespace(monotonic=lambda: next(clock)))
    run = in_process(tmp_path, iterations=10**6, seconds=0.5, validate_every=0, best="", save_every=0)
    assert 10 < run.steps < 50
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
def test_schedule_values(schedule, step, done, share):
    assert schedule.share(step, done) == pytest.approx(share)


def test_one_step_by_hand(tmp_path):
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


def test_norms_embedding_tables_and_queries_have_no_decay():
    module = torch.nn.ModuleDict({"norm": torch.nn.LayerNorm(2), "table": torch.nn.Embedding(2, 2)})
    module["line"] = torch.nn.Linear(2, 2)
    module.queries = torch.nn.Parameter(torch.zeros(2))
    names = [name for name, _ in module.named_parameters()]
    groups = split_groups(module, names, 1.0, 0.5, slower=lambda name: 0.1 if name.startswith("line") else 1.0)
    values = {name: (group.rate, group.decay) for group in groups for name in group.names}
    assert {name for name, value in values.items() if value[1] == 0} == {
        "queries", "norm.weight", "norm.bias", "table.weight",
    }  # fmt: skip
    assert values["line.bias"] == (0.1, 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed is -1: expected 0 or more"),
        ({"clip": float("nan")}, "clip is nan: expected 0 or more"),
        ({"workers": -2}, "workers is -2"),
        ({"ema": 1.0}, r"ema is 1.0: expected a number in \[0, 1\)"),
        ({"patience": 2, "best": ""}, "patience needs a score to follow"),
        ({"best": "miou", "validate_every": 0}, "best=miou needs validations"),
    ],
)
def test_loop_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(SettingError, match=message):
        settings_of(**changes)


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: Schedule(warmup=-1), "warmup of the schedule is -1"),
        (lambda: Schedule(floor=2.0), "floor of the schedule is 2.0"),
        (lambda: Schedule("poly", power=0.0), "power of the schedule is 0.0"),
        (lambda: Schedule(warmup=5, warmup_share=0.1), "no effect on a linear warm-up"),
        (lambda: Optimizer(betas=(0.9, 1.0)), "two betas and a momentum"),
        (lambda: Optimizer("sgd", momentum=-1), "two betas and a momentum"),
        (lambda: Group({"a", "b"}, 1.0), "give a list"),
        (lambda: split_groups(torch.nn.Linear(1, 1), {"weight", "bias"}, 1.0, 0.0), "has no order: give a list"),
        (lambda: split_groups(torch.nn.Linear(1, 1), [], 1.0, 0.0), "no parameters to train"),
    ],
)
def test_other_settings_out_of_range_are_refused(create, message):
    with pytest.raises(SettingError, match=message):
        create()


def test_an_unknown_device_is_refused(tmp_path):
    with pytest.raises(SettingError, match="device is 'cuda:7': training takes"):
        fit(Circle(), settings_of(), tmp_path, device="cuda:7", progress=False)


def test_validating_a_task_without_validation_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Circle, "validate", Task.validate)
    with pytest.raises(SettingError, match="Circle has no validation: set validate_every to 0"):
        fit(Circle(), settings_of(), tmp_path, device="cpu", progress=False)


@pytest.mark.parametrize(("key", "value"), [("recipe", None), ("recipe", 3), ("seconds", "long"), ("best", []),
                                            ("since_best", None), ("scaler", 1)])  # fmt: skip
def test_a_checkpoint_with_a_damaged_entry_is_reported(tmp_path, key, value):
    """``state.json`` has no checksum of its own."""
    in_process(tmp_path, iterations=2)
    path = last_state(tmp_path).folder / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(TrainingError, match=rf"the entry '{key}' of .*step-00000002 is missing or damaged"):
        in_process(tmp_path, iterations=2, resume=True)


def test_a_checkpoint_without_a_step_is_skipped(tmp_path):
    in_process(tmp_path, iterations=4)
    path = last_state(tmp_path).folder / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"step": None}))
    assert last_state(tmp_path).step == 2


def test_a_checkpoint_with_other_weights_is_reported(tmp_path, monkeypatch):
    in_process(tmp_path, iterations=2)
    groups = Circle.groups
    monkeypatch.setattr(Circle, "groups", lambda self: groups(self)[:1])
    with pytest.raises(TrainingError, match="are not the ones that this recipe trains"):
        in_process(tmp_path, iterations=2, resume=True)


def test_a_validation_score_of_nan_is_never_the_best(tmp_path, monkeypatch):
    values = iter([float("nan"), 0.2, float("nan"), 0.1])
    monkeypatch.setattr(Circle, "validate", lambda self: {"right": next(values)})
    assert in_process(tmp_path).best == 0.2
