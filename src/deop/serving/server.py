"""Running the server: workers, the socket, and the end."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from deop.bank.bank import load_bank
from deop.bank.storage import bank_path
from deop.errors import CheckpointError, SettingError
from deop.files import LARGEST_TEXT, check_regular
from deop.serving.access import is_loopback
from deop.serving.app import create_app
from deop.serving.connections import ConnectionGuard, raise_file_limit
from deop.serving.lanes import Lane, ProcessLane, WorkerLost
from deop.serving.limits import Limits
from deop.serving.metrics import Metrics
from deop.serving.queue import prefix_of
from deop.serving.request_log import RequestLog
from deop.serving.work import Worker

TOKEN_VARIABLE = "DEOP_TOKEN"
_SHORTEST_TOKEN = 16
_HEAD_BYTES = 65_536  # of a request whose address has many names


@dataclass(frozen=True)
class ModelChoice:
    """Which model the workers load; arguments of ``deop.load`` and, last, fields of ``Settings``; None: the model's."""

    name: str = "nano"
    engine: str | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    proposer: str | None = None
    proxy: str | None = None
    windows: tuple[int, int] | None = None
    partition: str | None = None
    prior: float | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The fields of ``Settings``."""
        return {"windows": self.windows, "partition": self.partition, "prior": self.prior}


def build_worker(choice: ModelChoice, limits: Limits, number: int, banks: Mapping[str, Path] | None = None) -> Worker:
    """Load the model and run it once.

    Raises:
        DeopError: it cannot be loaded, or needs masks with each photo, or a bank is of another model.
    """
    from deop.runtime.engine import engine_for
    from deop.zoo import load

    model = load(
        choice.name,
        engine=choice.engine or engine_for(choice.name, None, None, "one-pass", **choice.settings),
        proposer=choice.proposer,
        proxy=choice.proxy,
        device=choice.device,
        dtype=choice.dtype,
        threads=choice.threads,
    )
    if model.needs_masks:
        raise SettingError(
            f"the model {choice.name} has no proposer, and the server takes no masks: choose one (--proposer), or "
            "another model (--model)"
        )
    if changed := {name: value for name, value in choice.settings.items() if value is not None}:
        model.settings = replace(model.settings, **changed)
        model.check_encoding()
    model.cache = None  # names are not written to disk
    given = {name: load_bank(file) for name, file in (banks or {}).items()}
    worker = Worker(model, limits, prefix_of(number), given)
    worker.warm_up()
    if limits.worker_bytes is not None:
        _limit_memory(limits.worker_bytes)
    return worker


def _limit_memory(maximum: int) -> None:
    """Let this process have no more memory than this, apart from files that are mapped.

    Raises:
        SettingError: the model alone needs as much, or the system has no such limit.
    """
    if sys.platform != "linux":
        raise SettingError("--worker-megabytes works on Linux only: omit it, and limit the memory of a container")
    import resource

    status = Path("/proc/self/status").read_text(encoding="ascii")
    present = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
    if present >= maximum:
        raise SettingError(
            f"the model has {present / 1e6:,.0f} MB already: give a worker more than {maximum / 1e6:,.0f} MB with "
            "--worker-megabytes"
        )
    resource.setrlimit(resource.RLIMIT_DATA, (maximum, maximum))


def start_lanes(
    choice: ModelChoice, limits: Limits, workers: int, banks: Mapping[str, Path] | None = None
) -> tuple[list[Lane], dict[str, Any]]:
    """The workers, ready, and the description of their model.

    Raises:
        DeopError: as ``build_worker``.
    """
    builders = [partial(build_worker, choice, limits, number, banks) for number in range(workers)]
    lanes = [ProcessLane(builder, limits.seconds) for builder in builders]
    try:
        descriptions = [lane.wait_until_ready() for lane in lanes]
    except WorkerLost:
        for lane in lanes:
            lane.close()
        raise CheckpointError("a worker has ended while it loaded the model: see its message above") from None
    except BaseException:
        for lane in lanes:
            lane.close()
        raise
    return list(lanes), descriptions[0]


def threads_of_worker(workers: int) -> int | None:
    """Threads of each worker, if nothing else is asked for; None: the model's own choice."""
    return None if workers == 1 else max(1, _cores() // workers)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_tokens(file: Path | None) -> tuple[str, ...]:
    """The tokens of clients: the lines of a file, or the variable ``DEOP_TOKEN``; empty if there are none.

    Raises:
        SettingError: the file cannot be read, or a token is short or has characters that a header cannot have.
    """
    if file is None:
        text, place = os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE
        if text is None:
            return ()
    else:
        place = str(file)
        try:
            check_regular(file, pipes=True, largest=LARGEST_TEXT)
            text = file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not plain ASCII text"
            raise SettingError(f"cannot read the token in {file}: {reason}") from error
    tokens = tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip())) or ("",)
    for token in tokens:
        if len(token) < _SHORTEST_TOKEN or not all("!" <= letter <= "~" for letter in token):
            raise SettingError(
                f"the token in {place} must have at least {_SHORTEST_TOKEN} printable ASCII characters and no spaces; "
                'to create one: python -c "import secrets; print(secrets.token_urlsafe())"'
            )
    return tokens


def read_banks(files: Sequence[Path]) -> dict[str, Path]:
    """The banks that all clients can use: their files by name, which is that of the file.

    Raises:
        CheckpointError: a file is missing, damaged or no bank.
        SettingError: two files with one name, or a name that a question cannot have.
    """
    banks: dict[str, Path] = {}
    for file in files:
        place = bank_path(file)
        bank = load_bank(place)
        if place.stem in banks:
            raise SettingError(f"--bank: {place} and {banks[place.stem]} have the same name: rename one of them")
        if not bank.named:
            raise SettingError(f"--bank: {place} has no name with examples: learn some with deop learn")
        if "," in place.stem or "/" in place.stem or place.stem != place.stem.strip() or not place.stem:
            raise SettingError(f"--bank: the name {place.stem!r} has a comma or a blank at its end: rename the file")
        banks[place.stem] = place
    return banks


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        SettingError: the address is unknown or in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(512)
        except OSError:
            bound.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingError(
            f"cannot listen on {host}, port {port}: {reason}. Choose others with --host and --port (0: any free one)"
        ) from error
    return bound


def check_host(host: str, tokens: Sequence[str]) -> None:
    """Refuse to serve other machines without a token.

    Raises:
        SettingError: there is none.
    """
    if not tokens and not is_loopback(host):
        raise SettingError(
            f"--host {host} lets other machines connect: give a token that they must know, with --token-file FILE or "
            f"the variable {TOKEN_VARIABLE}"
        )


def serve(
    choice: ModelChoice,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    limits: Limits | None = None,
    tokens: Sequence[str] = (),
    banks: Sequence[Path] = (),
    batch: int | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that were accepted are answered first.

    Args:
        choice: the model.
        host: the address to listen on.
        port: its port; 0: any free one.
        workers: number of processes that compute.
        limits: what is accepted.
        tokens: clients must know one of them.
        banks: files of banks that all clients can use.
        batch: photos that a worker encodes together; None: as many as suit its device.
        announce: called with the address once requests are accepted.

    Raises:
        SettingError: the address cannot be used.
        DeopError: the model cannot be loaded.
    """
    limits = limits or Limits()
    check_host(host, tokens)
    given = read_banks(banks)
    with bind(host, port) as listening:
        lanes, description = start_lanes(choice, limits, workers, given)
        announced = partial(announce, address_of(host, listening.getsockname()[1]))
        server = Server(lanes, description, limits=limits, tokens=tokens, batch=batch, announce=announced)
        server.run(sockets=[listening])


class _Forwarding(logging.Handler):
    """Writes what libraries log to ours: their message without its arguments, which may have content of requests."""

    def __init__(self, log: RequestLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        message = record.msg.strip() if isinstance(record.msg, str) else type(record.msg).__name__
        kind = {"type": record.exc_info[0].__name__} if record.exc_info and record.exc_info[0] else {}
        self._log.write("server", record.levelname.lower(), message=message, **kind)


def address_of(host: str, port: int) -> str:
    """The address to open in a browser.

    >>> address_of("::1", 80), address_of("0.0.0.0", 8000)
    ('http://[::1]:80', 'http://localhost:8000')
    """
    shown = "localhost" if host in ("0.0.0.0", "::", "") else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


class Server(uvicorn.Server):
    """The application behind guarded connections.

    Args:
        lanes: the workers.
        description: that of the model.
        limits: what is accepted.
        tokens: clients must know one of them.
        batch: as in ``serve``.
        announce: called once requests are accepted.
        log: where requests are logged.
    """

    def __init__(
        self,
        lanes: list[Lane],
        description: dict[str, Any],
        *,
        limits: Limits,
        tokens: Sequence[str] = (),
        batch: int | None = None,
        announce: Callable[[], None],
        log: RequestLog | None = None,
    ) -> None:
        limits = replace(limits, connections=raise_file_limit(limits.connections))
        metrics, log = Metrics(), log or RequestLog()
        self._guard = ConnectionGuard(limits, metrics, log)
        self._announce = announce
        self._sweeping: asyncio.Task[None] | None = None
        config = uvicorn.Config(
            create_app(lanes, description, limits=limits, tokens=tokens, batch=batch, metrics=metrics, log=log),
            http=self._guard.protocol,  # type: ignore[arg-type]
            h11_max_incomplete_event_size=_HEAD_BYTES,
            log_config=None,  # its log has addresses with names; ours has not
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_keep_alive=ceil(limits.idle_seconds),
            timeout_graceful_shutdown=round(limits.seconds + limits.upload_seconds) + 5,
        )
        super().__init__(config)
        for name in ("uvicorn", "asyncio"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [_Forwarding(log)], False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections and watch them."""
        asyncio.get_running_loop().set_exception_handler(self._log_error)
        await super().startup(sockets)
        if self.started:
            self._sweeping = asyncio.create_task(self._guard.sweep())
            self._announce()

    def _log_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        kind = type(context.get("exception")).__name__
        self._guard.log.write("server", "error", message=str(context.get("message")), type=kind)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End in order; a second Ctrl-C ends at once."""
        # uvicorn would raise the signal again at the end, and the process would seem to have failed.
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
