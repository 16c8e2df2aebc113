"""From logits to tokens: greedy or random, each request by its own parameters, whatever stands beside it.

Where nobody asks for more than the likeliest token, all that is computed is a maximum over the logits as they are. Rows
that are drawn, edited or scored are copied to float32 first; the parts in `model/logits` say what each of them costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

import torch
from torch import Tensor

from pagoda_engine.core.engine import Sample
from pagoda_engine.core.logprobs import Logprobs
from pagoda_engine.core.scheduler import Work
from pagoda_engine.model.logits.bans import ban, too_early
from pagoda_engine.model.logits.distribution import draw, probabilities, uniform
from pagoda_engine.model.logits.penalties import bias, penalise
from pagoda_engine.model.logits.scores import read_scores, score
from pagoda_engine.model.transfer import Download, upload

NOT_FINITE: Final = (
    "the model's output for this request is not finite (NaN or infinity); try again, or serve the model with "
    "--dtype bfloat16 or float32"
)
_NOTHING_LEFT: Final = (
    "no token may come next: allowed_token_ids, bad_words and min_tokens together forbid every one; allow more"
)


def unedited(work: Work) -> bool:
    """Whether a work wants one token, chosen from the logits as they are, and nothing else.

    Then temperature, top_k, top_p, min_p, seed and position say all, and a runner may choose by itself.
    """
    wants_scores = work.scored or work.request.params.logprobs is not None
    return work.samples and not wants_scores and not _edits(work)


def plain(work: Work) -> bool:
    """Whether a work wants the likeliest token and nothing else."""
    return work.request.params.greedy and unedited(work)


class Choice:
    """What one step chose: on the device at once, and on its way to the host."""

    def __init__(
        self,
        works: Sequence[Work],
        tokens: Tensor,
        peaks: Tensor,
        changed: tuple[Sequence[int], Tensor] | None,
        scored: _Scored | None,
        prompts: _Scored | None,
    ) -> None:
        """`works` have rows. `peaks` are the largest logits, `changed` rows those of them that edits have left."""
        self.tokens = tokens
        """int64, one for each work that samples; ids of the vocabulary, also where a row has failed."""
        self._works = works
        self._chosen = Download(tokens, peaks)
        self._changed = changed and (changed[0], Download(changed[1]))
        self._scored = scored
        self._prompts = prompts

    def read(self) -> list[Sample]:
        """A sample for each work with rows. Waits for this step, not for what was launched after it.

        A row that is not finite, or of which edits leave nothing, gives its request an error and touches no other.
        """
        tokens, peaks = self._chosen.read()
        errors = [None if math.isfinite(peak) else NOT_FINITE for peak in peaks]
        if self._changed:
            rows, [lefts] = self._changed[0], self._changed[1].read()
            for row, left in zip(rows, lefts, strict=True):
                if errors[row] is None and not math.isfinite(left):
                    errors[row] = _NOTHING_LEFT if left < 0 else NOT_FINITE
        chosen = zip(tokens, errors, strict=True)
        scores = self._scored.read() if self._scored else iter(())
        prompts = self._prompts.read() if self._prompts else iter(())
        return [_sample(work, chosen, scores, prompts) for work in self._works]


def choose(logits: Tensor, works: Sequence[Work]) -> Choice:
    """Choose the next token of each work that samples, and score what its request wants scored.

    `logits` [rows, vocabulary], any float type, left as they are: those of every work's `rows`, in the works' order.
    Works without rows may be among them. Nothing here waits for the device.
    """
    works = [work for work in works if work.rows]
    ends = list(accumulate(len(work.rows) for work in works))
    samplers = [work for work in works if work.samples]
    lasts = logits
    if len(samplers) < len(logits):
        lasts = _take(logits, [end - 1 for work, end in zip(works, ends, strict=True) if work.samples])
    best = lasts.max(dim=-1)
    tokens, changed = best.indices, None
    if rows := [row for row, work in enumerate(samplers) if not work.request.params.greedy or _edits(work)]:
        chosen, lefts = _choose_anew(_take(lasts, rows).float(), [samplers[row] for row in rows])
        tokens = tokens.index_copy(0, upload(rows, torch.int64, logits.device), chosen)
        changed = rows, lefts
    scored = _score_tokens(lasts, samplers, tokens)
    prompts = _score_prompts(logits, works, ends) if any(work.scored for work in works) else None
    return Choice(works, tokens, best.values, changed, scored, prompts)


class _Scored:
    """Scores on their way to the host, each with as many of the likeliest tokens as its own request asks for."""

    def __init__(self, logits: Tensor, tokens: Tensor, counts: Sequence[int]) -> None:
        self._counts = counts
        self._download = Download(*score(logits.float(), tokens, max(counts)).tensors)

    def read(self) -> Iterator[Logprobs | None]:
        return read_scores(self._download.read(), self._counts)


def _choose_anew(logits: Tensor, works: Sequence[Work]) -> tuple[Tensor, Tensor]:
    """Tokens, and the largest logits after all edits, from a float32 copy of the logits: one row for each work."""
    ban(logits, works)
    bias(logits, works)
    penalise(logits, works)
    best = logits.max(dim=-1)
    tokens = best.indices
    if drawn := [row for row, work in enumerate(works) if not work.request.params.greedy]:
        random = [works[row] for row in drawn]
        rows = logits if len(drawn) == len(works) else _take(logits, drawn)
        weights = probabilities(rows, [work.request.params for work in random])
        found = draw(weights, [uniform(work.request.seed, work.stop) for work in random])
        tokens = tokens.index_copy(0, upload(drawn, torch.int64, logits.device), found)
    return tokens, best.values


def _score_tokens(logits: Tensor, works: Sequence[Work], tokens: Tensor) -> _Scored | None:
    asking = [(row, work.request.params.logprobs) for row, work in enumerate(works)]
    counts = {row: count for row, count in asking if count is not None}
    if not counts:
        return None
    rows = list(counts)
    return _Scored(_take(logits, rows), tokens[upload(rows, torch.int64, logits.device)], list(counts.values()))


def _score_prompts(logits: Tensor, works: Sequence[Work], ends: Sequence[int]) -> _Scored:
    rows: list[int] = []
    tokens: list[int] = []
    counts: list[int] = []
    for work, end in zip(works, ends, strict=True):
        first = end - len(work.rows)
        rows += range(first, first + work.scored)
        tokens += work.request.tokens[work.rows.start + 1 : work.rows.start + 1 + work.scored]
        counts += [work.request.params.prompt_logprobs or 0] * work.scored
    return _Scored(_take(logits, rows), upload(tokens, torch.int64, logits.device), counts)


def _sample(
    work: Work,
    chosen: Iterator[tuple[int, str | None]],
    scores: Iterator[Logprobs | None],
    prompts: Iterator[Logprobs | None],
) -> Sample:
    """The next of everything that a work has asked for."""
    own = [next(prompts) for _ in range(work.scored)]
    known = tuple(one for one in own if one is not None)
    token, error = next(chosen) if work.samples else (-1, None)
    logprobs = next(scores) if work.samples and work.request.params.logprobs is not None else None
    if error is not None or len(known) < len(own):
        return Sample(error=error or NOT_FINITE)
    return Sample(token, None, logprobs, known)


def _edits(work: Work) -> bool:
    return work.request.params.edits_logits or too_early(work)


def _take(logits: Tensor, rows: Sequence[int]) -> Tensor:
    """A copy of some rows."""
    return logits[upload(rows, torch.int64, logits.device)]
