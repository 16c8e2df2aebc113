"""transformers' `generate` in a process of its own: a static batch, greedy, in its best setting.

    python -m bench.transformers_generate FOLDER    serve one batch a line of stdin

Best setting: bfloat16, `sdpa` attention, inference mode, as many threads as torch chooses, prompts of one length so
that nothing is padded, no EOS so that nobody waits for the longest answer. The first line on stdout says that the model
is ready; each further line answers a line of stdin.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pagoda_engine.benchmark.summary import Answer


class TransformersGenerate:
    """The process, seen from the benchmark. A context: entering it waits until the model is ready."""

    name = "transformers"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.seconds_to_ready = 0.0

    def __enter__(self) -> Self:
        started = time.perf_counter()
        command = [sys.executable, "-m", "bench.transformers_generate", str(self._folder.resolve())]
        root = Path(__file__).parents[1]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
        self._read()
        self.seconds_to_ready = time.perf_counter() - started
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, prompts: Sequence[list[int]], output_tokens: int) -> list[Answer]:
        """All prompts, which have one length, as one batch. Every sequence of a batch gets its tokens together."""
        if self._process.stdin is None:
            raise RuntimeError("the process was started without a pipe")
        print(json.dumps({"prompts": prompts, "output_tokens": output_tokens}), file=self._process.stdin, flush=True)
        times = self._read()
        return [Answer(times["sent"], tuple(times["arrivals"]), output_tokens)] * len(prompts)

    def _read(self) -> dict[str, Any]:
        if self._process.stdout is None:
            raise RuntimeError("the process was started without a pipe")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"transformers ended with exit code {self._process.wait()}; its error stands above")
        document: dict[str, Any] = json.loads(line)
        return document


def _serve(folder: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, StoppingCriteria, StoppingCriteriaList
    from transformers.utils import logging

    logging.disable_progress_bar()

    class Clock(StoppingCriteria):
        """Stops nothing; notes when each token of the batch was there."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:  # noqa: ARG002
            self.times.append(time.perf_counter())
            return torch.zeros(len(input_ids), dtype=torch.bool)

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="sdpa", local_files_only=True
    ).eval()
    model.generation_config = GenerationConfig(pad_token_id=0)
    print(json.dumps({"ready": folder}), flush=True)
    for line in sys.stdin:
        batch = json.loads(line)
        clock = Clock()
        sent = time.perf_counter()
        with torch.inference_mode():
            ids = torch.tensor(batch["prompts"])
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=batch["output_tokens"],
                do_sample=False,
                stopping_criteria=StoppingCriteriaList([clock]),
            )
        if out.shape[1] != ids.shape[1] + batch["output_tokens"]:
            raise RuntimeError(f"generate made {out.shape[1] - ids.shape[1]} tokens, not {batch['output_tokens']}")
        print(json.dumps({"sent": sent, "arrivals": clock.times}), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
