"""Properties of dealing, serving and the clock, over generated runs."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from hf_dynprune.decisions.dealing import Dealing, Layout, batch_ends
from hf_dynprune.decisions.plan import EpochInfo, PrunePlan
from hf_dynprune.decisions.schedule import RunClock, RunLength
from hf_dynprune.serving.indexed import Slot
from hf_dynprune.serving.sampler import PlanBatchSampler, visiting_order


def examples(number: int) -> settings:
    return settings(max_examples=number, deadline=None, database=None, derandomize=True)


# ---- layouts and the sampler ----


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    size, accumulation, world = draw(st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)))
    split = draw(st.booleans())
    return Layout(size * world if split else size, accumulation, world, split)


@st.composite
def plans(draw: st.DrawFn) -> PrunePlan:
    kept = draw(st.integers(1, 60))
    pruned = draw(st.sampled_from([0, 1, 7, 90]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    indices = np.sort(rng.permutation(kept + pruned)[:kept])
    return PrunePlan(indices, rng.uniform(0.5, 9, kept), kept + pruned)


def order_of(plan: PrunePlan) -> np.ndarray:
    return np.random.default_rng(plan.num_kept).permutation(plan.num_kept)


def in_order(plan: PrunePlan) -> list[Slot]:
    order = order_of(plan)
    pairs = zip(plan.kept_indices[order].tolist(), plan.weights[order].tolist(), strict=True)
    return [Slot(index, weight, 1) for index, weight in pairs]


def serving(plan: PrunePlan, layout: Layout, drop_last: bool, dealing: Dealing, pass_over: int = 0) -> PlanBatchSampler:
    sampler = PlanBatchSampler(plan.num_samples, layout, drop_last)
    sampler.install(plan, order_of(plan), 1, dealing, pass_over)
    return sampler


def real(batches: list[list[Slot]]) -> list[Slot]:
    """All but the ghosts, which are also checked: weight 0 is the only way to tell them from samples."""
    return [slot for batch in batches for slot in batch if slot.weight > 0]


@examples(300)
@given(st.integers(0, 80), st.integers(1, 9), st.booleans(), st.booleans())
def test_batch_ends_cut_everything_into_batches_of_the_size(num_samples, size, drop_last, spare_single):
    ends = batch_ends(num_samples, size, drop_last, spare_single)
    lengths = np.diff([0, *ends]).tolist()
    lost = num_samples - sum(lengths)
    assert 0 <= lost < size if drop_last and num_samples >= size else lost == 0
    assert len(ends) > 0 or num_samples == 0
    stock = [size] * (num_samples // size) + [num_samples % size] * (num_samples % size > 0 and lost == 0)
    if spare_single and size > 1 and len(stock) > 1 and stock[-1] == 1:
        stock[-2:] = [size - 1, 2] if size > 2 else [3]
    assert lengths == stock


@examples(500)
@given(plans(), layouts(), st.booleans())
def test_every_kept_sample_is_served_once_with_its_weight(plan, layout, drop_last):
    sampler = serving(plan, layout, drop_last, Dealing(layout.window))
    batches, order = list(sampler), in_order(plan)
    served = real(batches)
    assert len(sampler) == len(batches) > 0
    assert served == order[: len(served)]
    lost = len(order) - len(served)
    assert 0 <= lost < layout.global_batch if drop_last and len(order) >= layout.global_batch else lost == 0
    assert len(batches) % layout.shards == 0
    if layout.world_size == 1:
        assert sum(map(len, batches)) == len(served)
        assert plan.is_full or layout.batch_size == 1 or plan.num_kept == 1 or min(map(len, batches)) > 1
    else:
        assert {len(batch) for batch in batches} == {layout.batch_size}
        ghosts = [slot for batch in batches for slot in batch if slot.weight == 0]
        assert len(ghosts) < layout.global_batch + (1 if not plan.is_full else 0)
        check_ghosts(batches, layout, order)


def check_ghosts(batches: list[list[Slot]], layout: Layout, order: list[Slot]) -> None:
    """Those of each global batch are the first of the order again, after its samples."""
    first = [slot._replace(weight=0.0) for slot in order[: layout.global_batch]]
    for at in range(0, len(batches), layout.shards):
        together = [slot for batch in batches[at : at + layout.shards] for slot in batch]
        count = sum(slot.weight == 0 for slot in together)
        ghosts = together[len(together) - count :]
        assert ghosts == (first * len(ghosts))[: len(ghosts)]


@examples(300)
@given(plans(), layouts(), st.booleans(), st.integers(0, 3), st.integers(0, 40))
def test_accelerate_adds_and_drops_nothing(plan, layout, drop_last, skipped, dealt):
    assume(layout.world_size > 1)
    dealing = Dealing(layout.window, min(dealt, plan.num_kept - 1), skipped) if dealt else Dealing(layout.window)
    sampler = serving(plan, layout, drop_last, dealing)
    ranks = [
        BatchSamplerShard(sampler, layout.world_size, rank, layout.split_batches) for rank in range(layout.world_size)
    ]
    shares = [[list(batch) for batch in rank] for rank in ranks]
    per_rank = layout.global_batch // layout.world_size
    assert {len(share) for share in shares} == {len(rank) for rank in ranks} == {len(sampler) // layout.shards}
    assert {len(batch) for share in shares for batch in share} == {per_rank}
    together = [slot for step in zip(*shares, strict=True) for batch in step for slot in batch]
    assert together == [slot for batch in sampler for slot in batch]
    served = [slot.sample for slot in together if slot.weight > 0]
    assert len(set(served)) == len(served)


@examples(100)
@given(plans(), layouts(), st.booleans(), st.integers(0, 70))
def test_batches_passed_over_are_only_left_out(plan, layout, drop_last, pass_over):
    dealing = Dealing(layout.window)
    whole = [list(batch) for batch in serving(plan, layout, drop_last, dealing)]
    assert [list(batch) for batch in serving(plan, layout, drop_last, dealing, pass_over)] == whole[pass_over:]


@examples(200)
@given(plans(), layouts(), st.booleans(), st.integers(0, 40), st.integers(1, 9))
def test_how_much_of_the_order_is_read_at_a_time_changes_nothing(plan, layout, drop_last, dealt, chunk):
    dealing = Dealing(layout.window, min(dealt, plan.num_kept - 1), 1) if dealt else Dealing(layout.window)
    whole = [list(batch) for batch in serving(plan, layout, drop_last, dealing)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_dynprune.serving.sampler.CHUNK", chunk)
        assert [list(batch) for batch in serving(plan, layout, drop_last, dealing)] == whole


@examples(300)
@given(plans(), layouts(), st.booleans(), st.integers(0, 40))
def test_the_sampler_knows_whether_it_may_serve_ghosts(plan, layout, drop_last, dealt):
    """Where it says that there are none, the trainer does not look."""
    dealing = Dealing(layout.window, min(dealt, plan.num_kept - 1)) if dealt else Dealing(layout.window)
    sampler = serving(plan, layout, drop_last, dealing)
    has = any(slot.weight == 0 for batch in sampler for slot in batch)
    assert sampler.has_ghosts >= has
    assert layout.world_size > 1 or sampler.has_ghosts == has


@examples(60)
@given(plans(), st.sampled_from(["random", "sequential", "group_by_length"]), st.integers(0, 5), st.integers(1, 9))
def test_every_visiting_order_visits_all_once_and_is_repeatable(plan, strategy, epoch, window):
    lengths = np.random.default_rng(0).integers(1, 9, plan.num_samples).tolist()
    orders = [visiting_order(plan, EpochInfo(epoch, 6, epoch / 6, 3), 4, strategy, lengths, window) for _ in range(2)]
    assert sorted(orders[0].tolist()) == list(range(plan.num_kept))
    assert orders[0].tolist() == orders[1].tolist()


# ---- dealing out anew ----


def cuts() -> st.SearchStrategy[Any]:
    """Interrupts inside an epoch: the layout after each, and the share of the updates left that are made before it."""
    return st.lists(st.tuples(layouts(), st.floats(0, 1, exclude_max=True)), max_size=4)


def batches_between(
    plan: PrunePlan, layout: Layout, drop_last: bool, dealing: Dealing, start: int, stop: int | None
) -> list[list[Slot]]:
    """What optimizer steps `start` to `stop` of the epoch are served."""
    per_step = layout.accumulation * layout.shards
    return list(serving(plan, layout, drop_last, dealing))[start * per_step : None if stop is None else stop * per_step]


@examples(500)
@given(plans(), layouts(), cuts(), st.booleans())
def test_any_chain_of_layouts_trains_every_kept_sample_once(plan, layout, cuts, drop_last):
    dealing, trained = Dealing(layout.window), []
    for new, share in cuts:
        updates = dealing.updates(layout, plan.num_kept, plan.is_full, drop_last)
        done = dealing.skipped + int(share * (updates - dealing.skipped))
        trained += real(batches_between(plan, layout, drop_last, dealing, dealing.skipped, done))
        dealing = dealing.anew(layout, new, done, plan.num_kept, plan.is_full, drop_last)
        layout = new
        # One update more or less than the share that was trained: the count goes on at about the same place.
        assert abs(dealing.skipped * layout.window - len(trained)) <= layout.window / 2
    assert dealing.dealt == len(trained)
    rest = batches_between(plan, layout, drop_last, dealing, dealing.skipped, None)
    placeholders = batches_between(plan, layout, drop_last, dealing, 0, dealing.skipped)
    assert real(placeholders) == []
    assert len(placeholders) == dealing.skipped * layout.accumulation * layout.shards
    check_ghosts(rest, layout, in_order(plan))
    if layout.world_size > 1:
        assert {len(batch) for batch in rest} == {layout.batch_size}
    elif dealing.dealt and layout.batch_size > 1:
        assert min(map(len, rest)) > 1
    trained += real(rest)
    assert trained == in_order(plan)[: len(trained)]
    lost = plan.num_kept - len(trained)
    assert 0 <= lost < layout.global_batch if drop_last else lost == 0
    assert real(rest)  # an epoch that was not finished has something left
    updates = dealing.updates(layout, plan.num_kept, plan.is_full, drop_last)
    assert updates == dealing.skipped + math.ceil(len(rest) / (layout.accumulation * layout.shards))


@examples(300)
@given(plans(), st.integers(1, 24), st.integers(1, 3), st.data())
def test_the_same_global_batch_is_dealt_the_rest_as_it_was(plan, together, accumulation, data):
    def layout() -> Layout:
        world = data.draw(st.sampled_from([world for world in (1, 2, 3, 4) if together % world == 0]))
        split = data.draw(st.booleans())
        return Layout(together if split else together // world, accumulation, world, split)

    old, new = layout(), layout()
    # A last batch of one sample may be dealt otherwise: stock leaves it alone in full epochs, and two cannot spare one.
    assume(plan.num_kept % together != 1)
    dealing = Dealing(old.window)
    updates = dealing.updates(old, plan.num_kept, plan.is_full, False)
    done = data.draw(st.integers(0, updates - 1))
    again = dealing.anew(old, new, done, plan.num_kept, plan.is_full, False)
    assert again.skipped == done
    assert again.updates(new, plan.num_kept, plan.is_full, False) == updates

    def global_batches(layout: Layout, dealing: Dealing) -> list[list[Slot]]:
        batches = batches_between(plan, layout, False, dealing, done, None)
        return [real(batches[at : at + layout.shards]) for at in range(0, len(batches), layout.shards)]

    assert global_batches(new, again) == global_batches(old, dealing)


# ---- the clock ----


def updates_of(per_epoch: int, epochs: int) -> st.SearchStrategy[list[int]]:
    return st.just([per_epoch] * epochs) | st.lists(st.integers(1, per_epoch), min_size=epochs, max_size=epochs)


@st.composite
def runs(draw: st.DrawFn) -> tuple[RunLength, list[int]]:
    """The run's length on the full data, and the updates of each of its epochs."""
    per_epoch = draw(st.integers(1, 12))
    if draw(st.booleans()):
        max_steps = draw(st.integers(1, 40))
        length = RunLength(per_epoch, max_steps, max_steps / per_epoch, True)
        return length, draw(updates_of(per_epoch, max_steps))
    num_epochs = draw(st.integers(1, 5).map(float) | st.floats(0.05, 5))
    length = RunLength(per_epoch, math.ceil(num_epochs * per_epoch), num_epochs, False)
    return length, draw(updates_of(per_epoch, math.ceil(num_epochs)))


def positions(length: RunLength, updates: list[int], cuts: set[int], lagging: set[int] = frozenset()) -> list[float]:
    """Learning-rate positions after each step; the run is resumed at `cuts`, its scheduler misses `lagging`."""
    clock, epoch, step, scheduler, seen = RunClock(length), 0, 0, 0, [0.0]
    while step < length.max_steps if length.fixed_steps else epoch < math.ceil(length.num_epochs):
        bound = clock.max_steps
        clock.begin_epoch(epoch, step, updates[epoch], scheduler)
        assert clock.max_steps <= bound  # pruning only shortens
        start, planned = step, clock.current.planned
        if not length.fixed_steps:  # as many of its updates as it takes to get as far as the run goes
            share = updates[epoch] * clock.current.nominal / length.updates_per_epoch
            assert planned - 1 < share <= planned + 1e-9
        while step < start + planned:
            step += 1
            scheduler += step not in lagging
            seen.append(clock.lr_position(scheduler))
            if step in cuts:
                state = json.loads(json.dumps(clock.state_dict()))
                clock = RunClock(length)
                clock.load_state_dict(state)
                assert clock.state_dict() == state
            ended = step == start + planned
            assert clock.position_at(step) == ((epoch + 1, 0) if ended else (epoch, step - start))
        epoch += 1
    assert step == clock.max_steps == len(seen) - 1
    return seen


@examples(300)
@given(runs(), st.sets(st.integers(1, 40)), st.sets(st.integers(1, 40), max_size=5))
def test_the_learning_rate_ends_at_the_end_whatever_the_epochs_and_interrupts(run, cuts, lagging):
    length, updates = run
    whole = positions(length, updates, set())
    assert positions(length, updates, cuts) == whole
    assert whole[-1] == length.max_steps
    assert whole == sorted(whole)
    late = positions(length, updates, cuts, lagging)
    assert late == positions(length, updates, set(), lagging) == sorted(late)
    assert all(a <= b + 1e-9 for a, b in zip(late, whole, strict=True))
    if all(u == length.updates_per_epoch for u in updates):
        stock = range(length.max_steps + 1)
        assert whole == list(stock)
        assert late == [step - sum(missed <= step for missed in lagging) for step in stock]


@examples(400)
@given(st.floats(0.3, 4), plans(), layouts(), cuts(), st.integers(0, 2), st.booleans(), st.booleans())
@example(1.75, PrunePlan.full(33), Layout(2, 4, 4), [(Layout(1, 1, 1), 0.5)], 1, False, False)  # 32 done, 25 to do
@example(
    0.75,
    PrunePlan(range(22), [1.0] * 22, 29),
    Layout(1, 1, 1),
    [(Layout(1, 1, 1), 0.5), (Layout(1, 1, 3), 0.5), (Layout(2, 1, 1), 0.5)],
    0,
    False,
    False,
)  # 5 of 7 steps become 8 of 9
def test_other_batches_on_resume_keep_the_place_within_one_update(
    num_epochs, plan, layout, cuts, epochs_before, drop_last, fixed
):
    def length_of(layout: Layout) -> RunLength:
        nominal = max(1, math.ceil(len(layout.ends(plan.num_samples, drop_last, False)) / layout.accumulation))
        steps = 30 if fixed else math.ceil(num_epochs * nominal)
        return RunLength(nominal, steps, steps / nominal if fixed else num_epochs, fixed)

    def updates() -> int:
        return dealing.updates(layout, plan.num_kept, plan.is_full, drop_last)

    length, dealing = length_of(layout), Dealing(layout.window)
    clock, step = RunClock(length), 0
    for epoch in range(min(epochs_before, math.ceil(num_epochs) - 1) + 1):
        if epoch:
            step = clock.current.start_step + clock.current.planned
        if step >= clock.max_steps:
            break
        clock.begin_epoch(epoch, step, updates(), step)
    for new, share in cuts:
        now = clock.current
        done = dealing.skipped + int(share * (now.planned - dealing.skipped))
        assert dealing.skipped <= done < now.planned
        step = now.start_step + done
        per_epoch = clock.length.updates_per_epoch
        place, grain = clock.lr_position(step) / per_epoch, now.nominal / now.planned / per_epoch
        dealing = dealing.anew(layout, new, done, plan.num_kept, plan.is_full, drop_last)
        layout = new
        state = json.loads(json.dumps(clock.state_dict()))
        clock = RunClock(length_of(layout))
        clock.load_state_dict(state)
        clock.redeal(step, updates(), dealing.skipped, step)
        now = clock.current
        assert step - now.start_step == dealing.skipped < now.planned
        if fixed:
            assert clock.lr_position(step) == step
            continue
        per_epoch = clock.length.updates_per_epoch
        grains = [grain, now.nominal / now.planned / per_epoch]
        # Where the run ends inside the epoch, both layouts also round its length up to whole steps.
        grain = max(grains) if now.planned == now.updates else sum(grains)
        assert abs(clock.lr_position(step) / per_epoch - place) <= grain + 1e-9
    end = clock.current.start_step + clock.current.planned
    assert end >= step
    while end < clock.max_steps:
        clock.begin_epoch(clock.current.epoch + 1, end, clock.length.updates_per_epoch, end)
        end = clock.current.start_step + clock.current.planned
    assert clock.lr_position(end) == pytest.approx(clock.length.max_steps, abs=1e-9)
