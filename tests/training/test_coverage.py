"""Coverage and class floor over whole runs: the promise kept, frequencies as stated, targets met, resumed exactly."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset as HFDataset
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_dynprune import (
    UCB,
    ClassFloor,
    CoverEvery,
    EpsilonGreedy,
    InfoBatch,
    NoPruning,
    OrderDP,
    PruningPolicy,
    RandomPruning,
    StaticPruning,
)
from hf_dynprune.decisions.budget import check_target, plan_for_ratio
from hf_dynprune.decisions.dealing import Layout
from hf_dynprune.decisions.forecast import describe_savings
from hf_dynprune.decisions.plan import EpochInfo
from hf_dynprune.decisions.schedule import RunLength
from hf_dynprune.decisions.scores import ScoreStore
from hf_dynprune.records.state_files import load_state, save_state
from hf_dynprune.serving.labels import class_labels
from hf_dynprune.training.epoch_run import EpochRun, EpochRunIdentity
from tests.support.helpers import Images, assert_same_bits, pruning_trainer, vit, weights_of

N = 60
LABELS = np.sort(np.random.default_rng(0).integers(0, 4, N))
BASES = {
    "random": RandomPruning(0.8),
    "infobatch": InfoBatch(0.9, delta=1.0),
    "infobatch-annealed": InfoBatch(0.9, delta=0.6),
    "orderdp": OrderDP(0.5, 0.3),
    "epsilon_greedy": EpsilonGreedy(0.8, epsilon=0.2, period=2),
    "ucb": UCB(0.9, period=3),
}


def run_of(policy: PruningPolicy, epochs: float, warmup: int = 0, target: float | None = None, n: int = N):
    facts = EpochRunIdentity(n, "print", 3, 3, warmup, False, "random", False, target)
    return EpochRun(policy, facts, Layout(1, 1, 1), RunLength(n, int(np.ceil(n * epochs)), epochs, False))


def train(run: EpochRun, epochs: range, seed: int = 0, nonfinite: float = 0.0):
    """Losses that fall, each in its own way, some of them not finite; the plan of each epoch, as a mask."""
    kept, n = [], run.identity.num_samples
    for epoch in epochs:
        rng = np.random.default_rng([seed, epoch])
        now = run.clock.current
        step = 0 if now is None else now.start_step + now.planned
        plan = run.make_plan(run.epoch_info(epoch, step))
        run.clock.begin_epoch(epoch, step, plan.num_kept, step)
        score = np.random.default_rng(seed).exponential(size=n) * rng.uniform(0.5, 1, n)
        score[rng.random(n) < nonfinite] = np.nan
        score[plan.kept_indices[0]] = 1.0  # an epoch without a finite loss is an error
        run.record.forward_passes = plan.num_kept
        run.store.record(plan.kept_indices, score[plan.kept_indices], epoch)
        run.close_epoch(step + run.clock.current.planned)
        kept.append(np.isin(np.arange(n), plan.kept_indices))
    return np.array(kept)


def longest_unseen(kept) -> int:
    """The most epochs in a row in which some sample is not kept."""
    longest = now = np.zeros(kept.shape[1], int)
    for row in kept:
        now = np.where(row, 0, now + 1)
        longest = np.maximum(longest, now)
    return int(longest.max())


@pytest.mark.parametrize("name", BASES)
@settings(max_examples=12, deadline=None, database=None)
@given(
    k=st.integers(1, 6),
    seed=st.integers(0, 1000),
    warmup=st.integers(0, 4),
    floor=st.sampled_from([None, 0.1]),
    nonfinite=st.sampled_from([0.0, 0.2]),
)
def test_no_sample_is_unseen_for_longer_than_promised(name, k, seed, warmup, floor, nonfinite):
    base = BASES[name]
    k = max(k, base.period)
    policy = CoverEvery(base if floor is None else ClassFloor(base, LABELS, floor), k)
    run = run_of(policy, 16, warmup)
    kept = train(run, range(16), seed, nonfinite)
    assert longest_unseen(kept) <= k
    prunable = [e for e in range(max(warmup, int(base.reads_scores)), 16) if base.prunes_in(run.epoch_info(e, 0))]
    # To one sample per epoch: counts are whole numbers.
    assert (~kept).sum() / N <= policy.max_saved_epochs(len(prunable)) + len(prunable) / N


@pytest.mark.parametrize("name", ["random", "orderdp", "ucb"])
def test_the_bases_alone_promise_nothing(name):
    assert longest_unseen(train(run_of(BASES[name], 16), range(16))) > 6


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("target", [None, 0.3])
def test_a_distant_limit_changes_no_plan(name, target):
    alone, wrapped = (run_of(policy, 12, target=target) for policy in (BASES[name], CoverEvery(BASES[name], 1000)))
    for epoch in range(12):
        train(alone, range(epoch, epoch + 1))
        train(wrapped, range(epoch, epoch + 1))
        assert wrapped.plan.checksum() == alone.plan.checksum()


@pytest.mark.parametrize("name", ["random", "ucb"])
def test_a_sample_that_never_records_a_loss_is_kept_from_the_limit_on(name):
    policy = CoverEvery(BASES[name], 3)
    store, kept = ScoreStore(20, policy.statistics), []
    for epoch in range(10):
        info = EpochInfo(epoch, 10, epoch / 10, 0)
        plan = policy.plan(store.view(), info, info.generator("plan"))
        kept.append(0 in plan.kept_indices)
        store.record(plan.kept_indices[plan.kept_indices > 0], np.ones(plan.num_kept - kept[-1]), epoch)
        store.end_epoch(epoch)
    assert all(kept[3:])


WRAPPED = {
    "floor, random": ClassFloor(RandomPruning(0.7, rescale=True), [0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, -1], 0.3),
    "floor, infobatch": ClassFloor(InfoBatch(0.8), [0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, -1], 0.3),
    "floor, bernoulli": ClassFloor(InfoBatch(0.8, draw="bernoulli"), [0, 1] * 6, 0.2),
    "floor, orderdp": ClassFloor(OrderDP(0.8, 0.4), [0, 1] * 6, 0.2),
    "floor, epsilon_greedy": ClassFloor(EpsilonGreedy(0.7, 0.5), [0, 1] * 6, 0.4),
    "floor, static": ClassFloor(StaticPruning(np.arange(12) % 4, 0.6), [0, 1] * 6, 0.4),
    "floor of everything": ClassFloor(OrderDP(0.5, 0.5), [0, 1] * 6, 1.0),
    "both": CoverEvery(ClassFloor(RandomPruning(0.7, rescale=True), [0, 1] * 6, 0.3), 2),
    "both, the other way round": ClassFloor(CoverEvery(InfoBatch(0.7), 2), [0, 1] * 6, 0.3),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_frequencies_are_the_stated_probabilities_and_weights_their_inverse(name):
    policy, store = WRAPPED[name], ScoreStore(12, WRAPPED[name].statistics)
    store.record(np.arange(11), [1.0, 5.0, 2.0, 7.0, 1.0, 2.0, 5.0, 1.0, 2.0, 1.0, 5.0], 0)
    store.end_epoch(0)
    store.record([1, 3, 5, 6], [np.nan, 4.0, 2.0, 2.0], 1)
    store.end_epoch(1)
    view, info, draws, rng = store.view(), EpochInfo(3, 10, 0.3, 0), 3000, np.random.default_rng(7)
    plans = [policy.plan(view, info, rng) for _ in range(draws)]
    p = policy.inclusion_probability(view, info)
    frequency = np.bincount(np.concatenate([plan.kept_indices for plan in plans]), minlength=12) / draws
    certain = (p == 0) | (p == 1)
    np.testing.assert_array_equal(frequency[certain], p[certain])
    z = (frequency - p)[~certain] / np.sqrt(p * (1 - p) / draws)[~certain]
    # Bonferroni over 12 samples and 9 policies: 5.0 is passed by chance once in 15,000 suites.
    assert np.abs(z).max(initial=0) < 5.0
    if policy.unbiased:
        for plan in plans[:50]:
            np.testing.assert_allclose(plan.weights * p[plan.kept_indices], 1, rtol=2**-23)
    elif name.startswith("floor"):
        assert (plans[0].weights == 1).all()


@pytest.mark.parametrize("name", ["random", "infobatch", "ucb", "orderdp"])
def test_each_class_keeps_its_floor_in_every_epoch(name):
    policy = ClassFloor(BASES[name], LABELS, 0.3)
    kept = train(run_of(policy, 10), range(10))
    for value in range(4):
        least = np.ceil(0.3 * np.count_nonzero(value == LABELS) - 1e-9)
        assert (kept[:, value == LABELS].sum(axis=1) >= least).all()


@pytest.mark.parametrize("cut", [1, 4, 5])
def test_a_run_resumed_between_epochs_makes_the_same_plans(cut, tmp_path):
    policy = CoverEvery(ClassFloor(BASES["ucb"], LABELS, 0.05), 4)
    whole = train(run_of(policy, 10), range(10))
    first, again = run_of(policy, 10), run_of(policy, 10)
    train(first, range(cut))
    save_state(tmp_path, *first.state_dict())
    again.load_state_dict(*load_state(tmp_path))
    assert (train(again, range(cut, 10)) == whole[cut:]).all()


class TestTargets:
    SIZE = 2000
    CLASSES = np.random.default_rng(1).integers(0, 5, SIZE)

    @pytest.mark.parametrize("target", [0.15, 0.3])
    @pytest.mark.parametrize(
        "wrap",
        [
            lambda base: CoverEvery(base, 3),
            lambda base: ClassFloor(base, TestTargets.CLASSES, 0.2),
            lambda base: CoverEvery(ClassFloor(base, TestTargets.CLASSES, 0.2), 3),
        ],
        ids=["cover", "floor", "both"],
    )
    @pytest.mark.parametrize("name", ["random", "orderdp", "ucb", "epsilon_greedy"])
    def test_lands_within_half_a_point(self, name, wrap, target):
        base = OrderDP(0.9, 0.5) if name == "orderdp" else BASES[name]
        policy = wrap(base)
        check_target(policy, target, 12, 0, self.SIZE)
        run = run_of(policy, 12, target=target, n=self.SIZE)
        saved = (~train(run, range(12))).sum() / (12 * self.SIZE)
        assert saved == pytest.approx(target, abs=0.005)

    @pytest.mark.parametrize(("base", "k", "target"), [(OrderDP(0.9, 0.5), 3, 0.6), (OrderDP(0.9, 0.5), 2, 0.5)])
    def test_an_epoch_in_which_many_come_due_is_no_shortage(self, base, k, target, caplog):
        run = run_of(CoverEvery(base, k), 12, target=target, n=self.SIZE)
        saved = (~train(run, range(12))).sum() / (12 * self.SIZE)
        assert saved == pytest.approx(target, abs=0.005)
        assert "will be missed" not in caplog.text

    @pytest.mark.parametrize("wanted", [0.1, 0.3, 0.5])
    def test_the_search_sees_through_what_a_wrapper_takes_back(self, wanted):
        """All that UCB would prune first is due: its plans are full up to a ratio of 0.4."""
        policy = CoverEvery(UCB(0.4, period=1), 1)
        store = ScoreStore(1000, policy.statistics)
        store.record(np.arange(1000), np.arange(1000.0), 0)
        store.end_epoch(0)
        store.record(np.arange(400, 1000), np.arange(400.0, 1000.0), 1)
        store.end_epoch(1)
        plan = plan_for_ratio(policy, store.view(), EpochInfo(2, 10, 0.2, 0), wanted, 2)
        assert plan.ratio == pytest.approx(wanted, abs=0.002)

    @pytest.mark.parametrize(
        ("policy", "says"),
        [
            (CoverEvery(RandomPruning(0.5), 1), "random.cover_every may prune in 10 of 10 .* 0.5 each, .* saves 50.0%"),
            (ClassFloor(RandomPruning(0.5), [0, 1] * 10, 0.4), "10 of 10 epochs, at most 0.57 each, .* saves 57.0%"),
        ],
    )
    def test_out_of_reach_is_refused_at_the_start(self, policy, says):
        with pytest.raises(ValueError, match=says):
            check_target(policy, 0.7, 10, 0)

    def test_the_line_at_the_start_knows_the_guarantees(self):
        length = RunLength(N, N * 10, 10, False)
        text, _ = describe_savings(CoverEvery(RandomPruning(0.9), 1), length, 0)
        assert "at most 50.0% of the forward passes of 10 epochs: all 10 epochs prune up to 90.0% each" in text
        assert "no sample is left out for more than 1 epoch in a row" in text
        text, _ = describe_savings(ClassFloor(RandomPruning(0.5), LABELS, 0.2), length, 0)
        assert "at most 39." in text
        text, is_little = describe_savings(ClassFloor(RandomPruning(0.5), LABELS, 0.91), length, 0)
        assert is_little
        assert "raise `prune_ratio` or lower the floor" in text


def build(place, dataset, policy=None, **flags):
    flags = {"num_train_epochs": 5, "prune_method": "random", "prune_ratio": 0.7, **flags}
    if policy is not None:
        flags |= {"prune_method": "none", "prune_ratio": None}
    return pruning_trainer(vit(dropout=0.2), dataset, place, policy=policy, **flags)


class PlanLog:
    """What each epoch kept, taken from the trainer's run."""

    def __init__(self, trainer):
        training = trainer._training
        self.kept, make = [], training._install_plan

        def install(*arguments):
            sampler = make(*arguments)
            self.kept.append(np.isin(np.arange(22), training.plan.kept_indices))
            return sampler

        training._install_plan = install


@pytest.mark.parametrize("policy", [None, UCB(0.7, period=2)], ids=["by flag", "policy object"])
def test_the_flags_hold_in_a_real_run(policy, tmp_path):
    data = Images()
    trainer = build(tmp_path, data, policy, prune_max_unseen_epochs=2, prune_class_floor=0.3, num_train_epochs=7)
    log = PlanLog(trainer)
    trainer.train()
    kept = np.array(log.kept)
    assert longest_unseen(kept) == 2
    for value in range(3):
        of_class = kept[:, data.labels.numpy() == value]
        assert (of_class.sum(axis=1) >= np.ceil(0.3 * of_class.shape[1] - 1e-9)).all()
    assert trainer.policy.name == ("ucb" if policy else "random") + "+class_floor+cover_every"
    assert sum(record.kept for record in trainer.pruning_history) == kept.sum() < 7 * 22


def test_resumed_inside_an_epoch_it_is_the_same_to_the_bit(tmp_path):
    flags = {
        "prune_method": "infobatch",
        "prune_kwargs": {"delta": 1.0},
        "prune_max_unseen_epochs": 2,
        "prune_class_floor": 0.3,
        "save_strategy": "steps",
        "save_steps": 1,
    }
    whole = build(tmp_path / "whole", Images(), **flags)
    whole.train()
    steps = whole.state.global_step
    for step in (7, steps // 2 + 4, steps - 2):
        resumed = build(tmp_path / "resumed", Images(), **flags)
        resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert_same_bits(weights_of(resumed), weights_of(whole))
        assert [record.kept for record in resumed.pruning_history] == [r.kept for r in whole.pruning_history]


def test_without_the_flags_nothing_is_wrapped_and_nothing_more_is_stored(tmp_path):
    trainer = build(tmp_path, Images())
    assert trainer.policy == RandomPruning(0.7)
    assert set(run_of(trainer.policy, 2).store.state_dict()) == set(ScoreStore(2).state_dict())


def test_another_training_set_brings_its_own_classes(tmp_path):
    trainer = build(tmp_path, Images(), prune_class_floor=0.5, num_train_epochs=1)
    other = Images(14, seed=3)
    trainer.train_dataset = other
    trainer.train()
    assert trainer.policy.classes == ClassFloor(NoPruning(), other.labels.numpy(), 0.5).classes


def test_classes_are_found_where_the_fingerprint_finds_labels():
    columns = HFDataset.from_dict({"label": [2, 0, 1], "x": [0.0, 1.0, 2.0]})
    assert class_labels(columns).tolist() == [2, 0, 1]
    assert class_labels(columns.with_transform(lambda batch: {"y": batch["x"]})).tolist() == [2, 0, 1]
    assert class_labels(Images(5)).tolist() == Images(5).labels.tolist()
