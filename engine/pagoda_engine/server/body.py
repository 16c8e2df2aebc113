"""From the bytes of a POST to a validated body, or to an error that says what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from pagoda_engine.server.errors import ApiError, body_too_large, invalid
from pagoda_engine.server.limits import Limits
from pagoda_engine.server.protocol import GenerationBody

BodyT = TypeVar("BodyT", bound=GenerationBody)


async def read_body(request: Request, kind: type[BodyT], limits: Limits) -> BodyT:
    """Raises ApiError 400 or 413. Reads no more than the limit, whatever Content-Length says."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise invalid(f"The Content-Type is {content_type[:100]!r}; it must be 'application/json'.")
    body = await _read(request, limits.body_bytes)
    try:
        parsed = kind.model_validate_json(body)
    except ValidationError as error:
        raise _explain(error, limits) from None
    parsed.refuse_unsupported()
    return parsed


async def _read(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise body_too_large(limit)
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > limit:
            raise body_too_large(limit)
    return bytes(received)


def _explain(error: ValidationError, limits: Limits) -> ApiError:
    """At most `validation_errors` of them, none echoing the input: a small body must not cause a large answer."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    if problems[0]["type"] == "json_invalid":
        return invalid(f"The body is not valid JSON: {problems[0]['msg']}.")
    sentences = dict.fromkeys(f"{_path(problem) or 'the body'}: {problem['msg']}" for problem in problems)
    shown = list(sentences)[: limits.validation_errors]
    more = len(sentences) - len(shown)
    message = "; ".join(shown) + (f"; and {more} more" if more else "")
    return invalid(message, _field(problems))


def _path(problem: ErrorDetails) -> str:
    """`messages[0].content`, without the union members that pydantic puts into a location."""
    path = ""
    for step in problem["loc"]:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step.isidentifier() and step not in {"str", "int", "TextPart"}:
            path += f".{step}" if path else step
    return path[:200]


def _field(problems: Sequence[ErrorDetails]) -> str | None:
    return str(problems[0]["loc"][0]) if problems[0]["loc"] else None
