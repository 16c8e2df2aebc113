"""TP is the smallest that works, and every number of it can be checked by hand."""

import pytest

from pagoda_operator.planner.gpus import GpuClass
from pagoda_operator.planner.memory import GPU_OVERHEAD, PEER_OVERHEAD
from pagoda_operator.planner.placement import CPU_KV_BYTES, Placement, Unplaced, place

H100 = GpuClass("NVIDIA-H100-80GB-HBM3", 81559, 8, (8,))
A10 = GpuClass("NVIDIA-A10", 23028, 4, (4,))
T4 = GpuClass("Tesla-T4", 15360, 8, (8, 8))
L4 = GpuClass("NVIDIA-L4", 23034, 1, (1, 1, 1))
CPU_CASES = [("cpu", (H100,)), ("auto", ())]


def test_a_model_that_fits_one_gpu_gets_one(spec, qwen):
    placement = place(spec(), qwen, [H100])
    assert (placement.title, placement.tensor_parallel) == ("1x H100-80GB-HBM3", 1)
    assert placement.rejected == ()


def test_the_arithmetic_is_that_of_the_design(spec, qwen):
    """usable - weights - activations - context is the KV cache; 2 x layers x kv_heads x head_dim x bytes a token."""
    placement = place(spec(), qwen, [H100])
    usable = int(81559 * 2**20 * 0.9)
    activations = 2048 * 3584 * 2 * 14 + 64 * 152064 * 4 * 2
    assert placement.kv_bytes == usable - 15_231_233_024 - activations - GPU_OVERHEAD
    assert placement.demand.kv_bytes_per_token(1) == 2 * 28 * 4 * 128 * 2 == 57344
    assert placement.kv_tokens == placement.kv_bytes // 57344
    assert f"KV tokens: {placement.kv_tokens}, " in placement.arithmetic[-1]
    assert "KV per token: 2 x 28 layers x 4 heads x 128 x 2 bytes = 57344 bytes" in placement.arithmetic


def test_tp_is_the_smallest_that_holds_one_sequence_and_divides_the_heads(spec, qwen):
    """28 query heads and 4 KV heads: 1 is too small for a T4, 2 fits the weights and a sequence of 8192."""
    placement = place(spec(engine={"maxModelLen": 8192}), qwen, [T4])
    assert placement.tensor_parallel == 2
    assert placement.kv_tokens >= 8192
    assert placement.rejected[0].startswith("1x T4: 13.5 GiB usable - 14.2 GiB weights")
    assert "leaves nothing for the KV cache" in placement.rejected[0]


def test_seven_is_no_size_for_28_query_heads_and_4_kv_heads(spec, qwen):
    """7 divides the query heads, but neither divides nor is divided by the KV heads."""
    big = place(spec(parallelism={"tensor": 7}), qwen, [H100])
    assert big.reason == "InvalidParallelism"
    assert "TP 7 neither divides the model's 4 KV heads nor is a multiple of them" in big.message
    assert "set spec.parallelism.tensor to one of 1, 2, 4, 28, or remove it" in big.message


def test_kv_heads_are_replicated_where_tp_exceeds_them(spec, model):
    facts = model(num_attention_heads=32, num_kv_heads=2)
    placement = place(spec(parallelism={"tensor": 8}), facts, [H100])
    assert placement.demand.kv_bytes_per_token(8) == placement.demand.kv_bytes_per_token(2) == 2 * 28 * 1 * 128 * 2


def test_peers_cost_context(spec, qwen):
    alone = place(spec(), qwen, [H100])
    pair = place(spec(parallelism={"tensor": 2}), qwen, [H100])
    weights = alone.demand.weight_bytes(1) - alone.demand.weight_bytes(2)
    assert pair.kv_bytes == alone.kv_bytes + weights - PEER_OVERHEAD


def test_the_user_s_tp_is_taken_where_it_works(spec, qwen):
    assert place(spec(parallelism={"tensor": 4}), qwen, [H100]).tensor_parallel == 4


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (3, "TP 3 does not divide the model's 28 query heads"),
        (28, "needs 28 GPUs on one node, and no node has more than 8"),
    ],
)
def test_the_user_s_tp_is_held_to_the_same_rules(spec, qwen, tensor, words):
    refusal = place(spec(parallelism={"tensor": tensor}), qwen, [H100])
    assert refusal.reason == "InvalidParallelism"
    assert words in refusal.message


def test_a_group_never_spans_nodes(spec, model):
    """Three nodes of one L4 each are not a node of three."""
    refusal = place(spec(), model(weight_bytes=40 << 30), [L4])
    assert isinstance(refusal, Unplaced)
    assert refusal.reason == "DoesNotFit"


def test_fewest_gpus_win_then_the_least_memory_that_suffices(spec, model):
    small = model(weight_bytes=2 << 30)
    assert place(spec(), small, [H100, A10, T4]).title == "1x T4"
    sevenb = place(spec(engine={"maxModelLen": 4096}), model(), [T4, H100])
    assert sevenb.title == "1x H100-80GB-HBM3", "one large GPU before two small ones"
    assert "2x T4: would fit; 1x H100-80GB-HBM3 was preferred" in sevenb.rejected


def test_a_class_with_room_is_taken_before_one_without(spec, model):
    busy = GpuClass("NVIDIA-A10", 23028, 4, (0,))
    assert place(spec(), model(weight_bytes=2 << 30), [busy, H100]).gpu == H100


def test_a_full_cluster_still_has_a_plan(spec, qwen):
    """Pods then wait for a GPU, which the scheduler tells and an autoscaler of nodes sees."""
    assert place(spec(), qwen, [GpuClass("NVIDIA-H100-80GB-HBM3", 81559, 8, (0,))]).tensor_parallel == 1


def test_a_service_stays_where_it_is_while_it_fits(spec, model):
    """Room elsewhere, or a smaller class that appears, is no reason for a restart."""
    busy = GpuClass("NVIDIA-H100-80GB-HBM3", 81559, 8, (0,))
    assert place(spec(), model(weight_bytes=2 << 30), [A10, busy], current=busy).gpu == busy


def test_a_node_pool_that_was_scaled_to_zero_keeps_its_plan(spec, qwen):
    assert place(spec(), qwen, [], current=H100).gpu == H100
    assert (
        place(spec(), qwen, [GpuClass("NVIDIA-A100-SXM4-80GB", 81920, 8, (8,))], current=H100).title
        == "1x A100-SXM4-80GB"
    )


def test_what_fits_nowhere_says_how_far_it_would(spec, model):
    long = model(max_model_len=131072)
    refusal = place(spec(), long, [L4])
    assert refusal.reason == "DoesNotFit"
    assert "one sequence of 131072 needs 7.0 GiB" in refusal.message
    tokens = int(refusal.message.rsplit("at most ", 1)[1].split(",")[0])
    assert place(spec(engine={"maxModelLen": tokens}), long, [L4]).tensor_parallel == 1, "the fix that it names works"
    still = place(spec(engine={"maxModelLen": tokens + 1}), long, [L4])
    assert isinstance(still, Unplaced), "and is exact"


def test_weights_that_fit_nowhere_have_no_context_that_helps(spec, model):
    refusal = place(spec(), model(weight_bytes=800 << 30), [H100])
    assert refusal.reason == "DoesNotFit"
    assert refusal.message.endswith("use a smaller or quantised model, or add larger GPUs")
    assert [line.split("x")[0] for line in refusal.rejected] == ["1", "2", "4", "7"]


def test_shared_gpus_are_rejected_with_the_reason(spec, qwen):
    refusal = place(spec(), qwen, [GpuClass("NVIDIA-H100-80GB-HBM3-SHARED", 81559, 8, (8,))])
    assert "time-sliced" in refusal.message


def test_mig_slices_are_used_one_at_a_time(spec, model):
    mig = GpuClass("NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", 40192, 2, (2,))
    assert place(spec(), model(), [mig]).tensor_parallel == 1
    refusal = place(spec(), model(weight_bytes=60 << 30), [mig])
    assert isinstance(refusal, Unplaced)
    assert any("MIG slices can't be joined" in line for line in refusal.rejected)


@pytest.mark.parametrize(("accelerator", "classes"), CPU_CASES)
def test_a_cpu_plan_has_memory_for_what_it_holds(spec, model, accelerator, classes):
    small = model(weight_bytes=270 << 20, max_model_len=2048, num_layers=30, num_kv_heads=3, head_dim=64)
    placement = place(spec(accelerator=accelerator, engine={"maxNumSeqs": 16}), small, classes)
    assert (placement.gpu, placement.title, placement.tensor_parallel) == (None, "cpu", 1)
    assert placement.kv_bytes == 16 * 2048 * 2 * 30 * 3 * 64 * 2
    assert placement.memory_bytes > placement.kv_bytes + small.weight_bytes


def test_a_cpu_s_kv_cache_is_bounded_and_holds_one_sequence_at_least(spec, model, qwen):
    assert place(spec(), qwen, []).kv_bytes == CPU_KV_BYTES
    long = place(spec(), model(max_model_len=131072), [])
    assert long.kv_bytes == 131072 * 57344 > CPU_KV_BYTES


def test_auto_does_not_fall_back_to_the_cpu_where_gpus_are_unknown_or_too_small(spec, model):
    assert place(spec(), model(), [], unlabelled=["x"]).reason == "UnknownGpus"
    assert place(spec(), model(weight_bytes=800 << 30), [T4]).reason == "DoesNotFit"


def test_gpus_asked_for_where_there_are_none_are_a_reason(spec, qwen):
    assert place(spec(accelerator="gpu"), qwen, []).reason == "NoGpuNodes"
    assert place(spec(parallelism={"tensor": 2}), qwen, []).reason == "NoGpuNodes"


def test_another_dtype_changes_weights_and_cache(spec, qwen):
    placement = place(spec(engine={"dtype": "float32"}), qwen, [H100])
    assert placement.demand.weight_bytes(1) == 2 * qwen.weight_bytes
    assert placement.demand.kv_bytes_per_token(1) == 2 * 57344


def test_a_context_beyond_the_model_s_is_refused(spec, qwen):
    refusal = place(spec(engine={"maxModelLen": 32769}), qwen, [H100])
    assert refusal.reason == "ContextTooLong"
    assert "set it to at most 32768" in refusal.message


def test_a_placement_or_a_reason_and_nothing_between(spec, qwen):
    assert isinstance(place(spec(), qwen, [H100]), Placement)
    assert isinstance(place(spec(accelerator="gpu"), qwen, []), Unplaced)
