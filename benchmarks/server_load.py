"""Load on `deop serve`: many clients that never wait, answers compared with local ones, memory and refusals.

    python benchmarks/server_load.py PHOTO [PHOTO ...] [--clients 64] [--seconds 120]

Starts a server on a free port of this machine, and asks it for names in the photos. A client that is refused asks
again after a quarter of a second, sooner than the server asks for. Prints one JSON object: requests by status, wrong
answers, percentiles of the seconds of accepted and refused requests, as the clients and as the server see them, and the
memory of the server's processes at the start, halfway and at the end. Further options are those of `deop serve`.

The clients speak HTTP by hand: a library would take more of the processor than the server needs for a refusal, and its
seconds would be measured.
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import numpy as np

import deop

NAMES = "cat, wall, cup, table, person, sky"


def main() -> None:
    """Run the load."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    arguments, server = parser.parse_known_args()
    photos = [path.read_bytes() for path in arguments.photos]
    model = deop.load("nano", engine="onnx", device="cpu", threads=1)
    results: Any = model.segment(photos, NAMES)
    expected = [json.loads(json.dumps(result.summary(rle=True)["segments"])) for result in results]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        command = [sys.executable, "-m", "deop", "serve", "--port", "0", *server]
        child = subprocess.Popen(command, stderr=log)
        try:
            port = wait_for_port(child, log)
            report = asyncio.run(load(port, child.pid, photos, expected, arguments.clients, arguments.seconds))
        finally:
            child.terminate()
            child.wait()
        log.seek(0)
        report["server_seconds"] = seconds_of_log(log)
    print(json.dumps({"clients": arguments.clients, "options": server, **report}, indent=2))


def wait_for_port(child: "subprocess.Popen[bytes]", log: IO[str]) -> int:
    """The port of the address that the server names when it is ready."""
    while child.poll() is None:
        log.seek(0)
        if address := re.search(r"http://127\.0\.0\.1:(\d+)", log.read()):
            return int(address[1])
        time.sleep(0.1)
    log.seek(0)
    raise SystemExit(log.read())


async def request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, photo: bytes) -> tuple[int, bytes]:
    """The status and the body of the answer about one photo."""
    head = f"POST /v1/segment?names={quote(NAMES)} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(photo)}\r\n\r\n"
    writer.write(head.encode() + photo)
    await writer.drain()
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = re.search(r"^content-length: *(\d+)", answer, re.MULTILINE | re.IGNORECASE)
    if length is None:
        raise SystemExit(answer)
    return int(answer.split()[1]), await reader.readexactly(int(length[1]))


async def load(
    port: int, process: int, photos: list[bytes], expected: list[object], clients: int, seconds: float
) -> dict[str, object]:
    """Ask for ``seconds``, and report."""
    statuses: Counter[int] = Counter()
    accepted: list[float] = []
    refused: list[float] = []
    wrong = 0
    numbers = count()
    begin = time.monotonic()
    end = begin + seconds

    async def client() -> None:
        nonlocal wrong
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < end:
            index = next(numbers) % len(photos)
            start = time.monotonic()
            status, body = await request(reader, writer, photos[index])
            statuses[status] += 1
            (accepted if status == 200 else refused).append(time.monotonic() - start)
            if status == 200:
                wrong += json.loads(body)["segments"] != expected[index]
            else:
                await asyncio.sleep(0.25)  # sooner than the server asks for
        writer.close()

    async def watch() -> list[float]:
        memory = []
        while time.monotonic() < end:
            memory.append(megabytes(process))
            await asyncio.sleep(min(5.0, seconds / 4))
        return memory

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(client() for _ in range(clients)))
    elapsed = time.monotonic() - begin  # with the answers that were accepted before the end
    memory = await watching
    return {
        "seconds": seconds,
        "statuses": dict(statuses),
        "wrong_answers": wrong,
        "accepted_per_second": round(len(accepted) / elapsed, 2),
        "accepted_seconds": percentiles(accepted),
        "refused_seconds": percentiles(refused),
        "megabytes": {"start": memory[0], "half": memory[len(memory) // 2], "end": memory[-1], "most": max(memory)},
    }


def seconds_of_log(log: IO[str]) -> dict[str, object]:
    """Percentiles of the seconds of accepted and refused requests, from the lines that the server has logged."""
    lines = [json.loads(line) for line in log if line.startswith("{")]
    requests = [line for line in lines if line["event"] == "request"]
    return {
        name: percentiles([line["seconds"] for line in requests if line["status"] == status])
        for name, status in (("accepted", 200), ("refused", 429))
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum."""
    if not values:
        return {}
    return {f"p{q}": round(float(np.percentile(values, q)), 4) for q in (50, 99, 100)}


def megabytes(process: int) -> float:
    """Resident memory of a process and its children (Linux)."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8").split()
    pages = sum(
        int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) for pid in [process, *map(int, children)]
    )
    return round(pages * 4096 / 1e6, 1)


if __name__ == "__main__":
    main()
