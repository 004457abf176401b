"""Ctrl-C ends the command with exit code 130 and without a traceback, whatever it interrupts.

The promise begins with the first import of ``deop.__main__``. Before that Python itself is starting, and an interrupt
ends it in Python's own way. Once everything is written, an interrupt no longer changes the exit code.

The child processes run with a ``sitecustomize`` module, which Python imports before the program. It sends the signal at
a given event inside the process, or tells this process that the program has begun; so nothing depends on how fast the
machine is.
"""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.conftest import write_photo

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")

HOOKS = """
import atexit, os, sys

def on_import(module, action):
    def hook(event, arguments):
        if event == "import" and arguments[0] == module and not done:
            done.append(True)
            action()
    done = []
    sys.addaudithook(hook)

def interrupt():
    os.kill(os.getpid(), 2)

event, argument = os.environ["DEOP_TEST_INTERRUPT"].split(":")
if event == "import":
    on_import(argument, interrupt)
elif event == "worker-import" and "--multiprocessing-fork" in sys.orig_argv:
    on_import(argument, lambda: os.killpg(os.getpgrp(), 2))
elif event == "exit":
    atexit.register(interrupt)
elif event == "begin":
    on_import("deop.cli", lambda: os.write(int(argument), b"x"))
"""


@pytest.fixture
def hooks(tmp_path):
    """A directory with the hooks, for PYTHONPATH."""
    folder = tmp_path / "hooks"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOOKS)
    return folder


def environment(hooks, event):
    path = os.pathsep.join([str(hooks), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "DEOP_TEST_INTERRUPT": event, "DEOP_CACHE": "off"}


SCRIPT = "import sys\nfrom deop.__main__ import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
"""What the installers write for the entry point of pyproject.toml."""


@pytest.fixture(params=["module", "script"])
def deop_command(request, tmp_path):
    """The two ways to start the command: ``python -m deop``, and the installed script."""
    if request.param == "module":
        return [sys.executable, "-m", "deop"]
    script = tmp_path / "deop-script.py"
    script.write_text(SCRIPT)
    return [sys.executable, str(script)]


def run(command, hooks, event, cwd, **options):
    return subprocess.run(
        command, env=environment(hooks, event), cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
        **options,
    )  # fmt: skip


def test_the_entry_point_is_the_module_that_handles_interrupts():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"deop": "deop.__main__:main"}


@pytest.mark.parametrize("module", ["deop.cli", "signal", "deop.cli.app", "typer", "rich.console"])
def test_while_the_command_line_is_imported(deop_command, hooks, tmp_path, module):
    process = run([*deop_command, "models"], hooks, f"import:{module}", tmp_path)
    assert process.returncode == 130, process.stderr
    assert process.stderr in ("", "interrupted\n")


@pytest.mark.parametrize(
    ("engine", "module"),
    [
        *(("onnx", module) for module in ("deop.zoo", "numpy", "numpy._core._multiarray_umath", "onnxruntime")),
        *(("torch", module) for module in ("torch", "torch._C", "safetensors")),
    ],
)
def test_while_libraries_are_imported(hooks, here, engine, module):
    write_photo(here / "a.jpg")
    command = [sys.executable, "-m", "deop", "segment", "a.jpg", "-c", "cat", "--device", "cpu", "--engine", engine]
    process = run(command, hooks, f"import:{module}", here)
    assert process.returncode == 130, process.stderr
    assert process.stderr == "interrupted\n"
    assert [path.name for path in here.iterdir()] == ["a.jpg"]


@pytest.mark.parametrize("module", ["_socket", "numpy"])
def test_while_worker_processes_start(hooks, here, module):
    """A terminal interrupts the workers together with their parent; the first module is imported before our code."""
    from tests.data import miniatures

    miniatures.voc(here / "official")
    command = [sys.executable, "-m", "deop", "prepare", "voc", "official", "--workers", "2", "--partial"]
    process = run(command, hooks, f"worker-import:{module}", here, start_new_session=True)
    assert (process.returncode, process.stderr) == (130, "interrupted\n")
    assert not list(here.rglob("*.part"))


def test_while_the_process_ends(deop_command, hooks, tmp_path):
    process = run([*deop_command, "--version"], hooks, "exit:", tmp_path)
    assert (process.returncode, process.stderr) in [(130, "interrupted\n"), (0, "")]
    assert process.stdout.startswith("deop ")


def interrupt_after(seconds, command, hooks, cwd):
    """Send SIGINT some time after the command has begun; return its exit code and messages."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        command, env=environment(hooks, f"begin:{writer}"), cwd=cwd, pass_fds=[writer], stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=300)
    return process.returncode, messages


@pytest.mark.slow
def test_at_any_moment(hooks, here):
    """A few random moments; DEOP_INTERRUPTS=200 tries more."""
    write_photo(here / "a.jpg")
    command = [sys.executable, "-m", "deop", "segment", "a.jpg", "-c", "cat, wall", "--device", "cpu", "-o", "b.png"]
    started = time.perf_counter()
    subprocess.run(command, cwd=here, env=os.environ | {"DEOP_CACHE": "off"}, check=True, capture_output=True)
    duration = time.perf_counter() - started
    (here / "b.png").unlink()
    moments = random.Random(0)
    counts = {}
    for number in range(int(os.environ.get("DEOP_INTERRUPTS", "5"))):
        delay = 0.0 if number == 0 else duration * 1.1 * moments.random()
        code, messages = interrupt_after(delay, command, hooks, here)
        assert code in (130, 0), (delay, code, messages)
        assert messages in ("", "interrupted\n"), (delay, code, messages)
        assert {path.name for path in here.iterdir()} <= {"a.jpg", "b.png"}, "no partial file is left"
        counts[code] = counts.get(code, 0) + 1
    print(counts)


CHILD = """
import os, signal, sys, time
from deop.cli import interrupts
interrupts.install()
"""


def child(code, **options):
    return subprocess.run(
        [sys.executable, "-c", CHILD + code], capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_an_interrupt_inside_a_destructor_is_not_lost():
    """Python drops exceptions in destructors and prints a traceback; the interrupt has to arrive all the same."""
    process = child("""
class Resource:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
try:
    with interrupts.raised():
        resource = Resource()
        del resource
        for _ in range(3000):
            time.sleep(0.01)  # one long sleep would not be interrupted
except KeyboardInterrupt:
    sys.exit(130)
""")
    assert (process.returncode, process.stderr) == (130, "")


def test_an_interrupt_inside_an_import_is_raised_while_files_are_open(tmp_path):
    (tmp_path / "interrupted_module.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    code = """
try:
    with interrupts.raised(), {block}:
        import interrupted_module
except KeyboardInterrupt:
    print("raised")
    sys.exit(130)
"""
    process = child(code.format(block="interrupts.raised_in_imports()"), cwd=tmp_path)
    assert (process.returncode, process.stdout, process.stderr) == (130, "raised\n", "")
    process = child(code.format(block="__import__('contextlib').nullcontext()"), cwd=tmp_path)
    assert (process.returncode, process.stdout, process.stderr) == (130, "", "interrupted\n")


def test_other_errors_in_destructors_are_still_reported():
    process = child("""
class Resource:
    def __del__(self):
        raise ValueError("lost")
Resource()
""")
    assert "ValueError: lost" in process.stderr


def test_an_ignored_interrupt_stays_ignored():
    """As under nohup, or in a shell script's background."""
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from deop.cli import interrupts; "
    code += "interrupts.install(); signal.raise_signal(signal.SIGINT); print('finished')"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (0, "finished\n")


def test_worker_processes_end_silently():
    """A terminal interrupts the workers together with their parent, which is the one to report it."""
    process = child("""
import multiprocessing
def work():
    signal.raise_signal(signal.SIGINT)
worker = multiprocessing.get_context("fork").Process(target=work)
with interrupts.raised():
    worker.start()
    worker.join()
print(worker.exitcode)
""")
    assert (process.stdout, process.stderr) == ("130\n", "")


def test_importing_the_command_line_changes_no_handler():
    code = "import signal; import deop.cli.app; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout == "True\n"
