"""The engine's text on this device beside transformers' own, in float32: graphs, prefixes, chunks and all."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bench.gpu.models import Prompts
from bench.gpu.rows import Emit, Row, Scale
from bench.gpu.shapes import TINY, Shape
from pagoda_engine.contract import EngineArgs
from pagoda_engine.model.build import build_engine

SECTION = "equality"

_KINDS = (TINY, Shape("llama", 256, 512, 4, 8, 2, 64, 1024, tied=False))
_ANSWER = 24


def run(scale: Scale, emit: Emit) -> None:
    for shape in _KINDS[: 1 if scale.tiny else None]:
        with tempfile.TemporaryDirectory() as folder:
            _compare(scale, emit, shape, Path(folder))


def _compare(scale: Scale, emit: Emit, shape: Shape, folder: Path) -> None:
    config = AutoConfig.for_model(**{**shape.config(), "initializer_range": 0.2, "dtype": "float32"})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    model.save_pretrained(folder)
    model.to(scale.device)
    answer = 4 if scale.tiny else _ANSWER
    prompts = Prompts(shape.vocabulary)
    requests = [prompts.request(length, answer) for length in ([3, 17] if scale.tiny else [1, 2, 15, 16, 17, 100, 33])]
    shared = requests[-1].prompt_token_ids
    requests += [prompts.request(1, answer) for _ in range(2)]
    requests[-1].tokens.extend(shared)
    requests[-1].prompt_token_ids += shared
    wanted = []
    for request in requests:
        ids = torch.tensor([list(request.prompt_token_ids)], device=scale.device)
        # Nothing ends a request early, as in the engine's requests.
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=answer, do_sample=False, eos_token_id=-1
        )
        wanted.append(made[0, ids.shape[1] :].tolist())
    del model
    engine = build_engine(
        EngineArgs(
            model=str(folder),
            device=scale.device.type,
            dtype="float32",
            max_model_len=256,
            max_num_seqs=4,
            max_num_batched_tokens=48,
            kv_cache_memory_bytes=32 << 20,
        ),
        lambda _: None,
    )
    found: dict[str, list[int]] = {request.id: [] for request in requests}
    for request in requests:
        engine.add(request)
    while engine.has_work:
        for output in engine.step():
            found[output.request_id] += output.token_ids
    engine.check_integrity()
    same = sum(found[request.id] == want for request, want in zip(requests, wanted, strict=True))
    what = f"{shape.kind}: texts that are transformers', of {len(requests)}"
    emit(Row(SECTION, what, float(same), "texts", least=len(requests)))
    emit(Row(SECTION, f"{shape.kind}: kernels compiled after ready", float(engine.stats().late_compiles), "", most=0))
