"""`make bench`: our server and transformers' `generate` side by side on this machine.

Systems take turns, round by round, so that whatever else the machine does falls on all of them; what is reported are
medians of the ratios of neighbouring rounds. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, Protocol, Self

from bench import checkpoint, machine
from bench.cores import Core, built
from bench.plan import Plan
from bench.processes import MemoryPeak, cpu_seconds, proportional_bytes
from bench.results import Alone, Results, Round
from bench.serve import PagodaServer
from bench.transformers_generate import TransformersGenerate
from pagoda_engine.benchmark.summary import Answer, Summary
from pagoda_engine.benchmark.workload import Workload

_REPOSITORY: Final = Path(__file__).parents[1]
_RESULTS: Final = Path(__file__).with_name("results")
_WARM_UP_TOKENS: Final = 8
PARTS: Final = ("alone", "throughput", "prefix-cache")
PAIRS: Final = (("pagoda", "transformers"), ("pagoda", "no-prefix-cache"))


class System(Protocol):
    """Something that completes prompts. A context: inside it the system is ready."""

    name: str
    seconds_to_ready: float

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    @property
    def pid(self) -> int: ...

    def run(self, prompts: Sequence[list[int]], output_tokens: int) -> list[Answer]:
        """Answers of exactly `output_tokens` tokens, all prompts at once."""


class Benchmark:
    """One run: what is measured goes into `results`. `flags` are further ones of `pagoda serve`."""

    def __init__(self, plan: Plan, model: Path, flags: Sequence[str]) -> None:
        self._plan = plan
        self._model = model
        self._flags = flags
        self._folder = checkpoint.for_transformers(model)
        self._vocabulary_size = checkpoint.vocabulary_size(self._folder)
        self._seed = 0
        now = datetime.datetime.now(datetime.UTC)
        self.results = Results(
            {
                "date": now.isoformat(timespec="seconds"),
                "commit": machine.commit(_REPOSITORY),
                "machine": machine.facts(),
                "model": model.name,
            }
        )

    def run(self, parts: Collection[str] = PARTS) -> None:
        """The parts that are asked for, one after the other."""
        theirs = TransformersGenerate(self._folder)
        if "alone" in parts:
            self._alone(theirs, 1)
            self._alone(self._ours(), self._plan.starts)
        if "throughput" in parts:
            with self._ours() as ours, theirs:
                self._throughput(ours, theirs)
        if "prefix-cache" in parts:
            room = f"--kv-cache-memory-bytes={self._plan.prefix_cache_bytes}"
            self._prefix_cache_misses(room)
            with (
                self._ours(room) as ours,
                self._ours(room, "--no-enable-prefix-caching", name="no-prefix-cache") as plain,
            ):
                self._prefix_cache_hits(ours, plain)

    def _ours(self, *flags: str, name: str = "pagoda") -> PagodaServer:
        return PagodaServer(self._model, *flags, *self._flags, name=name)

    def _alone(self, system: System, starts: int) -> None:
        """Start times and memory. Nothing else of ours runs, so that no library is shared with another system."""
        seconds = []
        for start in range(starts):
            with system:
                seconds.append(system.seconds_to_ready)
                _say(f"{system.name} is ready after {seconds[-1]:.1f} s")
                if start < starts - 1:
                    continue
                idle = proportional_bytes(system.pid)
                with MemoryPeak(system.pid) as peak:
                    system.run(self._prompts(self._wave(), self._plan.widest), self._plan.output_tokens)
                self.results.alone.append(Alone(system.name, tuple(seconds), idle, max(idle, peak.bytes)))

    def _throughput(self, *systems: System) -> None:
        for concurrency, rounds in self._plan.rounds.items():
            self._rounds("random prompts", self._wave(), concurrency, rounds, systems, self._plan.output_tokens)

    def _prefix_cache_misses(self, room: str) -> None:
        """Less than 1 % is to be told from nothing: many short rounds, of cores that differ in nothing else."""
        plan = self._plan
        made, seconds = built(self._model, [room, *self._flags])
        with (
            Core("pagoda", made, seconds, prefix_caching=True) as ours,
            Core("no-prefix-cache", made, seconds, prefix_caching=False) as plain,
        ):
            self._fill(ours, plain)
            tokens = plan.miss_output_tokens
            self._rounds("0 % hits", self._wave(), plan.prefix_concurrency, plan.miss_rounds, (ours, plain), tokens)

    def _prefix_cache_hits(self, *systems: System) -> None:
        plan = self._plan
        shared = Workload(
            plan.shared_prefix_tokens + plan.own_tokens,
            plan.hit_output_tokens,
            self._vocabulary_size,
            plan.shared_prefix_tokens,
        )
        self._fill(*systems)
        hits = f"{plan.hit_share:.0%} hits".replace("%", " %")
        self._rounds(hits, shared, plan.prefix_concurrency, plan.hit_rounds, systems, plan.hit_output_tokens)

    def _fill(self, *systems: System) -> None:
        """The first use of a block is the machine's doing, not the cache's: all are used before times are taken."""
        for system in systems:
            for _ in range(self._plan.filling_waves):
                system.run(self._prompts(self._wave(), self._plan.prefix_concurrency), _WARM_UP_TOKENS)

    def _rounds(
        self,
        experiment: str,
        workload: Workload,
        concurrency: int,
        rounds: int,
        systems: Sequence[System],
        output_tokens: int,
    ) -> None:
        """Each system runs the same prompts; who goes first changes from round to round."""
        warm_up = self._prompts(workload, concurrency)
        for system in systems:
            system.run(warm_up, _WARM_UP_TOKENS)
        for number in range(rounds):
            prompts = self._prompts(workload, concurrency)
            for system in systems if number % 2 == 0 else reversed(systems):
                before = cpu_seconds(system.pid)
                summary = Summary.of(system.run(prompts, output_tokens))
                used = tuple(b - a for a, b in zip(before, cpu_seconds(system.pid), strict=True))
                self.results.rounds.append(Round(experiment, system.name, concurrency, number, summary, used))
                _say(
                    f"{experiment}, {concurrency} at once, round {number + 1} of {rounds}: "
                    f"{system.name} {summary.tokens_per_second:.1f} tokens/s"
                )

    def _wave(self) -> Workload:
        return Workload(self._plan.prompt_tokens, self._plan.output_tokens, self._vocabulary_size)

    def _prompts(self, workload: Workload, count: int) -> list[list[int]]:
        """Prompts that no system has seen."""
        self._seed += 1
        return workload.prompts(count, self._seed)


def main(argv: Sequence[str]) -> int:
    """Measure, print the table, keep the document."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, help="a .gguf file or a folder; default: the demo model")
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part only; may be repeated")
    parser.add_argument("--out", type=Path, help=f"the document; default: a new file in {_RESULTS}")
    args, flags = parser.parse_known_args(argv)
    benchmark = Benchmark(Plan.quick() if args.quick else Plan(), args.model or checkpoint.demo_model(), flags)
    benchmark.run(args.only or PARTS)
    print(benchmark.results.table(PAIRS))
    facts = benchmark.results.facts
    out = args.out or _RESULTS / f"cpu-{facts['date'][:10]}-{facts['commit'] or 'unknown'}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(benchmark.results.document(PAIRS) + "\n")
    _say(f"written to {out}")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
