"""The JSON documents that the API answers with, in OpenAI's shape and vLLM's (`stop_reason`)."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from pagoda_engine.server.choices import Piece


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


def chat_choice(index: int, text: str, last: Piece) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": last.finish_reason,
        "stop_reason": last.stop_reason,
    }


def chat_delta(piece: Piece, *, first: bool = False) -> dict[str, Any]:
    delta: dict[str, Any] = {"role": "assistant", "content": ""} if first else {}
    if piece.text:
        delta["content"] = piece.text
    choice = {"index": piece.index, "delta": delta, "logprobs": None, "finish_reason": piece.finish_reason}
    return choice if piece.finish_reason is None else {**choice, "stop_reason": piece.stop_reason}


def text_choice(index: int, text: str, last: Piece) -> dict[str, Any]:
    return {
        "index": index,
        "text": text,
        "logprobs": None,
        "finish_reason": last.finish_reason,
        "stop_reason": last.stop_reason,
    }


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
