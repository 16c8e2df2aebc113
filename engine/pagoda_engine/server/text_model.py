"""The model as the HTTP process knows it: its names, its limits, and the way between text and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from pagoda_engine.ipc.messages import Ready
from pagoda_engine.sampling_params import SamplingParams
from pagoda_engine.server.bad_words import bad_token_ids
from pagoda_engine.server.chat_template import ChatTemplate, ChatTemplateError
from pagoda_engine.server.detokenizer import Detokenizer
from pagoda_engine.server.errors import invalid, unavailable
from pagoda_engine.server.limits import Limits
from pagoda_engine.server.threads import DaemonThreads
from pagoda_engine.server.token_text import TokenText


class TextModel:
    """Built once, when the engine is ready. Rendering and long encodings run in threads, off the event loop."""

    def __init__(self, ready: Ready, chat_template: str | None, limits: Limits) -> None:
        """`chat_template` replaces the model's own. Raises ChatTemplateError where the one in use is none."""
        self.vocab_size = ready.vocab_size
        self.context_tokens = min(ready.max_model_len, ready.num_blocks * ready.block_size + 1)
        """Prompt and output together; the last token of an output is never computed, so it needs no cache."""
        self.sampling_defaults: Mapping[str, float] = ready.sampling_defaults
        self._limits = limits
        self._tokenizer: Tokenizer = Tokenizer.from_str(ready.tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._special_ids = frozenset(
            token_id for token_id, token in self._tokenizer.get_added_tokens_decoder().items() if token.special
        )
        self.token_text = TokenText(self._tokenizer)
        source = ready.chat_template if chat_template is None else chat_template
        self._chat_template = ChatTemplate(source, ready.special_tokens) if source else None
        self._templates = DaemonThreads(limits.template_threads)
        self._encoders = DaemonThreads(limits.encode_threads)

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Raises ApiError 503 where too many long texts are being encoded already."""

        def encode() -> list[int]:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
            return ids

        if len(text) <= self._limits.inline_chars:
            return encode()
        try:
            return await self._encoders.run(encode, self._limits.encode_seconds)
        except TimeoutError:
            raise unavailable("Too many long prompts at once.", self._limits.retry_after_seconds) from None

    async def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
        add_special_tokens: bool,
        variables: Mapping[str, Any] | None,
    ) -> list[int]:
        """The tokens of a conversation. Raises ApiError 400 naming `messages`.

        The text of a template holds its special tokens already, so none are added unless asked for.
        """
        template = self._chat_template
        if template is None:
            raise invalid(
                "This model has no chat template; start the server with --chat-template FILE, or use /v1/completions.",
                "messages",
            )

        def render() -> str:
            return template.render(messages, add_generation_prompt=add_generation_prompt, variables=variables)

        seconds = self._limits.template_seconds
        try:
            text = await self._templates.run(render, seconds)
        except ChatTemplateError as error:
            raise invalid(str(error), "messages") from error
        except TimeoutError:
            message = f"The chat template took longer than {seconds:g} s with these messages; shorten them."
            raise invalid(message, "messages") from None
        return await self.encode(text, add_special_tokens=add_special_tokens)

    def decode(self, token_ids: Sequence[int], *, skip_special: bool) -> str:
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=skip_special)
        return text

    def bad_token_ids(self, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        return bad_token_ids(words, lambda text: self._tokenizer.encode(text, add_special_tokens=False).ids)

    def detokenizer(self, prompt: Sequence[int], params: SamplingParams) -> Detokenizer:
        return Detokenizer(self._tokenizer, self._special_ids, prompt, skip_special=params.skip_special_tokens)
