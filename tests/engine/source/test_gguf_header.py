"""The GGUF header reader: right on files of gguf's own writer, and calm on everything else."""

import io
import struct

import gguf as reference
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda_engine.errors import ModelCorrupt
from pagoda_engine.source import gguf
from pagoda_engine.source.gguf_facts import gguf_facts


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> bytes:
    """A GGUF file with every kind of metadata value and several tensor types."""
    path = tmp_path_factory.mktemp("gguf") / "sound.gguf"
    writer = reference.GGUFWriter(str(path), "llama")
    writer.add_block_count(2)
    writer.add_head_count(4)
    writer.add_array("llama.attention.head_count_kv", [2, 1])
    writer.add_embedding_length(64)
    writer.add_context_length(128)
    writer.add_bool("a.bool", True)
    writer.add_int8("a.int8", -1)
    writer.add_float64("a.float64", 0.5)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "ü"])
    writer.add_array("nested", [[1, 2], [3]])
    for index, kind in enumerate([reference.GGMLQuantizationType.Q4_1, reference.GGMLQuantizationType.Q6_K]):
        _, size = reference.GGML_QUANT_SIZES[kind]
        data = np.zeros((4, size), dtype=np.uint8)
        writer.add_tensor(f"t{index}", data, raw_shape=(4, size), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def test_a_header_reads_as_it_was_written(sound):
    """Scalars with their types, arrays with their lengths, tensors with elements and bytes of their quantisation."""
    header = gguf.read_header(io.BytesIO(sound), len(sound))
    assert header.metadata["general.architecture"] == "llama"
    assert header.metadata["a.bool"] is True
    assert header.metadata["a.int8"] == -1
    assert header.metadata["a.float64"] == 0.5
    assert header.metadata["tokenizer.ggml.tokens"] == gguf.Array(3)
    assert header.metadata["llama.attention.head_count_kv"] == gguf.Array(2, (2, 1))
    assert [(t.elements, t.bytes) for t in header.tensors] == [(128, 80), (1024, 840)]
    assert gguf_facts("m", header, 0).num_kv_heads == 2
    assert header.end <= len(sound)


def test_the_table_of_tensor_types_is_ggmls():
    """Every type that gguf's table knows by number has our block and byte counts."""
    for kind, (elements, size) in reference.GGML_QUANT_SIZES.items():
        if kind.value in gguf._TENSOR_TYPES:
            assert gguf._TENSOR_TYPES[kind.value] == (elements, size), kind.name
    named = {k.value for k in reference.GGML_QUANT_SIZES}
    assert set(gguf._TENSOR_TYPES) <= named


def test_a_file_that_was_cut_off_in_its_weights_is_corrupt(sound):
    """The header is whole, the bytes behind it are not."""
    header = gguf.read_header(io.BytesIO(sound))
    with pytest.raises(ModelCorrupt, match="cut off"):
        gguf.read_header(io.BytesIO(sound), header.end - 1)


def read(data: bytes) -> gguf.Header | None:
    """The one promise for hostile bytes: a header, or ModelCorrupt."""
    try:
        header = gguf.read_header(io.BytesIO(data), len(data))
        gguf_facts("m", header, 0)
    except ModelCorrupt:
        return None
    return header


@given(st.one_of(st.binary(), st.binary().map(b"GGUF\x03\0\0\0".__add__)))
def test_random_bytes_are_corrupt_and_nothing_else(data):
    """Never another exception, whatever comes."""
    read(data)


@given(st.data())
def test_a_damaged_header_is_read_or_corrupt(sound, data):
    """Some bytes of a sound file changed, or its end missing."""
    mutated = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 6))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(mutated[: data.draw(st.integers(0, len(mutated)))]))


HEAD = b"GGUF" + struct.pack("<I", 3)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"PK\x03\x04" + b"\0" * 100, "not a GGUF file"),
        (b"GGUF" + struct.pack(">I", 3) + b"\0" * 16, "version 50331648"),
        (HEAD + struct.pack("<QQ", 1 << 63, 0), "tensors, more than any model"),
        (HEAD + struct.pack("<QQQ", 0, 1, 1 << 62), "string of"),
        (HEAD + struct.pack("<QQQ1sIIQ", 0, 1, 1, b"k", 9, 4, 1 << 60), "beyond any sound header"),
        (HEAD + struct.pack("<QQQ1sIIQ", 0, 1, 1, b"k", 9, 8, 1 << 60), "middle of a value"),
        (HEAD + struct.pack("<QQQ1sI", 0, 1, 1, b"k", 77), "unknown type 77"),
        (HEAD + struct.pack("<QQQ1s", 0, 1, 1, b"k") + struct.pack("<I", 9) * 9 + b"\1" * 99, "unknown type 16843009"),
        (
            HEAD + struct.pack("<QQQ1s", 0, 1, 1, b"k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9,
            "deeper than 4",
        ),
        (HEAD + struct.pack("<QQQ1sI", 1, 0, 1, b"t", 99), "99 dimensions"),
        (HEAD + struct.pack("<QQQ1sIQQ", 1, 0, 1, b"t", 2, 1 << 40, 1 << 40), "larger than any model"),
    ],
)
def test_hostile_lengths_cost_nothing(data, said):
    """Counts of 2^60 are refused before anything is read or built for them, and the message says which."""
    with pytest.raises(ModelCorrupt, match=said):
        gguf.read_header(io.BytesIO(data))
