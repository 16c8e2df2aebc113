"""`python -m pagoda_engine.process.worker SOCKET PARENT ENGINE-ARGS...`: the engine process, from start to end.

The tokenizer is read here, where transformers is loaded anyway, and handed over as the JSON of a
`tokenizers.Tokenizer`: the HTTP process imports neither torch nor transformers, so it listens within a second and stays
small.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pagoda_engine.contract import EngineArgs, ExitCode, Progress, Stage
from pagoda_engine.errors import PagodaError
from pagoda_engine.ipc.channel import Channel, Closed
from pagoda_engine.ipc.messages import Failed, Loading, Ready
from pagoda_engine.lifetime import end_with_parent, leave_signals_to_parent
from pagoda_engine.model.parallel.ranks import Ranks
from pagoda_engine.process import library_pages

if TYPE_CHECKING:
    from pagoda_engine.core.engine import EngineInfo
    from pagoda_engine.model.card import ModelCard

_NOTICE_SECONDS: Final = 4.0
"""How long the loop has to notice that a rank has died. Longer than it waits to learn which one it was."""
_PROGRESS_INTERVAL: Final = 0.1
"""Seconds between two reports of the same stage: a loader may tell of every tensor."""


def main(argv: Sequence[str]) -> int:
    """Serve one engine over one socket; returns the process's exit code."""
    path, parent, *engine_argv = argv
    gc.disable()  # a start makes half a million objects, and little of it is garbage
    logging.basicConfig(format="%(message)s")
    logging.getLogger("pagoda_engine").setLevel(logging.INFO)
    leave_signals_to_parent()
    end_with_parent(int(parent))
    channel = Channel.connect(path)
    try:
        _serve(EngineArgs.from_argv(engine_argv), channel)
    except Closed:
        return ExitCode.OK
    except PagodaError as error:
        return _fail(channel, error.exit_code, " ".join(str(error).split()))
    except Exception as error:
        # Not ours to explain: the traceback goes to the log, one line of it to the user.
        _fail(channel, ExitCode.CRASHED, f"{type(error).__name__}: {' '.join(str(error).split())}"[:500])
        raise
    return ExitCode.OK


def _serve(args: EngineArgs, channel: Channel) -> None:
    progress = _ProgressSender(channel)
    progress(Progress(Stage.STARTING, message="importing torch and transformers"))
    # The other ranks import torch at the same time as this one.
    ranks = Ranks(args, _end_with_rank) if args.tensor_parallel_size > 1 else None
    # Imported this late so that the HTTP process hears from the engine before the seconds that torch takes.
    from pagoda_engine.model.build import build_engine
    from pagoda_engine.model.card import read_model_card
    from pagoda_engine.process.loop import EngineLoop

    card = read_model_card(args)
    core = build_engine(args, progress, ranks)
    _keep_what_is_here()
    channel.send(_ready(card, core.info))
    EngineLoop(core, channel, card.eos_token_ids | core.info.eos_token_ids).run()


def _keep_what_is_here() -> None:
    """Let the collector pass over modules and model from now on: a search through them all would hold up a step."""
    gc.collect()
    gc.freeze()
    gc.enable()
    library_pages.give_back()


def _end_with_rank(death: PagodaError) -> None:
    """Without one of its ranks this process is of no use.

    In a step, the loop notices by itself, and says so over the channel. It does not while it waits for requests, or in
    a collective that nobody wakes it from.
    """
    time.sleep(_NOTICE_SECONDS)
    print(f"pagoda serve: error: {death}", file=sys.stderr, flush=True)
    os._exit(ExitCode.ENGINE_DIED)


def _ready(card: ModelCard, info: EngineInfo) -> Ready:
    return Ready(
        tokenizer=card.tokenizer,
        chat_template=card.chat_template,
        special_tokens=card.special_tokens,
        sampling_defaults=card.sampling_defaults,
        vocab_size=info.vocab_size,
        max_model_len=info.max_model_len,
        num_blocks=info.num_blocks,
        block_size=info.block_size,
    )


class _ProgressSender:
    """Sends a stage's first report at once, and then one each `_PROGRESS_INTERVAL`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._stage: Stage | None = None
        self._sent_at = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage == Stage.READY:
            return  # the message Ready says so, once the loop can take requests
        if progress.stage == self._stage and now - self._sent_at < _PROGRESS_INTERVAL:
            return
        self._stage, self._sent_at = progress.stage, now
        self._channel.send(Loading(progress.stage.value, progress.percent, progress.message))


def _fail(channel: Channel, code: ExitCode, message: str) -> int:
    try:
        channel.send(Failed(int(code), message))
    except Closed:
        print(message, file=sys.stderr)  # nobody is left to tell but the log
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
