"""The kernels that work on rows of tokens equal their plain twins, and compile for the GPUs that they are meant for."""

import pytest
import torch

from pagoda_engine.kernels import plain
from pagoda_engine.kernels.paged import LayerCache
from pagoda_engine.kernels.triton.embedding import embed
from pagoda_engine.kernels.triton.rms_norm import add_rms_norm, rms_norm
from pagoda_engine.kernels.triton.rotary import Angles, HeadNorms, rotate_and_write
from pagoda_engine.kernels.triton.swiglu import swiglu

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def close(found, wanted, dtype):
    torch.testing.assert_close(found.float(), wanted.float(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [8, 64, 576])
def test_a_norm_equals_the_plain_one(dtype, size):
    x, weight = torch.randn(5, size).to(dtype), torch.randn(size).to(dtype)
    close(rms_norm(x, weight, 1e-5), plain.rms_norm(x.float(), weight.float(), 1e-5), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_residual_is_added_and_kept_before_the_norm(dtype):
    x, residual, weight = (torch.randn(3, 48).to(dtype), torch.randn(3, 48).to(dtype), torch.randn(48).to(dtype))
    wanted = x + residual
    found = add_rms_norm(x, residual, weight, 1e-5)
    close(residual, wanted, dtype)
    close(found, plain.rms_norm(wanted.float(), weight.float(), 1e-5), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inner", [16, 1030])
def test_swiglu_equals_the_plain_one(dtype, inner):
    gate_up = torch.randn(3, 2 * inner).to(dtype)
    close(swiglu(gate_up), plain.swiglu(*gate_up.float().chunk(2, dim=1)), dtype)


@pytest.mark.parametrize("rows", [0, 1])
def test_rows_that_are_not_there_are_no_launch(rows):
    assert rms_norm(torch.ones(rows, 8), torch.ones(8), 1e-5).shape == (rows, 8)
    assert swiglu(torch.ones(rows, 8)).shape == (rows, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "half", "normed"),
    [(4, 2, 16, 8, False), (6, 2, 24, 12, True), (3, 3, 80, 20, False), (8, 1, 64, 32, True), (2, 2, 16, 0, False)],
)
def test_heads_are_normalised_rotated_and_written_to_their_slots(dtype, heads, kv_heads, dim, half, normed):
    tokens, blocks = 5, 4
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * dim).to(dtype)
    positions, slots = torch.tensor([3, 0, 9, 1, 2]), torch.tensor([5, 63, 0, -1, 17])
    keys, values = torch.full((2, blocks, 16, kv_heads, dim), 7.0, dtype=dtype)
    norms = HeadNorms(torch.randn(dim).to(dtype), torch.randn(dim).to(dtype), 1e-6) if normed else None
    angles = Angles(*torch.randn(2, 10, half)) if half else None
    query, key, value = (
        part.float().view(tokens, -1, dim) for part in qkv.split([heads * dim, kv_heads * dim, kv_heads * dim], dim=1)
    )
    if norms:
        query = plain.rms_norm(query, norms.query.float(), norms.eps)
        key = plain.rms_norm(key, norms.key.float(), norms.eps)
    if angles:
        query, key = (plain.rotate(x, angles.cos[positions], angles.sin[positions]) for x in (query, key))

    found = rotate_and_write(qkv, heads, LayerCache(keys, values), positions, slots, angles, norms)

    close(found, query, dtype)
    there = slots[slots >= 0]
    close(keys.flatten(0, 1)[there], key[slots >= 0], dtype)
    close(values.flatten(0, 1)[there], value[slots >= 0], dtype)
    others = torch.ones(blocks * 16, dtype=torch.bool).index_fill_(0, there, False)
    assert (keys.flatten(0, 1)[others] == 7).all(), "no other slot is touched"
    assert (values.flatten(0, 1)[others] == 7).all()


def test_a_cache_of_float8_holds_numbers_by_their_heads_scale():
    """The numbers are float8's own, since Triton's interpreter does not round to it as a GPU does."""
    exact = torch.randn(3, 4 * 16).to(torch.float8_e4m3fn).float()
    qkv = exact * torch.tensor([1.0, 1.0, 0.5, 0.25]).repeat_interleave(16)
    qkv[0, 48:50] = torch.tensor([1e4, -1e4])
    exact[0, 48:50] = torch.tensor([448.0, -448.0])
    keys, values = torch.zeros(2, 1, 16, 1, 16).to(torch.float8_e4m3fn)
    layer = LayerCache(keys, values, torch.tensor([0.5]), torch.tensor([0.25]))
    rotate_and_write(qkv, 2, layer, torch.arange(3), torch.arange(3), None, None)
    assert torch.equal(keys.float()[0, :3, 0], exact[:, 32:48])
    assert torch.equal(values.float()[0, :3, 0], exact[:, 48:])


def test_an_id_in_flight_is_the_token_sampled_last():
    """A source below 0 takes the id; a sample that was none (-1) is read as some token, whose output nobody takes."""
    weight = torch.randn(7, 12)
    ids, sources = torch.tensor([3, 0, 6, 5]), torch.tensor([-1, 1, -1, 0])
    found = embed(weight, ids, sources, sampled=torch.tensor([-1, 4]))
    assert torch.equal(found, weight[[3, 4, 6, 0]])


def test_all_compile_for_ampere_and_hopper_without_spilling(compile_job, compile_kernels):
    folder = "pagoda_engine.kernels.triton"
    llama = {"KV_HEADS": 8, "GROUP": 4, "DIM": 128, "HALF": 64, "HEADS_BLOCK": 4, "PAIRS_BLOCK": 64, "REST_BLOCK": 1}
    rows = {"qkv": "*bf16", "positions": "*i64", "slots": "*i64", "cos": "*fp32", "sin": "*fp32", "eps": "fp32"}
    gains = {"query_gain": "*bf16", "key_gain": "*bf16"}
    scales = {"key_scales": "*fp32", "value_scales": "*fp32"}
    jobs = [
        compile_job(
            f"{folder}.rms_norm",
            "_rms_norm",
            {"x": "*bf16", "residual": "*bf16", "weight": "*bf16", "y": "*bf16", "eps": "fp32"},
            {"SIZE": 4096, "BLOCK": 4096, "ADD": add},
            {"num_warps": 8},
        )
        for add in (True, False)
    ]
    jobs.append(
        compile_job(f"{folder}.swiglu", "_swiglu", {"gate_up": "*bf16", "y": "*bf16"}, {"INNER": 14336, "BLOCK": 1024})
    )
    jobs += [
        compile_job(
            f"{folder}.rotary",
            "_rotate_and_write",
            {**rows, **gains, "keys": kind, "values": kind, **(scales if kind == "*fp8e4nv" else {})},
            {**llama, "NORMED": normed, **(dict.fromkeys(scales) if kind == "*bf16" else {})},
            {"num_warps": 2},
            capabilities=(80, 90) if kind == "*bf16" else (89, 90),
        )
        for normed in (True, False)
        for kind in ("*bf16", "*fp8e4nv")
    ]
    jobs.append(
        compile_job(
            f"{folder}.embedding",
            "_embed",
            {"weight": "*bf16", "ids": "*i64", "sources": "*i64", "sampled": "*i64", "y": "*bf16"},
            {"SIZE": 4096, "BLOCK": 1024},
        )
    )
    assert all(result.spilled == 0 for result in compile_kernels(jobs))
