"""`pagoda bench`: measure a running server with random prompts, whoever made it, over OpenAI's API.

It asks for answers of an exact length (vLLM's `ignore_eos`), streamed, and counts tokens as the server does.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from typing import Final

import httpx

from pagoda_engine.benchmark.client import LoadClient, LoadFailed
from pagoda_engine.benchmark.summary import Latency, Summary
from pagoda_engine.benchmark.workload import Workload
from pagoda_engine.errors import run

PROG: Final = "pagoda bench"
_WAVES: Final = 4


def main(argv: Sequence[str]) -> int:
    """Measure, print a table, or JSON, and return the contract's exit code."""
    command = parser()
    args = command.parse_args(argv)
    workload = Workload(args.prompt_tokens, args.output_tokens, args.vocabulary_size, args.shared_prefix_tokens)
    problem = workload.problem()
    for name in ("concurrency", "requests"):
        if (value := getattr(args, name)) is not None and value < 1:
            problem = f"{name} is {value}; it must be at least 1"
    if problem:
        command.error(problem)
    return run(PROG, lambda: _measure(args, workload))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG,
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server's root, without /v1")
    parser.add_argument("--model", help="the model's name; default: the first that the server lists")
    parser.add_argument("--concurrency", type=int, default=8, help="requests at a time")
    parser.add_argument("--requests", type=int, help=f"requests in all; default: {_WAVES} times the concurrency")
    parser.add_argument("--prompt-tokens", type=int, default=256, help="tokens of a prompt")
    parser.add_argument("--output-tokens", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--shared-prefix-tokens", type=int, default=0, help="first tokens that all prompts share")
    parser.add_argument("--vocabulary-size", type=int, default=30_000, help="token ids of prompts are below it")
    parser.add_argument("--seed", type=int, default=0, help="decides the prompts")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def _measure(args: argparse.Namespace, workload: Workload) -> None:
    api_key = os.environ.get("PAGODA_API_KEY")
    model = args.model or _first_model(args.url, api_key)
    client = LoadClient(args.url, model, api_key)
    count = args.requests or _WAVES * args.concurrency
    # One request first, unmeasured: connections, caches and the shared prefix.
    warm_up, *prompts = workload.prompts(count + 1, args.seed)
    asyncio.run(client.run([warm_up], workload.output_tokens, 1))
    print(f"{PROG}: {count} requests to {model}, {args.concurrency} at a time", file=sys.stderr, flush=True)
    summary = Summary.of(asyncio.run(client.run(prompts, workload.output_tokens, args.concurrency)))
    print(as_json(summary, workload, args.concurrency, model) if args.json else as_table(summary))


def as_json(summary: Summary, workload: Workload, concurrency: int, model: str) -> str:
    document = dataclasses.asdict(summary) | {"tokens_per_second": summary.tokens_per_second}
    return json.dumps({"model": model, "concurrency": concurrency, **dataclasses.asdict(workload), **document})


def as_table(summary: Summary) -> str:
    """Five lines; latencies in milliseconds."""
    lines = [
        f"output tokens/s        {summary.tokens_per_second:10.1f}",
        f"output tokens, seconds {summary.output_tokens:10d} {summary.seconds:9.2f}",
        f"{'':22} {'mean':>10} {'p50':>9} {'p99':>9}",
        _row("time to first token", summary.time_to_first_token),
        _row("inter-token latency", summary.inter_token_latency),
    ]
    return "\n".join(lines)


def _row(name: str, latency: Latency | None) -> str:
    if latency is None:
        return f"{name + ' ms':22} none: each answer came in one message"
    mean, p50, p99 = (value * 1000 for value in (latency.mean, latency.p50, latency.p99))
    return f"{name + ' ms':22} {mean:10.1f} {p50:9.1f} {p99:9.1f}"


def _first_model(url: str, api_key: str | None) -> str:
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        response = httpx.get(f"{url.rstrip('/')}/v1/models", headers=headers, timeout=30)
        response.raise_for_status()
        return str(response.json()["data"][0]["id"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
        raise LoadFailed(f"--url {url} lists no models at /v1/models ({error}); is the server ready?") from error
