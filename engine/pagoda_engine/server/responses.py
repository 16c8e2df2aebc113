"""The JSON documents that the API answers with, in OpenAI's shape and vLLM's (`stop_reason`)."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from pagoda_engine.server.choices import Piece
from pagoda_engine.server.logprobs import chat_logprobs, prompt_logprobs, text_logprobs


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all documents of one answer have in common; `kind` is `chat.completion` or `text_completion`."""

    kind: str
    model: str
    prefix: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def document(self, choices: list[dict[str, Any]], *, suffix: str = "", **more: Any) -> dict[str, Any]:
        return {
            "id": f"{self.prefix}-{self.id}",
            "object": self.kind + suffix,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            **more,
        }


def chat_choice(answer: Piece) -> dict[str, Any]:
    return {
        "index": answer.index,
        "message": {"role": "assistant", "content": answer.text, "refusal": None},
        "logprobs": chat_logprobs(answer.reports) if answer.reports else None,
        "finish_reason": answer.finish_reason,
        "stop_reason": answer.stop_reason,
    }


def chat_delta(piece: Piece, *, first: bool = False) -> dict[str, Any]:
    delta: dict[str, Any] = {"role": "assistant", "content": ""} if first else {}
    if piece.text:
        delta["content"] = piece.text
    choice = {
        "index": piece.index,
        "delta": delta,
        "logprobs": chat_logprobs(piece.reports) if piece.reports else None,
        "finish_reason": piece.finish_reason,
    }
    return choice if piece.finish_reason is None else {**choice, "stop_reason": piece.stop_reason}


def text_choice(piece: Piece, *, echo: bool, with_prompt_logprobs: bool) -> dict[str, Any]:
    """A piece of a completion or all of it. With `echo` the prompt's log-probabilities come before the answer's."""
    reports = (*piece.prompt_reports, *piece.reports) if echo else piece.reports
    choice = {
        "index": piece.index,
        "text": piece.text,
        "logprobs": text_logprobs(reports) if reports else None,
        "finish_reason": piece.finish_reason,
        "stop_reason": piece.stop_reason,
    }
    return choice | {"prompt_logprobs": prompt_logprobs(piece.prompt_reports)} if with_prompt_logprobs else choice


def model_card(name: str, created: int, max_model_len: int | None, root: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "pagoda",
        "root": root,
        "parent": None,
        "max_model_len": max_model_len,
    }
