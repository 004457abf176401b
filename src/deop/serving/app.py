"""The application: routes, and how they reach the workers."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

import deop
from deop._version import __version__
from deop.serving import openapi
from deop.serving.access import ClientClosed, Gate, JsonLog
from deop.serving.answers import JSON, Answer, choose_type
from deop.serving.bodies import query_fields, question_of, read_body, read_photo_question
from deop.serving.encoded_photos import unknown_photo
from deop.serving.lanes import Lane
from deop.serving.limits import Limits
from deop.serving.metrics import TYPE, Metrics
from deop.serving.problems import Problem
from deop.serving.questions import StoredQuestion, parse
from deop.serving.queue import WorkQueue, lane_of
from deop.serving.work import Crash, Kept, Work, check_photo

PAGE = Path(deop.__file__).parent / "web"
"""The built page (web/README.md)."""

R = TypeVar("R")


def create_app(
    lanes: list[Lane],
    description: dict[str, Any],
    *,
    limits: Limits | None = None,
    token: str | None = None,
    batch: int | None = None,
    log: JsonLog | None = None,
) -> Gate:
    """The ASGI application.

    Args:
        lanes: the workers, which have the same model.
        description: that of the model, from ``Worker.describe``.
        limits: what is accepted.
        token: what clients must know; None: nothing, and then only requests to a loopback address are answered.
        batch: photos that a worker encodes together; None: as many as suit its device.
        log: where requests are logged; None: standard error.
    """
    limits = limits or Limits()
    metrics, log = Metrics(), log or JsonLog()
    queue = WorkQueue(lanes, limits, metrics, batch=batch or description["batch"])

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await queue.start()
        log.write("ready", model=description["name"], workers=len(lanes))
        yield
        await queue.stop()
        log.write("stopped")

    # The pages of FastAPI with the documentation load scripts of another site.
    app = FastAPI(title="deop", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    gate = Gate(app, token=token, limits=limits, metrics=metrics, log=log)

    async def compute(request: Request, work: Work, lane: int | None = None) -> Any:
        outcome = await unless_closed(request, queue.run(work, lane))
        if isinstance(outcome, Problem):
            raise outcome
        if isinstance(outcome, Crash):
            gate.log_crash(request.state.request_id, outcome.type, outcome.places)
            raise Problem(500, "this is a bug of the server: report it with the lines of its log")
        return outcome

    @app.post("/v1/segment")
    async def segment(request: Request) -> Response:
        kind = choose_type(request.headers.get("accept"))
        with queue.place():
            photo, fields = await read_photo_question(request, limits)
            question, severance = question_of(fields, limits)
            await asyncio.to_thread(check_photo, photo, limits)
            answer: Answer = await compute(request, Work("segment", photo, severance, question, kind))
        return _respond(answer)

    @app.post("/v1/encode", status_code=201)
    async def encode(request: Request) -> Response:
        with queue.place():
            photo, fields = await read_photo_question(request, limits)
            severance = fields.pop("severance", None)
            if fields:
                raise Problem(422, f"{', '.join(fields)}: names and other fields belong to POST /v1/label")
            await asyncio.to_thread(check_photo, photo, limits)
            kept: Kept = await compute(request, Work("encode", photo, severance))
        return JSONResponse({"id": kept.id, "size": list(kept.size)}, 201, {"Location": f"/v1/encode/{kept.id}"})

    @app.post("/v1/label")
    async def label(request: Request) -> Response:
        kind = choose_type(request.headers.get("accept"))
        if request.headers.get("content-type", JSON).partition(";")[0].strip().casefold() != JSON:
            raise Problem(415, f"the content must be {JSON}: set Content-Type")
        if query_fields(request):
            raise Problem(422, "give the fields in the body, not in the address")
        with queue.place():
            question: StoredQuestion = parse(StoredQuestion, await read_body(request, limits))
            question.check(limits)
            lane = lane_of(question.id, len(lanes))
            if lane is None:
                raise unknown_photo()
            work = Work("label", question=question, type=kind, id=question.id)
            answer: Answer = await compute(request, work, lane)
        return _respond(answer)

    @app.delete("/v1/encode/{id}", status_code=204)
    async def forget(request: Request, id: str) -> Response:
        lane = lane_of(id, len(lanes))
        with queue.place():
            if lane is None or not await compute(request, Work("forget", id=id), lane):
                raise unknown_photo()
        return Response(status_code=204)

    models = {key: description[key] for key in ("name", "backend", "modes", "severances", "heatmaps", "license")} | {
        "limits": {name: getattr(limits, name) for name in ("bytes", "pixels", "names", "characters", "seconds")}
    }

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
    description_of_api = json.dumps(openapi.describe(limits, token is not None)).encode()
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

    async def translate(_: Request, error: Any) -> Response:
        details = {404: "there is nothing at this address", 405: "this address does not have this method"}
        detail = details.get(error.status_code, "the request cannot be read")
        return _LeftToGate(Problem(error.status_code, detail, headers=dict(error.headers or {})))

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
