"""PrunePlan: what it refuses, and that nothing changes it afterwards."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest

from hf_dynprune.decisions.chunks import CHUNK
from hf_dynprune.decisions.plan import PrunePlan


@pytest.mark.parametrize(
    ("indices", "weights", "message"),
    [
        ([], [], r"`kept_indices` must be .* at least one index, got shape \(0,\)"),
        ([[0, 1]], [1, 1], r"`kept_indices` must be a one-dimensional array .*\(1, 2\)"),
        (0, 1, r"`kept_indices` must be a one-dimensional array .*\(\)"),
        ([0.0, 1.0], [1, 1], r"`kept_indices` must be integers, got dtype float64"),
        ([True, False], [1, 1], r"`kept_indices` must be integers, got dtype bool"),
        ([-1, 2], [1, 1], r"`kept_indices` must lie in \[0, 5\), got -1"),
        ([0, 5], [1, 1], r"`kept_indices` must lie in \[0, 5\), got 5"),
        ([-2, -1, 7], [1, 1, 1], r"`kept_indices` must lie in \[0, 5\), got -2"),
        ([0, 3, 1], [1, 1, 1], r"`kept_indices` must be strictly increasing, got 3 before 1"),
        ([0, 2, 2], [1, 1, 1], r"`kept_indices` must be strictly increasing, got 2 before 2"),
        ([0, 1], [1], r"`weights` must have shape \(2,\) like `kept_indices`, got \(1,\)"),
        ([0, 1], [[1], [1]], r"`weights` must have shape \(2,\) .*, got \(2, 1\)"),
        ([0, 1], 1.0, r"`weights` must have shape \(2,\) .*, got \(\)"),
        ([0, 1], [1, 0], r"`weights` must be finite and above 0, got 0.0"),
        ([0, 1], [1, -2], r"`weights` must be finite and above 0, got -2.0"),
        ([0, 1], [np.nan, 1], r"`weights` must be finite and above 0, got nan"),
        ([0, 1], [1, np.inf], r"`weights` must be finite and above 0, got inf"),
        ([0, 1], [1, 1e300], r"`weights` must be finite and above 0, got inf"),
        ([0, 1], [1, 1e-300], r"`weights` must be finite and above 0, got 0.0"),
    ],
)
def test_a_wrong_field_is_named_with_its_rule_and_value(indices, weights, message):
    with pytest.raises(ValueError, match=message):
        PrunePlan(indices, weights, num_samples=5)


@pytest.mark.parametrize("indices", [[2**63], [1, 2**63 + 2]])
def test_an_index_beyond_int64_is_refused(indices):
    with pytest.raises(ValueError, match="`kept_indices` must"):
        PrunePlan(np.array(indices, np.uint64), np.ones(len(indices)), num_samples=5)


def test_a_plan_of_no_samples_is_refused():
    with pytest.raises(ValueError, match="at least one index"):
        PrunePlan.full(0)


@pytest.mark.parametrize(("num_samples", "dtype"), [(4, np.int32), (2**31 - 1, np.int32), (2**31, np.int64)])
@pytest.mark.parametrize("given", [np.uint8, np.int32, np.int64, np.uint64])
def test_holds_the_smallest_indices_and_float32_weights_whatever_came_in(given, num_samples, dtype):
    plan = PrunePlan(np.array([0, 2], given), [1, 2], np.int64(num_samples))
    assert plan.kept_indices.dtype == dtype
    assert plan.weights.dtype == np.float32
    assert type(plan.num_samples) is int


def test_an_index_beyond_int32_is_held_as_it_is():
    assert PrunePlan([0, 2**31], [1, 2], 2**31 + 1).kept_indices.tolist() == [0, 2**31]


@pytest.mark.parametrize("size", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7])
def test_made_from_the_weights_of_all_samples_it_is_the_same_plan(size):
    weight = np.random.default_rng(size).choice([0, 1, 2.5], size).astype(np.float32)
    weight[-1] = 3
    kept = np.flatnonzero(weight)
    plan, same = PrunePlan.from_weights(weight), PrunePlan(kept, weight[kept], size)
    assert plan.checksum() == same.checksum()
    assert (plan.num_samples, plan.kept_indices.dtype) == (size, same.kept_indices.dtype)


def test_made_from_a_mask_it_keeps_at_weight_one():
    plan = PrunePlan.from_weights(np.array([True, False, True]))
    assert plan.checksum() == PrunePlan([0, 2], [1, 1], 3).checksum()


def test_made_from_weights_it_is_none_of_the_callers_arrays():
    weight = np.array([1, 0, 2], np.float32)
    plan = PrunePlan.from_weights(weight)
    weight[:] = 9
    assert plan.weights.tolist() == [1, 2]
    assert weight.flags.writeable


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([0.0, 0.0], "at least one index, got weight 0 for all 2 samples"),
        ([1.0, np.nan], "`weights` must be finite and above 0, got nan"),
        ([1.0, -1.0], "`weights` must be finite and above 0, got -1"),
        ([1.0, np.inf], "`weights` must be finite and above 0, got inf"),
        ([1.0, 1e300], "`weights` must be finite and above 0, got inf"),
        ([1.0, 1e-300], "`weights` must be finite and above 0, got 0"),
    ],
)
def test_weights_of_all_samples_that_make_no_plan_are_refused(weight, message):
    with pytest.raises(ValueError, match=message):
        PrunePlan.from_weights(np.array(weight))


def test_later_changes_of_the_arrays_that_came_in_do_not_reach_it():
    indices, weights = np.array([0, 2]), np.array([1, 2], np.float32)
    plan = PrunePlan(indices, weights, 4)
    indices[0] = 1
    weights[0] = 9
    assert plan.kept_indices.tolist() == [0, 2]
    assert plan.weights.tolist() == [1, 2]
    assert indices.flags.writeable
    assert weights.flags.writeable


@pytest.mark.parametrize("field", ["kept_indices", "weights", "num_samples"])
def test_no_field_can_be_set(field):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(PrunePlan.full(3), field, 1)


@pytest.mark.parametrize("duplicate", [lambda p: p, copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
@pytest.mark.parametrize("field", ["kept_indices", "weights"])
def test_no_array_can_be_written_in_a_plan_or_its_copy(duplicate, field):
    plan = duplicate(PrunePlan([0, 2], [1, 2], 4))
    with pytest.raises(ValueError, match="read-only"):
        getattr(plan, field)[0] = 1


@pytest.mark.parametrize("plan", [PrunePlan.full(3), PrunePlan.from_weights(np.array([2, 0, 1], np.float32))])
@pytest.mark.parametrize("field", ["kept_indices", "weights"])
def test_no_array_can_be_written_in_a_plan_that_was_made_otherwise(plan, field):
    with pytest.raises(ValueError, match="read-only"):
        getattr(plan, field)[0] = 1


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_a_copy_is_the_same_plan(duplicate):
    plan = PrunePlan([0, 2], [1, 2], 4)
    again = duplicate(plan)
    assert again.checksum() == plan.checksum()
    assert again.num_samples == 4


def test_counts_and_ratio():
    plan = PrunePlan([0, 2, 3], [1, 1, 1], 4)
    assert (plan.num_kept, plan.ratio, plan.is_full) == (3, 0.25, False)


def test_the_full_plan_keeps_everything_at_weight_one():
    plan = PrunePlan.full(3)
    assert plan.kept_indices.tolist() == [0, 1, 2]
    assert plan.weights.tolist() == [1, 1, 1]
    assert (plan.is_full, plan.ratio) == (True, 0.0)


def test_the_checksum_tells_plans_apart():
    plans = [
        PrunePlan([0, 2], [1, 2], 4),
        PrunePlan([0, 3], [1, 2], 4),
        PrunePlan([0, 2], [2, 1], 4),
        PrunePlan([0, 2], [1, np.nextafter(np.float32(2), np.float32(3))], 4),
        PrunePlan([0, 1, 2], [1, 1, 2], 4),
    ]
    assert len({plan.checksum() for plan in plans}) == len(plans)


def test_the_checksum_does_not_depend_on_the_dtype_that_came_in():
    narrow = PrunePlan(np.array([0, 2], np.int32), np.array([1, 2], np.float64), 4)
    assert narrow.checksum() == PrunePlan([0, 2], [1, 2], 4).checksum()


@pytest.mark.parametrize("weights", [np.ones((2, 3), bool), np.ones((2, 2)), np.float32(1)])
def test_weights_of_all_samples_have_one_dimension(weights):
    with pytest.raises(ValueError, match=r"`weights` of all samples must be a one-dimensional array, got shape"):
        PrunePlan.from_weights(weights)


def test_weights_of_all_samples_may_be_a_list():
    assert PrunePlan.from_weights([0.0, 2.0, 1.0]).weights.tolist() == [2, 1]


@pytest.mark.parametrize("plan", [PrunePlan.full(3), PrunePlan.from_weights(np.array([True, False, True]))])
def test_weights_are_an_array_that_other_programs_may_read(plan):
    """Code in C, such as that of safetensors, reads on from the first number."""
    assert plan.weights.flags.c_contiguous
    assert plan.weights.strides == (4,)
