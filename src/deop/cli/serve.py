"""``deop serve``: the page and the HTTP server."""

from pathlib import Path
from typing import Annotated

from deop.cli.console import say
from deop.cli.options import (
    RUNTIME,
    Debug,
    Engine,
    EngineDataType,
    EngineDevice,
    Model,
    Partition,
    Prior,
    Proposer,
    Proxy,
    Threads,
    Windows,
    option,
    parse_windows,
)
from deop.dependencies import require

LIMITS = "Limits"


def serve(
    host: Annotated[
        str,
        option(
            "--host", metavar="ADDRESS",
            help="Address to listen on. Default: 127.0.0.1, this machine alone. Any other asks for a token.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, option("--port", metavar="N", min=0, max=65535, help="Default: 8000. 0: any free port.")
    ] = 8000,
    token_file: Annotated[
        Path | None,
        option(
            "--token-file", metavar="FILE",
            help="File with the token that clients must send, or several, one a line: a bank of examples belongs to "
            "its token. Default: the variable DEOP_TOKEN, if it is set.",
        ),
    ] = None,
    bank: Annotated[
        list[Path] | None,
        option(
            "--bank", metavar="FILE",
            help="A bank of examples, from `deop learn`, that all clients can use by the name of its file. May be "
            "repeated.",
        ),
    ] = None,
    model: Model = "nano",
    proposer: Proposer = None,
    proxy: Proxy = None,
    windows: Windows = None,
    partition: Partition = None,
    prior: Prior = None,
    workers: Annotated[
        int,
        option(
            "--workers", metavar="N", panel=RUNTIME, min=1, max=256,
            help="Number of processes that compute, each with the model in memory. They have a lower priority than the "
            "process that answers. Default: 1.",
        ),
    ] = 1,
    batch: Annotated[
        int | None,
        option(
            "--batch", metavar="N", panel=RUNTIME, min=1, max=256,
            help="Waiting photos that are encoded together. Default: 1 on a CPU, 8 on a GPU.",
        ),
    ] = None,
    max_megabytes: Annotated[
        float, option("--max-megabytes", metavar="N", panel=LIMITS, min=0.001, help="Size of a request. Default: 64.")
    ] = 64,
    max_megapixels: Annotated[
        float, option("--max-megapixels", metavar="N", panel=LIMITS, min=0.001, help="Size of a photo. Default: 100.")
    ] = 100,
    max_names: Annotated[
        int,
        option("--max-names", metavar="N", panel=LIMITS, min=1, max=60_000, help="Names of a question. Default: 1000."),
    ] = 1000,
    max_requests: Annotated[
        int,
        option(
            "--max-requests", metavar="N", panel=LIMITS, min=1,
            help="Requests at the same time; more are asked to come back later. Default: 32.",
        ),
    ] = 32,
    max_seconds: Annotated[
        float,
        option("--max-seconds", metavar="N", panel=LIMITS, min=0.001, help="Longest wait for an answer. Default: 60."),
    ] = 60,
    worker_megabytes: Annotated[
        float | None,
        option(
            "--worker-megabytes", metavar="N", panel=LIMITS, min=1,
            help="Memory of each worker; a photo that needs more is refused (Linux). Default: no limit.",
        ),
    ] = None,
    cache_megabytes: Annotated[
        float,
        option(
            "--cache-megabytes", metavar="N", panel=LIMITS, min=0.001,
            help="Memory of encoded photos, for each worker. Default: 1000.",
        ),
    ] = 1000,
    cache_seconds: Annotated[
        float,
        option(
            "--cache-seconds", metavar="N", panel=LIMITS, min=0.001,
            help="How long an encoded photo is kept without being used. Default: 600.",
        ),
    ] = 600,
    max_banks: Annotated[
        int,
        option(
            "--max-banks", metavar="N", panel=LIMITS, min=1,
            help="Banks of examples of each token; for more, the one used longest ago is forgotten. Default: 100.",
        ),
    ] = 100,
    bank_megabytes: Annotated[
        float,
        option(
            "--bank-megabytes", metavar="N", panel=LIMITS, min=0.001,
            help="Memory of all banks of a token. Default: 200.",
        ),
    ] = 200,
    bank_regions: Annotated[
        int,
        option(
            "--bank-regions", metavar="N", panel=LIMITS, min=1, max=100_000,
            help="Regions in a bank of a client. Default: 20000.",
        ),
    ] = 20_000,
    bank_seconds: Annotated[
        float,
        option(
            "--bank-seconds", metavar="N", panel=LIMITS, min=0.001,
            help="How long a bank is kept without being used. Default: 86400, one day.",
        ),
    ] = 86_400,
    engine: Engine = None,
    device: EngineDevice = None,
    dtype: EngineDataType = None,
    threads: Threads = None,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Show the page in a browser, and answer programs over HTTP.

    Photos and names stay in memory: they are neither written to disk nor logged. The log on stderr has one line per
    request: text on a terminal, else a JSON object. Ctrl-C or SIGTERM ends the server when it has answered what it
    accepted.
    """
    require("deop serve", "fastapi", "uvicorn", "prometheus_client", "python_multipart")
    from deop.serving.limits import MEGABYTE, Limits
    from deop.serving.server import ModelChoice, check_host, read_tokens, threads_of_worker
    from deop.serving.server import serve as run

    limits = Limits(
        bytes=round(max_megabytes * MEGABYTE),
        pixels=round(max_megapixels * MEGABYTE),
        names=max_names,
        requests=max_requests,
        seconds=max_seconds,
        worker_bytes=None if worker_megabytes is None else round(worker_megabytes * MEGABYTE),
        cache_bytes=round(cache_megabytes * MEGABYTE),
        cache_seconds=cache_seconds,
        banks=max_banks,
        bank_bytes=round(bank_megabytes * MEGABYTE),
        bank_regions=bank_regions,
        bank_seconds=bank_seconds,
    )
    tokens = read_tokens(token_file)
    check_host(host, tokens)
    choice = ModelChoice(
        model, engine, device, dtype, threads or threads_of_worker(workers), proposer, proxy, parse_windows(windows),
        partition, prior,
    )  # fmt: skip
    run(
        choice,
        host=host,
        port=port,
        workers=workers,
        limits=limits,
        tokens=tokens,
        banks=bank or [],
        batch=batch,
        announce=lambda address: say(f"open {address} in a browser; Ctrl-C ends the server"),
    )
