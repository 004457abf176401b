"""Running the server: workers, the socket, and the end."""

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from deop.errors import CheckpointError, SettingError
from deop.serving.access import JsonLog, is_loopback
from deop.serving.app import create_app
from deop.serving.lanes import Lane, ProcessLane, ThreadLane, WorkerLost
from deop.serving.limits import Limits
from deop.serving.queue import prefix_of
from deop.serving.work import Worker

TOKEN_VARIABLE = "DEOP_TOKEN"
_SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class ModelChoice:
    """Which model the workers load; the fields are arguments of ``deop.load``."""

    name: str = "nano"
    engine: str | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None


def build_worker(choice: ModelChoice, limits: Limits, number: int) -> Worker:
    """Load the model and run it once.

    Raises:
        DeopError: it cannot be loaded, or needs masks with each photo.
    """
    from deop.zoo import load

    model = load(choice.name, engine=choice.engine, device=choice.device, dtype=choice.dtype, threads=choice.threads)
    if model.needs_masks:
        raise SettingError(
            f"the model {choice.name} has no proposer, and the server takes no masks: choose another one (--model)"
        )
    model.cache = None  # names are not written to disk
    worker = Worker(model, limits, prefix_of(number))
    worker.warm_up()
    return worker


def start_lanes(choice: ModelChoice, limits: Limits, workers: int) -> tuple[list[Lane], dict[str, Any]]:
    """The workers, ready, and the description of their model.

    Raises:
        DeopError: as ``build_worker``.
    """
    if workers == 1:
        worker = build_worker(choice, limits, 0)
        return [ThreadLane(worker)], worker.describe()
    builders = [partial(build_worker, choice, limits, number) for number in range(workers)]
    lanes = [ProcessLane(builder) for builder in builders]
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
    return None if workers == 1 else max(1, (os.cpu_count() or multiprocessing.cpu_count()) // workers)


def read_token(file: Path | None) -> str | None:
    """The token of clients: the content of a file, or the variable ``DEOP_TOKEN``; None: there is none.

    Raises:
        SettingError: the file cannot be read, or the token is short or has characters that a header cannot have.
    """
    if file is None:
        token, place = os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE
        if token is None:
            return None
    else:
        place = str(file)
        try:
            token = file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not plain ASCII text"
            raise SettingError(f"cannot read the token in {file}: {reason}") from error
    token = token.strip()
    if len(token) < _SHORTEST_TOKEN or not all("!" <= letter <= "~" for letter in token):
        raise SettingError(
            f"the token in {place} must have at least {_SHORTEST_TOKEN} printable ASCII characters and no spaces; to "
            'create one: python -c "import secrets; print(secrets.token_urlsafe())"'
        )
    return token


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


def check_host(host: str, token: str | None) -> None:
    """Refuse to serve other machines without a token.

    Raises:
        SettingError: there is none.
    """
    if token is None and not is_loopback(host):
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
    token: str | None = None,
    batch: int | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that were accepted are answered first.

    Args:
        choice: the model.
        host: the address to listen on.
        port: its port; 0: any free one.
        workers: number of processes that compute; 1: a thread of this process.
        limits: what is accepted.
        token: what clients must know.
        batch: photos that a worker encodes together; None: as many as suit its device.
        announce: called with the address once requests are accepted.

    Raises:
        SettingError: the address cannot be used.
        DeopError: the model cannot be loaded.
    """
    limits = limits or Limits()
    check_host(host, token)
    with bind(host, port) as listening:
        lanes, description = start_lanes(choice, limits, workers)
        log = JsonLog()
        app = create_app(lanes, description, limits=limits, token=token, batch=batch, log=log)
        config = uvicorn.Config(
            app,
            log_config=None,  # its log has addresses with names; ours has not
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_keep_alive=30,
            timeout_graceful_shutdown=round(limits.seconds + limits.upload_seconds) + 5,
        )
        server = _Server(config, lambda: announce(address_of(host, listening.getsockname()[1])))
        server.run(sockets=[listening])


def address_of(host: str, port: int) -> str:
    """The address to open in a browser.

    >>> address_of("::1", 80), address_of("0.0.0.0", 8000)
    ('http://[::1]:80', 'http://localhost:8000')
    """
    shown = "localhost" if host in ("0.0.0.0", "::", "") else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


class _Server(uvicorn.Server):
    """Calls a function once requests are accepted."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn would raise the signal again at the end, and the process would seem to have failed.
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
