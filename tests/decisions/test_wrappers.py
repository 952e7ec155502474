"""Guarantees around a policy: what they keep, with which probabilities and weights, what they hand through."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle

import numpy as np
import pytest

from hf_dynprune.decisions.guarantees import ClassFloor, ClassLabels, CoverEvery
from hf_dynprune.decisions.scores import LastVisit, ScoreStore
from hf_dynprune.methods.infobatch import InfoBatch
from hf_dynprune.methods.none import NoPruning
from hf_dynprune.methods.orderdp import OrderDP
from hf_dynprune.methods.random import RandomPruning
from hf_dynprune.methods.static import StaticPruning
from hf_dynprune.methods.ucb import UCB

NAN = math.nan
LABELS = [0] * 10 + [7] * 5 + [-100] * 5
FULL = [1.0] * 20


def view_at(visits: dict[int, list[int]], n: int, policy):
    """Scores of samples that were visited in the epochs given."""
    store = ScoreStore(n, policy.statistics)
    for epoch, index in visits.items():
        store.record(index, np.arange(len(index)) + 1.0, epoch)
        store.end_epoch(epoch)
    return store.view()


def every_plan(policy, view, epoch, lots, draws):
    """Each plan once for each order of the lots: all that can happen, alike likely."""
    n = len(view)
    orders = list(itertools.permutations(range(n)))
    return [policy.plan(view, epoch, lots(*rows)) for rows in itertools.product(orders, repeat=draws)]


class TestClassFloor:
    def test_joins_the_base_plan_with_a_share_of_each_class(self, view_of, epoch_at):
        base, view = RandomPruning(0.8), view_of(FULL)
        policy = ClassFloor(base, LABELS, 0.25)
        assert policy.counts == [3, 2]
        for seed in range(20):
            alone = base.plan(view, epoch_at(2), np.random.default_rng(seed))
            plan = policy.plan(view, epoch_at(2), np.random.default_rng(seed))
            kept = np.bincount(np.array(LABELS)[plan.kept_indices] + 100, minlength=108)
            assert set(alone.kept_indices) <= set(plan.kept_indices)
            assert kept[100] >= 3
            assert kept[107] >= 2
            assert set(plan.kept_indices[plan.kept_indices >= 15]) == set(alone.kept_indices[alone.kept_indices >= 15])

    def test_the_floor_does_not_depend_on_what_the_base_drew(self, view_of, epoch_at):
        """Two scores at OrderDP's cut, tied or one of them a bit larger: that tie costs a draw of the base's."""
        samples = np.random.default_rng(0).permutation(200).astype(np.float32)
        samples[samples == 140] = 139  # the cut of 60 lies between 139 and 140
        nearly = samples.copy()
        nearly[np.flatnonzero(samples == 139)[0]] = np.nextafter(np.float32(139), np.float32(200))
        policy = ClassFloor(OrderDP(1.0, 0.3), [0, 1] * 100, 0.5)
        plans = [policy.plan(view_of(s.tolist()), epoch_at(2), np.random.default_rng(1)) for s in (samples, nearly)]
        assert len(set(plans[0].kept_indices.tolist()) ^ set(plans[1].kept_indices.tolist())) <= 2

    def test_probabilities_by_hand(self, view_of, epoch_at):
        p = ClassFloor(RandomPruning(0.8), LABELS, 0.25).inclusion_probability(view_of(FULL), epoch_at(2))
        np.testing.assert_allclose(p, [1 - 0.8 * 0.7] * 10 + [1 - 0.8 * 0.6] * 5 + [0.2] * 5, rtol=1e-12)

    @pytest.mark.parametrize(
        ("base", "draws", "samples"),
        [
            (RandomPruning(0.5, rescale=True), 2, [1.0] * 4),
            (InfoBatch(0.5), 2, [0.1, 0.2, 0.3, 9.0]),
            (RandomPruning(0.5), 2, [1.0] * 4),
            (OrderDP(0.75, 0.5), 2, [3.0, 1.0, 2.0, 5.0]),
        ],
        ids=["random-rescale", "infobatch", "random", "orderdp"],
    )
    def test_all_draws_enumerated(self, base, draws, samples, view_of, epoch_at, lots):
        policy, view = ClassFloor(base, [1, 1, 1, 0], 0.5), view_of(samples)
        rows = itertools.product(itertools.permutations(range(4)), repeat=draws)
        plans = [policy.plan(view, epoch_at(2), lots(a, b)) for a, b in rows]
        kept = np.bincount(np.concatenate([plan.kept_indices for plan in plans]), minlength=4) / len(plans)
        p = policy.inclusion_probability(view, epoch_at(2))
        np.testing.assert_allclose(kept, p, rtol=1e-12)
        weight = sum(np.bincount(plan.kept_indices, plan.weights, minlength=4) for plan in plans) / len(plans)
        assert policy.unbiased == base.unbiased
        assert np.allclose(weight, 1, rtol=1e-6) == base.unbiased

    def test_a_floor_of_everything_prunes_nothing(self, view_of, epoch_at):
        policy = ClassFloor(RandomPruning(0.9, rescale=True), [0, 1] * 10, 1.0)
        plan = policy.plan(view_of(FULL), epoch_at(2), np.random.default_rng(0))
        assert plan.is_full
        assert (plan.weights == 1).all()
        assert policy.max_ratio == 0
        assert not policy.prunes_in(epoch_at(2))

    def test_the_largest_ratio_by_hand(self):
        # 20 samples, shares taken back 0.3 of ten, 0.4 of five, 0 of five without a class.
        assert ClassFloor(RandomPruning(0.2), LABELS, 0.25).max_ratio == pytest.approx(4 / 20)
        assert ClassFloor(RandomPruning(0.5), LABELS, 0.25).max_ratio == pytest.approx((5 + 5 * 0.7) / 20)
        assert ClassFloor(RandomPruning(0.9), LABELS, 0.25).max_ratio == pytest.approx((5 + 7 + 3 * 0.6) / 20)
        assert ClassFloor(NoPruning(), LABELS, 0.25).max_ratio == 0

    def test_counts_are_rounded_up_and_a_class_of_one_is_kept(self):
        policy = ClassFloor(RandomPruning(0.5), [0] * 30 + [1] * 31 + [5], 0.1)
        assert policy.counts == [3, 4, 1]

    def test_weights_of_a_biased_base_stay(self, view_of, epoch_at):
        base = InfoBatch(0.75, exact_weights=False)
        policy, view = ClassFloor(base, [0] * 8, 0.5), view_of([1.0] * 7 + [50.0])
        alone = base.plan(view, epoch_at(2), np.random.default_rng(3))
        plan = policy.plan(view, epoch_at(2), np.random.default_rng(3))
        weights = dict(zip(plan.kept_indices.tolist(), plan.weights.tolist(), strict=True))
        expected = dict(zip(alone.kept_indices.tolist(), alone.weights.tolist(), strict=True))
        assert plan.num_kept > alone.num_kept
        assert weights == {index: expected.get(index, 1.0) for index in weights}

    def test_labels_of_another_length_are_refused(self, view_of, epoch_at):
        policy = ClassFloor(RandomPruning(0.5), [0, 1], 0.5)
        for use in (
            lambda: policy.check_data(3, "print"),
            lambda: policy.plan(view_of([1.0] * 3), epoch_at(1), np.random.default_rng(0)),
            lambda: policy.inclusion_probability(view_of([1.0] * 3), epoch_at(1)),
        ):
            with pytest.raises(ValueError, match="ClassFloor has 2 labels, the training set has 3 samples: one label"):
                use()


class TestCoverEvery:
    def test_keeps_what_would_be_unseen_for_too_long(self, epoch_at):
        policy = CoverEvery(UCB(0.9, period=1), 2)
        view = view_at({0: [*range(6)], 1: [4, 5], 2: [3, 5]}, 6, policy)
        assert view.statistics["last_visit"].tolist() == [1, 1, 1, 3, 2, 3]
        p = policy.inclusion_probability(view, epoch_at(3))
        assert p[:3].tolist() == [1, 1, 1]  # unseen in epochs 1 and 2
        plan = policy.plan(view, epoch_at(3), np.random.default_rng(0))
        assert {0, 1, 2} <= set(plan.kept_indices.tolist())
        assert plan.num_kept < 6

    def test_looks_ahead_to_the_end_of_the_period(self, epoch_at):
        policy = CoverEvery(UCB(0.9, period=3), 5)
        view = view_at({0: [*range(6)], 1: [5], 2: [5], 3: [5]}, 6, policy)
        plan = policy.plan(view, epoch_at(4), np.random.default_rng(0))  # epochs 4, 5, 6 would make six
        assert plan.kept_indices.tolist() == [0, 1, 2, 3, 4]
        assert CoverEvery(UCB(0.9, period=3), 6).plan(view, epoch_at(4), np.random.default_rng(0)).num_kept == 1

    def test_a_selection_late_in_its_period_is_held_for_the_rest_of_it(self, epoch_at):
        policy = CoverEvery(UCB(0.9, period=3), 3)
        view = view_at({0: [*range(6)], 1: [5]}, 6, policy)
        # Epochs 2 and 3 are left of the period: with epoch 1 that makes three.
        assert policy.plan(view, epoch_at(2), np.random.default_rng(0)).num_kept == 1

    def test_a_sample_never_visited_is_due_in_epoch_k(self, epoch_at):
        policy = CoverEvery(RandomPruning(0.5), 2)
        view = view_at({}, 8, policy)
        assert [policy.plan(view, epoch_at(e), np.random.default_rng(0)).num_kept for e in range(4)] == [4, 4, 8, 8]

    def test_equals_the_base_while_nothing_is_due(self, view_of, epoch_at):
        scores = np.random.default_rng(0).gamma(2.0, size=50)
        for base in (RandomPruning(0.4, rescale=True), InfoBatch(0.7), InfoBatch(draw="bernoulli"), OrderDP()):
            policy = CoverEvery(base, 10**6)
            view = view_of(scores, policy.statistics)
            plans = [each.plan(view, epoch_at(2), np.random.default_rng(5)).checksum() for each in (base, policy)]
            assert plans[0] == plans[1]
            np.testing.assert_array_equal(
                policy.inclusion_probability(view, epoch_at(2)), base.inclusion_probability(view, epoch_at(2))
            )

    def test_all_draws_enumerated(self, epoch_at, lots):
        policy = CoverEvery(RandomPruning(0.6, rescale=True), 1)
        view = view_at({0: [0, 1, 2, 3, 4], 1: [0, 1, 3]}, 5, policy)
        plans = every_plan(policy, view, epoch_at(2), lots, 1)
        kept = np.bincount(np.concatenate([plan.kept_indices for plan in plans]), minlength=5) / len(plans)
        p = policy.inclusion_probability(view, epoch_at(2))
        assert p.tolist() == [0.4, 0.4, 1, 0.4, 1]
        np.testing.assert_allclose(kept, p, rtol=1e-12)
        weight = sum(np.bincount(plan.kept_indices, plan.weights, minlength=5) for plan in plans) / len(plans)
        np.testing.assert_allclose(weight, 1, rtol=1e-6)

    def test_the_most_it_saves_by_hand(self):
        def most(k, epochs, ratio=0.9, period=1):
            return CoverEvery(UCB(ratio, period=period), k).max_saved_epochs(epochs)

        assert most(1, 10) == 5  # every second epoch
        assert most(4, 9) == pytest.approx(8)  # 4 without it, 1 with it, 4 without it
        assert most(4, 9, ratio=0.5) == 4.5
        assert most(6, 18, period=3) == 16
        assert most(30, 10, ratio=0.75) == 7.5

    @pytest.mark.parametrize(
        ("make", "says"),
        [
            (lambda: CoverEvery(UCB(), 9), "`max_unseen_epochs` 9 .* ucb, whose plan holds for 10 epochs: raise it to"),
            (lambda: CoverEvery(StaticPruning([1.0, 2.0], 0.5), 9), "9 cannot be kept with static, .* whole run"),
            (lambda: CoverEvery(UCB(), 0), "`max_unseen_epochs` of CoverEvery must be a whole .* at least 1, got 0"),
            (lambda: CoverEvery(UCB(), 2.5), "must be a whole number of at least 1, got 2.5"),
            (lambda: CoverEvery("ucb", 20), "`base` of CoverEvery must be a PruningPolicy object .*, got 'ucb'"),
            (lambda: CoverEvery(CoverEvery(UCB(), 20), 30), "CoverEvery cannot wrap ucb.*has `max_unseen_epochs` alre"),
            (lambda: ClassFloor(UCB, [0], 0.5), "`base` of ClassFloor must be a PruningPolicy object"),
            (lambda: ClassFloor(UCB(), [0], 0.0), r"`floor` of ClassFloor must be a number in \(0, 1\], got 0.0"),
            (lambda: ClassFloor(UCB(), [0.0, 1.0], 0.5), r"one whole number per sample \[N\], got dtype float64"),
            (lambda: ClassFloor(UCB(), [[0], [1]], 0.5), r"got dtype int64 of shape \(2, 1\)"),
            (lambda: ClassFloor(UCB(), [], 0.5), r"`labels` of ClassFloor .* shape \(0,\)"),
            (lambda: ClassFloor(UCB(), [-100, -1], 0.5), "a class number of at least 0, the largest is -1"),
            (lambda: ClassFloor(ClassFloor(UCB(), [0], 0.5), [0], 0.1), "which has `class_floor` already"),
        ],
    )
    def test_refusals(self, make, says):
        with pytest.raises(ValueError, match=says):
            make()


BOTH = CoverEvery(ClassFloor(InfoBatch(0.6, momentum=0.5), [0, 1, 1, 2], 0.2), 3)


class TestHandedThrough:
    def test_facts_of_the_base(self, epoch_at):
        static = ClassFloor(StaticPruning(np.arange(4.0), 0.5), [0, 1, 1, 2], 0.2)
        assert (static.period, static.reads_scores, static.unbiased, static.closed_form) == (None, False, False, True)
        assert (BOTH.period, BOTH.reads_scores, BOTH.unbiased, BOTH.closed_form) == (1, True, True, True)
        assert BOTH.reference == InfoBatch.reference
        assert BOTH.ratio_range == (0.0, 0.9)
        assert BOTH.statistics == (*InfoBatch(momentum=0.5).statistics, LastVisit())
        assert [BOTH.prunes_in(epoch_at(e)) for e in (7, 8)] == [True, False]

    def test_the_name_and_the_parameters_say_all(self):
        assert BOTH.name == "infobatch+class_floor+cover_every"
        assert str(BOTH).startswith("infobatch+class_floor+cover_every(ratio=0.6, delta=0.875, ")
        assert str(BOTH).endswith(
            f"class_floor=0.2, class_labels='{ClassLabels([0, 1, 1, 2]).digest}', " + "max_unseen_epochs=3)"
        )
        assert json.loads(json.dumps(BOTH.parameters())) == {
            **InfoBatch(0.6, momentum=0.5).parameters(),
            "class_floor": 0.2,
            "class_labels": ClassLabels(np.array([0, 1, 1, 2], np.uint8)).digest,
            "max_unseen_epochs": 3,
        }

    def test_another_ratio_is_the_base_s(self):
        changed = BOTH.with_ratio(0.3)
        assert changed.parameters() == {**BOTH.parameters(), "ratio": 0.3}
        assert changed.base.labels is BOTH.base.labels

    @pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))])
    def test_a_copy_is_equal_and_hashes_alike(self, duplicate):
        again = duplicate(BOTH)
        assert again == BOTH
        assert hash(again) == hash(BOTH)
        assert again != CoverEvery(ClassFloor(BOTH.base.base, [0, 1, 1, 1], 0.2), 3)


class TestLastVisit:
    def test_follows_visits_whatever_their_score(self):
        store = ScoreStore(4, [LastVisit()])
        store.record([0, 1, 2], [1.0, NAN, 2.0], epoch=0)
        store.end_epoch(0)
        store.record([2], [1.0], epoch=4)
        store.end_epoch(4)
        assert store.view().statistics["last_visit"].tolist() == [1, 1, 5, 0]

    def test_an_epoch_folded_in_two_parts_is_one_epoch(self):
        store = ScoreStore(3, [LastVisit()])
        for index in (0, 1):
            store.record([index], [1.0], epoch=2)
            store.end_epoch(2)
        assert store.view().statistics["last_visit"].tolist() == [3, 3, 0]

    def test_needs_the_epoch(self):
        with pytest.raises(ValueError, match="`end_epoch` needs the number of the epoch that ends"):
            ScoreStore(3, [LastVisit()]).end_epoch()
