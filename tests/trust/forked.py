"""Commands in forks of one process that has imported their libraries, so that tests of faults can run many of them.

A fork can be killed before a given file operation, which reaches moments that a random time hardly ever does, and its
clock can jump.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")


@dataclass(frozen=True)
class Outcome:
    """How a command has ended.

    Attributes:
        code: the exit code, negative for a signal.
        out: standard output.
        err: standard error.
        operations: file operations that change something in the watched folder.
        loaded: whether weights of a model were opened.
    """

    code: int
    out: str
    err: str
    operations: int
    loaded: bool


@dataclass
class Forks:
    """The process that is forked; use it as a context."""

    imports: Sequence[str] = ()
    _started: dict[int, tuple[Path, Path, Path]] = field(default_factory=dict)

    def __enter__(self) -> "Forks":
        self._folder = tempfile.TemporaryDirectory()
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
        environment |= {"HF_HUB_OFFLINE": "1", "DEOP_CACHE": "off", "HOME": self._folder.name}
        command = [sys.executable, "-W", "ignore", "-c", "from tests.trust.forked import main; main()", *self.imports]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)
        self._folder.cleanup()

    def _ask(self, **request: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, arguments: Sequence[object], folder: Path, **options: Any) -> int:
        """Start a command in a folder, which is watched.

        Args:
            arguments: those of ``deop``, or ``["-c", CODE]``.
            folder: the working directory.
            options: ``kill_at``: the number of the file operation before which the process is killed; ``clock``:
                seconds that are added to the time, one after the other at each call; ``environment``: further
                variables.
        """
        place = Path(self._folder.name)
        files = tuple(place / f"{len(self._started)}-{time.monotonic_ns()}.{kind}" for kind in ("out", "err", "log"))
        process = self._ask(
            do="start",
            arguments=[str(part) for part in arguments],
            folder=str(folder),
            files=list(map(str, files)),
            **options,
        )
        self._started[process] = files
        return process

    def kill(self, process: int) -> None:
        """Kill a command that runs."""
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)

    def wait(self, process: int) -> Outcome:
        """Wait for the end of a command."""
        code = self._ask(do="wait", process=process)
        out, err, log = (file.read_text(encoding="utf-8") for file in self._started.pop(process))
        lines = log.splitlines()
        return Outcome(code, out, err, sum(line != "loaded" for line in lines), "loaded" in lines)

    def run(self, arguments: Sequence[object], folder: Path, **options: Any) -> Outcome:
        """Run a command to its end."""
        return self.wait(self.start(arguments, folder, **options))


def main() -> None:
    """The process that is forked."""
    import importlib

    for name in ("deop.cli", "deop.runtime.session", "onnxruntime", "PIL.Image", "rich.console", *sys.argv[1:]):
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "wait":
            _, status = os.waitpid(request["process"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if not answer:
                _run(**request)
        sys.__stdout__.write(f"{answer}\n")
        sys.__stdout__.flush()


def _run(
    arguments: list[str],
    folder: str,
    files: list[str],
    *,
    do: str,
    kill_at: int | None = None,
    clock: list[float] | None = None,
    environment: dict[str, str] | None = None,
) -> None:
    """The life of a fork."""
    os.setsid()
    code = 70
    try:
        os.chdir(folder)
        os.environ.update(environment or {})
        nothing = os.open(os.devnull, os.O_RDONLY)
        out, err, log = (os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for file in files)
        for handle, target in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(handle, target)
        if clock:
            _let_the_clock_jump(clock)
        sys.addaudithook(_watch(folder, log, kill_at))
        code = _main(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _main(arguments: list[str]) -> int:
    if arguments[0] == "-c":
        exec(arguments[1], {"__name__": "__main__", "arguments": arguments[2:]})
        return 0
    from deop.cli import main as run

    run(arguments)
    return 0


def _watch(folder: str, log: int, kill_at: int | None) -> Callable[[str, tuple[Any, ...]], None]:
    """A hook that counts operations which change something in a folder, and kills the process before one of them."""
    count = 0

    def hook(event: str, values: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open" and isinstance(values[0], str | bytes) and isinstance(values[2], int):
            path = os.fsdecode(values[0])
            if path.endswith((".safetensors", ".onnx", ".bin")) and not values[2] & WRITES and folder not in path:
                os.write(log, b"loaded\n")
            if not values[2] & WRITES:
                return
        elif event in CHANGES and isinstance(values[0], str | bytes | os.PathLike):
            path = os.fsdecode(values[0])
        else:
            return
        if os.path.abspath(path).startswith(folder):  # noqa: PTH100
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(log, f"{event} {path}\n".encode())

    return hook


def _let_the_clock_jump(seconds: list[float]) -> None:
    """Add seconds to the time of day, others at each call. The monotonic clock, which no one sets, goes on."""
    real, turn = time.time, 0

    def jumping() -> float:
        nonlocal turn
        turn += 1
        return real() + seconds[turn % len(seconds)]

    time.time = jumping
    time.time_ns = lambda: int(jumping() * 1e9)
