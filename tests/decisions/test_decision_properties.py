"""Properties of plans, of the score store and of every method, over generated inputs of all sizes and magnitudes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hf_dynprune.decisions.plan import EpochInfo, PrunePlan
from hf_dynprune.decisions.policy import PruningPolicy
from hf_dynprune.decisions.registry import build_policy, get_policy, list_policies
from hf_dynprune.decisions.scores import ExponentialMean, ScoreStore, ScoreView
from hf_dynprune.methods.auto import Auto
from hf_dynprune.methods.static import StaticPruning
from hf_dynprune.testing.policies import epoch_at

NAN, INF = math.nan, math.inf
FIGURES = epoch_at(2)
EPOCH = EpochInfo(2, 10, 0.2, 5, FIGURES.past, FIGURES.proxy)  # the figures speak for choosing samples
MAX = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)


def examples(number: int) -> settings:
    return settings(max_examples=number, deadline=None, database=None, derandomize=True)


# ---- plans ----

indices = st.sets(st.integers(0, 9), min_size=1, max_size=4).map(sorted) | st.lists(st.integers(-1, 10), max_size=3)


@pytest.mark.parametrize("odd", [None, 2.5, SMALLEST, MAX, 0.0, -1.0, NAN, INF, 1e39, 1e-46])
@examples(7)
@given(kept=indices, surplus=st.sampled_from([0, 0, 0, 0, -1, 1]), num_samples=st.integers(8, 10))
def test_a_plan_accepts_exactly_what_its_contract_allows(odd, kept, surplus, num_samples):
    weight = [1.0] * (len(kept) + surplus)
    if odd is not None and weight:
        weight[-1] = odd
    rises = all(a < b for a, b in pairwise(kept))
    inside = all(0 <= index < num_samples for index in kept)
    usable = all(0 < w < 2**128 and w > SMALLEST / 2 for w in weight)  # NaN fails the comparison
    if kept and rises and inside and len(weight) == len(kept) and usable:
        plan = PrunePlan(kept, weight, num_samples)
        assert (plan.kept_indices.tolist(), plan.weights.tolist()) == (kept, np.float32(weight).tolist())
        assert not plan.kept_indices.flags.writeable
        assert not plan.weights.flags.writeable
        return
    with pytest.raises(ValueError, match="^`(kept_indices|weights)` must"):
        PrunePlan(kept, weight, num_samples)


@st.composite
def plans(draw: st.DrawFn) -> PrunePlan:
    kept = sorted(draw(st.sets(st.integers(0, 29), min_size=1)))
    usable = st.floats(SMALLEST, MAX, width=32)
    return PrunePlan(kept, draw(st.lists(usable, min_size=len(kept), max_size=len(kept))), 30)


@examples(15)
@given(plans(), st.integers(0, 29), st.integers(0, 29))
def test_the_checksum_changes_with_any_index_or_weight(plan, at, other):
    at %= plan.num_kept
    weight, kept = plan.weights.copy(), plan.kept_indices.copy()
    weight[at] = np.nextafter(weight[at], np.float32(1 if weight[at] != 1 else 2))
    assert PrunePlan(kept, weight, 30).checksum() != plan.checksum()
    assume(other not in kept)
    kept[at] = other
    assert PrunePlan(np.sort(kept), plan.weights, 30).checksum() != plan.checksum()
    longer = np.sort(np.append(plan.kept_indices, other))
    assert PrunePlan(longer, np.append(plan.weights, np.float32(1)), 30).checksum() != plan.checksum()


# ---- scores ----


class Model:
    """What a ScoreStore should do, with dictionaries."""

    def __init__(self, alpha: float) -> None:
        self.alpha = np.float32(alpha)
        self.score: dict[int, np.float32] = {}
        self.mean: dict[int, np.float32] = {}
        self.must_keep: set[int] = set()
        self.pending: dict[int, np.float32] = {}

    def end_epoch(self) -> tuple[int, list[int]]:
        bad = sorted(i for i, s in self.pending.items() if not np.isfinite(s))
        for i, s in self.pending.items():
            if i in bad:
                self.must_keep.add(i)
                continue
            self.must_keep.discard(i)
            self.mean[i] = (1 - self.alpha) * self.mean[i] + self.alpha * s if i in self.score else s
            self.score[i] = s
        recorded, self.pending = len(self.pending), {}
        return recorded, bad

    def check(self, view: ScoreView) -> None:
        n = len(view)
        assert view.seen.tolist() == [i in self.score for i in range(n)]
        assert view.must_keep.tolist() == [i in self.must_keep for i in range(n)]
        np.testing.assert_array_equal(view.score, np.float32([self.score.get(i, NAN) for i in range(n)]))
        np.testing.assert_array_equal(view.statistics["mean"], np.float32([self.mean.get(i, 0) for i in range(n)]))


scores = st.floats(width=32) | st.sampled_from([0.0, 1.0, 2.0, NAN, INF, -INF, MAX, -MAX, SMALLEST, 1e300])
batch = st.lists(st.tuples(st.integers(0, 5), scores), max_size=5)
operations = st.lists(batch | st.sampled_from(["end", "reload", "refuse"]), max_size=9)


@examples(30)
@given(operations, st.sampled_from([1.0, 0.5, 0.3, 0.01]))
def test_a_score_store_equals_a_dictionary_and_its_state_has_the_same_future(operations, alpha):
    model, statistics = Model(alpha), (ExponentialMean(alpha),)
    store, reloaded = ScoreStore(6, statistics), ScoreStore(6, statistics)
    for number, operation in enumerate([*operations, "reload", "end"]):
        if operation == "end":
            summary, again = store.end_epoch(), reloaded.end_epoch()
            assert (summary.recorded, summary.nonfinite.tolist()) == model.end_epoch()
            assert (again.recorded, again.nonfinite.tolist()) == (summary.recorded, summary.nonfinite.tolist())
        elif operation == "reload":
            state = {name: array.copy() for name, array in reloaded.state_dict().items()}
            reloaded = ScoreStore(6, statistics)
            reloaded.record([3], [9.0], epoch=0)  # replaced by what is loaded
            reloaded.load_state_dict(state)
        elif operation == "refuse":
            with pytest.raises(ValueError, match=r"must lie in \[0, 6\)"):
                store.record([0, 6], [1.0, 1.0], epoch=number)
        else:
            for each in (store, reloaded):
                each.record([i for i, _ in operation], [s for _, s in operation], epoch=number)
            with np.errstate(over="ignore"):
                model.pending |= {i: np.float32(s) for i, s in operation}
        model.check(store.view())
        assert reloaded.checksum() == store.checksum()


# ---- methods ----

shares = st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, 1e-12, 0.3, 0.5, 0.999, 1 - 1e-12, 1 - 2**-53])
positive = st.floats(1e-6, 1) | st.sampled_from([float(np.finfo(np.float32).tiny), 1e-12, 0.25, 0.5, 1.0])
deltas = st.sampled_from([0.875, 1.0, 1.0, 0.0])


@st.composite
def quantile_rules(draw: st.DrawFn) -> dict[str, Any]:
    cut = st.floats(0.01, 99.99) | st.sampled_from([1e-9, 20.0, 50.0, 85.0, 100 - 1e-9])
    cuts = sorted(draw(st.sets(cut, min_size=1, max_size=4)))
    return {"percentiles": cuts, "keep_ratios": draw(st.lists(positive, min_size=len(cuts), max_size=len(cuts)))}


coin = st.sampled_from(["count", "count", "bernoulli"])
momenta = st.sampled_from([1.0, 1.0, 0.3])
both = {"delta": deltas, "exact_weights": st.booleans(), "momentum": momenta}
CONFIGURED: dict[str, list[st.SearchStrategy[dict[str, Any]]]] = {
    "infobatch": [
        st.fixed_dictionaries({"ratio": shares, "draw": coin, **both}),
        st.builds(dict, quantile_rules(), draw=coin, delta=deltas, exact_weights=st.booleans(), momentum=momenta),
    ],
    "orderdp": [
        st.fixed_dictionaries({"pool_ratio": positive, "top_ratio": positive, "delta": deltas}),
        st.fixed_dictionaries(
            {
                "pool_ratio": positive,
                "top_ratio": positive,
                "weighting": st.just("ipw"),
                "max_weight": st.floats(1, 1e30) | st.sampled_from([1.0, 10.0]),
            }
        ),
    ],
    "epsilon_greedy": [st.fixed_dictionaries({"ratio": shares, "epsilon": st.floats(0, 1)})],
    "ucb": [st.fixed_dictionaries({"ratio": shares, "c": st.sampled_from([0.0, 1.0, 1e30]) | st.floats(0, 100)})],
    "random": [st.fixed_dictionaries({"ratio": shares, "rescale": st.booleans()})],
    "auto": [
        st.fixed_dictionaries({"floor": st.floats(1e-6, 1), "gate": st.sampled_from([0.0, 0.7]), "least": positive})
    ],
}


def configured(name: str) -> list[st.SearchStrategy[PruningPolicy]]:
    """The method with all kinds of parameters, rule by rule; one that is not listed above with its defaults."""
    required = [f.name for f in dataclasses.fields(get_policy(name)) if f.default is dataclasses.MISSING]
    default = st.just({"ratio": 0.4} if "ratio" in required else {})
    return [rule.map(lambda given: build_policy(name, None, given)) for rule in CONFIGURED.get(name, [default])]


def brings_scores(name: str) -> bool:
    """Whether a policy of this name is made for one data set only; such are tested apart, below."""
    return any(field.name == "scores" for field in dataclasses.fields(get_policy(name)))


NAMES = [name for name in list_policies() if not brings_scores(name)]
RULES = {f"{name}-{number}": rule for name in NAMES for number, rule in enumerate(configured(name))}

VALUES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "ties": lambda rng, n: rng.choice([0.5, 1.0, 2.0], n),
    "equal": lambda rng, n: np.full(n, rng.choice([0.0, 0.1, SMALLEST])),
    "largest": lambda rng, n: np.full(n, MAX),
    "distinct": lambda rng, n: rng.permutation(n) / 8,
    "tiny and huge": lambda rng, n: 10.0 ** rng.uniform(-38, 38, n) * rng.choice([1, -1], n),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A score view by the numbers it is made from."""

    kind: str
    size: int
    unseen: float
    must_keep: float
    seed: int

    def view(self) -> ScoreView:
        rng = np.random.default_rng(self.seed)
        score, smooth, variance = (VALUES[self.kind](rng, self.size).astype(np.float32) for _ in range(3))
        seen = rng.random(self.size) >= self.unseen
        score[~seen], smooth[~seen], variance[~seen] = NAN, 0, 0
        statistics = {"mean": smooth, "variance": np.abs(variance)}
        return ScoreView(score, seen, rng.random(self.size) < self.must_keep, statistics)


gaps = st.sampled_from([0.0, 0.0, 0.1, 0.2, 0.9, 1.0])
seeds = st.integers(0, 2**32)
sizes = st.sampled_from([1, 2, 3]) | st.integers(1, 200)
over_rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())


def taken(view: ScoreView, positions: np.ndarray) -> ScoreView:
    statistics = {name: array[positions] for name, array in view.statistics.items()}
    return ScoreView(view.score[positions], view.seen[positions], view.must_keep[positions], statistics)


def as_bytes(view: ScoreView) -> list[bytes]:
    return [array.tobytes() for array in (view.score, view.seen, view.must_keep, *view.statistics.values())]


def plan_of(policy: PruningPolicy, view: ScoreView, seed: int) -> PrunePlan:
    return policy.plan(view, EPOCH, np.random.default_rng(seed))


def check(policy: PruningPolicy, view: ScoreView, seed: int) -> None:
    before, scored = as_bytes(view), view.seen & ~view.must_keep
    plan, p = plan_of(policy, view, seed), policy.inclusion_probability(view, EPOCH)
    assert plan.num_samples == len(view) == len(p)
    assert plan.checksum() == plan_of(policy, view, seed).checksum()
    assert as_bytes(view) == before
    assert ((p >= 0) & (p <= 1)).all()
    assert (p[plan.kept_indices] > 0).all()
    assert policy.prunes_in(EPOCH) or (plan.is_full and (plan.weights == 1).all() and (p == 1).all())
    if policy.reads_scores:
        assert (p[~scored] == 1).all()
        assert np.isin(np.flatnonzero(~scored), plan.kept_indices).all()
        # auto keeps the scale of the full data: it weighs what is kept for certain by the share that is kept.
        certain = np.float32(p.sum() / len(p)) if isinstance(policy, Auto) else 1
        assert (plan.weights[~scored[plan.kept_indices]] == certain).all()
    if policy.unbiased:
        assert (p > 0).all()
        np.testing.assert_allclose(plan.weights * p[plan.kept_indices], 1, rtol=2**-23)
    if policy.closed_form and policy.parameters().get("draw") != "bernoulli":
        assert p.sum() == pytest.approx(plan.num_kept, abs=1e-9 * len(view))


@over_rules
@pytest.mark.parametrize("kind", VALUES)
@examples(5)
@given(data=st.data(), size=sizes, unseen=gaps, must_keep=gaps, seed=seeds)
def test_every_plan_keeps_what_the_method_promises(rule, kind, data, size, unseen, must_keep, seed):
    check(data.draw(rule), Case(kind, size, unseen, must_keep, seed).view(), seed)


@pytest.mark.parametrize("keep_ratio", [1.1e-38, 5e-324])
def test_a_keep_ratio_whose_weight_is_no_float32_is_refused_at_once(keep_ratio):
    with pytest.raises(ValueError, match=r"`keep_ratios` of InfoBatch must not be so small .*float32, got \(0\.5, "):
        build_policy("infobatch", None, {"percentiles": [20, 85], "keep_ratios": [0.5, keep_ratio]})


@over_rules
@examples(2)
@given(data=st.data(), kind=st.sampled_from(["ties", "distinct"]), unseen=st.sampled_from([0.9999, 0.5]), seed=seeds)
def test_so_does_one_of_many_samples_of_which_few_are_scored(rule, data, kind, unseen, seed):
    check(data.draw(rule), Case(kind, 200_000, unseen, 0.01, seed).view(), seed)


class PermutedLots:
    """Each sample's lots, for data in another order. Methods draw by lot, one number per sample (`draws.py`)."""

    def __init__(self, seed: int | np.random.Generator, positions: np.ndarray) -> None:
        self.rng, self.positions = np.random.default_rng(seed), positions

    def random(self, n: int | None = None) -> np.ndarray | float:
        return self.rng.random() if n is None else self.rng.random(n)[self.positions]

    def integers(self, low: int, high: int, size: int, dtype: type, endpoint: bool) -> np.ndarray:
        keys = self.rng.integers(low, high, size, dtype, endpoint=endpoint)
        if size == len(self.positions) > 1:  # of a random order; lots come two in a number
            return keys[self.positions]
        lots = keys.view(np.uint32)
        lots[: len(self.positions)] = lots[self.positions]
        return lots.view(np.uint64)

    def spawn(self, n: int) -> list[PermutedLots]:
        return [PermutedLots(child, self.positions) for child in self.rng.spawn(n)]


@over_rules
@pytest.mark.parametrize("kind", ["ties", "equal", "distinct"])  # a mean over all magnitudes depends on their order
@examples(5)
@given(data=st.data(), size=st.integers(2, 60), seed=seeds)
def test_a_samples_position_in_the_data_does_not_matter(rule, kind, data, size, seed):
    policy, view = data.draw(rule), Case(kind, size, 0.1, 0.1, seed).view()
    positions = np.random.default_rng(seed).permutation(len(view))
    p = policy.inclusion_probability(view, EPOCH)
    np.testing.assert_allclose(policy.inclusion_probability(taken(view, positions), EPOCH), p[positions], atol=1e-12)
    plan = plan_of(policy, view, seed)
    moved = policy.plan(taken(view, positions), EPOCH, PermutedLots(seed, positions))
    there = np.argsort(positions[moved.kept_indices])
    assert positions[moved.kept_indices][there].tolist() == plan.kept_indices.tolist()
    np.testing.assert_allclose(moved.weights[there], plan.weights, rtol=1e-6)


@pytest.mark.parametrize("kind", VALUES)
@examples(5)
@given(
    policy=RULES["orderdp-0"] | RULES["infobatch-1"] | RULES["epsilon_greedy-0"] | RULES["ucb-0"],
    size=sizes,
    unseen=gaps,
    seed=seeds,
    value=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
def test_a_choice_by_rank_hardly_moves_with_one_score(kind, policy, size, unseen, seed, value):
    # Any other score, also across ties: it changes sides, and at each cut at most one other sample makes way.
    view = Case(kind, size, unseen, 0.1, seed).view()
    at = seed % len(view)
    kept = set(plan_of(policy, view, seed).kept_indices.tolist())
    if view.scored[at]:
        view.score[at] = view.statistics["mean"][at] = value
        view.statistics["variance"][at] = abs(value)
    cuts = len(policy.parameters().get("percentiles") or [0])
    assert len(kept ^ set(plan_of(policy, view, seed).kept_indices.tolist())) <= 2 * cuts + 2


@over_rules
@examples(8)
@given(data=st.data(), size=st.integers(2, 200), seed=seeds)
def test_any_choice_hardly_moves_with_a_scores_last_bit(rule, data, size, seed):
    policy, view = data.draw(rule), Case("distinct", size, 0.1, 0.1, seed).view()
    kept = set(plan_of(policy, view, seed).kept_indices.tolist())
    for array in (view.score, *view.statistics.values()):
        array[seed % size] = np.nextafter(array[seed % size], np.float32(INF))
    # The two more: a sample at the mean exactly falls below it.
    cuts = len(policy.parameters().get("percentiles") or [0])
    assert len(kept ^ set(plan_of(policy, view, seed).kept_indices.tolist())) <= 2 * cuts + 2


@pytest.mark.parametrize("kind", VALUES)
@examples(10)
@given(ratio=shares, keep=st.sampled_from(["highest", "lowest"]), size=sizes, seed=seeds)
def test_static_scores_are_chosen_from_by_value_alone(kind, ratio, keep, size, seed):
    view = Case(kind, size, 0.5, 0.1, seed).view()  # what training saw does not matter
    scores = VALUES[kind](np.random.default_rng(seed), size)
    policy = StaticPruning(scores, ratio, keep)
    check(policy, view, seed)
    kept = np.zeros(size, bool)
    kept[plan_of(policy, view, seed).kept_indices] = True
    sign = 1 if keep == "highest" else -1
    pruned = sign * policy.stored.score[~kept]
    assert not pruned.size or pruned.max() <= (sign * policy.stored.score[kept]).min()
    positions = np.random.default_rng(seed).permutation(size)
    moved = StaticPruning(scores[positions], ratio, keep).plan(view, EPOCH, PermutedLots(seed, positions))
    assert sorted(positions[moved.kept_indices]) == np.flatnonzero(kept).tolist()
