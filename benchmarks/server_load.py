"""Load on `deop serve` at a multiple of its capacity: answers compared with local ones, refusals, memory over time.

    python -m benchmarks.server_load PHOTO [PHOTO ...] [--minutes 10] [--times 4] [--hostile 8] [--json FILE]

Starts a server on a free port of this machine and asks it for names in the photos. First two clients ask one request
after the other, which measures the capacity. Then requests arrive at `--times` this rate, each at its time, however
busy the server is. Beside them, with `--hostile`, as many clients of each of three kinds do harm: they send the head of
a request byte by byte, leave in the middle of a form, or send what is not HTTP.

Prints one JSON object: requests by status, wrong answers, percentiles of the seconds of accepted and of refused
requests, as the clients and as the server see them, how long an accepted request may take (`bound_seconds`: the number
of requests that are accepted, divided by those that are answered in a second), and memory, open files and threads of
its processes: their slope per hour, and the medians of the second and of the last quarter. Further options are those of
`deop serve`.

The clients speak HTTP by hand: a library would take more of the processor than the server needs for a refusal, and its
seconds would be measured.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import numpy as np
from benchmarks.process_watch import Watch, growth, thinned

import deop
from deop.serving.limits import Limits

NAMES = "cat, wall, cup, table, person, sky"
FORM = (
    b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\nContent-Disposition: form-data; name="
)
HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: "


def main() -> None:
    """Run the load."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--times", type=float, default=4, help="multiple of the capacity")
    parser.add_argument("--clients", type=int, default=128, help="most connections that ask at the same time")
    parser.add_argument("--capacity-seconds", type=float, default=20, help="seconds in which the capacity is measured")
    parser.add_argument("--hostile", type=int, default=0, help="harmful clients of each kind")
    parser.add_argument("--max-requests", type=int, default=Limits().requests, help="as of deop serve")
    parser.add_argument("--max-seconds", type=float, default=Limits().seconds, help="as of deop serve")
    parser.add_argument("--json", type=Path)
    arguments, others = parser.parse_known_args()
    server = [f"--max-requests={arguments.max_requests}", f"--max-seconds={arguments.max_seconds:g}", *others]
    photos = [path.read_bytes() for path in arguments.photos]
    model = deop.load("nano", engine="onnx", device="cpu", threads=1)
    results: Any = model.segment(photos, NAMES)
    expected = [json.loads(json.dumps(result.summary(rle=True)["segments"])) for result in results]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        command = [sys.executable, "-m", "deop", "serve", "--port", "0", *server]
        child = subprocess.Popen(command, stderr=log)
        try:
            load = Load(wait_for_port(child, log), child.pid, photos, expected)
            report = asyncio.run(run(load, arguments))
        finally:
            child.terminate()
            child.wait()
        report["exit_code"] = child.returncode
        log.seek(0)
        report["server_seconds"] = seconds_of_log(log)
    text = json.dumps({"options": server, "load_of_the_machine": os.getloadavg(), **report}, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")


def wait_for_port(child: "subprocess.Popen[bytes]", log: IO[str]) -> int:
    """The port of the address that the server names when it is ready."""
    while child.poll() is None:
        log.seek(0)
        if address := re.search(r"http://127\.0\.0\.1:(\d+)", log.read()):
            return int(address[1])
        time.sleep(0.1)
    log.seek(0)
    raise SystemExit(log.read())


@dataclass
class Load:
    """A server that is asked, and what it has answered.

    Attributes:
        port: of the server.
        process: its number.
        photos: the files.
        expected: the answer about each of them.
        statuses: answers by their status.
        accepted: seconds of the requests that were answered.
        refused: seconds of those that were refused at once, with 429.
        wrong: answers that are not the expected ones.
        broken: connections that ended without an answer.
    """

    port: int
    process: int
    photos: list[bytes]
    expected: list[object]
    statuses: Counter[int] = field(default_factory=Counter)
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    wrong: int = 0
    broken: int = 0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def client(self, next_photo: Callable[[], Awaitable[int | None]]) -> None:
        """Ask about photos until there is none, with a new connection where the server has closed one."""
        reader, writer = await self.connect()
        while (index := await next_photo()) is not None:
            start = time.monotonic()
            if writer.is_closing() or reader.at_eof():  # it was idle for too long
                reader, writer = await self.connect()
            try:
                status, body = await request(reader, writer, self.photos[index % len(self.photos)])
            except (OSError, EOFError):
                self.broken += 1
                reader, writer = await self.connect()
                continue
            self.statuses[status] += 1
            seconds = time.monotonic() - start
            if status == 429:
                self.refused.append(seconds)
            if status == 200:
                self.accepted.append(seconds)
                self.wrong += json.loads(body)["segments"] != self.expected[index % len(self.photos)]
        writer.close()


async def run(load: Load, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the capacity, then load the server."""
    capacity = await capacity_of(load, arguments.capacity_seconds)
    load = Load(load.port, load.process, load.photos, load.expected)
    rate, end = arguments.times * capacity, time.monotonic() + 60 * arguments.minutes
    numbers, begin = count(), time.monotonic()

    async def next_photo() -> int | None:
        number = next(numbers)
        await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
        return number if time.monotonic() < end else None

    hostile = [
        asyncio.create_task(act(load, end)) for act in (trickle, leave, talk_nonsense) for _ in range(arguments.hostile)
    ]
    with Watch(load.process) as watch:
        await asyncio.gather(*(load.client(next_photo) for _ in range(arguments.clients)))
    elapsed = time.monotonic() - begin  # with the answers that were accepted before the end
    await asyncio.gather(*hostile)
    return {
        "minutes": arguments.minutes,
        "capacity_per_second": round(capacity, 2),
        "offered_per_second": round(rate, 2),
        "answered_per_second": round(load.statuses.total() / elapsed, 2),
        "accepted_per_second": round(len(load.accepted) / elapsed, 2),
        "statuses": dict(load.statuses),
        "wrong_answers": load.wrong,
        "connections_without_an_answer": load.broken,
        "accepted_seconds": percentiles(load.accepted),
        "bound_seconds": round(min(arguments.max_seconds, arguments.max_requests * elapsed / len(load.accepted)), 1),
        "refused_seconds": percentiles(load.refused),
        "refused_within_50_ms": round(float(np.mean(np.array(load.refused) <= 0.05)), 4) if load.refused else None,
        "hostile_clients": 3 * arguments.hostile,
        "per_hour": growth(watch.samples, per="seconds", unit=3600),
        "samples": thinned(watch.samples),
        "metrics": await metrics(load),
    }


async def capacity_of(load: Load, seconds: float) -> float:
    """Answers per second to two clients that ask one request after the other."""
    end, numbers = time.monotonic() + seconds, count()

    async def next_photo() -> int | None:
        return next(numbers) if time.monotonic() < end else None

    begin = time.monotonic()
    await asyncio.gather(*(load.client(next_photo) for _ in range(2)))
    return len(load.accepted) / (time.monotonic() - begin)


async def request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, photo: bytes) -> tuple[int, bytes]:
    """The status and the body of the answer about one photo."""
    head = f"POST /v1/segment?names={quote(NAMES)} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(photo)}\r\n\r\n"
    writer.write(head.encode() + photo)
    await writer.drain()
    return await answer(reader)


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The status and the body of an answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = re.search(r"^content-length: *(\d+)", head, re.MULTILINE | re.IGNORECASE)
    if length is None:
        raise SystemExit(head)
    return int(head.split()[1]), await reader.readexactly(int(length[1]))


async def get(load: Load, path: str) -> bytes:
    """The body of the answer to GET."""
    reader, writer = await load.connect()
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    _, body = await answer(reader)
    writer.close()
    return body


async def metrics(load: Load) -> dict[str, float]:
    """The counters of the server."""
    text = (await get(load, "/metrics")).decode()
    lines = re.findall(r"^(deop_\w+_total(?:\{limit=.*\})?|deop_connections) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


async def trickle(load: Load, end: float) -> None:
    """Send the head of a request byte by byte, again and again."""
    while time.monotonic() < end:
        with suppress(OSError):
            reader, writer = await load.connect()
            writer.write(HEAD)
            while time.monotonic() < end and not reader.at_eof() and not writer.is_closing():
                writer.write(b"a")
                await writer.drain()
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1000), 0.5)
            writer.close()


async def leave(load: Load, end: float) -> None:
    """Send half a form, and leave."""
    while time.monotonic() < end:
        with suppress(OSError):
            _, writer = await load.connect()
            writer.write(FORM)
            await asyncio.sleep(0.2)
            writer.transport.abort()
        await asyncio.sleep(0.3)


async def talk_nonsense(load: Load, end: float) -> None:
    """Send what is not HTTP."""
    random = np.random.default_rng(0)
    while time.monotonic() < end:
        with suppress(OSError, EOFError):
            reader, writer = await load.connect()
            writer.write(random.bytes(int(random.integers(1, 100_000))) + b"\r\n\r\n")
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(), 2)
            writer.transport.abort()
        await asyncio.sleep(0.5)


def seconds_of_log(log: IO[str]) -> dict[str, object]:
    """Percentiles of the seconds of accepted and refused requests, from the lines that the server has logged."""
    lines = [json.loads(line) for line in log if line.startswith("{")]
    requests = [line for line in lines if line["event"] == "request"]
    return {
        name: percentiles([line["seconds"] for line in requests if line["status"] == status])
        for name, status in (("accepted", 200), ("refused", 429))
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """Median, 99th percentile, that of one in a thousand, and maximum."""
    if not values:
        return {}
    return {f"p{q:g}": round(float(np.percentile(values, q)), 4) for q in (50, 99, 99.9, 100)}


if __name__ == "__main__":
    main()
