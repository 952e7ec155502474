"""`prune_target_saving`: the whole run saves the asked share of forward passes, within half a point."""

from __future__ import annotations

import numpy as np
import pytest

from hf_dynprune import UCB, EpsilonGreedy, InfoBatch, NoPruning, OrderDP, PruningPolicy, RandomPruning, StaticPruning
from hf_dynprune.decisions.budget import check_target, plan_for_ratio, prunable, wanted_ratio
from hf_dynprune.decisions.dealing import Layout
from hf_dynprune.decisions.forecast import describe_savings
from hf_dynprune.decisions.plan import EpochInfo
from hf_dynprune.decisions.schedule import RunLength
from hf_dynprune.decisions.scores import ScoreStore
from hf_dynprune.records.score_file import StaticScores
from hf_dynprune.training.epoch_run import EpochRun, EpochRunIdentity
from tests.support.helpers import Images, pruning_trainer, vit
from tests.support.policies import FixedKeep

N = 2000


def constant(epoch, old, rng):
    return rng.exponential(size=N) if epoch == 0 else old


def shrinking(epoch, old, rng):
    return rng.exponential(size=N) * 0.7**epoch


def heavy_tailed(epoch, old, rng):
    return rng.pareto(0.8, size=N)


def all_equal(epoch, old, rng):
    return np.full(N, 0.5)


def adversarial(epoch, old, rng):
    """Few samples below the mean in one epoch, nearly all in the next; every fourth epoch a tenth is not finite."""
    score = np.where(np.arange(N) < (N // 50 if epoch % 2 else N - N // 50), 0.1, 5.0) + rng.random(N) * 0.01
    if epoch % 4 == 3:
        score[rng.random(N) < 0.1] = np.nan
    return score


PROCESSES = [constant, shrinking, heavy_tailed, all_equal, adversarial]


def simulate(policy: PruningPolicy, target: float | None, epochs: float, process, warmup: int = 0, resume_at: int = -1):
    """A run without a model: the kept samples get the process's scores."""
    facts = EpochRunIdentity(N, "print", 3, 3, warmup, False, "random", False, target)
    if target is not None:
        check_target(policy, target, epochs, warmup, N)
    length = RunLength(N, int(np.ceil(N * epochs)), epochs, False)
    run = EpochRun(policy, facts, Layout(1, 1, 1), length)
    rng, score, step = np.random.default_rng(0), None, 0
    for epoch in range(int(np.ceil(epochs))):
        score = process(epoch, score, rng)
        plan = run.make_plan(run.epoch_info(epoch, step))
        run.clock.begin_epoch(epoch, step, plan.num_kept, step)
        done = run.clock.current.planned
        run.record.forward_passes = done
        kept = plan.kept_indices[:done]
        run.store.record(kept, score[kept], epoch)
        step += done
        run.close_epoch(step)
        if epoch == resume_at:
            arrays, state = run.state_dict()
            run = EpochRun(policy, facts, Layout(1, 1, 1), length)
            run.load_state_dict(arrays, state)
    return 1 - run.history.forward_passes / (N * epochs), run


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(
    "policy",
    [OrderDP(0.8, 0.5), RandomPruning(0.5), UCB(0.5, period=3), EpsilonGreedy(0.5, period=2)],
    ids=["orderdp", "random", "ucb", "epsilon_greedy"],
)
@pytest.mark.parametrize(("target", "epochs"), [(0.4, 10), (0.25, 10), (0.7, 10), (0.4, 5.5)])
def test_lands_within_half_a_point(policy, process, target, epochs):
    saved, run = simulate(policy, target, epochs, process)
    assert saved == pytest.approx(target, abs=0.005)
    assert run.history[-1].projected_saving == pytest.approx(saved, abs=0.002)


@pytest.mark.parametrize("target", [0.1, 0.3])
@pytest.mark.parametrize("process", [constant, shrinking, heavy_tailed])
def test_infobatch_lands_where_enough_samples_lie_below_the_mean(process, target, caplog):
    saved, _ = simulate(InfoBatch(), target, 16, process)
    assert saved == pytest.approx(target, abs=0.005)
    assert not caplog.records


@pytest.mark.parametrize("target", [0.1, 0.25, 0.4, 0.6])
@pytest.mark.parametrize("process", PROCESSES)
def test_infobatch_lands_where_the_target_can_be_reached_and_warns_where_not(process, target, caplog):
    """What can be reached is what pruning as much as the controller may, in every epoch, saves on the same process."""
    most, _ = simulate(InfoBatch(0.9), None, 16, process)
    saved, _ = simulate(InfoBatch(), target, 16, process)
    if target <= most - 0.005:
        assert saved == pytest.approx(target, abs=0.005)
    else:
        assert saved == pytest.approx(most, abs=0.01)
        (line,) = caplog.records
        assert f"`prune_target_saving` {target:g} will be missed by" in line.message


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(("pool", "top"), [(0.8, 0.375), (0.75, 0.8), (1.0, 0.5)])
def test_orderdp_keeps_exactly_q_and_those_without_a_score_in_every_epoch(pool, top, process):
    policy, store, rng, score = OrderDP(pool, top), ScoreStore(N), np.random.default_rng(0), None
    for epoch in range(12):
        score = process(epoch, score, rng)
        view, info = store.view(), EpochInfo(epoch, 12, epoch / 12, 3)
        plan = policy.plan(view, info, info.generator("plan"))
        scored = int(view.scored.sum())
        q = round(top * round(pool * scored))
        assert plan.num_kept == q + N - scored
        assert set(np.flatnonzero(~view.scored)) <= set(plan.kept_indices.tolist())
        store.record(plan.kept_indices, score[plan.kept_indices], epoch)
        store.end_epoch()


def test_what_scoring_cost_is_made_up_for(tmp_path):
    """Two epochs' worth of scoring: to save 0.4 of ten epochs after all, each one prunes 0.6."""
    score = np.random.default_rng(0).random(N).astype(np.float32)
    file = StaticScores(score, score[None], {"forward_passes": 2 * N}).save(tmp_path / "scores.safetensors")
    trained, run = simulate(StaticPruning(file, 0.4), 0.4, 10, constant)
    assert trained == pytest.approx(0.6, abs=1 / N)
    assert {record.kept for record in run.history} == {N - round(0.6 * N)}
    assert 1 - run.history.charged_forward_passes / (N * 10) == pytest.approx(0.4, abs=1 / N)
    assert run.history[-1].projected_saving == pytest.approx(0.4, abs=1 / N)
    with pytest.raises(ValueError, match="cannot be reached: .* and scoring cost 2 epochs before, which saves 75.0%"):
        simulate(StaticPruning(file, 0.4), 0.85, 10, constant)


def test_infobatch_says_once_where_it_falls_short(caplog):
    """All scores equal: none lies below the mean, nothing can be pruned."""
    saved, run = simulate(InfoBatch(), 0.3, 16, all_equal)
    assert saved == 0
    (line,) = caplog.records
    assert "`prune_target_saving` 0.3 will be missed by 30.0 points" in line.message
    assert "another method would reach it" in line.message
    assert [record.projected_saving for record in run.history][1:] == [0] * 15


def few_below_the_mean_at_first(epoch, old, rng):
    """One sample in ten lies below the mean after the first epoch, and most of them later."""
    return np.where(np.arange(N) < (N // 10 if epoch == 0 else 4 * N // 5), 0.1, 5.0) + rng.random(N) * 0.01


@pytest.mark.parametrize(("policy", "warmup"), [(InfoBatch(), 0), (InfoBatch(delta=1.0), 0), (InfoBatch(), 3)])
def test_the_first_epoch_that_prunes_alone_is_no_reason_to_warn(policy, warmup, caplog):
    at_first = few_below_the_mean_at_first

    def process(epoch, old, rng):
        return at_first(max(0, epoch - max(0, warmup - 1)), old, rng)

    saved, _ = simulate(policy, 0.3, 16, process, warmup)
    assert saved == pytest.approx(0.3, abs=0.005)
    assert not caplog.records


@pytest.mark.parametrize(("epochs", "at"), [(3, 2), (5.5, 3), (16, 3)])
def test_the_warning_comes_with_the_second_epoch_that_prunes_or_with_the_only_one(epochs, at, caplog):
    simulate(InfoBatch(), 0.2, epochs, all_equal)
    (line,) = caplog.records
    assert line.message.startswith(f"Epoch {at}: `prune_target_saving` 0.2 will be missed by 20.0 points")
    assert ("if later epochs prune as this one" in line.message) == (at == 3)
    assert "more epochs" not in line.message
    assert "`prune_budget='steps'`, a lower target or another method would reach it" in line.message


def test_infobatch_makes_up_for_epochs_that_could_not_prune_enough():
    saved, _ = simulate(InfoBatch(delta=1.0), 0.3, 20, adversarial)
    assert saved == pytest.approx(0.3, abs=0.005)


def test_annealing_and_warm_up_are_counted_before_they_come():
    saved, run = simulate(InfoBatch(delta=0.75), 0.2, 16, shrinking, warmup=4)
    assert saved == pytest.approx(0.2, abs=0.005)
    ratios = [record.ratio for record in run.history]
    assert ratios[:4] == [0] * 4
    assert ratios[12:] == [0] * 4
    assert max(ratios) - min(ratios[4:12]) < 0.02  # spread evenly
    assert run.history[0].projected_saving == pytest.approx(0.2)


def test_continues_after_a_resume_as_it_would_have():
    whole = simulate(InfoBatch(), 0.3, 16, shrinking)[1].history
    again = simulate(InfoBatch(), 0.3, 16, shrinking, resume_at=5)[1].history
    assert [record.kept for record in again] == [record.kept for record in whole]


@pytest.mark.parametrize(
    ("policy", "target", "epochs", "warmup", "says"),
    [
        (InfoBatch(), 0.9, 8, 0, "may prune in 6 of 8 epochs, at most 0.9 each, which saves 67.5%"),
        (RandomPruning(0.5), 0.8, 10, 5, "may prune in 5 of 10 epochs, .* saves 47.5%. .*raise `num_train_epochs`"),
        (RandomPruning(0.5), 1.0, 10, 0, r"must be a number in \(0, 1\), got 1.0"),
        (RandomPruning(0.5), "0.5", 10, 0, r"must be a number in \(0, 1\), got '0.5'"),
        (OrderDP(0.4, 0.5), 0.05, 10, 0, "is less than orderdp saves by pruning in one single epoch .6.0%."),
        (
            NoPruning(),
            0.2,
            10,
            0,
            r"reached by setting a method's ratio, and none\(\) has none that can be set. Choose another",
        ),
        (
            InfoBatch(percentiles=(20,), keep_ratios=(0.5,)),
            0.2,
            10,
            0,
            r"percentiles=\(20,\), .*has none that can be set",
        ),
    ],
)
def test_a_target_out_of_reach_is_refused_at_the_start(policy, target, epochs, warmup, says):
    with pytest.raises(ValueError, match=says):
        check_target(policy, target, epochs, warmup)


def test_prunable_epochs_are_those_of_the_schedule():
    assert prunable(RandomPruning(0.5), 2.5, 0) == 2.5
    assert prunable(RandomPruning(0.5), 2.5, 1) == 1.5
    assert prunable(InfoBatch(delta=0.5), 10, 0) == 4  # epochs 1 to 4
    assert prunable(FixedKeep((0,)), 4, 0, first=2) == 2


def test_wanted_ratio_spreads_what_is_missing():
    assert wanted_ratio(0.5, 10, saved=0, share=1, later=9) == pytest.approx(0.5)
    assert wanted_ratio(0.5, 10, saved=6, share=1, later=0) == 0.0


@pytest.mark.parametrize("wanted", [0.0, 0.001, 0.05, 0.2, 0.5, 0.9])
def test_plan_for_ratio_prunes_nearest_to_what_is_wanted(wanted):
    store = ScoreStore(N)
    store.record(np.arange(N // 2), np.random.default_rng(1).exponential(size=N // 2), epoch=0)
    store.end_epoch()
    view, info = store.view(), EpochInfo(1, 4, 0.25, 0)
    for policy in (RandomPruning(0.3), OrderDP(1.0, 0.5), InfoBatch()):
        plan = plan_for_ratio(policy, view, info, wanted, info.epoch)
        most = policy.with_ratio(policy.ratio_range[1]).plan(view, info, info.generator("plan")).ratio
        assert plan.ratio == pytest.approx(min(wanted, most), abs=1.01 / N)


@pytest.mark.parametrize(("method", "target"), [("random", 0.4), ("orderdp", 0.4), ("infobatch", 0.15)])
def test_through_the_trainer_by_a_flag(method, target, tmp_path, caplog):
    flags = {"prune_method": method, "prune_target_saving": target, "num_train_epochs": 8, "learning_rate": 1e-3}
    with caplog.at_level("INFO", "hf_dynprune"):
        trainer = pruning_trainer(vit(), Images(200), tmp_path, **flags)
        trainer.train()
    assert 1 - trainer.pruning_history.forward_passes / (8 * 200) == pytest.approx(target, abs=0.005)
    assert trainer.pruning_history[-1].projected_saving == pytest.approx(target, abs=0.006)
    assert f"to save {target:.1%} of the forward passes of 8 epochs" in caplog.text


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"max_steps": 10}, r"`prune_target_saving` \(0.4\) with `max_steps` \(10\)"),
        ({"prune_ratio": 0.3}, r"`prune_target_saving` \(0.4\) and `prune_ratio` \(0.3\) both say how much"),
        ({"num_train_epochs": 1, "prune_method": "infobatch"}, "`prune_target_saving` 0.4 cannot be reached"),
    ],
)
def test_flags_that_do_not_go_together(flags, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        pruning_trainer(vit(), Images(), tmp_path, **{"prune_method": "random", "prune_target_saving": 0.4, **flags})


def test_wanted_ratio_prunes_in_fewer_epochs_where_the_method_cannot_prune_little():
    assert wanted_ratio(0.15, 5, saved=0, share=1, later=3, low=0.2) == pytest.approx(0.25)  # three of four epochs
    assert wanted_ratio(0.15, 5, saved=0.5, share=1, later=2, low=0.2) == pytest.approx(0.25)
    assert wanted_ratio(0.15, 5, saved=0.7, share=1, later=1, low=0.2) == 0.0  # 0.05 is nearer to nothing than to 0.2
    assert wanted_ratio(0.15, 5, saved=0.6, share=1, later=1, low=0.2) == 0.2


@pytest.mark.parametrize(("target", "epochs"), [(0.05, 8), (0.05, 10), (0.05, 5), (0.1, 5), (0.15, 5), (0.15, 10)])
@pytest.mark.parametrize("pool", [0.8, 0.5])
def test_a_method_that_cannot_prune_little_prunes_in_fewer_epochs(pool, target, epochs, caplog):
    """OrderDP's pool alone leaves out 1 - pool_ratio; full epochs in between are no shortage."""
    if target * epochs < 1 - pool - 1e-9:
        with pytest.raises(ValueError, match="less than orderdp saves by pruning in one single epoch"):
            simulate(OrderDP(pool, 0.5), target, epochs, shrinking)
        return
    saved, run = simulate(OrderDP(pool, 0.5), target, epochs, shrinking)
    assert saved == pytest.approx(target, abs=0.005)
    assert run.history[-1].projected_saving == pytest.approx(saved, abs=0.002)
    assert not caplog.records


@pytest.mark.parametrize("policy", [OrderDP(1.0, 1.0), InfoBatch(0.0), RandomPruning(0.0)], ids=lambda p: p.name)
def test_a_target_replaces_a_ratio_of_zero(policy):
    saved, _ = simulate(policy, 0.2, 16, shrinking)
    assert saved == pytest.approx(0.2, abs=0.005)
    text, is_little = describe_savings(policy, RunLength(N, 16 * N, 16, False), 0, 0.2)
    assert "to save 20.0% of the forward passes of 16 epochs" in text
    assert not is_little


def mostly_not_finite_at_first(epoch, old, rng):
    """What a first epoch leaves that a callback has cut short, or that has diverged in part."""
    score = rng.exponential(size=N)
    if epoch == 0:
        score[rng.permutation(N)[: 3 * N // 4]] = np.nan
    return score


def test_a_plan_that_misses_the_target_is_given_up_before_its_period_ends(caplog):
    """The first selection finds a quarter of the samples scored; held for its period, it would save half as much."""
    saved, run = simulate(UCB(0.5, period=10), 0.4, 12, mostly_not_finite_at_first)
    assert saved == pytest.approx(0.4, abs=0.005)
    assert max(record.ratio for record in run.history) < 0.5
    steady, other = simulate(UCB(0.5, period=10), 0.4, 12, shrinking)
    assert steady == pytest.approx(0.4, abs=0.005)
    assert len({record.kept for record in other.history[1:11]}) == 1  # held where it leads to the target


def test_no_epoch_is_pruned_to_next_to_nothing():
    saved, run = simulate(OrderDP(1.0, 0.5), 0.85, 10, shrinking)
    assert saved == pytest.approx(0.85, abs=0.005)
    assert min(record.kept for record in run.history) >= 0.05 * N - 1
    with pytest.raises(ValueError, match="may prune in 9 of 10 epochs, at most 0.95 each, which saves 85.5%"):
        check_target(OrderDP(1.0, 0.5), 0.9, 10, 0)


def test_a_policy_without_a_ratio_of_its_own_is_refused():
    with pytest.raises(ValueError, match="has none that can be set"):
        check_target(FixedKeep((0,)), 0.2, 10, 0)


def test_the_line_at_the_start_counts_what_scoring_cost(tmp_path):
    score = np.random.default_rng(0).random(N).astype(np.float32)
    file = StaticScores(score, score[None], {"forward_passes": 2 * N}).save(tmp_path / "scores.safetensors")
    text, _ = describe_savings(StaticPruning(file, 0.4), RunLength(N, 10 * N, 10, False), 0, 0.4, N)
    assert "of 10 epochs, net of the 2 epochs that scoring cost: all 10 epochs prune about 60.0% each" in text


@pytest.mark.parametrize(("size", "batch", "epochs"), [(1000, 64, 11), (203, 8, 8)])
def test_batches_that_are_dropped_are_counted(size, batch, epochs, tmp_path):
    flags = {"prune_method": "ucb", "prune_target_saving": 0.4, "num_train_epochs": epochs, "learning_rate": 1e-3}
    flags |= {"dataloader_drop_last": True, "per_device_train_batch_size": batch}
    trainer = pruning_trainer(vit(), Images(size), tmp_path, **flags)
    trainer.train()
    saved = 1 - trainer.pruning_history.forward_passes / (epochs * size)
    assert saved == pytest.approx(0.4, abs=max(0.005, batch / size / epochs))
    assert trainer.pruning_history[-1].projected_saving == pytest.approx(saved, abs=batch / size / epochs)
