"""The same requests through this engine and through transformers' continuous batching, tokens a second of each."""

from __future__ import annotations

import gc
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from bench.gpu.models import Prompts, checkpoint, start
from bench.gpu.rows import Emit, Row, Scale
from bench.gpu.shapes import QWEN3_600M, TINY
from pagoda_engine.core.request import Request

SECTION = "serving"


def run(scale: Scale, emit: Emit) -> None:
    shape = TINY if scale.tiny else QWEN3_600M
    count, shortest, longest, answer = (3, 4, 12, 4) if scale.tiny else (256, 100, 512, 128)
    prompts = Prompts(shape.vocabulary)
    steps = (longest - shortest) / count
    requests = [prompts.request(int(shortest + steps * index), answer) for index in range(count)]
    with checkpoint(shape) as folder:
        engine = start(scale, folder, max_num_seqs=count, max_model_len=longest + answer)
        warm = prompts.request(shortest, 2)
        engine.add(warm)
        while engine.has_work:
            engine.step()
        for request in requests:
            engine.add(request)
        began, made = time.perf_counter(), 0
        while engine.has_work:
            made += sum(len(output.token_ids) for output in engine.step())
        ours = made / (time.perf_counter() - began)
        what = f"{count} requests of {shortest} to {longest} and {answer} tokens"
        emit(Row(SECTION, f"{what}, this engine", ours, "tokens/s"))
        emit(Row(SECTION, "kernels compiled after ready", float(engine.stats().late_compiles), "", most=0))
        if scale.device.type != "cuda":
            return  # transformers batches continuously on GPUs
        del engine
        gc.collect()
        torch.cuda.empty_cache()
        config = AutoConfig.from_pretrained(folder)
        theirs = _transformers(scale, config, requests, answer)
    emit(Row(SECTION, f"{what}, transformers", theirs, "tokens/s"))
    emit(Row(SECTION, "this engine by transformers", ours / theirs, "x", least=2))


def _transformers(scale: Scale, config: object, requests: list[Request], answer: int) -> float:
    """Tokens a second from the call's first token to its last: what it prepares for the call is not held against it."""
    with torch.device(scale.device):
        model = AutoModelForCausalLM.from_config(config, dtype=scale.dtype, attn_implementation="sdpa").eval()
    generation = GenerationConfig(max_new_tokens=answer, do_sample=False, eos_token_id=-1, pad_token_id=0)
    inputs = [list(request.prompt_token_ids) for request in requests]
    model.generate_batch(inputs[:8], generation_config=generation)
    began = time.perf_counter()
    results = model.generate_batch(inputs, generation_config=generation, record_timestamps=True)
    took = time.perf_counter() - began
    made = sum(len(result.generated_tokens) for result in results.values())
    if made < answer * len(requests) * 0.99:
        raise RuntimeError(
            f"transformers made {made} tokens of {answer * len(requests)}; its figure would mean nothing"
        )
    moments = [moment for result in results.values() for moment in getattr(result, "timestamps", None) or []]
    return made / (max(moments) - min(moments) if moments else took)
