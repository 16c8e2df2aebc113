"""How many blocks of KV cache there are: arithmetic over bytes, with an answer that says what to change."""

from __future__ import annotations

from typing import Final

from pagoda_engine.errors import OutOfMemory

_CPU_MOST: Final = 2 << 30
_CPU_SHARE: Final = 0.25


def cpu_cache_bytes(available: int) -> int:
    """The default size on a CPU: modest, since main memory is shared with all else."""
    return min(_CPU_MOST, int(available * _CPU_SHARE))


def gpu_cache_bytes(total: int, utilization: float, used_by_others: int, peak: int) -> int:
    """What is left of a GPU of `total` bytes after `peak`, the most that this process needs during a step."""
    return max(0, int(total * utilization) - used_by_others - peak)


def num_blocks(cache_bytes: int, block_bytes: int, block_size: int, max_model_len: int, max_num_seqs: int) -> int:
    """Blocks that fit in `cache_bytes`, but no more than all requests together can fill.

    Raises OutOfMemory when one sequence of `max_model_len` tokens would not fit, naming the length that would.
    """
    fitting = cache_bytes // block_bytes
    longest = -(-max_model_len // block_size)
    if fitting < longest:
        gib = 1 << 30
        raise OutOfMemory(
            f"a sequence of --max-model-len {max_model_len} tokens needs {longest * block_bytes / gib:.2f} GiB of KV "
            f"cache, and there are {cache_bytes / gib:.2f} GiB: use --max-model-len {fitting * block_size} or less, or "
            "give more memory (--kv-cache-memory-bytes, --gpu-memory-utilization)"
        )
    return min(fitting, longest * max_num_seqs)
