"""Each line of `families.py` is true: what runs gives transformers' own text, and what is refused says why."""

import copy
import random

import pytest
import torch
from tests.engine.model import tiny
from tests.engine.model.families import REFUSED, RUN, VARIANTS
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from pagoda_engine.errors import ModelUnsupported
from pagoda_engine.model import attention
from pagoda_engine.model.checkpoint import model_class
from pagoda_engine.model.fused.recognise import NotRecognised, recognise
from pagoda_engine.sampling_params import SamplingParams

# GPTBigCode of the older end of transformers' range, under the older end of torch's.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


def prompts() -> list[list[int]]:
    """Lengths around blocks and chunks, and a prefix in common."""
    dice = random.Random(0)
    shared, *own = ([dice.randrange(3, tiny.VOCABULARY) for _ in range(length)] for length in (40, 1, 2, 16, 17, 33))
    return [*own, shared[:33] + own[1], shared, shared]


def reference(model) -> list[list[int]]:
    """transformers' `generate` with its eager attention, one prompt at a time."""
    model.generation_config.eos_token_id = None
    texts = []
    for prompt in prompts():
        ids = torch.tensor([prompt])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        texts.append(output[0, len(prompt) :].tolist())
    return texts


class Watch:
    """An `AttentionStep` that notes what layers ask for."""

    def __init__(self, model):
        self.shapes, self.options = [], []
        model.set_attn_implementation(attention.IMPLEMENTATION)
        with torch.inference_mode():
            model(torch.tensor([[1, 2]]), position_ids=torch.tensor([[0, 1]]), use_cache=False, pagoda_step=self)

    def attend(self, layer_index, queries, keys, values, options):
        self.shapes.append((keys.shape[1], keys.shape[2], values.shape[2]))
        self.options.append(options)
        return queries.new_zeros(*queries.shape[:-1], values.shape[-1])

    @property
    def token_bytes(self) -> int:
        return sum(kv_heads * (key_dim + value_dim) * 4 for kv_heads, key_dim, value_dim in self.shapes)


def needs(model, watch) -> str:
    """What is seen of a model, in the words of `Family.needs`."""
    seen = {
        "windows": any(option.window for option in watch.options),
        "soft cap": any(option.softcap for option in watch.options),
        "sinks": any(option.sinks is not None for option in watch.options),
        "narrow values": any(value_dim < key_dim for _, key_dim, value_dim in watch.shapes),
        "multi-query": any(kv_heads == 1 for kv_heads, *_ in watch.shapes),
        "mixed shapes": len(set(watch.shapes)) > 1,
        "experts": any("experts" in name or parameter.ndim == 3 for name, parameter in model.named_parameters()),
    }
    return ", ".join(need for need, there in seen.items() if there)


def recognised(model) -> bool:
    try:
        recognise(model, 64)
    except NotRecognised:
        return False
    return True


@pytest.mark.parametrize("name", [*(family.model_type for family in RUN), *VARIANTS])
def test_a_familys_text_is_transformers_own_however_requests_are_mixed_cut_and_interrupted(
    tmp_path, build, generate, name
):
    family = VARIANTS.get(name) or next(family for family in RUN if family.model_type == name)
    if family.model_type not in CONFIG_MAPPING:
        pytest.skip(f"the installed transformers has no {family.model_type}")
    model = tiny.model(tiny.config(family.model_type, **family.overrides))
    model.save_pretrained(tmp_path)
    want = reference(model)
    assert len({tuple(text) for text in want}) > 5, "the reference must tell its prompts apart"

    engine = build(tmp_path)
    assert generate(engine, prompts(), GREEDY, arrivals=3) == want, "arriving while others decode"
    assert generate(engine, prompts(), GREEDY) == want, "with prefixes in the cache"

    watch = Watch(model)
    tight = build(
        tmp_path,
        max_model_len=52,
        block_size=2,
        max_num_batched_tokens=8,
        max_num_seqs=5,
        kv_cache_memory_bytes=56 * watch.token_bytes,
    )
    generate(tight, prompts()[:1], SamplingParams(max_tokens=1))  # now it expects short answers, and lets in too many
    assert generate(tight, prompts(), GREEDY) == want, "in chunks of 8 tokens, with a cache for one long request"
    assert tight.stats().preemptions > 0

    assert needs(model, watch) == family.needs
    assert recognised(model) == family.fused


@pytest.mark.parametrize(
    ("model_type", "refusal"),
    [
        pytest.param(model_type, refusal, id=model_type)
        for refusal in REFUSED
        for model_type in refusal.model_types.split()
    ],
)
def test_a_family_that_cannot_run_is_refused_at_load_by_name(tmp_path, build, model_type, refusal):
    """By its config where that says enough, before weights are read; else by the first tokens that it sees."""
    if model_type not in CONFIG_MAPPING:
        pytest.skip(f"the installed transformers has no {model_type}")
    if refusal.by_config:
        with pytest.raises(ModelUnsupported, match=refusal.words):
            model_class(
                CONFIG_MAPPING[model_type](**copy.deepcopy(refusal.overrides))
            )  # some configs take theirs apart
        return
    tiny.config(model_type, **refusal.overrides).save_pretrained(tmp_path)
    with pytest.raises(ModelUnsupported, match=refusal.words):
        build(tmp_path, load_format="dummy", max_model_len=64)


@pytest.mark.parametrize("model_type", ["phimoe", "qwen2_moe"])
def test_a_window_that_a_model_puts_into_its_mask_only_is_refused_where_it_matters(tmp_path, build, model_type):
    """No masks are made, so these two would see too much: they run up to the window's length."""
    tiny.config(model_type).save_pretrained(tmp_path)
    with pytest.raises(ModelUnsupported, match=r"looks back 7 tokens.* set --max-model-len to 7 or less"):
        build(tmp_path, load_format="dummy")
    assert build(tmp_path, load_format="dummy", max_model_len=7).info.max_model_len == 7


def test_every_family_of_transformers_stands_in_one_line():
    """Also one that a newer transformers brings: somebody has to look at it first."""
    told = [family.model_type for family in RUN]
    told += [model_type for refusal in REFUSED for model_type in refusal.model_types.split()]
    assert len(told) == len(set(told))
    assert set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(told) == set()
