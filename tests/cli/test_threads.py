"""The option ``--threads``."""

import pytest
import torch


@pytest.mark.parametrize(
    "command",
    [["segment", "photo.jpg", "-c", "cat"], ["evaluate", "data"], ["train", "finetune", "--data", "data"]],
    ids=lambda command: command[0],
)
def test_the_number_of_threads_is_set_before_the_model_is_loaded(deop, command, here, monkeypatch):
    """The files are missing or the model is, so nothing else happens."""
    from tests.cli.conftest import write_photo

    write_photo(here / "photo.jpg")
    counts = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    monkeypatch.setattr("deop.zoo.load", lambda *_, **__: pytest.fail("loaded before") if not counts else 1 / 0)
    monkeypatch.setattr("deop.data.folder.open_folder", lambda *_, **__: None)
    monkeypatch.setattr("deop.cli.evaluate._readable", lambda *_, **__: (None, []))
    monkeypatch.setattr("deop.evaluation.protocol.unseen_names", lambda *_: None)
    assert deop(*command, "--threads", "3").code != 0
    assert counts == [3]
    done = deop(*command, "--threads", "0")
    assert done.code == 2
    assert "--threads" in done.err
    assert counts == [3]
