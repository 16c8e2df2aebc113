"""Offline generation: the engine core in this process, without any server.

from pagoda_engine import LLM, SamplingParams

llm = LLM("hf://HuggingFaceTB/SmolLM2-135M-Instruct", max_model_len=2048)
for completion in llm.generate(["The capital of France is"], SamplingParams(temperature=0)):
    print(completion.text)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tokenizers import Tokenizer
from transformers.utils.logging import tqdm

from pagoda_engine.contract import EngineArgs, Progress
from pagoda_engine.core.engine import RequestOutput
from pagoda_engine.core.logprobs import Logprobs
from pagoda_engine.core.request import FinishReason, Request
from pagoda_engine.model.build import build_engine
from pagoda_engine.model.card import read_model_card
from pagoda_engine.sampling_params import SamplingParams
from pagoda_engine.server.bad_words import bad_token_ids
from pagoda_engine.server.chat_template import ChatTemplate
from pagoda_engine.server.detokenizer import Detokenizer
from pagoda_engine.server.stop_strings import StopStrings

Prompt = str | Sequence[int]
Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Completion:
    """What became of one prompt. `token_ids` leave out the token that ended it; `error` says why there is no more.

    `logprobs` and `prompt_logprobs` are there where the parameters ask for them: one for each token that was generated,
    the one that ended it included; and one for each token of the prompt but the first.
    """

    prompt_token_ids: list[int]
    token_ids: list[int]
    text: str
    finish_reason: FinishReason
    error: str | None = None
    logprobs: list[Logprobs] = field(default_factory=list)
    prompt_logprobs: list[Logprobs] = field(default_factory=list)


class LLM:
    """A model in this process. Arguments beyond the model are those of `pagoda serve`, as `EngineArgs` names them.

    Raises TypeError for an argument of another name, ValueError for one out of range, and the errors of
    `pagoda_engine.errors` where the model can't be loaded.
    """

    def __init__(
        self, model: str, *, on_progress: Callable[[Progress], None] | None = None, **engine_args: Any
    ) -> None:
        args = EngineArgs(model=model, **engine_args)
        if problem := args.problem():
            raise ValueError(problem)
        card = read_model_card(args)
        self._engine = build_engine(args, on_progress or (lambda _: None))
        self._eos_token_ids = card.eos_token_ids | self._engine.info.eos_token_ids
        self._tokenizer: Tokenizer = Tokenizer.from_str(card.tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        added = self._tokenizer.get_added_tokens_decoder()
        self._special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self._chat_template = ChatTemplate(card.chat_template, card.special_tokens) if card.chat_template else None
        self._defaults = _defaults(card.sampling_defaults)
        self._submitted = 0

    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        priority: Sequence[int] | None = None,
    ) -> list[Completion]:
        """Complete each prompt, a text or token ids; the result has the prompts' order.

        `params` is one for all, or one for each; without any they are the model's own. Requests run together, as many
        at once as the engine's limits allow; one that can't be served ends with an error and stops none of the others.
        With `scheduling_policy="priority"` those with the lowest `priority`, one number for each prompt, run first.
        """
        if isinstance(prompts, str):
            raise TypeError("prompts is a string; put it into a list")
        if params is None or isinstance(params, SamplingParams):
            params = [params or self._defaults] * len(prompts)
        priority = priority or [0] * len(prompts)
        generations = [self._prepare(*each) for each in zip(prompts, params, priority, strict=True)]
        open_ = {generation.request.id: generation for generation in generations}
        for generation in generations:
            self._engine.add(generation.request)
        with tqdm(total=len(generations), disable=not use_tqdm, unit="prompt") as bar:
            speed = _Speed()
            try:
                while self._engine.has_work:
                    for output in self._engine.step():
                        generation = open_[output.request_id]
                        speed.count(generation.request, output)
                        if generation.take(output):
                            self._engine.abort(output.request_id)
                            del open_[output.request_id]
                            bar.update()
                    bar.set_postfix_str(str(speed), refresh=False)
            finally:
                for request_id in open_:  # only after an exception, Ctrl-C among them
                    self._engine.abort(request_id)
        return [generation.completion() for generation in generations]

    def chat(
        self,
        conversations: Sequence[Message] | Sequence[Sequence[Message]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        add_generation_prompt: bool = True,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        use_tqdm: bool = True,
    ) -> list[Completion]:
        """The next turn of one conversation, or of each of several, through the model's own chat template.

        A message is `{"role": ..., "content": ...}`; `chat_template_kwargs` are further variables of the template. The
        rest is as in `generate`. Raises ValueError where the model has no template, or its template refuses a message.
        """
        if self._chat_template is None:
            raise ValueError("this model has no chat template; use generate")
        several: Any = [conversations] if conversations and isinstance(conversations[0], Mapping) else conversations
        prompts = []
        for messages in several:
            text = self._chat_template.render(
                messages, add_generation_prompt=add_generation_prompt, variables=chat_template_kwargs
            )
            # A template's text holds its special tokens already.
            prompts.append(self._tokenizer.encode(text, add_special_tokens=False).ids)
        return self.generate(prompts, params, use_tqdm=use_tqdm)

    def _prepare(self, prompt: Prompt, params: SamplingParams, priority: int) -> _Generation:
        """A request for the engine. Words become tokens here, and stop strings are looked for in its text."""
        token_ids = self._tokenizer.encode(prompt).ids if isinstance(prompt, str) else list(prompt)
        bad = bad_token_ids(params.bad_words, lambda text: self._tokenizer.encode(text, add_special_tokens=False).ids)
        self._submitted += 1
        request = Request(
            id=str(self._submitted),
            prompt_token_ids=token_ids,
            params=replace(params, stop=(), bad_words=(), bad_token_ids=(*params.bad_token_ids, *bad)),
            eos_token_ids=self._eos_token_ids,
            arrival_time=time.monotonic(),
            priority=priority,
        )
        detokenizer = Detokenizer(
            self._tokenizer, self._special_ids, token_ids, skip_special=params.skip_special_tokens
        )
        stops = StopStrings(params.stop, include=params.include_stop_str_in_output)
        return _Generation(request, detokenizer, stops)


class _Speed:
    """Tokens a second since the start, of prompts that were read and of texts that were written."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._input = self._output = 0

    def count(self, request: Request, output: RequestOutput) -> None:
        if output.queue_seconds is not None:  # the request's first output
            self._input += len(request.prompt_token_ids)
        self._output += len(output.token_ids) + (output.stop_token_id is not None)

    def __str__(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        return f"input {self._input / seconds:.0f} tokens/s, output {self._output / seconds:.0f} tokens/s"


class _Generation:
    """One request's outputs on their way to text."""

    def __init__(self, request: Request, detokenizer: Detokenizer, stops: StopStrings) -> None:
        self.request = request
        self._detokenizer = detokenizer
        self._stops = stops
        self._token_ids: list[int] = []
        self._logprobs: list[Logprobs] = []
        self._prompt_logprobs: list[Logprobs] = []
        self._text: list[str] = []
        self._reason: FinishReason | None = None
        self._error: str | None = None

    def take(self, output: RequestOutput) -> bool:
        """Add an output; returns whether the request has ended, by its own end or by a stop string."""
        self._reason, self._error = output.finish_reason, output.error
        self._logprobs += output.logprobs
        self._prompt_logprobs += output.prompt_logprobs
        for token in output.token_ids:
            self._token_ids.append(token)
            if self._show(self._detokenizer.push(token)):
                return True
        if self._reason is None:
            return False
        if not self._show(self._detokenizer.flush()):
            self._text.append(self._stops.flush())
        return True

    def completion(self) -> Completion:
        if self._reason is None:
            raise RuntimeError(f"request {self.request.id} has not ended")
        return Completion(
            self.request.prompt_token_ids,
            self._token_ids,
            "".join(self._text),
            self._reason,
            self._error,
            self._logprobs,
            self._prompt_logprobs,
        )

    def _show(self, piece: str) -> bool:
        text, stop = self._stops.push(piece)
        self._text.append(text)
        if stop is not None:
            self._reason = FinishReason.STOP
        return stop is not None


def _defaults(own: Mapping[str, float]) -> SamplingParams:
    """A model's own parameters, by the names of transformers' generation config."""
    fields: dict[str, Any] = dict(own)
    for theirs, ours in (("top_k", "top_k"), ("max_new_tokens", "max_tokens")):
        if theirs in fields:
            fields[ours] = int(fields.pop(theirs))
    return SamplingParams(**fields)
