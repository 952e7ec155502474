"""What every registered policy promises, whatever its rule. A new method is tested here without being named.

Most of it is what `hf_dynprune.testing` holds any policy to; what is here alone is asked of the package's own.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_dynprune.decisions.plan import EpochInfo
from hf_dynprune.decisions.policy import PruningPolicy
from hf_dynprune.decisions.registry import build_policy, get_policy, list_policies
from hf_dynprune.decisions.scores import ScoreView
from hf_dynprune.methods.epsilon_greedy import EpsilonGreedy
from hf_dynprune.methods.infobatch import InfoBatch
from hf_dynprune.methods.orderdp import OrderDP
from hf_dynprune.methods.random import RandomPruning
from hf_dynprune.records.score_file import StaticScores
from hf_dynprune.testing import check_policy
from hf_dynprune.testing.plans import check_plan
from hf_dynprune.testing.views import view_of

RATIO = 0.4
FOLDER = tempfile.TemporaryDirectory()
OWN = np.arange(40, dtype=np.float32) % 7
SCORES = str(StaticScores(OWN, OWN[None], {"method": "by hand"}).save(f"{FOLDER.name}/scores.safetensors"))
"""For policies that bring scores of their own: those of 40 samples, the size of most views below."""
NAN, INF = math.nan, math.inf


def default(name: str) -> PruningPolicy:
    fields = dataclasses.fields(get_policy(name))
    required = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    given = {"ratio": RATIO, "scores": SCORES}
    return build_policy(name, None, {key: given[key] for key in required})


def fitted(policy: PruningPolicy, n: int) -> PruningPolicy:
    """The policy, or, where it brings scores of its own, one with n of them, among which are ties."""
    if "scores" not in policy.parameters():
        return policy
    return dataclasses.replace(policy, scores=np.arange(n) % 5, digest=None)


QUANTILES = {"percentiles": (20, 85), "keep_ratios": (0.25, 0.5)}
POLICIES = {name: default(name) for name in list_policies()} | {
    "random-extreme-rescale": RandomPruning(0.99, rescale=True),
    "infobatch-paper_weights": InfoBatch(0.7, exact_weights=False),
    "infobatch-bernoulli": InfoBatch(draw="bernoulli"),
    "infobatch-smoothed": InfoBatch(momentum=0.5),
    "infobatch-quantile": InfoBatch(**QUANTILES),
    "infobatch-quantile-paper_weights": InfoBatch(**QUANTILES, exact_weights=False),
    "infobatch-quantile-bernoulli": InfoBatch(**QUANTILES, draw="bernoulli"),
    "orderdp-half_pool": OrderDP(pool_ratio=0.5, top_ratio=0.6),
    "orderdp-whole_pool": OrderDP(pool_ratio=1.0, top_ratio=0.5),
    "orderdp-uniform-annealed": OrderDP(pool_ratio=0.7, top_ratio=1.0, delta=0.5),
    "orderdp-ipw": OrderDP(pool_ratio=0.75, top_ratio=0.8, weighting="ipw", max_weight=2),
    "epsilon_greedy-half_explored": EpsilonGreedy(0.7, epsilon=0.5, period=1),
}


def over(policies: dict[str, PruningPolicy]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("policy", policies.values(), ids=policies.keys())


def where(fact: str) -> dict[str, PruningPolicy]:
    return {name: policy for name, policy in POLICIES.items() if getattr(policy, fact)}


def kept_set(policy: PruningPolicy, view: ScoreView, epoch: EpochInfo, seed: int) -> set[int]:
    return set(policy.plan(view, epoch, np.random.default_rng(seed)).kept_indices.tolist())


def draws_by_coin(policy: PruningPolicy) -> bool:
    return policy.parameters().get("draw") == "bernoulli"


# Ties are likely: most values come from a short list, next to each other in float32 or far apart.
finite = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, float(np.nextafter(np.float32(1), np.float32(2))), 2.0, 3.4e38, 1e-45]),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)
nonfinite = st.sampled_from([NAN, INF, -INF])
twice = st.tuples(finite, st.one_of(finite, nonfinite))
visits = st.one_of(st.none(), finite, finite, finite, nonfinite, twice)
all_equal = st.builds(lambda value, n: [value] * n, finite, st.integers(1, 24))
samples = st.one_of(st.lists(visits, min_size=1, max_size=24), all_equal)
seeds = st.integers(0, 2**32)
light = settings(max_examples=6, deadline=None, database=None)


@over(POLICIES)
class TestFacts:
    def test_the_class_is_registered_under_its_own_name(self, policy):
        assert get_policy(policy.name) is type(policy)

    def test_the_reference_says_where_the_rule_comes_from(self, policy):
        assert len(policy.reference) > 10

    def test_no_field_can_be_set(self, policy):
        for name in [*policy.parameters(), "new_attribute"]:
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(policy, name, 0)

    def test_parameters_survive_json(self, policy):
        parameters = json.loads(json.dumps(policy.parameters()))
        assert build_policy(policy.name, parameters=parameters) == policy

    @pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))])
    def test_a_copy_is_equal_and_hashes_alike(self, policy, duplicate):
        again = duplicate(policy)
        assert type(again) is type(policy)
        assert again == policy
        assert hash(again) == hash(policy)

    def test_with_ratio_changes_one_parameter_or_refuses(self, policy):
        if policy.max_ratio == 0 or policy.needs_steps or getattr(policy, "percentiles", None):
            with pytest.raises(ValueError, match=r"got .*0\.6"):
                policy.with_ratio(0.6)
            return
        changed = policy.with_ratio(0.6)
        before, after = policy.parameters(), changed.parameters()
        assert changed.max_ratio == pytest.approx(0.6)
        assert sum(before[key] != after[key] for key in before) == 1


# Many draws of the default of each method; other ways to draw are simulated in `test_methods_heavy.py`.
@pytest.mark.parametrize("name", POLICIES)
def test_holds_to_the_contract(name):
    policy, draws = POLICIES[name], 1500 if name in list_policies() else 200
    check_policy(policy, num_samples=40 if "scores" in policy.parameters() else None, draws=draws)


@over(POLICIES)
class TestPlan:
    @light
    @given(samples=samples, seed=seeds)
    def test_holds_to_the_contract_for_any_scores(self, policy, samples, seed, epoch_at):
        policy = fitted(policy, len(samples))
        check_plan(policy, view_of(samples, policy.statistics), epoch_at(2), seed, f"for {samples}")

    @light
    @given(samples=samples, seed=seeds)
    def test_keeps_as_many_as_the_probabilities_add_up_to(self, policy, samples, seed, epoch_at):
        policy = fitted(policy, len(samples))
        view = view_of(samples, policy.statistics)
        plan = policy.plan(view, epoch_at(2), np.random.default_rng(seed))
        p = policy.inclusion_probability(view, epoch_at(2))
        if policy.closed_form and not draws_by_coin(policy):
            assert p.sum() == pytest.approx(plan.num_kept, abs=1e-9 * len(samples))

    def test_prunes_exactly_in_the_epochs_it_says(self, policy, epoch_at):
        view, epochs = view_of(np.arange(40.0), policy.statistics), [epoch_at(e) for e in range(10)]
        full = [policy.plan(view, epoch, np.random.default_rng(0)).is_full for epoch in epochs]
        assert full == [not policy.prunes_in(epoch) for epoch in epochs]

    def test_hardly_moves_with_the_last_bit_of_one_score(self, policy, epoch_at):
        scores = np.random.default_rng(0).gamma(2.0, size=200).astype(np.float32)
        policy = fitted(policy, 200)
        kept = kept_set(policy, view_of(scores, policy.statistics), epoch_at(2), seed=1)
        for sample in range(0, 200, 25):
            nudged = scores.copy()
            nudged[sample] = np.nextafter(nudged[sample], np.float32(np.inf))
            assert len(kept ^ kept_set(policy, view_of(nudged, policy.statistics), epoch_at(2), seed=1)) <= 4


@over({name: policy for name, policy in where("closed_form").items() if not policy.unbiased})
def test_a_policy_that_does_not_claim_to_be_unbiased_is_biased(policy, epoch_at):
    policy = fitted(policy, 23)
    view = view_of(np.random.default_rng(4).permutation(np.arange(23.0)), policy.statistics)
    plan = policy.plan(view, epoch_at(2), np.random.default_rng(0))
    p = policy.inclusion_probability(view, epoch_at(2))
    products = plan.weights * p[plan.kept_indices]
    assert p.min() == 0 or abs(products - 1).max() > 0.01
