"""The application: routes, and how they reach the workers."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

import deop
from deop._version import __version__
from deop.serving import openapi
from deop.serving.access import ClientClosed, Gate
from deop.serving.answers import JSON, Answer, choose_type
from deop.serving.banks import Banks, MissingBanks, StoredBank
from deop.serving.bodies import FORM, RAW, content_type_of, query_fields, read_body
from deop.serving.encoded_photos import unknown_photo
from deop.serving.lanes import Lane
from deop.serving.limits import Limits
from deop.serving.metrics import TYPE, Metrics
from deop.serving.problems import Problem
from deop.serving.questions import PhotoId, parse
from deop.serving.queue import WorkQueue, lane_of
from deop.serving.request_log import RequestLog
from deop.serving.work import Crash, Kept, Work

PAGE = Path(deop.__file__).parent / "web"
"""The built page (web/README.md)."""

R = TypeVar("R")


def create_app(
    lanes: list[Lane],
    description: dict[str, Any],
    *,
    limits: Limits | None = None,
    tokens: Sequence[str] = (),
    batch: int | None = None,
    metrics: Metrics | None = None,
    log: RequestLog | None = None,
) -> Gate:
    """The ASGI application.

    Args:
        lanes: the workers, which have the same model.
        description: that of the model, from ``Worker.describe``.
        limits: what is accepted.
        tokens: clients must know one of them; none: nothing, and then only requests to a loopback address are answered.
        batch: photos that a worker encodes together; None: as many as suit its device.
        metrics: what is counted; None: in a registry of its own.
        log: where requests are logged; None: standard error.
    """
    limits = limits or Limits()
    metrics, log = metrics or Metrics(), log or RequestLog()
    log.when_lost = metrics.log_lines_lost.inc
    queue = WorkQueue(lanes, limits, metrics, log, batch=batch or description["batch"])

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await queue.start()
        forgetting = asyncio.create_task(forget_old_banks())
        log.write("ready", model=description["name"], workers=len(lanes))
        yield
        forgetting.cancel()
        await queue.stop()
        log.write("stopped")

    # The pages of FastAPI with the documentation load scripts of another site.
    app = FastAPI(
        title="deop", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan
    )
    gate = Gate(app, tokens=tokens, limits=limits, metrics=metrics, log=log, place=queue.place)

    banks: defaultdict[int, Banks] = defaultdict(lambda: Banks(limits))

    metrics.banks.set_function(lambda: sum(map(len, banks.values())))
    metrics.bank_bytes.set_function(lambda: sum(owned.bytes for owned in banks.values()))

    async def forget_old_banks() -> None:
        while True:
            await asyncio.sleep(min(60.0, limits.bank_seconds / 4))
            for owned in list(banks.values()):
                owned.expire()

    def banks_of(request: Request) -> Banks:
        return banks[request.state.owner]

    async def run_with_banks(work: Work, lane: int | None, stored: dict[str, StoredBank]) -> Any:
        outcome = await queue.run(work, lane)
        if isinstance(outcome, MissingBanks):
            contents = {bank.digest: bank.content for bank in stored.values() if bank.digest in outcome.digests}
            outcome = await queue.run(replace(work, contents=contents), lane)
        return outcome

    async def compute(request: Request, work: Work, lane: int | None = None) -> Any:
        stored = banks_of(request).all()
        work = replace(work, banks={key: bank.digest for key, bank in stored.items()})
        outcome = await unless_closed(request, run_with_banks(work, lane, stored))
        if isinstance(outcome, Answer):
            banks_of(request).touch(outcome.banks)
        if isinstance(outcome, Problem):
            raise outcome
        if isinstance(outcome, Crash):
            gate.log_crash(request.state.request_id, outcome.type, outcome.places)
            raise Problem(500, "this is a bug of the server: report it with the lines of its log")
        return outcome

    async def change(request: Request, key: str, work: Work, lane: int | None = None) -> Response:
        """Let a worker change a bank; one after the other, so that no change is lost."""
        refuse_given(key)
        async with banks_of(request).lock(key):
            banks_of(request).replace(key, await compute(request, replace(work, bank=key), lane))
        return JSONResponse(banks_of(request).get(key).summary(key))

    def refuse_given(key: str) -> None:
        if key in description["banks"]:
            raise Problem(
                403, "this bank is the operator's: it can be used in questions, but not changed or downloaded"
            )

    async def photo_work(request: Request, kind: Literal["segment", "encode"], answer: str = "") -> Work:
        content_type, query = content_type_of(request), query_fields(request)
        return Work(kind, await read_body(request, limits), content_type, query, answer)

    async def read_question(request: Request, limit: str = "question_bytes") -> bytes:
        if request.headers.get("content-type", JSON).partition(";")[0].strip().casefold() != JSON:
            raise Problem(415, f"the content must be {JSON}: set Content-Type")
        if query_fields(request):
            raise Problem(422, "give the fields in the body, not in the address")
        return await read_body(request, limits, limit=limit)

    def lane_with(key: str) -> int:
        """The worker that has an encoded photo."""
        lane = lane_of(key, len(lanes))
        if lane is None:
            raise unknown_photo()
        return lane

    @app.post("/v1/segment")
    async def segment(request: Request) -> Response:
        kind = choose_type(request.headers.get("accept"))
        answer: Answer = await compute(request, await photo_work(request, "segment", kind))
        return _respond(answer)

    @app.post("/v1/encode", status_code=201)
    async def encode(request: Request) -> Response:
        kept: Kept = await compute(request, await photo_work(request, "encode"))
        return JSONResponse({"id": kept.id, "size": list(kept.size)}, 201, {"Location": f"/v1/encode/{kept.id}"})

    @app.post("/v1/label")
    async def label(request: Request) -> Response:
        kind = choose_type(request.headers.get("accept"))
        body = await read_question(request)
        key = parse(PhotoId, body).id
        answer: Answer = await compute(request, Work("label", body, type=kind, id=key), lane_with(key))
        return _respond(answer)

    @app.post("/v1/marks")
    async def mark(request: Request) -> Response:
        body = await read_question(request, "examples_bytes")
        key = parse(PhotoId, body).id
        answer: Answer = await compute(request, Work("mark", body, id=key), lane_with(key))
        return Response(answer.content, media_type=answer.type)

    @app.delete("/v1/encode/{id}", status_code=204)
    async def forget(request: Request, id: str) -> Response:
        if not await compute(request, Work("forget", id=id), lane_with(id)):
            raise unknown_photo()
        return Response(status_code=204)

    @app.post("/v1/banks", status_code=201)
    async def create_bank(request: Request) -> Response:
        body = await read_body(request, limits)
        bank = await compute(request, Work("merge", body)) if body else StoredBank()
        key = banks_of(request).create(bank)
        return JSONResponse(bank.summary(key), 201, {"Location": f"/v1/banks/{key}"})

    @app.get("/v1/banks")
    async def list_banks() -> Response:
        return JSONResponse({"banks": list(description["banks"].values())})

    @app.get("/v1/banks/{id}")
    async def show_bank(request: Request, id: str) -> Response:
        return JSONResponse(description["banks"].get(id) or banks_of(request).get(id).summary(id))

    @app.post("/v1/banks/{id}")
    async def merge_bank(request: Request, id: str) -> Response:
        refuse_given(id)
        banks_of(request).get(id)
        body = await read_body(request, limits)
        if not body:
            raise Problem(
                422, "the body is empty: send the bytes of a bank file, such as GET /v1/banks/{id}/file answers"
            )
        return await change(request, id, Work("merge", body))

    @app.get("/v1/banks/{id}/file")
    async def download_bank(request: Request, id: str) -> Response:
        refuse_given(id)
        bank = banks_of(request).get(id)
        if not bank.content:
            raise Problem(409, "the bank has no examples yet: add some with POST /v1/banks/{id}/examples")
        headers = {"Content-Disposition": 'attachment; filename="bank.safetensors"'}
        return Response(bank.content, headers=headers, media_type=RAW)

    @app.delete("/v1/banks/{id}", status_code=204)
    async def delete_bank(request: Request, id: str) -> Response:
        refuse_given(id)
        banks_of(request).remove(id)
        return Response(status_code=204)

    @app.post("/v1/banks/{id}/forget")
    async def forget_names(request: Request, id: str) -> Response:
        refuse_given(id)
        banks_of(request).get(id)
        return await change(request, id, Work("drop", await read_question(request)))

    @app.post("/v1/banks/{id}/examples")
    async def add_examples(request: Request, id: str) -> Response:
        refuse_given(id)
        banks_of(request).get(id)
        content_type = request.headers.get("content-type", JSON)
        kind = content_type.partition(";")[0].strip().casefold()
        if query_fields(request):
            raise Problem(422, "give the fields in the body, not in the address")
        if kind == FORM:
            return await change(request, id, Work("learn", await read_body(request, limits), content_type))
        if kind != JSON:
            raise Problem(415, f"the content must be {JSON}, about an encoded photo, or {FORM} with a photo")
        body = await read_body(request, limits, limit="examples_bytes")
        key = parse(PhotoId, body).id
        return await change(request, id, Work("learn", body, JSON, id=key), lane_with(key))

    models = {
        key: description[key] for key in ("name", "backend", "modes", "severances", "heatmaps", "defaults", "license")
    } | {"limits": {name: getattr(limits, name) for name in openapi.LISTED_LIMITS}}

    @app.get("/v1/models")
    async def list_models() -> Response:
        return JSONResponse({"default": description["name"], "models": [models]})

    @app.get("/healthz")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def ready() -> Response:
        if not queue.ready:
            raise Problem(503, "the server does not accept requests", retry_after=5)
        return JSONResponse({"status": "ready"})

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(metrics.text(), media_type=TYPE)

    _let_through(app)
    _add_page(app)
    description_of_api = json.dumps(openapi.describe(limits, bool(tokens))).encode()
    app.openapi = lambda: json.loads(description_of_api)  # type: ignore[method-assign]
    return gate


class _LeftToGate(Response):
    """Sends nothing: the gate answers, which counts refusals and receives the rest of the body."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["error"] = self._error


def _let_through(app: FastAPI) -> None:
    """Leave every error to the gate; Starlette would answer some of them by itself, as plain text."""

    async def leave(_: Request, error: Exception) -> Response:
        return _LeftToGate(error)

    def methods_at(request: Request) -> str:
        """All methods of an address; Starlette names those of the first of its routes."""
        matching = (route for route in app.routes if route.matches(request.scope)[0] != Match.NONE)
        return ", ".join(sorted({method for route in matching for method in getattr(route, "methods", None) or ()}))

    async def translate(request: Request, error: Any) -> Response:
        details = {
            404: "there is nothing at this address; /openapi.json describes the interface",
            405: "this address does not have this method",
        }
        detail = details.get(error.status_code, "the request cannot be read")
        headers = {"Allow": methods_at(request)} if error.status_code == 405 else dict(error.headers or {})
        return _LeftToGate(Problem(error.status_code, detail, headers=headers))

    for kind in (Problem, ClientClosed, Exception):
        app.add_exception_handler(kind, leave)
    app.add_exception_handler(HTTPException, translate)


def _add_page(app: FastAPI) -> None:
    """A route for each file of the page. A mounted folder would take the requests with a wrong method to ``/v1``."""

    def add(path: str, file: Path) -> None:
        async def send(_: Request) -> Response:
            return FileResponse(file, headers={"Cache-Control": "no-cache"})

        app.add_route(path, send, methods=["GET", "HEAD"], include_in_schema=False)

    add("/", PAGE / "index.html")
    for file in PAGE.rglob("*"):
        if file.is_file():
            add("/" + file.relative_to(PAGE).as_posix(), file)


def _respond(answer: Answer) -> Response:
    return Response(answer.content, media_type=answer.type, headers={"Vary": "Accept"})


async def unless_closed(request: Request, running: Awaitable[R]) -> R:
    """Await something, unless the client closes the connection first.

    Raises:
        ClientClosed: it has; what was running is cancelled.
    """
    task = asyncio.ensure_future(running)
    watching = asyncio.ensure_future(_closed(request.receive))
    try:
        await asyncio.wait({task, watching}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientClosed
    finally:
        for future in (task, watching):
            future.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await asyncio.gather(task, watching, return_exceptions=True)


async def _closed(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
