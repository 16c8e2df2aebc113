"""`make bench-operator`: 10, 100 and 1,000 services on a real control plane, beside a bare client that writes the same.

For each size two clusters, one after the other: in the first a client that computes nothing writes every child and
every status; in the second the operator does, while a user edits services that were there before. See README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import psutil
from e2e import machine as harness
from e2e.binaries import Missing
from e2e.daemon import Daemon
from e2e.informer import Key

from bench import machine
from bench.operator import audit, bare, documents
from bench.operator.cluster import OPERATOR, PODS_PER_NODE, FakeCluster, Programs, programs
from bench.operator.results import Row, table
from bench.operator.services import REPLICAS, Editor, Watched, apply, make_namespaces, service
from pagoda_operator.controller.workers import WORKERS

_REPOSITORY: Final = Path(__file__).parents[2]
SIZES: Final = (10, 100, 1000)
EDITED: Final = 10
"""Services that are there before the others come, and are edited."""
STORM_PAUSE: Final = 1.0
IDLE_PAUSE: Final = 0.2
IDLE_EDITS: Final = 60
SETTLE_SECONDS: Final = 20.0
"""Without a change of any service, until it is taken to be settled."""
STEADY_SECONDS: Final = 60.0
PATIENCE: Final = 900.0
"""Seconds that a size may take to be Ready, and to settle."""


async def measure(programs: Programs, size: int, options: argparse.Namespace) -> Row:
    """One size, both ways."""
    baseline, bare_cpu = await _bare(programs, size)
    print(f"{size} services: bare client {baseline:.1f} s", file=sys.stderr, flush=True)
    return await _operator(programs, size, baseline, bare_cpu, options)


async def _bare(programs: Programs, size: int) -> tuple[float, float]:
    """Seconds from the first service's application to the last one's readiness; the client's own CPU seconds."""
    async with _cluster(programs, size) as cluster:
        wanted = [service("svc", number) for number in range(size)]
        file = cluster.folder / "documents.jsonl"
        file.write_text("".join(json.dumps(documents.of(one)) + "\n" for one in wanted))
        control = cluster.control_plane
        command = [sys.executable, bare.__file__, control.url, control.ca, file, str(WORKERS)]
        environment = {"TOKEN": control.admin_token, "PYTHONPATH": os.pathsep.join(sys.path)}
        client = cluster.daemon("bare", command, **environment)
        client.wait_until(lambda: "ready" in client.tail(), seconds=30)
        process = psutil.Process(client.pid)
        async with _watched(cluster) as watched:
            before, started = sum(process.cpu_times()[:2]), time.time()
            keys = await apply(cluster.api, wanted)
            await watched.all_ready(keys, PATIENCE, lambda: None)
            return max(watched.ready_at[key] for key in keys) - started, sum(process.cpu_times()[:2]) - before


async def _operator(
    programs: Programs, size: int, baseline: float, bare_cpu: float, options: argparse.Namespace
) -> Row:
    async with _cluster(programs, size) as cluster:
        profiler = ["-m", "cProfile", "--sort=tottime"] if options.profile else []
        command = [
            sys.executable,
            *profiler,
            "-m",
            "pagoda_engine.cli",
            "operator",
            "--health-host=127.0.0.1",
            "--health-port=0",
        ]
        command += [f"--kubeconfig={cluster.kubeconfig}", f"--settings={cluster.settings}"]
        environment = {"HF_ENDPOINT": cluster.hub.url, "POD_NAMESPACE": "pagoda-system"}
        operator = cluster.daemon("operator", command, PYTHONPATH=os.pathsep.join(sys.path), **environment)
        async with _watched(cluster) as watched:
            edited = await apply(cluster.api, [service("edited", number) for number in range(EDITED)])
            await watched.all_ready(edited, PATIENCE, operator.check)
            await watched.settled(SETTLE_SECONDS, PATIENCE)
            row = await _storm(cluster, watched, operator, size, edited, baseline, bare_cpu)
        if options.logs:
            operator.stop()
            for log in (operator.log, cluster.audit_log):
                shutil.copy(log, options.logs / f"{size}-{log.name}")
        return row


async def _storm(
    cluster: FakeCluster,
    watched: Watched,
    operator: Daemon,
    size: int,
    edited: Sequence[Key],
    baseline: float,
    bare_cpu: float,
) -> Row:
    process = psutil.Process(operator.pid)
    editor, ended = Editor(cluster.api, edited), asyncio.Event()
    editing = asyncio.create_task(editor.edit_until(ended, STORM_PAUSE))
    cpu, started = sum(process.cpu_times()[:2]), time.time()
    keys = await apply(cluster.api, [service("svc", number) for number in range(size)])
    await watched.all_ready(keys, PATIENCE, operator.check)
    cpu = sum(process.cpu_times()[:2]) - cpu
    ended.set()
    await editing
    storm_edits = list(editor.edits)
    await watched.settled(SETTLE_SECONDS, PATIENCE)
    await editor.edit(IDLE_EDITS, IDLE_PAUSE)
    await watched.settled(SETTLE_SECONDS, PATIENCE)
    steady_from, steady_cpu = time.time(), sum(process.cpu_times()[:2])
    await asyncio.sleep(STEADY_SECONDS)
    steady_cpu = sum(process.cpu_times()[:2]) - steady_cpu
    rss = process.memory_info().rss
    found = audit.calls(cluster.audit_log, OPERATOR)
    new = set(keys)

    def of_new(call: audit.Call) -> bool:
        namespace, name = call.key
        key = namespace, name.removesuffix("-models")
        return key in new or (call.resource == "events" and name.rsplit(".", 1)[0] in {name for _, name in new})

    until_ready = [
        c
        for c in found
        if of_new(c) and c.at <= watched.ready_at.get((c.key[0], c.key[1].removesuffix("-models")), 1e12)
    ]
    steady = [c for c in found if c.at >= steady_from and c.is_write and c.resource != "leases"]
    return Row(
        services=size,
        pods=size * REPLICAS,
        bare_seconds=baseline,
        seconds=max(watched.ready_at[key] for key in keys) - started,
        bare_cpu_ms=1000 * bare_cpu / size,
        cpu_ms=1000 * cpu / size,
        requests=len([c for c in until_ready if c.resource != "events"]) / size,
        requests_in_all=sum(map(of_new, found)) / size,
        rss_mib=rss / 2**20,
        idle_p95=audit.percentile(audit.delays(editor.edits[len(storm_edits) :], found), 0.95),
        storm_p95=audit.percentile(audit.delays(storm_edits, found), 0.95),
        steady_writes=len(steady),
        steady_cpu_percent=100 * steady_cpu / STEADY_SECONDS,
        calls=audit.table([call for call in found if of_new(call)]),
    )


@asynccontextmanager
async def _cluster(programs: Programs, size: int) -> AsyncIterator[FakeCluster]:
    nodes = max(2, -(-(size + EDITED) * REPLICAS // PODS_PER_NODE))
    async with FakeCluster(programs, nodes) as cluster:
        await make_namespaces(cluster.api)
        yield cluster


@asynccontextmanager
async def _watched(cluster: FakeCluster) -> AsyncIterator[Watched]:
    watched = Watched(cluster.api)
    running = asyncio.create_task(watched.run())
    try:
        yield watched
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.operator.run")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of services")
    parser.add_argument("--output", type=Path, help="where the document goes")
    parser.add_argument("--logs", type=Path, help="a folder for the operator's log and the API server's audit log")
    parser.add_argument(
        "--profile", action="store_true", help="run the operator under cProfile; its table goes to its log"
    )
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a terminated run cleans up as an interrupted one does
    try:
        harness.check()
        found = programs()
    except Missing as missing:
        print(f"bench-operator: {missing}", file=sys.stderr)
        return 2
    now = datetime.datetime.now(datetime.UTC)
    commit = machine.commit(_REPOSITORY)
    facts = {"date": now.isoformat(timespec="seconds"), "commit": commit, "machine": machine.facts()}
    path = options.output or _REPOSITORY / "bench" / "results" / f"operator-{now:%Y-%m-%d}-{commit or 'none'}.json"
    rows: list[Row] = []
    for size in options.sizes:
        rows.append(asyncio.run(measure(found, size, options)))
        # After each size, so that whoever ends this early keeps what there is.
        path.write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
        print(table(rows), flush=True)
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
