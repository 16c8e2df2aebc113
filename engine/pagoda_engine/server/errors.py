"""Errors as OpenAI writes them, `{"error": {"message", "type", "param", "code"}}`, so that SDKs raise their own.

ApiError                   any status, made by the functions below
├── 400 invalid_request    a field, its value, and what would do
├── 401 unauthorized       no API key, or a wrong one
├── 404 model_not_found
├── 413 body_too_large
├── 500 generation_failed  this request's generation failed; others go on
└── 503 unavailable        loading, draining, dead, or a full queue; with Retry-After
"""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse

_INVALID = "invalid_request_error"
_MESSAGE_CHARS = 1000


class ApiError(Exception):
    """An answer that is an error. `headers` go with it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type_: str = _INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message if len(message) <= _MESSAGE_CHARS else message[:_MESSAGE_CHARS] + " …"
        self.type = type_
        self.param = param
        self.code = code
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, status_code=self.status, headers=self.headers)

    def event(self) -> bytes:
        """The same error inside a stream that has already begun with status 200."""
        return b"data: " + json.dumps(self.body, ensure_ascii=False).encode() + b"\n\n"


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def context_too_long(message: str, param: str) -> ApiError:
    return ApiError(400, message, param=param, code="context_length_exceeded")


def model_not_found(name: str, served: str) -> ApiError:
    message = f"The model {_short(name)!r} does not exist; this server has {served!r}."
    return ApiError(404, message, param="model", code="model_not_found")


def body_too_large(limit: int) -> ApiError:
    message = f"The request's body is larger than the limit of {limit} bytes."
    return ApiError(413, message, code="request_too_large", headers={"connection": "close"})


def unauthorized() -> ApiError:
    message = "Incorrect or missing API key; send it as `Authorization: Bearer KEY`."
    return ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def unavailable(message: str, retry_after: int) -> ApiError:
    headers = {"retry-after": str(retry_after)}
    return ApiError(503, message, type_="service_unavailable_error", code="service_unavailable", headers=headers)


def generation_failed(message: str) -> ApiError:
    return ApiError(500, message, type_="server_error", code="generation_failed")


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:100] + "…"
