"""Whatever the model and the cluster, a placement keeps the rules, and a refusal means that nothing keeps them."""

from hypothesis import given
from hypothesis import strategies as st

from pagoda_engine.contract import ModelFacts
from pagoda_operator.api.spec import Spec
from pagoda_operator.planner.gpus import GpuClass
from pagoda_operator.planner.options import GpuOption
from pagoda_operator.planner.placement import Placement, demand_of, place

PRODUCTS = (
    "NVIDIA-H100-80GB-HBM3",
    "NVIDIA-L4",
    "Tesla-T4",
    "NVIDIA-A10",
    "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb",
    "X-SHARED",
)


@st.composite
def models(draw):
    kv_heads = draw(st.sampled_from([1, 2, 3, 4, 8]))
    heads = kv_heads * draw(st.sampled_from([1, 2, 3, 4, 7, 8]))
    head_dim = draw(st.sampled_from([64, 128]))
    return ModelFacts(
        architecture="LlamaForCausalLM",
        dtype=draw(st.sampled_from(["bfloat16", "float32", "float8_e4m3fn"])),
        weight_bytes=draw(st.integers(1 << 20, 300 << 30)),
        download_bytes=1,
        num_layers=draw(st.integers(1, 96)),
        num_attention_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        hidden_size=heads * head_dim,
        vocab_size=draw(st.integers(1000, 200_000)),
        max_model_len=draw(st.integers(128, 200_000)),
    )


@st.composite
def gpu_classes(draw):
    products = draw(st.lists(st.sampled_from(PRODUCTS), unique=True, min_size=1, max_size=3))
    return [
        GpuClass(
            product,
            draw(st.integers(4_000, 190_000)),
            draw(st.integers(1, 16)),
            tuple(draw(st.lists(st.integers(0, 16), max_size=3))),
        )
        for product in products
    ]


@st.composite
def specs(draw):
    tensor = draw(st.none() | st.integers(1, 16))
    engine = {"gpuMemoryUtilization": draw(st.sampled_from([0.3, 0.9, 1.0]))}
    document = {"model": {"uri": "hf://a/b"}, "engine": engine, "accelerator": "gpu"}
    return Spec.model_validate(document | ({"parallelism": {"tensor": tensor}} if tensor else {}))


@given(specs(), models(), gpu_classes())
def test_a_placement_keeps_every_rule(spec, model, classes):
    placement = place(spec, model, classes)
    if not isinstance(placement, Placement):
        return
    tp, gpu = placement.tensor_parallel, placement.gpu
    assert gpu in classes
    assert model.num_attention_heads % tp == 0
    assert model.num_kv_heads % tp == 0 or tp % model.num_kv_heads == 0
    assert tp <= gpu.gpus_per_node
    assert not gpu.shared
    assert tp == 1 or not gpu.partitioned
    assert tp == (spec.parallelism.tensor or tp)
    assert placement.kv_tokens >= placement.demand.max_model_len
    usable = gpu.memory_mib * 2**20 * spec.engine.gpu_memory_utilization
    assert placement.kv_bytes + placement.demand.weight_bytes(tp) + placement.demand.activation_bytes() < usable


@given(specs(), models(), gpu_classes())
def test_no_smaller_group_of_any_class_would_do(spec, model, classes):
    """The obvious way: try everything. A refusal means that nothing works, a placement that nothing smaller does."""
    demand, utilization = demand_of(spec, model), spec.engine.gpu_memory_utilization
    sizes = [spec.parallelism.tensor] if spec.parallelism.tensor else range(1, 17)
    options = [GpuOption(demand, gpu, tp, utilization) for gpu in classes for tp in sizes]
    working = [option for option in options if option.problem() is None]
    placement = place(spec, model, classes)
    assert isinstance(placement, Placement) == bool(working)
    if isinstance(placement, Placement):
        with_room = [o for o in working if o.gpu.groups_free(o.tensor_parallel) > 0]
        # A class is tried with its smallest group only, so that room for a larger one does not count.
        smallest = {o.gpu.product: min(p.tensor_parallel for p in working if p.gpu == o.gpu) for o in working}
        pool = [o for o in with_room if o.tensor_parallel == smallest[o.gpu.product]] or working
        assert placement.tensor_parallel == min(o.tensor_parallel for o in pool)


@given(specs(), models(), gpu_classes())
def test_every_option_is_chosen_or_rejected_with_a_sentence(spec, model, classes):
    placement = place(spec, model, classes)
    for line in placement.rejected:
        title, _, reason = line.partition(": ")
        assert "x " in title
        assert len(reason) > 10
    assert len(set(placement.rejected)) == len(placement.rejected)


@given(specs(), models(), gpu_classes(), st.data())
def test_a_plan_does_not_depend_on_the_order_of_nodes_and_is_kept_once_made(spec, model, classes, data):
    first = place(spec, model, classes)
    shuffled = data.draw(st.permutations(classes))
    if isinstance(first, Placement):
        assert place(spec, model, shuffled).title == first.title
        full = [GpuClass(gpu.product, gpu.memory_mib, gpu.gpus_per_node, (0,)) for gpu in classes]
        assert place(spec, model, full, current=first.gpu).title == first.title
        assert place(spec, model, [], current=first.gpu).title == first.title
