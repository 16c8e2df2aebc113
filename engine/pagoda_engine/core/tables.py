"""The block tables of requests: opened with a prefix that the cache knows, grown, filed, and given back."""

from __future__ import annotations

from pagoda_engine.core.blocks import BlockPool, extend_hashes
from pagoda_engine.core.request import Request


class BlockTables:
    """All that happens to `Request.blocks`.

    `queries` and `hits` count prompt tokens that were looked for in the cache and that were found there, of requests
    that start for the first time.
    """

    def __init__(self, pool: BlockPool, *, caching: bool) -> None:
        """Without `caching` nothing is filed, so nothing is found."""
        self.queries = 0
        self.hits = 0
        self._pool = pool
        self._caching = caching

    def prefix(self, request: Request) -> list[int]:
        """The blocks that hold the longest known beginning of a request; takes nothing."""
        if not self._caching or request.unscored:
            return []  # of what is to be scored all logits are wanted, and the cache keeps none
        size = self._pool.block_size
        extend_hashes(request.block_hashes, request.tokens, size, request.cache_salt)
        # The last token is always computed: its output is what the next one is sampled from.
        return self._pool.find(request.block_hashes[: (len(request.tokens) - 1) // size])

    def open(self, request: Request, prefix: list[int], new: int) -> None:
        """Begin a table with the blocks of a found prefix and `new` others, which must be free."""
        self._pool.hold(prefix)
        request.blocks = prefix + self._pool.allocate(new)
        request.shared = len(prefix)
        request.computed = len(prefix) * self._pool.block_size
        if self._caching and request.started_time is None:
            self.queries += len(request.tokens)
            self.hits += request.computed

    def grow(self, request: Request, length: int) -> bool:
        """Make room for `length` tokens in all; False, and nothing, where there are too few free blocks."""
        missing = self._pool.blocks_for(length) - len(request.blocks)
        if missing > self._pool.num_free:
            return False
        if missing > 0:
            request.blocks += self._pool.allocate(missing)
        return True

    def file(self, request: Request, start: int, stop: int) -> None:
        """Let the blocks be found that were filled by computing the tokens from `start` to `stop`."""
        size = self._pool.block_size
        filled = range(start // size, stop // size)
        if filled and self._caching:
            extend_hashes(request.block_hashes, request.tokens, size, request.cache_salt)
            for position in filled:
                self._pool.file(request.blocks[position], request.block_hashes[position])

    def close(self, request: Request) -> None:
        """Give all blocks back; the request starts anew, if at all."""
        self._pool.release(request.blocks)
        request.blocks = []
        request.computed = 0
