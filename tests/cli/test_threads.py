"""The option ``--threads``."""

import importlib

import pytest
import torch

from deop.runtime import session as deop_session


@pytest.fixture(autouse=True)
def photo(here):
    from tests.cli.conftest import write_photo

    write_photo(here / "photo.jpg")


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_segment_sets_the_number_of_threads_of_its_engine(deop, engine, monkeypatch):
    counts, sessions = [], []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    options = deop_session.session_options

    def remember(threads, **more):
        sessions.append(threads)
        return options(threads, **more)

    monkeypatch.setattr(deop_session, "session_options", remember)
    command = ["segment", "photo.jpg", "-c", "cat", "--engine", engine, "--device", "cpu"]
    assert deop(*command, "--threads", "3").code == 0
    assert (counts, sessions) == (([3], []) if engine == "torch" else ([], [3]))
    done = deop(*command, "--threads", "0")
    assert done.code == 2
    assert "--threads" in done.err


@pytest.mark.parametrize(
    "command", [["evaluate", "data"], ["train", "finetune", "--data", "data"]], ids=lambda command: command[0]
)
def test_the_number_of_threads_is_set_before_the_model_is_loaded(deop, command, monkeypatch):
    """The data are missing or the model is, so nothing else happens."""
    importlib.import_module("deop.training.stages.finetune")  # which would keep the stand-in for open_folder
    counts = []

    def load(*_, threads=None, **__):
        counts.extend([] if threads is None else [threads])
        assert counts, "loaded before"
        raise ZeroDivisionError

    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    monkeypatch.setattr("deop.zoo.load", load)
    monkeypatch.setattr("deop.data.folder.open_folder", lambda *_, **__: None)
    monkeypatch.setattr("deop.cli.evaluate._readable", lambda *_, **__: (None, []))
    monkeypatch.setattr("deop.evaluation.protocol.unseen_names", lambda *_: None)
    assert deop(*command, "--threads", "3").code != 0
    assert counts == [3]
    done = deop(*command, "--threads", "0")
    assert done.code == 2
    assert "--threads" in done.err
    assert counts == [3]
