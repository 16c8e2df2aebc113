"""What the HTTP process is doing: loading, serving, draining or failed; and whether it takes a request."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request

from pagoda_engine.contract import EngineArgs, Progress, Stage
from pagoda_engine.errors import ModelUnsupported
from pagoda_engine.ipc.messages import Ready
from pagoda_engine.process.client import EngineClient
from pagoda_engine.server.chat_template import ChatTemplateError
from pagoda_engine.server.errors import invalid, model_not_found, unavailable
from pagoda_engine.server.limits import Limits
from pagoda_engine.server.metrics import Metrics
from pagoda_engine.server.text_model import TextModel


class Serving:
    """The one mutable object of the HTTP process. Everything in it belongs to the event loop."""

    def __init__(self, args: EngineArgs, limits: Limits, chat_template: str | None = None) -> None:
        """`chat_template` is a template's text that replaces the model's own."""
        self.args = args
        self.limits = limits
        self.names = args.served_model_name or (args.model,)
        self.created = int(time.time())
        self.metrics = Metrics(self.names[0])
        self.client = EngineClient(self.metrics, step_seconds=limits.step_seconds)
        self.metrics.watch(self.client)
        self.in_flight = 0
        """API requests whose last byte is not sent yet."""
        self.idle = asyncio.Event()
        """Set while there is none."""
        self.idle.set()
        self.draining = False
        self.refusing = False
        """The drain's delay is over: whoever still comes should have known."""
        self._chat_template = chat_template
        self._model: TextModel | None = None

    def engine_ready(self, ready: Ready) -> None:
        """Raises ModelUnsupported where the model's chat template is none."""
        try:
            self._model = TextModel(ready, self._chat_template, self.limits)
        except ChatTemplateError as error:
            raise ModelUnsupported(f"the model's own is {error}; give another with --chat-template FILE") from error
        self.metrics.describe_cache(ready, self.args)

    def enter(self) -> None:
        """An API request has come."""
        self.in_flight += 1
        self.idle.clear()

    def leave(self) -> None:
        """Its last byte is sent, or its client is gone."""
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()

    @property
    def progress(self) -> Progress:
        """The document of /ready; `READY` is the one stage in which it answers 200."""
        if self.client.death is not None:
            return Progress(Stage.FAILED, message=self.client.death.message)
        if self.draining:
            return Progress(
                Stage.DRAINING, message=f"{self.in_flight} {'request' if self.in_flight == 1 else 'requests'} left"
            )
        if self.client.stuck:
            return Progress(Stage.FAILED, message=f"no step for more than {self.limits.step_seconds:g} s")
        return self.client.progress

    @property
    def healthy(self) -> bool:
        """Whether the engine makes progress, or is on its way to."""
        return self.client.death is None and not self.client.stuck

    @property
    def text_model(self) -> TextModel:
        """Raises ApiError 503 while the model is loading."""
        if self._model is None:
            raise unavailable(f"The model is not ready yet: {self.progress}.", self.limits.retry_after_seconds)
        return self._model

    @property
    def max_model_len(self) -> int | None:
        return None if self._model is None else self._model.context_tokens

    def check_model(self, name: str | None) -> str:
        """The name to answer with. Raises ApiError 404 for one that is not served here."""
        if name is not None and name not in self.names:
            raise model_not_found(name, self.names[0])
        return name or self.names[0]

    def check_priority(self, priority: int | None) -> None:
        """Raises ApiError 400 for a priority that this server would not go by."""
        if priority and self.args.scheduling_policy != "priority":
            raise invalid(
                f"priority is {priority}, and this server serves by arrival; leave it out, or start the server with "
                "--scheduling-policy priority.",
                "priority",
            )

    def admit(self, count: int) -> None:
        """Raises ApiError 503 unless `count` more sequences may come in now."""
        retry_after = self.limits.retry_after_seconds
        if self.client.death is not None:
            raise unavailable("The engine process has died; this server is about to end.", retry_after)
        if self.refusing:
            raise unavailable("This server is shutting down; send the request again.", retry_after)
        if self._model is None:
            raise unavailable(f"The model is not ready yet: {self.progress}.", retry_after)
        if self.client.open_requests + count > self.args.max_num_seqs + self.args.max_num_queued_reqs:
            waiting = max(0, self.client.open_requests - self.args.max_num_seqs)
            raise unavailable(
                f"{waiting} requests are waiting already, and --max-num-queued-reqs is "
                f"{self.args.max_num_queued_reqs}; try again later.",
                retry_after,
            )


def serving_of(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving
