"""A plan that holds for a period: when a run selects, what it holds, and that neither a resume nor warm-up moves it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from hf_dynprune import UCB, EpochInfo, PrunePlan, PruningPolicy, ScoreView
from hf_dynprune.decisions.dealing import Layout
from hf_dynprune.decisions.draws import count_kept, keep_by_lot
from hf_dynprune.decisions.forecast import describe_savings
from hf_dynprune.decisions.schedule import RunLength
from hf_dynprune.records.state_files import load_state, save_state
from hf_dynprune.training.epoch_run import EpochRun, EpochRunIdentity

SIZE = 24


@dataclass(frozen=True)
class Lots(PruningPolicy):
    """Half of the samples by lot."""

    period: int = 3
    delta: float = 1.0

    name = "lots"
    reads_scores = False
    max_ratio = 0.5

    def plan(self, view: ScoreView, epoch: EpochInfo, rng: np.random.Generator) -> PrunePlan:
        if not self.prunes_in(epoch):
            return PrunePlan.full(len(view))
        n = len(view)
        return PrunePlan.from_weights(keep_by_lot(np.ones(n, bool), count_kept(0.5, n), rng))

    def inclusion_probability(self, view: ScoreView, epoch: EpochInfo) -> np.ndarray:
        return np.full(len(view), 0.5 if self.prunes_in(epoch) else 1.0)

    def prunes_in(self, epoch: EpochInfo) -> bool:
        return epoch.prunes_before(self.delta)


def length_of(epochs: float) -> RunLength:
    return RunLength(SIZE, round(SIZE * epochs), epochs, False)


def run_of(policy: PruningPolicy, epochs: float, warmup: int = 0) -> EpochRun:
    """Batches of one sample: an epoch has as many steps as samples."""
    facts = EpochRunIdentity(SIZE, "print", 5, 0, warmup, False, "random", False)
    return EpochRun(policy, facts, Layout(1, 1, 1), length_of(epochs))


def step_of(run: EpochRun) -> int:
    now = run.clock.current
    return 0 if now is None else now.start_step + now.planned


def begin(run: EpochRun, epoch: int) -> None:
    step = step_of(run)
    plan = run.make_plan(run.epoch_info(epoch, step))
    run.clock.begin_epoch(epoch, step, plan.num_kept, step)


def train(run: EpochRun, epoch: int, part: slice = slice(None)) -> None:
    """Losses that change from epoch to epoch, for each sample in its own way."""
    index = run.plan.kept_indices[part]
    run.store.record(index, 2 + np.sin(index * (epoch + 1.7)), epoch)


def plans(run: EpochRun, epochs: range) -> list[PrunePlan]:
    made = []
    for epoch in epochs:
        begin(run, epoch)
        made.append(run.plan)
        train(run, epoch)
        run.close_epoch(step_of(run))
    return made


def stretches(made: list[PrunePlan]) -> list[str]:
    """`["full", "a", "a", "b"]`: which epochs had the same plan."""
    distinct = list(dict.fromkeys(plan.checksum() for plan in made if not plan.is_full))
    return ["full" if plan.is_full else "abcdefgh"[distinct.index(plan.checksum())] for plan in made]


def pattern(text: str) -> list[str]:
    return ["full" if letter == "-" else letter for letter in text]


@pytest.mark.parametrize(
    ("policy", "warmup", "epochs", "expected"),
    [
        (UCB(0.4, period=1), 0, 4, "-abc"),
        (UCB(0.4, period=3), 0, 8, "-aaabbbc"),
        (UCB(), 0, 12, "-aaaaaaaaaab"),
        # Warm-up that ends inside a period: selected at the first epoch after it, held to the period's end.
        (UCB(0.4, period=4), 1, 6, "-aaaab"),
        (UCB(0.4, period=4), 3, 10, "---aabbbbc"),
        (UCB(0.4, period=4), 5, 7, "-----aa"),
        (UCB(0.4, period=2), 9, 4, "----"),
        # A policy that reads no scores has no full epoch 0.
        (Lots(3), 0, 7, "aaabbbc"),
        (Lots(3), 1, 7, "-aabbbc"),
        # Annealing begins inside a period: its epochs are full.
        (Lots(3, delta=0.5), 0, 10, "aaabb-----"),
        (Lots(50), 0, 5, "aaaaa"),
    ],
)
def test_a_run_selects_where_a_period_begins_and_holds_the_plan_until_it_ends(policy, warmup, epochs, expected):
    assert stretches(plans(run_of(policy, epochs, warmup), range(epochs))) == pattern(expected)


def test_the_draws_of_a_period_come_from_its_first_epoch():
    run = run_of(Lots(4), 8, warmup=2)
    made = plans(run, range(8))
    for epoch, start in ((2, 0), (3, 0), (4, 4), (7, 4)):
        info = run.epoch_info(epoch, 0)
        again = run.policy.plan(run.store.view(), info, info.generator("plan", key=start))
        assert made[epoch].checksum() == again.checksum()


def test_with_a_period_of_one_the_draws_come_from_the_epoch():
    run = run_of(Lots(1), 4)
    for epoch, plan in enumerate(plans(run, range(4))):
        info = run.epoch_info(epoch, 0)
        assert run.policy.plan(run.store.view(), info, info.generator("plan")).checksum() == plan.checksum()


@pytest.mark.parametrize("policy", [UCB(0.4, period=3), Lots(3, delta=0.8)])
@pytest.mark.parametrize("cut", range(9))
@pytest.mark.parametrize("part", [0, 7, SIZE])
def test_a_run_resumed_inside_a_period_holds_the_same_plan(policy, cut, part, tmp_path):
    whole = plans(run_of(policy, 9, warmup=2), range(9))
    run, again = run_of(policy, 9, warmup=2), run_of(policy, 9, warmup=2)
    made = plans(run, range(cut))
    begin(run, cut)
    made.append(run.plan)
    train(run, cut, slice(part))
    save_state(tmp_path, *run.state_dict())
    again.load_state_dict(*load_state(tmp_path))
    assert again.plan.checksum() == whole[cut].checksum()
    train(again, cut, slice(part, None))
    again.close_epoch(step_of(again))
    made += plans(again, range(cut + 1, 9))
    assert [plan.checksum() for plan in made] == [plan.checksum() for plan in whole]


def test_a_longer_run_selects_anew_where_the_shorter_one_annealed(tmp_path):
    policy = Lots(10, delta=0.5)
    short, longer = run_of(policy, 4), run_of(policy, 10)
    assert stretches(plans(short, range(4))) == pattern("aa--")
    save_state(tmp_path, *short.state_dict())
    longer.load_state_dict(*load_state(tmp_path))
    made = plans(longer, range(4, 10))
    assert stretches(made) == pattern("a-----")


def test_the_projected_saving_ends_at_what_was_saved():
    run = run_of(UCB(0.4, period=3), 8, warmup=2)
    made = plans(run, range(8))
    saved = sum(plan.ratio for plan in made) / 8
    projections = [record.projected_saving for record in run.history]
    assert projections[:2] == [0, 0]
    assert projections[2:] == pytest.approx([saved] * 6)


def test_the_line_at_the_start_counts_full_epochs_not_selections():
    text, little = describe_savings(UCB(0.5, period=3), length_of(10), 0)
    assert "can save at most 45.0% of the forward passes of 10 epochs: 9 of 10 epochs prune up to 50.0% each" in text
    assert not little


def test_one_epoch_of_a_method_without_annealing_is_advised_more_epochs_alone():
    text, little = describe_savings(UCB(), length_of(1), 0)
    assert little
    assert "To change that: raise `num_train_epochs`, or train without pruning" in text


@pytest.mark.parametrize("period", [0, -3, 2.5, "3"])
def test_a_policy_with_an_impossible_period_is_refused_when_its_run_begins(period):
    run = run_of(Lots(period), 3)
    with pytest.raises(ValueError, match=f"`period` of Lots must be a whole number of at least 1, got {period!r}"):
        begin(run, 0)
