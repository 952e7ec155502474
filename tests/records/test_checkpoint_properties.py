"""Properties of the checkpoint files: a state comes back to the bit or not at all."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hf_dynprune.common.files import write_atomically
from hf_dynprune.decisions.dealing import Layout
from hf_dynprune.decisions.plan import PrunePlan
from hf_dynprune.decisions.schedule import RunLength
from hf_dynprune.decisions.scores import ExponentialMean, ScoreStore
from hf_dynprune.methods.infobatch import InfoBatch
from hf_dynprune.records.contents import SavedState
from hf_dynprune.records.packing import pack_plan, pack_scores, unpack_plan, unpack_scores
from hf_dynprune.records.state_files import JSON_FILE, TENSOR_FILE, CheckpointError, load_state, save_state
from hf_dynprune.training.epoch_run import EpochRun, EpochRunIdentity


def examples(number: int) -> settings:
    return settings(max_examples=number, deadline=None, database=None, derandomize=True)


DTYPES = [np.bool_, np.uint8, np.int32, np.int64, np.float16, np.float32, np.float64]
names = st.text("abz._ é", min_size=1, max_size=6)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Any bits: subnormal numbers, both zeros, and NaNs of every kind."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    bits = draw(st.binary(max_size=5 * dtype.itemsize))
    if dtype == np.bool_:
        return np.frombuffer(bits, np.uint8) % 2 == 1
    return np.frombuffer(bits[: len(bits) // dtype.itemsize * dtype.itemsize], dtype)


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4)
)
values = st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3))
states = st.tuples(
    st.dictionaries(names, arrays(), max_size=4),
    # A run's own keys have their own types.
    st.dictionaries(st.text(max_size=4).filter(lambda key: key not in SavedState.__annotations__), values, max_size=4),
)


def content(state: tuple[dict[str, np.ndarray], dict[str, Any]]) -> tuple[Any, str]:
    """With floats spelt out, by which -0.0 differs from 0.0, and 1 from True and 1.0."""
    tensors, facts = state
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in tensors.items()}, json.dumps(facts, sort_keys=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoint")


@examples(100)
@given(state=states)
def test_a_state_comes_back_to_the_bit(state, folder):
    save_state(folder, *state)
    assert content(load_state(folder)) == content(state)


@examples(12)
@given(state=states, mask=st.integers(1, 255), stride=st.integers(5, 9), first=st.integers(0, 4))
@example(state=({"a": np.arange(2)}, {"b": [1.5, "é"]}), mask=0x20, stride=1, first=0)  # a letter's other case
def test_no_flipped_byte_and_no_truncation_goes_unnoticed(state, mask, stride, first, folder):
    save_state(folder, *state)
    for name in (JSON_FILE, TENSOR_FILE):
        path = folder / name
        intact = path.read_bytes()
        for at in range(first, len(intact), stride):
            flipped = intact[:at] + bytes([intact[at] ^ mask]) + intact[at + 1 :]
            for damaged in (flipped, intact[:at]):
                path.write_bytes(damaged)
                try:
                    loaded = load_state(folder)
                except CheckpointError:
                    continue
                # Other white space, or another spelling of the same number, is the same state.
                assert name == JSON_FILE
                assert damaged is flipped
                assert content(loaded) == content(state)
        path.write_bytes(intact)


@pytest.mark.parametrize(("facts", "error"), [({"loss": float("nan")}, ValueError), ({"loss": object()}, TypeError)])
def test_nothing_is_written_where_json_cannot_hold_the_facts(facts, error, folder):
    with pytest.raises(error):
        save_state(folder / "new", {"a": np.arange(2)}, facts)
    assert not (folder / "new").exists()


@examples(100)
@given(st.sets(st.integers(0, 39), min_size=1).map(sorted), st.integers(40, 99), st.floats(2**-149, 2.0**120, width=32))
def test_a_plan_comes_back_from_its_bits(kept, num_samples, weight):
    plan = PrunePlan(kept, np.geomspace(weight, 1, len(kept)), num_samples)
    packed = pack_plan(plan)
    assert packed["plan.kept_bits"].nbytes == -(-plan.num_samples // 8)
    again = unpack_plan(packed, plan.num_samples)
    assert (again.checksum(), again.num_samples) == (plan.checksum(), plan.num_samples)


@examples(100)
@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.tuples(st.integers(0, n - 1), st.floats(width=32)), max_size=40),
            st.lists(st.tuples(st.integers(0, n - 1), st.floats(width=32)), max_size=40),
        )
    )
)
def test_scores_come_back_from_their_bits(case):
    num_samples, folded, recorded = case
    store, again = (ScoreStore(num_samples, (ExponentialMean(0.5),)) for _ in range(2))
    for entries in (folded, recorded):
        store.end_epoch()
        store.record(np.array([i for i, _ in entries], int), [s for _, s in entries], epoch=0)
    packed = pack_scores(store.state_dict(), num_samples)
    again.load_state_dict(unpack_scores(packed, again.state_dict(), num_samples))
    summaries = [each.end_epoch() for each in (store, again)]
    assert summaries[0].recorded == summaries[1].recorded
    assert summaries[0].nonfinite.tolist() == summaries[1].nonfinite.tolist()
    assert content((store.state_dict(), {})) == content((again.state_dict(), {}))


def test_what_is_the_same_for_all_samples_takes_no_space():
    packed = pack_scores(ScoreStore(1000).state_dict(), 1000)
    assert sum(array.nbytes for array in packed.values()) < 10
    assert sum(array.nbytes for array in pack_plan(PrunePlan.full(1000)).values()) == 5


def run_of(plan_seed: int, num_samples: int) -> EpochRun:
    facts = EpochRunIdentity(num_samples, "print", plan_seed, 0, 0, False, "random", False)
    length = RunLength(num_samples, 3 * num_samples, 3, False)
    return EpochRun(InfoBatch(0.7, momentum=0.5), facts, Layout(1, 1, 1), length)


@examples(40)
@given(scores=st.lists(st.floats(width=32), min_size=1, max_size=30), cut=st.integers(0, 30), seed=st.integers(0, 9))
def test_a_run_loaded_between_two_batches_goes_on_as_it_would_have(scores, cut, seed, folder):
    run, again = run_of(seed, len(scores)), run_of(seed, len(scores))
    order = np.random.default_rng(seed).permutation(len(scores))
    run.make_plan(run.epoch_info(0, 0))
    run.clock.begin_epoch(0, 0, len(scores), 0)
    run.store.record(order[:cut], np.take(scores, order[:cut]), epoch=0)
    save_state(folder, *run.state_dict())
    again.load_state_dict(*load_state(folder))
    for each in (run, again):
        assert each.plan.is_full
        each.store.record(order[cut:], np.take(scores, order[cut:]), epoch=0)
        each.store.end_epoch()
        each.make_plan(each.epoch_info(1, len(scores)))
    assert again.store.checksum() == run.store.checksum()
    assert again.plan.checksum() == run.plan.checksum()


def test_a_single_number_comes_back_as_one(tmp_path):
    transposed = np.arange(6.0).reshape(2, 3).T
    save_state(tmp_path, {"number": np.array(3.5), "turned": transposed}, {})
    loaded, _ = load_state(tmp_path)
    assert (loaded["number"].shape, float(loaded["number"])) == ((), 3.5)
    np.testing.assert_array_equal(loaded["turned"], transposed)


def test_a_full_disk_keeps_no_half_written_file(tmp_path):
    file = tmp_path / "state.json"
    write_atomically(file, b"old")

    def disk_is_full(path):
        path.write_bytes(b"ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, disk_is_full)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("state.json", b"old")]
