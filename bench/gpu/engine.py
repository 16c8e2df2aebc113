"""The whole engine on random weights: its start, decoding by memory's limit, prompts by arithmetic's."""

from __future__ import annotations

import time

from bench.gpu.models import Prompts, checkpoint, start
from bench.gpu.rows import Emit, Row, Scale
from bench.gpu.shapes import LLAMA_8B, QWEN3_600M, TINY, Shape
from pagoda_engine.core.engine import EngineCore

_CONTEXT = 512


def run_8b(scale: Scale, emit: Emit) -> None:
    _run(scale, emit, "8B", LLAMA_8B, {1: 80, 8: None, 64: 75, 256: None}, prefill=55)


def run_600m(scale: Scale, emit: Emit) -> None:
    _run(scale, emit, "0.6B", QWEN3_600M, {1: None, 8: None, 64: None, 256: None}, prefill=None)


def _run(
    scale: Scale, emit: Emit, section: str, shape: Shape, decode: dict[int, float | None], prefill: float | None
) -> None:
    if scale.tiny:
        shape, decode = TINY, {1: None, 3: None}
    context, prompt = (12, 40) if scale.tiny else (_CONTEXT, 4096)
    with checkpoint(shape) as folder:
        began = time.time()
        engine = start(scale, folder, max_num_seqs=max(decode), max_model_len=prompt + 16)
        ready = time.time()
    emit(Row(section, "from process start to ready", ready - scale.started, "s", most=15))
    emit(Row(section, "of which the engine's own start", ready - began, "s"))
    prompts = Prompts(shape.vocabulary)
    for batch, target in decode.items():
        steps = 4 if scale.tiny else 100
        step, mean_context = _decode(engine, prompts, batch, context, steps)
        item = scale.dtype.itemsize
        read = shape.multiplied * item + batch * mean_context * shape.cache_bytes(item)
        percent = scale.ceilings.percent_of_copy(read / step)
        emit(Row(section, f"decode at batch {batch}, of memory's limit", percent, "%", least=target))
        emit(Row(section, f"decode at batch {batch}", batch / step, "tokens/s", note=f"{step * 1e3:.3f} ms a step"))
    count = 2 if scale.tiny else 8
    took = _prefill(engine, prompts, prompt, count)
    operations = 2 * (shape.multiplied - shape.vocabulary * shape.hidden) * prompt + shape.attention_operations(prompt)
    percent = scale.ceilings.percent_of_matmul(operations * count / took)
    emit(Row(section, f"prefill of {prompt} tokens, of matmul peak", percent, "%", least=prefill))
    emit(Row(section, f"prefill of {prompt} tokens", prompt * count / took, "tokens/s"))
    emit(Row(section, "kernels compiled after ready", float(engine.stats().late_compiles), "", most=0))
    engine.check_integrity()


def _decode(engine: EngineCore, prompts: Prompts, batch: int, context: int, steps: int) -> tuple[float, float]:
    """Seconds of a step in which `batch` requests decode, and their mean context during the steps measured."""
    answer = steps + 8
    requests = [prompts.request(context, answer + batch) for _ in range(batch)]
    for request in requests:
        engine.add(request)
    waiting = {request.id for request in requests}
    while waiting:
        waiting -= {output.request_id for output in engine.step() if output.token_ids}
    for _ in range(3):
        engine.step()
    before = sum(len(request.tokens) for request in requests) / batch
    began = time.perf_counter()
    for _ in range(steps):
        engine.step()
    took = time.perf_counter() - began
    after = sum(len(request.tokens) for request in requests) / batch
    for request in requests:
        engine.abort(request.id)
    while engine.has_work:
        engine.step()
    return took / steps, (before + after) / 2


def _prefill(engine: EngineCore, prompts: Prompts, length: int, count: int) -> float:
    """Seconds in which so many prompts are computed, one token of answer each."""
    for warm in (True, False):
        requests = [prompts.request(length, 1) for _ in range(1 if warm else count)]
        for request in requests:
            engine.add(request)
        began = time.perf_counter()
        while engine.has_work:
            engine.step()
        took = time.perf_counter() - began
    return took
