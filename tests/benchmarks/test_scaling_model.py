"""The formulas of `docs/appendix/scaling.md` against bytes that were counted, and their limits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_dynprune import PrunePlan
from hf_dynprune.serving.distributed import agree
from tests.benchmarks.scaling_model import (
    Constants,
    check_bytes,
    from_measurement,
    merge_bytes,
    sent_bytes,
    share_of_a_process,
    simulate,
    table,
    visible_from,
)
from tests.distributed.test_merging import drained


@pytest.mark.parametrize(("kept", "ranks", "batch"), [(40, 2, 4), (43, 2, 4), (43, 3, 5), (5, 4, 2)])
def test_the_bytes_of_a_merge_are_those_counted(kept, ranks, batch):
    """With ghosts, which fill up the last batches of all processes."""
    entries = share_of_a_process(kept, ranks, batch)
    dealt = np.append(np.arange(kept), np.full(entries * ranks - kept, -1)).reshape(-1, ranks, batch)
    per_rank = [(own.ravel(), own.ravel().astype(np.float32)) for own in dealt.transpose(1, 0, 2)]
    assert drained(per_rank, batch)[1] == [merge_bytes(entries)] * ranks
    constants = Constants(kept=1.0, batch=batch)
    assert sent_bytes(kept, ranks, constants) == (ranks - 1) * (merge_bytes(entries) + check_bytes())


def test_the_bytes_of_a_check_are_those_counted():
    class Alike:
        device = torch.device("cpu")
        num_processes = 2
        given = 0

        def gather(self, tensor):
            self.given += tensor.nbytes
            return torch.cat([tensor, tensor])

    accelerator = Alike()
    agree(accelerator, lambda: 1, lambda: PrunePlan.full(10), PrunePlan.checksum)
    assert accelerator.given == check_bytes()


def test_one_process_sends_nothing():
    epoch = simulate(1000, 1, Constants())
    assert epoch.sent == 0
    assert epoch.network == {25.0: 0, 100.0: 0}


def test_indices_beyond_int32_take_twelve_bytes():
    constants = Constants(kept=1.0, batch=1)
    assert sent_bytes(2**31, 2, constants) == 2**30 * 8 + 40
    assert sent_bytes(2**31 + 2, 2, constants) == (2**30 + 1) * 12 + 40


def test_the_limits_are_where_the_sums_reach_them():
    constants = dataclasses.replace(Constants(), hop=0.0)
    limits = visible_from(constants)
    ranks, size = round(limits["ranks"]), 100_000_000
    epoch = simulate(size, ranks, constants)
    assert epoch.boundary_share(25.0) == pytest.approx(0.01, rel=0.02)
    assert epoch.dealing / epoch.train == pytest.approx(0.01 * ranks / limits["ranks dealing"])
    assert simulate(round(limits["samples"]), 8, constants).node_peak == pytest.approx(2**30, rel=1e-6)


def test_constants_are_read_from_a_measurement():
    names = ("bare", "fold", "check", "plan", "order", "checkpoint")
    parts = {name: [0.5, 0.5, 0.5] for name in names} | {"merge": [0.9, 1.1, 1.0]}
    row = {"samples": 10**9, "kept": 5 * 10**8, "cpu_seconds": parts, "checkpoint_bytes": 10**10}
    memory = {"at rest": 20.0, "merge": 30.0}
    measured = {"rows": [row], "dealing_ns": {"ours": 300.0, "stock": 100.0}, "memory": memory}
    constants = from_measurement(measured, rate=500.0)
    assert (constants.merge, constants.fold, constants.plan, constants.deal) == (1.0, 1.0, 0.5, 300.0)
    assert (constants.peak_bytes, constants.checkpoint_bytes, constants.kept, constants.rate) == (30.0, 10.0, 0.5, 500)


def test_the_table_has_a_row_for_each_case():
    assert table(Constants()).count("\n") == 1 + 4 * 4


def test_the_table_in_the_docs_is_the_one_the_formulas_give():
    page = Path(__file__).parents[2] / "docs" / "appendix" / "scaling.md"
    assert table(Constants()) in page.read_text(encoding="utf-8")
