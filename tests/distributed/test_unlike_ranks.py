"""A rank that would train another run than the others is an error on all of them, at once, that names what differs.

All runs are made by one launch of torchrun; each rank goes on with the next case after an error.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.benchmarks.unlike_ranks import of_failing_ranks
from tests.distributed.failing import WHERE
from tests.distributed.test_distributed import launch, results_of
from tests.distributed.unlike import ALIKE, NOTHING_PRUNED, REFUSED, UNLIKE_CASES
from tests.support.helpers import Images, pruning_trainer, vit

FAILS = "rank 1: "
"""Before a rank's own error, where the others give it."""


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """(folder of the results, what the ranks wrote to standard error)."""
    folder = tmp_path_factory.mktemp("unlike")
    return folder, launch(folder, list(UNLIKE_CASES))


@pytest.mark.parametrize("name", REFUSED)
def test_all_ranks_say_what_differs_and_stop_at_once(name, launched):
    for rank, result in enumerate(results_of(launched[0], name, 2)):
        error, says = str(result["error"]), REFUSED[name].says
        is_own = rank == 1 and says.startswith(FAILS)
        assert re.match(says.removeprefix(FAILS) if is_own else f"ValueError: .*{says}", error), error
        assert result["seconds"] < 20


@pytest.mark.parametrize("name", ALIKE)
def test_what_may_differ_is_not_refused(name, launched):
    for result in results_of(launched[0], name, 2):
        assert str(result["error"]) == ""


@pytest.mark.parametrize("name", NOTHING_PRUNED)
def test_where_nothing_is_pruned_unlike_ranks_are_the_stock_trainers(name, launched):
    for result in results_of(launched[0], name, 2):
        assert result["stock.error"] == result["ours.error"] == ""
        names = [key.removeprefix("stock.") for key in result if key.startswith("stock.") and "." in key[6:]]
        assert names
        for key in names:
            np.testing.assert_array_equal(result[f"ours.{key}"], result[f"stock.{key}"], err_msg=key)


def test_where_nothing_is_pruned_one_line_says_what_differs(launched):
    says = "Nothing is pruned, so it is left to the stock Trainer."
    assert launched[1].count(says) == len(NOTHING_PRUNED) - 1  # no sample is read, so one goes unnoticed
    assert launched[1].count("seed: 11 on rank 0, 12 on rank 1") == 1


@pytest.mark.slow
@pytest.mark.parametrize("where", WHERE)
def test_a_rank_that_raises_ends_all_and_is_named(where, tmp_path):
    _, said, named, seconds = of_failing_ranks(tmp_path, [where])[0]
    assert said.startswith("[rank1]: ")
    assert named == "yes"
    assert float(seconds) < 60


@pytest.mark.parametrize("flags", [{"prune_method": "infobatch"}, {"prune_selector": "random"}], ids=str)
def test_processes_that_do_not_know_of_each_other_are_refused(flags, tmp_path, monkeypatch):
    """As `torchrun` leaves them on a machine without an accelerator, where `--use_cpu` is not given."""
    trainer = pruning_trainer(vit(), Images(), tmp_path, **flags)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"2 processes were launched .WORLD_SIZE.*pass `--use_cpu true`"):
        trainer.train()
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("WORLD_SIZE", "1")
    trainer.train()


def test_with_none_they_train_as_the_stock_trainer_does(tmp_path, monkeypatch):
    trainer = pruning_trainer(vit(), Images(), tmp_path, num_train_epochs=1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    trainer.train()
    assert trainer.state.global_step == 6
