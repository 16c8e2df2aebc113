"""Every fake pod's engine in one process: answers /ready and /metrics on all addresses of its network namespace.

Run as a script: `fake_pods.py PORT`. Standard library only, and as little work as can be: the answers are made once.
"""

from __future__ import annotations

import asyncio
import sys

RUNNING = 3
_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0)
_HISTOGRAMS = (
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_prompt_tokens",
    "request_generation_tokens",
)


def metrics() -> str:
    """A page as long as a real engine's: the two gauges that the operator reads, among histograms that it does not."""
    label = '{engine="0",model_name="tiny"}'
    lines = [f"vllm:num_requests_running{label} {RUNNING}.0", f"vllm:num_requests_waiting{label} 0.0"]
    for name in _HISTOGRAMS:
        lines += [f"# HELP vllm:{name} Histogram of it.", f"# TYPE vllm:{name} histogram"]
        lines += [f'vllm:{name}_bucket{{engine="0",le="{le}",model_name="tiny"}} 12.0' for le in (*_BUCKETS, "+Inf")]
        lines += [f"vllm:{name}_count{label} 12.0", f"vllm:{name}_sum{label} 3.5"]
    return "\n".join(lines) + "\n"


def answer(body: str, kind: str) -> bytes:
    return f"HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


METRICS = answer(metrics(), "text/plain")
READY = answer('{"stage": "ready"}', "application/json")


class Engine(asyncio.Protocol):
    """One connection; requests are GETs that fit into one packet each."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.write(METRICS if data.startswith(b"GET /metrics ") else READY)
            self._transport.close()  # as it is usual in HTTP/1.0


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Engine, "0.0.0.0", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
