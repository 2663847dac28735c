"""Shards that coming batches need are copied to the cache while earlier batches are used."""

from collections import Counter, deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor

from vlp.data.order import Draw
from vlp.shards.shard_set import ShardSet

COPIES_AT_A_TIME = 2


def fetch_ahead(
    draws: Iterable[list[Draw]], shards: ShardSet, *, num_shards: int
) -> Generator[list[Draw], None, None]:
    """The same batches in the same order, and copies of the shards of those that come after them.

    Looks so far ahead that there are always more than `num_shards` shards between the batch that is used
    and the last one that was looked at: into the next block of shards, where a block has so many.
    """
    coming = iter(draws)
    waiting: deque[tuple[list[Draw], set[int]]] = deque()
    in_sight = Counter[int]()
    pool = ThreadPoolExecutor(COPIES_AT_A_TIME)
    try:
        while True:
            while len(in_sight) <= num_shards and (batch := next(coming, None)):
                needed = shards.shards_of([draw.index for draw in batch])
                for shard in needed - in_sight.keys():
                    pool.submit(shards.fetch, shard)  # what it raises, reading the shard raises again
                in_sight.update(needed)
                waiting.append((batch, needed))
            if not waiting:
                return
            batch, needed = waiting.popleft()
            yield batch
            in_sight -= Counter(needed)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
