"""Block book-keeping: sharing, the order of eviction, and hashes that only equal prefixes share."""

import pytest

from pagoda_engine.core.blocks import BlockPool, extend_hashes


def hashes(tokens, salt="", block_size=4):
    result = []
    extend_hashes(result, tokens, block_size, salt)
    return result


def test_only_full_blocks_have_a_hash():
    assert [len(hashes(list(range(n)))) for n in (0, 3, 4, 7, 8)] == [0, 0, 1, 1, 2]


def test_extending_in_pieces_gives_the_same_chain_as_at_once():
    tokens = list(range(21))
    pieces = []
    for end in range(len(tokens) + 1):
        extend_hashes(pieces, tokens[:end], 4, "")
    assert pieces == hashes(tokens)


def test_a_hash_depends_on_every_token_before_it_and_on_the_salt():
    first, second = hashes([1, 2, 3, 4, 5, 6, 7, 8])
    assert hashes([1, 2, 3, 4, 5, 6, 7, 9])[0] == first
    assert hashes([0, 2, 3, 4, 5, 6, 7, 8])[1] != second
    assert hashes([1, 2, 3, 4], salt="tenant")[0] != first
    assert len(first) * 8 >= 128


def test_the_least_recently_freed_block_is_handed_out_first():
    pool = BlockPool(4, 4)
    blocks = pool.allocate(4)
    for block, key in zip(blocks, hashes(list(range(16))), strict=True):
        pool.file(block, key)
    pool.release([blocks[2]])
    pool.release([blocks[0], blocks[1]])
    # Of one table the later block goes first: a prefix is of use without its end.
    assert pool.allocate(3) == [blocks[2], blocks[1], blocks[0]]


def test_blocks_without_a_hash_are_handed_out_before_cached_ones():
    pool = BlockPool(3, 4)
    cached, plain, other = pool.allocate(3)
    pool.file(cached, b"a")
    pool.file(other, b"b")
    pool.release([cached])
    pool.release([plain])
    assert pool.allocate(1) == [plain]
    assert pool.find([b"a"]) == [cached]


def test_a_free_block_is_found_again_until_it_is_handed_out():
    pool = BlockPool(2, 4)
    (block,) = pool.allocate(1)
    pool.file(block, b"key")
    pool.release([block])
    assert pool.find([b"key", b"unknown"]) == [block]
    pool.hold([block])
    assert pool.num_free == 1
    pool.release([block])
    pool.allocate(2)
    assert pool.find([b"key"]) == []


def test_a_shared_block_is_free_only_when_its_last_holder_lets_go():
    pool = BlockPool(1, 4)
    (block,) = pool.allocate(1)
    pool.hold([block])
    pool.release([block])
    assert pool.num_free == 0
    pool.check_integrity([[block]])
    pool.release([block])
    assert pool.num_free == 1
    assert pool.usage == 0


def test_the_first_block_filed_under_a_hash_stays():
    pool = BlockPool(2, 4)
    first, second = pool.allocate(2)
    pool.file(first, b"key")
    pool.file(second, b"key")
    assert pool.find([b"key"]) == [first]
    pool.check_integrity([[first, second]])


def test_more_blocks_than_are_free_is_refused():
    with pytest.raises(RuntimeError, match="asked for 3 blocks, 2 are free"):
        BlockPool(2, 4).allocate(3)


@pytest.mark.parametrize("tables", [[], [[0, 1]], [[0], [0]]], ids=["leaked", "held twice", "stolen"])
def test_integrity_check_notices_books_that_disagree_with_the_tables(tables):
    pool = BlockPool(3, 4)
    assert pool.allocate(1) == [0]
    with pytest.raises(RuntimeError, match="block"):
        pool.check_integrity(tables)
