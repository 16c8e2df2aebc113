"""`/health`, `/ready`, `/metrics`, `/version` and `/v1/models`: what may be asked at any time, also while loading."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Request
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from pagoda_engine.contract import HEALTH_PATH, METRICS_PATH, READY_PATH, Stage
from pagoda_engine.server.responses import model_card
from pagoda_engine.server.state import serving_of

router = APIRouter()


@router.get(HEALTH_PATH, response_model=None)
async def health(request: Request) -> Response:
    return _progress(request, ok=serving_of(request).healthy)


@router.get(READY_PATH, response_model=None)
async def ready(request: Request) -> Response:
    return _progress(request, ok=serving_of(request).progress.stage == Stage.READY)


@router.get(METRICS_PATH, response_model=None)
async def metrics(request: Request) -> Response:
    return Response(serving_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/version", response_model=None)
async def version_(request: Request) -> Response:  # noqa: ARG001 - every handler has it
    return JSONResponse({"version": version("pagoda-serving")})


@router.get("/v1/models", response_model=None)
async def models(request: Request) -> Response:
    serving = serving_of(request)
    cards = [model_card(name, serving.created, serving.max_model_len, serving.args.model) for name in serving.names]
    return JSONResponse({"object": "list", "data": cards})


@router.get("/v1/models/{name:path}", response_model=None)
async def model(request: Request, name: str) -> Response:
    serving = serving_of(request)
    card = model_card(serving.check_model(name), serving.created, serving.max_model_len, serving.args.model)
    return JSONResponse(card)


def _progress(request: Request, *, ok: bool) -> Response:
    body = serving_of(request).progress.to_json()
    return Response(body, 200 if ok else 503, media_type="application/json", headers={"cache-control": "no-store"})
