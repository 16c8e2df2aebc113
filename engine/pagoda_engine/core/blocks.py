"""The paged cache's book-keeping: which block is whose, and which still holds something worth finding again.

A block is `block_size` tokens' keys and values in every layer. It is *held* by the requests that have it in their
tables (counted), or *free*. A full block is filed under the hash of its tokens and of all tokens before it, so that
a later request with that prefix takes it, held or free, without copying; full blocks never change, and only a
request's own last block is written to, so copy-on-write is never needed. A free block keeps its hash until it is
handed out for something else, least recently freed first.

The hash chain is BLAKE2b with 128 bits: keys that can't be made to collide, since prompts come from strangers.
"""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

_HASH_BYTES = 16


def extend_hashes(hashes: list[bytes], tokens: Sequence[int], block_size: int, salt: str) -> None:
    """Append to `hashes` the chained hashes of the full blocks of `tokens` that it does not cover yet."""
    parent = hashes[-1] if hashes else blake2b(salt.encode(), digest_size=_HASH_BYTES).digest()
    for start in range(len(hashes) * block_size, len(tokens) - block_size + 1, block_size):
        content = array("q", tokens[start : start + block_size]).tobytes()
        parent = blake2b(parent + content, digest_size=_HASH_BYTES).digest()
        hashes.append(parent)


class BlockPool:
    """All blocks of the cache. Every operation is O(blocks named); finding a block to hand out is O(1)."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._holders = [0] * num_blocks
        self._hash_of: list[bytes | None] = [None] * num_blocks
        self._block_of: dict[bytes, int] = {}
        # Ordered from the first to hand out to the last: blocks without a hash, then the least recently freed.
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def usage(self) -> float:
        """Share of blocks that are held, 0 to 1."""
        return 1 - len(self._free) / self.num_blocks

    def blocks_for(self, num_tokens: int) -> int:
        """How many blocks hold `num_tokens` tokens."""
        return -(-num_tokens // self.block_size)

    def is_free(self, block: int) -> bool:
        return self._holders[block] == 0

    def find(self, hashes: Iterable[bytes]) -> list[int]:
        """The blocks of the longest known prefix of `hashes`; takes nothing."""
        found = []
        for key in hashes:
            block = self._block_of.get(key)
            if block is None:
                break
            found.append(block)
        return found

    def hold(self, blocks: Iterable[int]) -> None:
        """Add a holder to blocks that `find` found."""
        for block in blocks:
            if self._holders[block] == 0:
                del self._free[block]
            self._holders[block] += 1

    def allocate(self, count: int) -> list[int]:
        """Hand out `count` free blocks, each with one holder; what they held is forgotten.

        Raises RuntimeError when fewer are free: callers ask `num_free` first.
        """
        if count > len(self._free):
            raise RuntimeError(f"asked for {count} blocks, {len(self._free)} are free")
        blocks = []
        for _ in range(count):
            block, _ = self._free.popitem(last=False)
            self._forget(block)
            self._holders[block] = 1
            blocks.append(block)
        return blocks

    def release(self, blocks: Sequence[int]) -> None:
        """Take a holder away from each block of a request's table, in the table's order.

        Later blocks are handed out before earlier ones, because a prefix is of use without its end but not the other
        way round. Blocks without a hash are of use to nobody and go first.
        """
        for block in reversed(blocks):
            self._holders[block] -= 1
            if self._holders[block] == 0:
                self._free[block] = None
                if self._hash_of[block] is None:
                    self._free.move_to_end(block, last=False)

    def file(self, block: int, key: bytes) -> None:
        """Make a full, computed block findable. If another block is filed under `key`, that one stays."""
        if key not in self._block_of and self._hash_of[block] is None:
            self._block_of[key] = block
            self._hash_of[block] = key

    def unfile(self, keys: Iterable[bytes]) -> None:
        """Let nobody find blocks under these keys again: their contents are not to be trusted."""
        for key in keys:
            block = self._block_of.pop(key, None)
            if block is not None:
                self._hash_of[block] = None

    def check_integrity(self, tables: Iterable[Sequence[int]]) -> None:
        """Raise RuntimeError unless the books agree with the block tables of all requests that hold blocks."""
        held = Counter(block for table in tables for block in table)
        for block in range(self.num_blocks):
            if self._holders[block] != held[block]:
                raise RuntimeError(f"block {block} counts {self._holders[block]} holders, {held[block]} tables hold it")
            if (block in self._free) != (held[block] == 0):
                raise RuntimeError(f"block {block} has {held[block]} holders, yet free is {block in self._free}")
        filed = {key: block for block, key in enumerate(self._hash_of) if key is not None}
        if filed != self._block_of:
            raise RuntimeError("hashes and blocks disagree")

    def _forget(self, block: int) -> None:
        key = self._hash_of[block]
        if key is not None:
            del self._block_of[key]
            self._hash_of[block] = None
