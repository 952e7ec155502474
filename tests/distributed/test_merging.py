"""Merging of scores, with threads in place of processes: the same arrays on every rank, to the bit; bytes sent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch

from hf_dynprune.serving import distributed
from hf_dynprune.serving.distributed import ScoreBuffer
from tests.benchmarks.scaling_model import merge_bytes

LARGE = 2**31


class Group:
    """What `ScoreBuffer` uses of an Accelerator, for ranks that are threads; counts the bytes each hands over."""

    def __init__(self, ranks):
        self.num_processes = ranks
        self.barrier = Barrier(ranks)
        self.rows = [None] * ranks
        self.given = [0] * ranks

    def member(self, rank):
        return Member(self, rank)


class Member:
    device = torch.device("cpu")

    def __init__(self, group, rank):
        self.group, self.rank, self.num_processes = group, rank, group.num_processes

    def gather(self, tensor):
        self.group.rows[self.rank] = tensor
        self.group.given[self.rank] += tensor.nbytes
        self.group.barrier.wait(10)
        assert len({row.shape for row in self.group.rows}) == 1
        together = torch.cat(self.group.rows)
        self.group.barrier.wait(10)
        return together


def entries(rank, count, start=0):
    """Scores of which some are NaN with a payload, and no two are the same; every seventh is not to be recorded."""
    rng = np.random.default_rng(rank)
    index = start + 1000 * rank + rng.permutation(count)
    index[::7] = -1
    score = rng.normal(size=count).astype(np.float32)
    score[::5] = np.arange(len(score[::5]), dtype=np.uint32).__add__(0x7FC00001).astype(np.uint32).view(np.float32)
    return index, score


def drained(per_rank, batch=4):
    """(arrays by rank, bytes given by rank)."""
    group = Group(len(per_rank))

    def rank_drains(rank):
        buffer, (index, score) = ScoreBuffer(), per_rank[rank]
        for at in range(0, len(index), batch):
            part = slice(at, at + batch)
            buffer.add(torch.tensor(index[part]), torch.tensor(score[part]), torch.tensor(index[part] >= 0))
        first = buffer.drain(group.member(rank))
        given = group.given[rank]
        assert len(buffer.drain(group.member(rank))[0]) == 0
        return first, given

    with ThreadPoolExecutor(len(per_rank)) as pool:
        results = list(pool.map(rank_drains, range(len(per_rank))))
    return [result for result, _ in results], [given for _, given in results]


@pytest.mark.parametrize("start", [0, LARGE], ids=["int32", "int64"])
@pytest.mark.parametrize("piece", [1, 100, 2**28], ids=["one entry", "some", "all"])
@pytest.mark.parametrize("counts", [(40,), (40, 40), (40, 12, 0), (0, 0), (1, 0)], ids=str)
def test_every_rank_gets_all_entries_to_the_bit(counts, piece, start, monkeypatch):
    monkeypatch.setattr(distributed, "PIECE_BYTES", piece)
    monkeypatch.setattr(distributed, "BATCHES_PER_BLOCK", 3)
    per_rank = [entries(rank, count, start) for rank, count in enumerate(counts)]
    results, given = drained(per_rank)
    index, score = (np.concatenate(parts) for parts in zip(*per_rank, strict=True))
    index, score = index[index >= 0], score[index >= 0]
    order = np.argsort(index)
    for got_index, got_score in results:
        assert got_index.dtype == (np.int64 if start and len(index) else np.int32)
        again = np.argsort(got_index)
        np.testing.assert_array_equal(got_index[again], index[order])
        np.testing.assert_array_equal(got_score[again].view(np.int32), score[order].view(np.int32))
        np.testing.assert_array_equal(got_index, results[0][0])
    if len(counts) > 1:
        width = 12 if start and len(index) else 8
        assert given == [merge_bytes(max(counts), width)] * len(counts)


def test_in_one_piece_the_entries_are_in_the_order_of_the_ranks():
    per_rank = [entries(rank, 40) for rank in range(3)]
    index = np.concatenate([index for index, _ in per_rank])
    np.testing.assert_array_equal(drained(per_rank)[0][0][0], index[index >= 0])


def test_a_piece_of_all_ranks_is_no_larger_than_allowed(monkeypatch):
    monkeypatch.setattr(distributed, "PIECE_BYTES", 200)
    seen = []
    gather = Member.gather
    monkeypatch.setattr(Member, "gather", lambda self, row: seen.append(gather(self, row)) or seen[-1])
    drained([entries(rank, 40) for rank in range(3)])
    assert max(together.nbytes for together in seen) <= 200
    assert len(seen) > 3 * 5
