"""Puts the application together: routes, what becomes of errors, and what stands around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from pagoda_engine.process.client import EngineGone
from pagoda_engine.server import chat, completions, probes
from pagoda_engine.server.connection import ClientGone
from pagoda_engine.server.errors import ApiError, unavailable
from pagoda_engine.server.middleware import Accounting, ApiKey
from pagoda_engine.server.state import Serving

Handler = Callable[[Request, Exception], Awaitable[Response]]


def build_app(serving: Serving, api_key: str | None) -> ASGIApp:
    """The whole HTTP side of one server, as an ASGI application."""
    app = FastAPI(title="Pagoda", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.serving = serving
    for router in (probes.router, chat.router, completions.router):
        app.include_router(router)
    for kind in (ApiError, HTTPException, EngineGone, ClientGone, Exception):
        app.add_exception_handler(kind, _answer(serving))
    guarded: ASGIApp = ApiKey(app, api_key) if api_key else app
    return Accounting(guarded, serving)


def _answer(serving: Serving) -> Handler:
    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, ClientGone):
            return Response(status_code=499)  # nginx's number for it; nobody reads it but the metrics
        return _as_api_error(request, error, serving).response()

    return answer


def _as_api_error(request: Request, error: Exception, serving: Serving) -> ApiError:
    match error:
        case ApiError():
            return error
        case HTTPException():
            return _framework_error(request, error)
        case EngineGone():
            return unavailable("The engine process is not running.", serving.limits.retry_after_seconds)
    # A defect of ours: the log has the traceback, the client learns nothing of our insides.
    return ApiError(500, "The server failed to handle this request; its log says why.", type_="server_error")


def _framework_error(request: Request, error: HTTPException) -> ApiError:
    messages = {
        404: f"There is no {request.method} {request.scope['path'][:200]} here.",
        405: f"{request.scope['path'][:200]} does not take {request.method[:20]}.",
    }
    message = messages.get(error.status_code, str(error.detail))
    return ApiError(error.status_code, message, headers=dict(error.headers or {}))
