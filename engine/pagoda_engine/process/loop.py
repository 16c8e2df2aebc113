"""The engine process's one loop: read what has come, compute one step, tell what it did.

It sleeps in the kernel while there is nothing to compute, and it sends exactly one message a turn, also where a step
produced no token (a chunk of a long prompt): those messages are the pulse by which a stuck engine is told from a busy
one.
"""

from __future__ import annotations

from typing import Any

from pagoda_engine.core.engine import EngineCore, RequestOutput
from pagoda_engine.core.request import Request
from pagoda_engine.ipc.channel import Channel, Closed
from pagoda_engine.ipc.messages import BadMessage, Commands, Output, Stepped, Submit
from pagoda_engine.sampling_params import SamplingParams


class EngineLoop:
    """Carries requests from a channel into an engine, and its outputs back."""

    def __init__(self, core: EngineCore, channel: Channel, eos_token_ids: frozenset[int]) -> None:
        self._core = core
        self._channel = channel
        self._eos_token_ids = eos_token_ids
        self._requests_seen = 0
        self._aborts_seen = 0

    def run(self) -> None:
        """Returns when the other end closes. What a step raises ends the engine: its state is no longer known."""
        try:
            while True:
                self._turn()
        except Closed:
            return

    def _turn(self) -> None:
        outputs: list[Output] = []
        for message in self._channel.receive(wait=not self._core.has_work):
            if not isinstance(message, Commands):
                raise BadMessage(f"the engine takes Commands, not {type(message).__name__}")
            outputs += self._obey(message)
        if self._core.has_work:
            outputs += map(_output, self._core.step())
        self._channel.send(self._report(outputs))

    def _obey(self, commands: Commands) -> list[Output]:
        refused = [refusal for submit in commands.submit if (refusal := self._add(submit))]
        for request_id in commands.abort:
            self._core.abort(request_id)
        self._requests_seen += len(commands.submit)
        self._aborts_seen += len(commands.abort)
        return refused

    def _add(self, submit: Submit) -> Output | None:
        """One request's fault is its own: it is answered, and the engine goes on."""
        try:
            self._core.add(
                Request(
                    id=submit.request_id,
                    prompt_token_ids=submit.prompt_token_ids,
                    params=_sampling_params(submit),
                    eos_token_ids=self._eos_token_ids,
                    arrival_time=submit.arrival_time,
                    priority=submit.priority,
                    cache_salt=submit.cache_salt,
                )
            )
        except (ValueError, TypeError) as error:
            return Output(submit.request_id, [], "error", str(error), None, None)
        return None

    def _report(self, outputs: list[Output]) -> Stepped:
        stats = self._core.stats()
        return Stepped(
            outputs=outputs,
            requests_seen=self._requests_seen,
            aborts_seen=self._aborts_seen,
            running=stats.running,
            waiting=stats.waiting,
            kv_usage=stats.kv_usage,
            preemptions=stats.preemptions,
            prefix_queries=stats.prefix_queries,
            prefix_hits=stats.prefix_hits,
            late_compiles=stats.late_compiles,
        )


def _sampling_params(submit: Submit) -> SamplingParams:
    """msgpack knows lists only."""
    fields: dict[str, Any] = dict(submit.params)
    for name in ("stop", "stop_token_ids", "bad_words", "allowed_token_ids"):
        fields[name] = None if fields[name] is None else tuple(fields[name])
    fields["bad_token_ids"] = tuple(map(tuple, fields["bad_token_ids"]))
    fields["logit_bias"] = dict(fields["logit_bias"])
    return SamplingParams(**fields)


def _output(output: RequestOutput) -> Output:
    return Output(
        request_id=output.request_id,
        token_ids=output.token_ids,
        finish_reason=None if output.finish_reason is None else str(output.finish_reason),
        error=output.error,
        stop_token_id=output.stop_token_id,
        queue_seconds=output.queue_seconds,
        logprobs=output.logprobs,
        prompt_logprobs=output.prompt_logprobs,
    )
