"""Names to policies: what flags may say, and what each mistake is answered with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from hf_dynprune.decisions import registry
from hf_dynprune.decisions.plan import EpochInfo, PrunePlan
from hf_dynprune.decisions.policy import PruningPolicy
from hf_dynprune.decisions.registry import build_policy, get_policy, list_policies, register_policy
from hf_dynprune.methods.infobatch import InfoBatch
from hf_dynprune.methods.none import NoPruning
from hf_dynprune.methods.orderdp import OrderDP
from hf_dynprune.methods.random import RandomPruning


@pytest.fixture(autouse=True)
def _registry_as_it_was(monkeypatch):
    list_policies()  # the folder is scanned once, into the real table
    monkeypatch.setattr(registry.POLICIES, "classes", dict(registry.POLICIES.classes))


class Everything(PruningPolicy):
    """A policy but for the decorators."""

    reference = "made up for this test"
    max_ratio = 0.0

    def plan(self, view, epoch: EpochInfo, rng) -> PrunePlan:
        return PrunePlan.full(len(view))

    def inclusion_probability(self, view, epoch):
        return np.ones(len(view))

    def prunes_in(self, epoch):
        return False


@dataclass(frozen=True)
class TwoRequired(Everything):
    """Needs more than a ratio."""

    ratio: float
    period_length: int


class TestKnownNames:
    def test_the_folder_of_methods_is_the_list(self):
        assert {"none", "random", "infobatch", "orderdp", "epsilon_greedy", "ucb"} <= set(list_policies())

    def test_the_list_is_sorted(self):
        assert list_policies() == sorted(list_policies())

    @pytest.mark.parametrize(
        ("name", "cls"),
        [("none", NoPruning), ("random", RandomPruning), ("infobatch", InfoBatch), ("orderdp", OrderDP)],
    )
    def test_a_name_gives_its_class(self, name, cls):
        assert get_policy(name) is cls

    def test_an_unknown_name_is_answered_with_the_nearest_and_all_known_ones(self):
        with pytest.raises(ValueError, match="Unknown pruning method 'infobach'") as error:
            get_policy("infobach")
        assert "Did you mean 'infobatch'?" in str(error.value)
        assert f"Known methods: {', '.join(list_policies())}." in str(error.value)

    def test_a_name_like_no_other_gets_no_guess(self):
        with pytest.raises(ValueError, match="Known methods: ") as error:
            build_policy("xyzzy")
        assert "Did you mean" not in str(error.value)


class TestBuilding:
    def test_without_parameters_the_papers_defaults_hold(self):
        assert build_policy("infobatch") == InfoBatch(ratio=0.5, delta=0.875)

    def test_parameters_come_as_a_mapping_or_as_json(self):
        expected = InfoBatch(percentiles=(20, 85), keep_ratios=(0.25, 0.5))
        assert build_policy("infobatch", None, {"percentiles": [20, 85], "keep_ratios": [0.25, 0.5]}) == expected
        assert build_policy("infobatch", None, '{"percentiles": [20, 85], "keep_ratios": [0.25, 0.5]}') == expected

    def test_the_mapping_is_not_changed(self):
        given = {"rescale": True}
        assert build_policy("random", 0.3, given) == RandomPruning(0.3, rescale=True)
        assert given == {"rescale": True}

    def test_the_ratio_goes_through_with_ratio(self):
        assert build_policy("infobatch", 0.3, {"delta": 0.5}) == InfoBatch(ratio=0.3, delta=0.5)
        assert build_policy("orderdp", 0.5, {"pool_ratio": 0.625}).top_ratio == pytest.approx(0.8)

    def test_a_ratio_of_zero_counts_as_given(self):
        assert build_policy("random", 0.0) == RandomPruning(0.0)

    def test_a_ratio_among_the_parameters_will_do(self):
        assert build_policy("random", None, {"ratio": 0.3}) == RandomPruning(0.3)

    def test_parameters_of_numpy_types_become_json(self):
        policy = InfoBatch(np.float32(0.5), percentiles=np.array([20, 85]), keep_ratios=np.array([0.25, 0.5]))
        values = [*policy.parameters().values(), *policy.percentiles, *policy.keep_ratios]
        assert {type(value) for value in values} <= {float, int, bool, str, tuple}


class TestMistakes:
    def test_an_unknown_parameter_is_answered_with_the_known_ones(self):
        message = r"Unknown parameter 'ratoi' for pruning method 'random', which takes: ratio, rescale\."
        with pytest.raises(ValueError, match=message):
            build_policy("random", None, {"ratoi": 0.3})

    def test_a_method_without_parameters_says_so(self):
        with pytest.raises(ValueError, match="'none', which takes: no parameters"):
            build_policy("none", None, {"ratio": 0.3})

    def test_a_missing_ratio_names_the_flag(self):
        with pytest.raises(ValueError, match="'random' needs a value for ratio: set `prune_ratio`"):
            build_policy("random")

    def test_a_ratio_given_twice_is_refused(self):
        with pytest.raises(ValueError, match=r"`prune_ratio` \(0.3\) and `ratio` in `prune_kwargs` \(0.4\)"):
            build_policy("random", 0.3, {"ratio": 0.4})

    def test_a_ratio_that_would_replace_a_given_parameter_is_refused(self):
        with pytest.raises(ValueError, match=r"`prune_ratio` \(0.7\) sets `top_ratio` .*'orderdp'.* too \(0.5\)"):
            build_policy("orderdp", 0.7, {"top_ratio": 0.5})

    @pytest.mark.parametrize("ratio", [None, 0.3])
    def test_a_missing_parameter_other_than_the_ratio_is_named(self, ratio):
        register_policy("two_required")(TwoRequired)
        with pytest.raises(ValueError, match="'two_required' needs a value for .*period_length.*in `prune_kwargs`"):
            build_policy("two_required", ratio)

    @pytest.mark.parametrize("text", ["{", "ratio=0.3", ""])
    def test_text_that_is_no_json_is_shown(self, text):
        with pytest.raises(ValueError, match=f"`prune_kwargs` must be a JSON object, got {text!r}"):
            build_policy("random", None, text)

    @pytest.mark.parametrize("value", ["[1, 2]", "0.3", "null", ["ratio"]])
    def test_json_that_is_no_object_is_refused(self, value):
        with pytest.raises(ValueError, match="`prune_kwargs` must be a mapping or a JSON object"):
            build_policy("random", None, value)

    def test_pruning_nothing_at_a_ratio_is_refused(self):
        with pytest.raises(ValueError, match=r"'none' prunes nothing, got a ratio of 0.3"):
            build_policy("none", 0.3)

    def test_a_ratio_for_the_quantile_rule_is_refused(self):
        quantiles = {"percentiles": [64], "keep_ratios": [0.5]}
        with pytest.raises(ValueError, match=r"has no single ratio, got 0.3: set `keep_ratios`"):
            build_policy("infobatch", 0.3, quantiles)

    def test_a_ratio_the_pool_already_exceeds_is_refused(self):
        with pytest.raises(ValueError, match=r"only 0.1 with `pool_ratio` 0.8.*raise `pool_ratio` to at least 0.9"):
            build_policy("orderdp", 0.1)

    @pytest.mark.parametrize("ratio", [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
    def test_a_ratio_that_keeps_the_whole_pool_is_not_refused_for_rounding(self, ratio):
        pool_ratio = round(1 - ratio, 1)
        assert build_policy("orderdp", ratio, {"pool_ratio": pool_ratio}).top_ratio == pytest.approx(1)

    @pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan")])
    @pytest.mark.parametrize("name", ["random", "infobatch", "orderdp", "epsilon_greedy", "ucb"])
    def test_a_ratio_out_of_range_is_shown_with_the_interval(self, name, ratio):
        with pytest.raises(ValueError, match=rf"\[0, 1\), got {ratio}"):
            build_policy(name, ratio)


NUMBERS = [
    ("random", "ratio", "[0, 1)", [-0.1, 1, 1.5]),
    ("infobatch", "ratio", "[0, 1)", [-0.1, 1, 1.5]),
    ("infobatch", "delta", "[0, 1]", [-0.1, 1.1]),
    ("infobatch", "momentum", "(0, 1]", [-0.1, 0, 1.1]),
    ("orderdp", "pool_ratio", "(0, 1]", [-0.1, 0, 1.1]),
    ("orderdp", "top_ratio", "(0, 1]", [-0.1, 0, 1.1]),
    ("orderdp", "max_weight", "[1, 1e+30]", [-1, 0.9, 1e31]),
    ("orderdp", "delta", "[0, 1]", [-0.1, 1.1]),
    ("epsilon_greedy", "ratio", "[0, 1)", [-0.1, 1]),
    ("epsilon_greedy", "epsilon", "[0, 1]", [-0.1, 1.1]),
    ("epsilon_greedy", "alpha", "(0, 1]", [0, 1.1]),
    ("ucb", "ratio", "[0, 1)", [-0.1, 1]),
    ("ucb", "c", "[0, 1e+30]", [-0.1, 1e31]),
    ("ucb", "alpha", "(0, 1]", [0, 1.1]),
]
NO_NUMBERS = [float("nan"), float("inf"), "0.5", None, True, [0.5]]


@pytest.mark.parametrize(
    ("name", "field", "interval", "value"),
    [(name, field, interval, value) for name, field, interval, bad in NUMBERS for value in [*bad, *NO_NUMBERS]],
)
def test_a_number_out_of_range_is_named_with_interval_and_value(name, field, interval, value):
    with pytest.raises(ValueError, match="must be a number") as error:
        build_policy(name, None, ({} if name == "orderdp" else {"ratio": 0.5}) | {field: value})
    owner = get_policy(name).__name__
    assert str(error.value) == f"`{field}` of {owner} must be a number in {interval}, got {value!r}."


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("random", "ratio", 0),
        ("infobatch", "ratio", 0.0),
        ("infobatch", "delta", 0),
        ("infobatch", "delta", 1),
        ("infobatch", "momentum", 1),
        ("orderdp", "pool_ratio", 1),
        ("orderdp", "top_ratio", 1),
        ("orderdp", "delta", 0),
    ],
)
def test_the_closed_ends_of_an_interval_are_allowed(name, field, value):
    assert getattr(build_policy(name, None, {field: value}), field) == value


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"percentiles": [20]}, r"`percentiles` and `keep_ratios` .* go together.*got \[20\] and None"),
        ({"keep_ratios": [0.5]}, r"`percentiles` and `keep_ratios` .* go together.*got None and \[0.5\]"),
        ({"percentiles": [], "keep_ratios": []}, r"one keep ratio per percentile, got \(\) and \(\)"),
        (
            {"percentiles": [20, 85], "keep_ratios": [0.5]},
            r"one keep ratio per percentile, got \(20, 85\) and",
        ),
        ({"percentiles": [85, 20], "keep_ratios": [0.5, 0.5]}, r"ascend inside \(0, 100\), got \(85, 20\)"),
        ({"percentiles": [20, 20], "keep_ratios": [0.5, 0.5]}, r"ascend inside \(0, 100\), got \(20, 20\)"),
        ({"percentiles": [0], "keep_ratios": [0.5]}, r"ascend inside \(0, 100\), got \(0,\)"),
        ({"percentiles": [100], "keep_ratios": [0.5]}, r"ascend inside \(0, 100\), got \(100,\)"),
        ({"percentiles": [float("nan")], "keep_ratios": [0.5]}, r"ascend inside \(0, 100\), got \(nan,\)"),
        ({"percentiles": [20], "keep_ratios": [0]}, r"`keep_ratios` .* must lie in \(0, 1\], got \(0,\)"),
        ({"percentiles": [20], "keep_ratios": [1.1]}, r"`keep_ratios` .* must lie in \(0, 1\], got \(1.1,\)"),
        ({"percentiles": 20, "keep_ratios": [0.5]}, r"`percentiles` of InfoBatch must be a list of numbers, got 20"),
        ({"percentiles": [20], "keep_ratios": 0.5}, r"`keep_ratios` of InfoBatch must be a list of numbers, got 0.5"),
        ({"percentiles": "20", "keep_ratios": [0.5]}, r"`percentiles` .* must be a list of numbers, got '20'"),
        ({"percentiles": [20], "keep_ratios": ["a"]}, r"`keep_ratios` .* must be a list of numbers, got \['a'\]"),
        ({"percentiles": [[20]], "keep_ratios": [0.5]}, r"`percentiles` .* must be a list of numbers, got \[\[20\]\]"),
        ({"percentiles": [20, [85]], "keep_ratios": [0.5, 0.5]}, r"`percentiles` .* must be a list of numbers"),
        ({"draw": "coin"}, r"`draw` of InfoBatch must be 'count' or 'bernoulli', got 'coin'"),
        ({"exact_weights": "false"}, r"`exact_weights` of InfoBatch must be True or False, got 'false'"),
        ({"exact_weights": 1}, r"`exact_weights` of InfoBatch must be True or False, got 1"),
    ],
)
def test_a_wrong_parameter_of_infobatch_is_named_with_rule_and_value(parameters, message):
    with pytest.raises(ValueError, match=message):
        build_policy("infobatch", None, parameters)


def test_a_rescale_that_is_text_is_refused():
    with pytest.raises(ValueError, match="`rescale` of RandomPruning must be True or False, got 'false'"):
        build_policy("random", 0.3, '{"rescale": "false"}')


class TestRegistering:
    def test_a_registered_class_is_listed_and_knows_its_name(self):
        cls = register_policy("mine")(dataclass(frozen=True)(type("Mine", (Everything,), {})))
        assert "mine" in list_policies()
        assert get_policy("mine") is cls
        assert cls.name == "mine"

    def test_a_name_that_is_taken_is_refused_with_its_owner(self):
        other = dataclass(frozen=True)(type("Other", (Everything,), {}))
        with pytest.raises(ValueError, match=r"'infobatch' is taken by hf_dynprune\.methods\.infobatch\.InfoBatch"):
            register_policy("infobatch")(other)
        assert get_policy("infobatch") is InfoBatch

    def test_a_module_that_is_imported_again_may_register_again(self):
        again = dataclass(frozen=True)(type("TwoRequired", (Everything,), {"__module__": TwoRequired.__module__}))
        register_policy("two_required")(TwoRequired)
        register_policy("two_required")(again)
        assert get_policy("two_required") is again

    @pytest.mark.parametrize("name", ["My_Policy", "my-policy", "", "2nd", "my policy"])
    def test_a_name_that_is_no_lower_case_identifier_is_refused(self, name):
        with pytest.raises(ValueError, match=f"lower-case identifier.*got {name!r}"):
            register_policy(name)(TwoRequired)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: type("Plain", (Everything,), {}),
            lambda: dataclass(type("Mutable", (Everything,), {})),
            # The field would not become a parameter.
            lambda: type("Sub", (InfoBatch,), {"temperature": 1.0, "__annotations__": {"temperature": float}}),
        ],
        ids=["no dataclass", "not frozen", "subclass of a dataclass"],
    )
    def test_what_is_no_frozen_dataclass_is_refused(self, make):
        with pytest.raises(TypeError, match=r"must be a frozen dataclass: put @dataclass\(frozen=True\)"):
            register_policy("mine")(make())

    @pytest.mark.parametrize("thing", [int, "InfoBatch", InfoBatch(), None])
    def test_what_is_no_policy_is_refused(self, thing):
        with pytest.raises(TypeError, match="Only a subclass of PruningPolicy can be registered"):
            register_policy("mine")(thing)


def test_a_policy_without_a_rule_cannot_be_made():
    incomplete = dataclass(frozen=True)(type("Incomplete", (PruningPolicy,), {}))
    with pytest.raises(TypeError, match="abstract"):
        incomplete()


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (RandomPruning(0.3), "random(ratio=0.3)"),
        (RandomPruning(0.3, rescale=True), "random(ratio=0.3, rescale=True)"),
        (InfoBatch(), "infobatch"),
        (InfoBatch(ratio=0.25, draw="bernoulli"), "infobatch(ratio=0.25, draw='bernoulli')"),
        (OrderDP().with_ratio(0.3), "orderdp(top_ratio=0.875)"),
        (NoPruning(), "none"),
    ],
)
def test_the_short_text_of_a_policy_has_what_is_not_at_its_default(policy, text):
    assert policy.short == text


def test_the_text_of_a_policy_names_it_and_all_its_parameters():
    assert str(RandomPruning(0.3)) == "random(ratio=0.3, rescale=False)"


def test_a_policy_that_is_not_registered_is_named_by_its_class():
    class Unnamed(RandomPruning):
        pass

    assert str(Unnamed(0.5)) == "Unnamed(ratio=0.5, rescale=False)"
    assert RandomPruning.name == "random"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"ratio": ' + "9" * 5000 + "}", '{"a":' * 100_000, "{", ""])
def test_parameters_that_are_no_json_are_one_short_error(text):
    with pytest.raises(ValueError, match=r"^`prune_kwargs` must be a JSON object, got '") as caught:
        build_policy("infobatch", parameters=text)
    assert len(str(caught.value)) < 500
