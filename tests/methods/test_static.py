"""StaticPruning by hand: the k = max(1, floor((1 - ratio) N)) highest or lowest scores, the same in every epoch."""

from __future__ import annotations

import itertools
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from hf_dynprune.decisions.guarantees import ClassFloor
from hf_dynprune.decisions.plan import PrunePlan
from hf_dynprune.decisions.registry import build_policy
from hf_dynprune.methods.static import StaticPruning
from hf_dynprune.records.score_file import StaticScores, load_scores

SCORES = [0.5, 3.0, 1.0, 1.0, 1.0, 0.1]


@pytest.fixture
def view(view_of):
    """Losses that say the opposite, one unseen sample: a static method reads none of it."""
    return view_of([9.0, 0.1, None, 1.0, 1.0, 8.0])


def kept(policy, view, epoch, seed=0):
    return policy.plan(view, epoch, np.random.default_rng(seed)).kept_indices.tolist()


@pytest.fixture
def file(tmp_path):
    score = np.array(SCORES, np.float32)
    facts = {"method": "el2n", "fingerprint": "abc", "forward_passes": 72, "seconds": 1.5}
    return StaticScores(score, score[None], facts).save(tmp_path / "el2n.safetensors")


@pytest.mark.parametrize(
    ("ratio", "keep", "expected"),
    [
        (0.0, "highest", [0, 1, 2, 3, 4, 5]),
        (0.1, "highest", [0, 1, 2, 3, 4]),  # floor(5.4) = 5: without the 0.1
        (1 / 3, "highest", [1, 2, 3, 4]),
        (0.9, "highest", [1]),  # floor(0.6) = 0, so one
        (0.1, "lowest", [0, 2, 3, 4, 5]),  # without the 3
        (2 / 3, "lowest", [0, 5]),
    ],
)
def test_keeps_the_end_that_it_is_told(ratio, keep, expected, view, epoch_at):
    plan = StaticPruning(SCORES, ratio, keep).plan(view, epoch_at(0), np.random.default_rng(0))
    assert plan.kept_indices.tolist() == expected
    assert (plan.weights == 1).all()


def test_ratio_zero_is_the_full_plan(view, epoch_at):
    plan = StaticPruning(SCORES, 0.0).plan(view, epoch_at(0), np.random.default_rng(0))
    assert plan.checksum() == PrunePlan.full(6).checksum()


def test_ties_at_the_cut_are_drawn_by_lot(view, epoch_at, lots):
    # k = 3: sample 1, and two of the samples 2, 3, 4 that share the score 1: three subsets, equally likely.
    policy, counts = StaticPruning(SCORES, 0.5), {}
    for order in itertools.permutations([0.1, 0.5, 0.9]):
        plan = policy.plan(view, epoch_at(0), lots([0, 0, *order, 0]))
        key = tuple(plan.kept_indices.tolist())
        counts[key] = counts.get(key, 0) + 1
    assert counts == {(1, 2, 3): 2, (1, 2, 4): 2, (1, 3, 4): 2}
    p = policy.inclusion_probability(view, epoch_at(0))
    np.testing.assert_allclose(p, [0, 1, 2 / 3, 2 / 3, 2 / 3, 0])
    lowest = StaticPruning(SCORES, 0.5, "lowest").inclusion_probability(view, epoch_at(0))
    np.testing.assert_allclose(lowest, [1, 0, 1 / 3, 1 / 3, 1 / 3, 1])


def test_the_expected_sum_is_that_of_the_chosen_alone(view, epoch_at, lots):
    # k = 3: sample 1, and two of the three tied ones, each kept in two of the three subsets; 0 and 5 never.
    policy, gradients = StaticPruning(SCORES, 0.5), np.array([8.0, 1.0, 3.0, 6.0, 9.0, 16.0])
    orders = itertools.permutations([0.1, 0.5, 0.9])
    plans = [policy.plan(view, epoch_at(0), lots([0, 0, *order, 0])) for order in orders]
    expected = np.mean([plan.weights @ gradients[plan.kept_indices] for plan in plans])
    assert expected == pytest.approx(1 + 2 / 3 * (3 + 6 + 9))  # 13 of the 43 of all
    assert not policy.unbiased


def test_one_selection_holds_for_the_whole_run():
    policy = StaticPruning(SCORES, 0.5)
    assert {policy.period_start(epoch) for epoch in range(50)} == {0}


def test_the_cost_of_scoring_is_that_of_the_file(file):
    policy = StaticPruning(file, 0.3)
    assert (policy.scoring_forward_passes, policy.scoring_seconds) == (72, 1.5)
    array = StaticPruning(SCORES, 0.3)
    assert (array.scoring_forward_passes, array.scoring_seconds) == (0, 0.0)


def test_parameters_name_the_file_and_its_scores(file):
    policy = StaticPruning(file, 0.3)
    parameters = json.loads(json.dumps(policy.parameters()))
    assert parameters == {"scores": str(file), "ratio": 0.3, "keep": "highest", "digest": policy.digest}
    assert build_policy("static", None, parameters) == policy
    array = StaticPruning(SCORES, 0.3)
    assert array.digest == policy.digest
    assert array.parameters() == {**parameters, "scores": "array"}
    assert array == StaticPruning(np.array(SCORES), 0.3) != policy
    with pytest.raises(ValueError, match="`scores` of StaticPruning were given as an array, which .* do not hold"):
        build_policy("static", None, array.parameters())


def test_what_a_run_is_resumed_with_is_the_digest_not_the_path(file, tmp_path):
    policy, moved = StaticPruning(file, 0.3), StaticPruning(load_scores(file).save(tmp_path / "b.safetensors"), 0.3)
    assert policy.parameters() != moved.parameters()
    assert policy.identity() == moved.identity() == {"ratio": 0.3, "keep": "highest", "digest": policy.digest}
    floors = [ClassFloor(base, [0, 0, 0, 1, 1, 1], 0.5).identity() for base in (policy, moved)]
    assert floors[0] == floors[1]
    assert set(floors[0]) == {"ratio", "keep", "digest", "class_floor", "class_labels"}


def test_scores_in_memory_bring_their_facts(file):
    policy = StaticPruning(load_scores(file), 0.3)
    assert (policy.scoring_forward_passes, policy.scoring_seconds) == (72, 1.5)
    assert policy.digest == StaticPruning(file, 0.3).digest
    assert policy == replace(policy)
    with pytest.raises(ValueError, match="The `StaticScores` given was made for another data set or order"):
        policy.check_data(6, "xyz")


def test_a_file_is_read_once(file, monkeypatch):
    policy = StaticPruning(file, 0.3)
    monkeypatch.setattr("hf_dynprune.methods.static.load_scores", lambda path: pytest.fail("read again"))
    assert policy.with_ratio(0.5).with_ratio(0.2).stored is policy.stored
    assert policy.ratio == 0.3
    with pytest.raises(ValueError, match=r"`ratio` of StaticPruning must be a number in \[0, 1\), got 1"):
        policy.with_ratio(1)


@pytest.mark.parametrize("scores", [SCORES, "file"])
def test_copies_prune_alike(scores, file, view, epoch_at):
    policy = StaticPruning(file if scores == "file" else scores, 0.5)
    other = replace(policy, ratio=0.2)
    assert other == policy.with_ratio(0.2) != policy
    again = pickle.loads(pickle.dumps(policy))
    assert again == policy
    assert hash(again) == hash(policy)
    assert kept(again, view, epoch_at(3)) == kept(policy, view, epoch_at(3))


def test_other_scores_under_the_same_name_are_refused(file):
    digest = StaticPruning(file, 0.3).digest
    score = np.ones(6, np.float32)
    StaticScores(score, score[None], {}).save(file)
    with pytest.raises(ValueError, match=f"`digest` of StaticPruning is '{digest}', the scores have '.*': they are"):
        StaticPruning(file, 0.3, digest=digest)


def test_another_data_set_is_refused(file, view_of, epoch_at):
    policy = StaticPruning(file, 0.3)
    policy.check_data(6, "abc")
    StaticPruning(SCORES, 0.3).check_data(6, "any")
    with pytest.raises(ValueError, match=r"has 6 scores in .*el2n\.safetensors, the training set has 7 samples"):
        policy.check_data(7, "abc")
    with pytest.raises(ValueError, match=r"made for another data set or order: fingerprint abc there, xyz here"):
        policy.check_data(6, "xyz")
    for call in (policy.inclusion_probability, lambda *a: policy.plan(*a, np.random.default_rng(0))):
        with pytest.raises(ValueError, match="has 6 scores"):
            call(view_of([1.0] * 3), epoch_at(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SCORES, 1.0), r"`ratio` of StaticPruning must be a number in \[0, 1\), got 1\.0"),
        ((SCORES, 0.5, "top"), "`keep` of StaticPruning must be 'highest' or 'lowest', got 'top'"),
        (([1.0, float("nan")], 0.5), "`scores` of StaticPruning must be finite, got nan for sample 1"),
        (([1.0, 1e300], 0.5), "`scores` of StaticPruning must be finite, got inf for sample 1"),
        (([[1.0]], 0.5), r"`scores` of StaticPruning must be numbers \[N\], N >= 1, got shape \(1, 1\)"),
        (([], 0.5), r"got shape \(0,\)"),
        ((["a"], 0.5), r"must be the path of a score file, a StaticScores or numbers \[N\], got \['a'\]"),
        (("nowhere.safetensors", 0.5), r"nowhere\.safetensors is no usable score file: there is no nowhere"),
        (("scores.txt", 0.5), r"must end in \.safetensors, got 'scores\.txt'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        StaticPruning(*arguments)


def test_given_arrays_are_copied():
    given = np.array(SCORES, np.float32)
    policy = StaticPruning(given, 0.5)
    given[:] = 0
    assert policy.stored.score.tolist() == np.array(SCORES, np.float32).tolist()
    with pytest.raises(ValueError, match="read-only"):
        policy.stored.score[0] = 1
