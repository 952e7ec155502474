"""ScoreStore: when scores become visible, which ones count, what is refused, and the round trip of its state."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_dynprune.decisions.chunks import CHUNK
from hf_dynprune.decisions.scores import ExponentialMean, ExponentialMoments, ScoreStore, Statistic

NAN, INF = float("nan"), float("inf")
light = settings(max_examples=15, deadline=None, database=None)


def store_with(
    *epochs: dict[int, float], num_samples: int = 4, alpha: float | None = None, kind: type = ExponentialMean
) -> ScoreStore:
    statistics: tuple[Statistic, ...] = () if alpha is None else (kind(alpha),)
    store = ScoreStore(num_samples, statistics)
    for epoch, scores in enumerate(epochs):
        store.record(list(scores), list(scores.values()), epoch)
        store.end_epoch()
    return store


class TestRecording:
    def test_scores_are_invisible_until_the_epoch_ends(self):
        store = store_with({0: 1.0})
        store.record([0, 1], [5.0, 6.0], epoch=1)
        assert store.view().score[0] == 1.0
        assert store.view().seen.tolist() == [True, False, False, False]
        store.end_epoch()
        assert store.view().score[:2].tolist() == [5.0, 6.0]
        assert store.view().seen.tolist() == [True, True, False, False]

    def test_an_epoch_end_takes_in_each_score_once(self):
        store = store_with({0: 1.0}, alpha=0.5)
        store.record([0], [3.0], epoch=1)
        store.end_epoch()
        assert store.end_epoch().recorded == 0
        assert store.view().statistics["mean"][0] == 2.0

    def test_samples_not_visited_keep_their_score(self):
        assert store_with({0: 1.0, 1: 2.0}, {1: 7.0}).view().score[:2].tolist() == [1.0, 7.0]

    def test_an_unseen_sample_has_no_score(self):
        view = store_with({0: 1.0}).view()
        assert np.isnan(view.score[1:]).all()
        assert view.scored.tolist() == [True, False, False, False]

    def test_of_several_scores_of_a_sample_the_last_one_counts(self):
        store = store_with({0: 4.0}, alpha=0.5)
        store.record([0, 1, 0], [1.0, 2.0, 3.0], epoch=1)
        store.record([1, 0], [5.0, 8.0], epoch=1)
        assert store.end_epoch().recorded == 2
        assert store.view().score[:2].tolist() == [8.0, 5.0]
        assert store.view().statistics["mean"][:2].tolist() == [6.0, 5.0]  # folded once: (4 + 8) / 2

    def test_the_callers_arrays_are_neither_changed_nor_kept(self):
        store, index, score = ScoreStore(4), np.array([1, 2]), np.array([0.5, 0.6])
        store.record(index, score, epoch=0)
        index[:] = 0
        score[:] = 9.0
        store.end_epoch()
        assert store.view().score[1:3].tolist() == [np.float32(0.5), np.float32(0.6)]

    def test_an_empty_batch_is_accepted(self):
        store = ScoreStore(4)
        store.record([], [], epoch=0)
        assert store.end_epoch().recorded == 0

    def test_the_pending_scores_come_in_the_order_of_recording(self):
        store = ScoreStore(4)
        store.record([3, 1], [0.3, 0.1], epoch=0)
        store.record([2], [0.2], epoch=0)
        index, score = store.pending()
        assert index.tolist() == [3, 1, 2]
        assert score.tolist() == [np.float32(0.3), np.float32(0.1), np.float32(0.2)]
        assert (index.dtype, score.dtype) == (np.int32, np.float32)

    @pytest.mark.parametrize("visits", [CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
    def test_of_many_scores_the_last_of_each_sample_counts_once(self, visits):
        size, rng = CHUNK + 5, np.random.default_rng(visits)
        index, score = rng.integers(0, size, visits), rng.choice([0.5, 2.0, 7.0, NAN, INF], visits).astype(np.float32)
        store = ScoreStore(size, (ExponentialMean(0.5),))
        store.record(np.arange(size), np.ones(size), epoch=0)
        store.end_epoch()
        store.record(index, score, epoch=1)
        summary = store.end_epoch()
        last = dict(zip(index.tolist(), score.tolist(), strict=True))
        finite = {i: s for i, s in last.items() if np.isfinite(s)}
        expected = np.ones(size, np.float32)
        expected[list(finite)] = list(finite.values())
        np.testing.assert_array_equal(store.view().score, expected)
        np.testing.assert_array_equal(store.view().statistics["mean"], (1 + expected) / 2)
        assert summary.nonfinite.tolist() == sorted(set(last) - set(finite))
        assert np.flatnonzero(store.view().must_keep).tolist() == summary.nonfinite.tolist()
        assert summary.recorded == len(last)

    def test_the_pending_scores_are_none_of_the_callers_arrays(self):
        store, index, score = ScoreStore(4), np.array([1, 2], np.int32), np.array([1, 2], np.float32)
        store.record(index, score, epoch=0)
        index[:], score[:] = 3, 9
        assert [array.tolist() for array in store.pending()] == [[1, 2], [1, 2]]


class TestNonfinite:
    @pytest.mark.parametrize("bad", [NAN, INF, -INF, 1e300])
    def test_is_refused_counted_and_makes_the_sample_must_keep(self, bad):
        store = store_with({0: 1.0, 1: 2.0})
        store.record([1, 0, 2], [7.0, bad, bad], epoch=1)
        summary = store.end_epoch()
        view = store.view()
        assert (summary.recorded, summary.nonfinite.tolist()) == (3, [0, 2])
        assert view.score[:2].tolist() == [1.0, 7.0]
        assert view.must_keep.tolist() == [True, False, True, False]
        assert view.seen.tolist() == [True, True, False, False]
        assert view.scored.tolist() == [False, True, False, False]

    def test_must_keep_lasts_until_a_finite_score(self):
        store = store_with({0: 1.0}, {0: NAN}, {1: 2.0})
        assert store.view().must_keep[0]
        store.record([0], [3.0], epoch=3)
        store.end_epoch()
        assert not store.view().must_keep[0]
        assert store.view().score[0] == 3.0

    def test_does_not_reach_the_statistics(self):
        assert store_with({0: 1.0}, {0: INF}, {0: 3.0}, alpha=0.5).view().statistics["mean"][0] == 2.0

    def test_a_sample_first_seen_as_nonfinite_starts_at_its_first_finite_score(self):
        assert store_with({0: NAN}, {0: 3.0}, alpha=0.5).view().statistics["mean"][0] == 3.0

    @light
    @given(
        st.lists(
            st.tuples(st.integers(0, 3), st.one_of(st.floats(width=32), st.sampled_from([NAN, INF, -INF]))), max_size=12
        )
    )
    def test_never_gets_into_a_score(self, visits):
        store = ScoreStore(4)
        for epoch, (index, score) in enumerate(visits):
            store.record([index], [score], epoch)
            store.end_epoch()
        view = store.view()
        assert np.isfinite(view.score[view.seen]).all()
        assert np.isnan(view.score[~view.seen]).all()


class TestRefusals:
    @pytest.mark.parametrize(
        ("indices", "scores", "message"),
        [
            ([0.0, 1.0], [1, 1], r"`indices` recorded in epoch 3 must be integers, got dtype float64"),
            (np.array([0], np.float32), [1], r"must be integers, got dtype float32"),
            ([True], [1], r"must be integers, got dtype bool"),
            ([-1, 1], [1, 1], r"epoch 3 must lie in \[0, 4\), got -1"),
            ([0, 4], [1, 1], r"epoch 3 must lie in \[0, 4\), got 4"),
            ([0, 1], [1], r"must be \[B\] each, got \(2,\) and \(1,\)"),
            ([0, 1], [[1], [1]], r"must be \[B\] each, got \(2,\) and \(2, 1\)"),
            ([[0], [1]], [[1], [1]], r"must be \[B\] each, got \(2, 1\) and \(2, 1\)"),
            (0, 1.0, r"must be \[B\] each, got \(\) and \(\)"),
        ],
    )
    def test_a_wrong_batch_is_refused_with_its_epoch(self, indices, scores, message):
        store = ScoreStore(4)
        with pytest.raises(ValueError, match=message):
            store.record(indices, scores, epoch=3)
        assert len(store.pending()[0]) == 0

    @pytest.mark.parametrize("num_samples", [0, -1])
    def test_a_store_of_no_samples_is_refused(self, num_samples):
        with pytest.raises(ValueError, match=f"`num_samples` must be at least 1, got {num_samples}"):
            ScoreStore(num_samples)


class TestView:
    @pytest.mark.parametrize("field", ["score", "seen", "must_keep"])
    def test_its_arrays_cannot_be_written(self, field):
        with pytest.raises(ValueError, match="read-only"):
            getattr(store_with({0: 1.0}).view(), field)[0] = 0

    def test_its_statistics_cannot_be_written(self):
        view = store_with({0: 1.0}, alpha=0.5).view()
        with pytest.raises(ValueError, match="read-only"):
            view.statistics["mean"][0] = 0
        with pytest.raises(TypeError):
            view.statistics["mean"] = view.score

    def test_shapes_and_dtypes(self):
        view = store_with({0: 1.0}, alpha=0.5).view()
        arrays = [view.score, view.seen, view.must_keep, view.scored, view.statistics["mean"]]
        assert [array.dtype for array in arrays] == [np.float32, bool, bool, bool, np.float32]
        assert {array.shape for array in arrays} == {(4,)}
        assert len(view) == 4


class TestExponentialMean:
    def test_by_hand(self):
        store = store_with({0: 4.0}, {0: 8.0, 1: 1.0}, {0: 0.0}, alpha=0.25)
        # 4; 0.75 * 4 + 0.25 * 8 = 5; 0.75 * 5 + 0.25 * 0 = 3.75. The first score is taken as it is.
        assert store.view().statistics["mean"][:2].tolist() == [3.75, 1.0]

    def test_alpha_one_is_the_last_score(self):
        store = store_with({0: 4.0}, {0: 8.5}, alpha=1.0)
        assert store.view().statistics["mean"][0] == 8.5

    def test_a_first_score_of_zero_is_not_taken_for_no_score(self):
        assert store_with({0: 0.0}, {0: 8.0}, alpha=0.25).view().statistics["mean"][0] == 2.0

    def test_does_not_change_the_state_it_is_given(self):
        state, score = np.array([1.0], np.float32), np.array([3.0], np.float32)
        (new,) = ExponentialMean(0.5).update([state], score, np.array([False]))
        assert (state[0], score[0], new[0], new.dtype) == (1.0, 3.0, 2.0, np.float32)


class TestExponentialMoments:
    def test_by_hand(self):
        view = store_with({0: 4.0}, {0: 8.0, 1: 1.0}, {0: 0.0}, alpha=0.5, kind=ExponentialMoments).view()
        # mean 4, 6, 3; variance 0, (8 - 4)^2 / 2 = 8, 8 / 2 + (0 - 6)^2 / 2 = 22: each from the mean before the score.
        assert view.statistics["mean"][:2].tolist() == [3.0, 1.0]
        assert view.statistics["variance"][:2].tolist() == [22.0, 0.0]

    def test_a_share_that_is_not_one_half_by_hand(self):
        view = store_with({0: 1.0}, {0: 2.0}, {0: 3.2}, alpha=0.8, kind=ExponentialMoments).view()
        # mean 1, 1.8; variance 0.8 * 1^2 = 0.8, then 0.2 * 0.8 + 0.8 * (3.2 - 1.8)^2 = 1.728 and mean 2.92.
        assert view.statistics["mean"][0] == pytest.approx(2.92)
        assert view.statistics["variance"][0] == pytest.approx(1.728)

    def test_the_mean_is_the_exponential_mean_to_the_bit(self):
        epochs = [dict(enumerate(row)) for row in np.random.default_rng(0).gamma(2.0, size=(5, 4))]
        means = [
            store_with(*epochs, alpha=0.3, kind=kind).view().statistics["mean"].tobytes()
            for kind in (ExponentialMean, ExponentialMoments)
        ]
        assert means[0] == means[1]

    def test_a_variance_beyond_float32_stays_finite(self):
        view = store_with({0: 3e38}, {0: -3e38}, alpha=0.5, kind=ExponentialMoments).view()
        assert view.statistics["variance"][0] == np.finfo(np.float32).max

    def test_all_its_arrays_are_saved_and_restored(self):
        store = store_with({0: 4.0}, {0: 8.0}, alpha=0.5, kind=ExponentialMoments)
        again = ScoreStore(4, (ExponentialMoments(0.5),))
        again.load_state_dict(saved(store))
        assert {"statistic.mean", "statistic.variance"} < set(as_bytes(store))
        assert as_bytes(again) == as_bytes(store)
        with pytest.raises(ValueError, match=r"lack `statistic\.variance`"):
            again.load_state_dict(saved(store_with({0: 4.0}, alpha=0.5)))

    def test_two_statistics_of_one_name_are_refused(self):
        with pytest.raises(ValueError, match="must have different names, got 'mean' twice"):
            ScoreStore(4, (ExponentialMean(0.5), ExponentialMoments(0.5)))


def busy_store() -> ScoreStore:
    """In the middle of an epoch: folded and pending scores, non-finite ones among both, one sample twice."""
    store = store_with({0: 1.0, 1: NAN, 2: 0.3}, {2: INF, 3: -0.0}, alpha=0.3)
    store.record([3, 0, 3], [0.1, NAN, 0.7], epoch=2)
    store.record([1], [INF], epoch=2)
    return store


def saved(store: ScoreStore) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in store.state_dict().items()}


def as_bytes(store: ScoreStore) -> dict[str, tuple]:
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in store.state_dict().items()}


class TestState:
    def test_round_trip_in_the_middle_of_an_epoch_is_exact_to_the_bit(self):
        store, again = busy_store(), ScoreStore(4, (ExponentialMean(0.3),))
        again.load_state_dict(saved(store))
        assert as_bytes(again) == as_bytes(store)

    def test_a_restored_store_goes_on_like_the_one_that_never_stopped(self):
        store, again = busy_store(), ScoreStore(4, (ExponentialMean(0.3),))
        again.load_state_dict(saved(store))
        for each in (store, again):
            each.record([2, 0], [0.9, 0.2], epoch=2)
        assert again.end_epoch().nonfinite.tolist() == store.end_epoch().nonfinite.tolist() == [1]
        assert as_bytes(again) == as_bytes(store)

    def test_loading_replaces_what_was_there(self):
        again = store_with({0: 9.0, 1: 9.0, 2: 9.0, 3: 9.0}, alpha=0.3)
        again.record([0], [9.0], epoch=1)
        again.load_state_dict(saved(ScoreStore(4, (ExponentialMean(0.3),))))
        assert as_bytes(again) == as_bytes(ScoreStore(4, (ExponentialMean(0.3),)))

    def test_the_loaded_arrays_are_not_shared(self):
        state, again = saved(busy_store()), ScoreStore(4, (ExponentialMean(0.3),))
        again.load_state_dict(state)
        before = as_bytes(again)
        for array in state.values():
            array[:] = 0
        assert as_bytes(again) == before

    @pytest.mark.parametrize("name", ["score", "seen", "must_keep", "pending_index", "pending_score", "statistic.mean"])
    def test_a_missing_array_is_named(self, name):
        state = saved(busy_store())
        del state[name]
        with pytest.raises(ValueError, match=f"lack `{name}`"):
            ScoreStore(4, (ExponentialMean(0.3),)).load_state_dict(state)

    @pytest.mark.parametrize("name", ["score", "seen", "must_keep", "statistic.mean"])
    @pytest.mark.parametrize("wrong", [lambda a: a[:-1], lambda a: np.append(a, a[:1]), lambda a: a[:, None]])
    def test_a_wrong_shape_is_named(self, name, wrong):
        state = saved(busy_store())
        state[name] = wrong(state[name])
        with pytest.raises(ValueError, match=rf"`{name}` must be \w+ of shape \(4,\), got .*\("):
            ScoreStore(4, (ExponentialMean(0.3),)).load_state_dict(state)

    @pytest.mark.parametrize("name", ["pending_index", "pending_score"])
    def test_pending_arrays_of_different_length_are_named(self, name):
        state = saved(busy_store())
        state[name] = state[name][:-1]
        with pytest.raises(ValueError, match=r"`pending_index` and `pending_score` must be equally long, got \("):
            ScoreStore(4, (ExponentialMean(0.3),)).load_state_dict(state)

    @pytest.mark.parametrize("name", ["score", "seen", "must_keep", "pending_index", "pending_score", "statistic.mean"])
    def test_a_wrong_dtype_is_named(self, name):
        state = saved(busy_store())
        state[name] = state[name].astype(np.float64)
        with pytest.raises(ValueError, match=rf"`{name}` must be .*, got float64"):
            ScoreStore(4, (ExponentialMean(0.3),)).load_state_dict(state)

    def test_what_is_refused_changes_nothing_folded(self):
        again, state = store_with({0: 9.0}, alpha=0.3), saved(busy_store())
        state["pending_index"][0] = 4
        before = again.view().score.tobytes()
        with pytest.raises(ValueError, match="got 4"):
            again.load_state_dict(state)
        assert again.view().score.tobytes() == before

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda store: pickle.loads(pickle.dumps(store))])
    def test_a_store_can_be_copied_and_pickled(self, duplicate):
        assert as_bytes(duplicate(busy_store())) == as_bytes(busy_store())
