"""`prune_budget="steps"`: a run makes the optimizer steps of a shorter run on full data, whatever it prunes."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import HfArgumentParser, TrainingArguments

from hf_dynprune import (
    CoverEvery,
    DynPruneArguments,
    DynPruneTrainer,
    DynPruneTrainingArguments,
    InfoBatch,
    OrderDP,
    PruningHistory,
    RandomPruning,
    StaticPruning,
)
from hf_dynprune.compare.results import Arm, RunResult
from hf_dynprune.decisions.registry import POLICIES
from hf_dynprune.records.about import AboutRun
from hf_dynprune.records.folder import RunFolder
from hf_dynprune.records.score_file import StaticScores
from hf_dynprune.records.state_files import CheckpointError
from hf_dynprune.report.card import CardContent
from tests.support.helpers import (
    Images,
    LoggedRows,
    StepLog,
    arguments,
    assert_same_bits,
    pruning_trainer,
    stock_trainer,
    vit,
    weights_of,
)
from tests.support.policies import NeedsSteps
from tests.trainer.test_resume import Interrupt, InterruptAt, untimed, untimed_logs

SIZE = 22
STEPS = {"prune_budget": "steps", "prune_target_saving": 0.5}
NEVER = {"none": None, "a policy that never prunes": RandomPruning(0.0), "one that needs steps": NeedsSteps(0.0)}
STOCK = {
    "plain": (3, 0.5, {}),
    "whole epochs that floats miss": (30, 0.9, {"learning_rate": 1e-3}),  # 0.1 * 30 is 2.9999999999999996
    "more than whole": (10, 0.7, {}),  # 0.3 * 10 is 3.0000000000000004
    "fractional": (4, 0.35, {"gradient_accumulation_steps": 3}),
    "below one epoch": (2, 0.8, {}),
    "drop_last": (4, 0.4, {"dataloader_drop_last": True, "gradient_accumulation_steps": 2}),
    "warm-up in steps": (4, 0.4, {"warmup_steps": 7, "lr_scheduler_type": "cosine"}),
    "warm-up as a share": (4, 0.4, {"warmup_steps": 0.3}),
    "shares": (
        *(4, 0.4),
        {"logging_steps": 0.2, "eval_steps": 0.25, "save_steps": 0.5, "eval_strategy": "steps"}
        | {"save_strategy": "steps"},
    ),
    "by epoch": (
        *(4, 0.4),
        {"logging_strategy": "epoch", "eval_strategy": "epoch", "save_strategy": "epoch", "optim": "sgd"},
    ),
}
"""(epochs, saving, flags) of a budget whose run is the stock Trainer's over `(1 - saving) * epochs` epochs."""


def warmup_of(flags, epochs, shorter):
    """The stock flags of the shorter run: `docs/compare.md` shortens the warm-up with the run."""
    steps = flags.get("warmup_steps", 0)
    return {"warmup_steps": int(np.ceil(steps * shorter / epochs))} if steps >= 1 else {}


CASES = [(name, "none") for name in STOCK]
CASES += [(name, policy) for name in ("plain", "fractional") for policy in NEVER if policy != "none"]


@pytest.mark.parametrize(("name", "policy"), CASES)
def test_a_run_that_never_prunes_is_the_stock_trainers_shorter_run(name, policy, tmp_path):
    epochs, saving, flags = STOCK[name]
    shorter = round((1 - saving) * epochs, 9)
    logs, data = (StepLog(), StepLog()), {"eval_dataset": Images(6, seed=3)}
    stock = stock_trainer(
        *(vit(0.1), Images(SIZE), tmp_path / "stock", [logs[0]]),
        **{**data, **flags, "num_train_epochs": shorter, **warmup_of(flags, epochs, shorter)},
    )
    stock.train()
    budget = {"prune_budget": "steps", "prune_target_saving": saving}
    ours = pruning_trainer(
        *(vit(0.1), Images(SIZE), tmp_path / "ours", [logs[1]], NEVER[policy]),
        **{**data, **flags, **budget, "num_train_epochs": epochs},
    )
    ours.train()
    assert_same_bits(weights_of(stock), weights_of(ours))
    assert logs[0].steps == logs[1].steps
    assert logs[0].events == logs[1].events
    for mine, theirs in zip(ours.optimizer.state.values(), stock.optimizer.state.values(), strict=True):
        assert all(np.array_equal(mine[key], theirs[key]) for key in theirs if theirs[key] is not None)
    fields = ("epoch", "global_step", "max_steps", "num_train_epochs", "logging_steps", "eval_steps", "save_steps")
    assert [getattr(stock.state, key) for key in fields] == [getattr(ours.state, key) for key in fields]
    mine = [{k: v for k, v in row.items() if not k.startswith("dynprune/")} for row in untimed_logs(ours)]
    for own, theirs in zip([row for row in mine if row.keys() != {"epoch", "step"}], untimed_logs(stock), strict=True):
        assert own.keys() == theirs.keys()
        assert all(own[key] == theirs[key] for key in own if key not in ("loss", "train_loss"))
        assert [own[k] for k in own if "loss" in k] == pytest.approx([theirs[k] for k in own if "loss" in k], rel=1e-6)
    if policy != "none":
        assert ours.savings.saved == pytest.approx(saving, abs=0.1)


def finished(tmp_path, policy=None, callbacks=(), size=SIZE, **flags):
    flags = {"num_train_epochs": 8, **STEPS, **flags}
    trainer = pruning_trainer(vit(), Images(size), tmp_path, callbacks, policy=policy, **flags)
    trainer.train()
    return trainer


@pytest.mark.parametrize("policy", [InfoBatch(0.9, delta=1.0), OrderDP(0.8, 0.5), RandomPruning(0.6)], ids=str)
def test_pruned_epochs_are_more_and_the_steps_those_of_the_shorter_run(policy, tmp_path):
    log = StepLog()
    trainer = pruning_trainer(vit(), Images(200), tmp_path, [log], policy, num_train_epochs=6, **STEPS)
    trainer.train()
    assert trainer.state.global_step == trainer.state.max_steps == 3 * 50
    assert len(trainer.pruning_history) > 3
    rates = [row["lr"] for row in log.steps]
    assert rates == pytest.approx(5e-3 * (1 - np.arange(1, 151) / 150), abs=1e-9)  # by the share of these steps
    assert trainer.savings.saved == pytest.approx(0.5, abs=0.02)
    assert (trainer.savings.full, trainer.savings.steps, trainer.savings.full_steps) == (1200, 150, 300)


def test_epochs_know_that_the_run_has_the_shorter_runs_length(tmp_path):
    """So that annealing comes in the last share of the steps."""
    trainer = finished(tmp_path, InfoBatch(0.9, delta=0.75), num_train_epochs=9, prune_target_saving=0.3)
    run = trainer._training.run
    assert run.epoch_info(2, 0).num_epochs == 6.3
    assert run.epoch_info(2, 19).progress == 19 / run.clock.length.max_steps
    records = trainer.pruning_history.records
    begun = np.cumsum([0, *(record.steps for record in records[:-1])]) / run.clock.length.max_steps
    assert len(records) > 6.3
    prunes = [at * 6.3 + 1 <= 4 for at in begun[1:]]  # 4 is the whole part of 0.75 of 6.3 epochs
    assert [record.pruned > 0 for record in records[1:]] == prunes
    assert any(prunes)
    assert not all(prunes)


def test_the_account_is_against_the_full_run_also_from_the_folder(tmp_path, caplog):
    with caplog.at_level("INFO", "hf_dynprune"):
        trainer = finished(tmp_path, RandomPruning(0.6), [logged := LoggedRows()], size=200)
    account, done = trainer.savings, trainer.pruning_history.forward_passes
    assert (account.full, account.training, account.full_steps) == (8 * 200, done, 8 * 50)
    assert account.saved == pytest.approx(0.5, abs=0.01)
    assert account == PruningHistory.load(tmp_path).account() == CardContent.read(tmp_path).account
    assert logged.rows[-2]["dynprune/saved"] == account.saved
    assert (
        f"50.0% of the forward passes saved: {done:,} of 1,600 were made, and 200 of 400 optimizer steps."
        in caplog.text
    )
    assert "`prune_budget='steps'` fixes 200 optimizer steps, those of 4 full epochs, to save 50.0% of 8" in caplog.text
    assert [record.projected_saving for record in trainer.pruning_history] == pytest.approx(10 * [0.5], abs=0.01)
    assert AboutRun.load(tmp_path).num_epochs is RunFolder.read(tmp_path).num_epochs is None
    result = RunResult.of(Arm("random", 11, tmp_path), {}, trainer.pruning_history, trainer.state.epoch)
    assert result.full_passes == 1600
    assert result.saved == account.saved


def test_an_unfinished_run_is_compared_with_the_share_that_was_run(tmp_path):
    trainer = pruning_trainer(
        vit(),
        Images(200),
        tmp_path,
        [InterruptAt(100)],
        RandomPruning(0.6),
        save_strategy="steps",
        save_steps=10,
        **{"num_train_epochs": 8, **STEPS},
    )
    with pytest.raises(Interrupt):
        trainer.train()
    assert trainer.savings.saved == pytest.approx(0.5, abs=0.01)
    assert trainer.savings.full == pytest.approx(800, abs=8 * 200 / 10)


def test_scoring_before_the_run_is_paid_in_steps(tmp_path):
    score = np.random.default_rng(0).random(200).astype(np.float32)
    file = StaticScores(score, score[None], {"forward_passes": 200}).save(tmp_path / "scores.safetensors")
    trainer = finished(tmp_path / "run", StaticPruning(file, 0.4), size=200, warmup_steps=16)
    assert trainer.state.global_step == 3 * 50
    assert trainer.lr_scheduler.lr_lambdas[0](3) == 3 / 6  # of 16 warm-up steps for 8 epochs
    assert trainer.savings.scoring == 200
    assert trainer.savings.saved == pytest.approx(0.5, abs=0.02)
    with pytest.raises(ValueError, match="0.9 cannot be reached: it leaves .* 0.8 epochs, and scoring cost 1 epoch "):
        finished(tmp_path, StaticPruning(file, 0.4), size=200, prune_target_saving=0.9)


def test_an_account_says_about_the_share_that_the_flag_asked_for_with_a_class_floor(tmp_path):
    trainer = finished(tmp_path, RandomPruning(0.6), size=200, prune_class_floor=0.5, prune_warmup_epochs=1)
    assert trainer.savings.saved == pytest.approx(0.5, abs=0.02)
    assert trainer.pruning_history[0].pruned == 0


# ---- Resume ----


@pytest.mark.parametrize("policy", [InfoBatch(0.7, delta=0.8), NeedsSteps(0.5)], ids=str)
def test_interrupted_after_every_step_equals_uninterrupted(policy, tmp_path):
    flags = {"num_train_epochs": 5, "gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 1}
    flags |= {**STEPS, "prune_target_saving": 0.45}

    def build(name, callbacks=()):
        return pruning_trainer(vit(0.2), Images(SIZE), tmp_path / name, callbacks, policy, **flags)

    whole = build("whole")
    whole.train()
    assert whole.state.global_step == 9
    for step in range(1, whole.state.global_step):
        with pytest.raises(Interrupt):
            build(str(step), [InterruptAt(step)]).train()
        again = build(str(step))
        again.train(resume_from_checkpoint=True)
        assert_same_bits(weights_of(whole), weights_of(again))
        assert untimed(whole.pruning_history) == untimed(again.pruning_history)
        assert untimed_logs(whole)[:-1] == untimed_logs(again)[:-1]  # the last is of the steps of one call
        assert (again.state.max_steps, again.state.epoch) == (9, whole.state.epoch)
        assert whole.savings.saved == again.savings.saved
    done = build("whole")
    done.train(resume_from_checkpoint=True)
    assert_same_bits(weights_of(whole), weights_of(done))
    assert (done.state.global_step, done.savings.saved) == (9, whole.savings.saved)


@pytest.mark.parametrize(
    ("now", "says"),
    [
        ({"prune_budget": "passes"}, "prune_budget: 'steps' then, None now"),
        ({"prune_budget": None}, "prune_budget: 'steps' then, None now"),
        ({"prune_target_saving": 0.4}, "prune_target_saving: 0.5 then, 0.4 now"),
        (
            {"prune_target_saving": None, "max_steps": 24},
            "prune_target_saving: 0.5 then, None now; prune_budget: 'steps' then, None now",
        ),
        ({"per_device_train_batch_size": 2}, "optimizer steps of a full epoch: 6 then, 11 now"),
    ],
)
def test_another_budget_is_refused(now, says, tmp_path):
    flags = {**STEPS, "prune_method": "random", "num_train_epochs": 8, "save_strategy": "steps", "save_steps": 5}
    if now.get("prune_budget", "steps") == "steps":
        flags["prune_ratio"] = 0.3
    else:
        flags["prune_kwargs"] = {"ratio": 0.3}
    trainer = pruning_trainer(vit(), Images(SIZE), tmp_path, [InterruptAt(5)], **flags)
    with pytest.raises(Interrupt):
        trainer.train()
    with pytest.raises(CheckpointError, match=says):
        pruning_trainer(vit(), Images(SIZE), tmp_path, **{**flags, **now}).train(resume_from_checkpoint=True)


def test_a_longer_run_goes_on_from_a_finished_one(tmp_path):
    flags = {"save_strategy": "epoch"}
    finished(tmp_path, RandomPruning(0.4), **flags)
    longer = pruning_trainer(
        vit(), Images(SIZE), tmp_path, policy=RandomPruning(0.4), num_train_epochs=12, **STEPS, **flags
    )
    longer.train(resume_from_checkpoint=True)
    assert longer.state.global_step == 6 * 6
    assert longer.savings.full == 12 * SIZE


# ---- Flags ----


def test_flags_are_parsed_and_keep_the_methods_ratio():
    words = "--output_dir out --prune_method random --prune_ratio 0.3 --prune_target_saving 0.5 --prune_budget steps"
    (args,) = HfArgumentParser(DynPruneTrainingArguments).parse_args_into_dataclasses(words.split())
    assert (args.prune_budget, args.build_policy()) == ("steps", RandomPruning(0.3))
    alone = DynPruneArguments(prune_budget="steps")  # mixed into nothing, it cannot know of `max_steps`
    assert alone.build_policy() == InfoBatch()


def test_a_target_of_steps_is_no_ratio_and_one_of_passes_is():
    flags = {"output_dir": "out", "prune_method": "random", "prune_target_saving": 0.3}
    assert DynPruneTrainingArguments(**flags, prune_budget="passes").build_policy() == RandomPruning(0.3)
    with pytest.raises(ValueError, match="'random' needs a value for ratio: set `prune_ratio`"):
        DynPruneTrainingArguments(**flags, prune_budget="steps")
    with pytest.raises(ValueError, match=r"`prune_ratio` \(0.5\) both say how much to prune"):
        DynPruneTrainingArguments(**flags, prune_budget="passes", prune_ratio=0.5)


def test_max_steps_is_a_budget_of_steps_by_itself(tmp_path):
    runs = [{"max_steps": 13}, {"max_steps": 13, "prune_budget": "steps"}]
    first, second = (
        finished(tmp_path / str(i), RandomPruning(0.4), **{**dict.fromkeys(STEPS), **flags})
        for i, flags in enumerate(runs)
    )
    assert_same_bits(weights_of(first), weights_of(second))
    assert first.state.global_step == 13
    assert untimed(first.pruning_history) == untimed(second.pruning_history)


class TestAPolicyThatNeedsSteps:
    def test_takes_a_target_as_steps_by_itself(self, tmp_path):
        flags = {"num_train_epochs": 8, "prune_target_saving": 0.5}
        trainer = pruning_trainer(vit(), Images(SIZE), tmp_path, policy=NeedsSteps(0.5), **flags)
        trainer.train()
        assert trainer.state.global_step == 24
        assert trainer.savings.saved == pytest.approx(0.5, abs=0.05)

    @pytest.mark.parametrize("flags", [{}, {"prune_class_floor": 0.5}])
    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({}, "needs_steps decides itself how much to prune.* set `prune_target_saving` .* or `max_steps`"),
            ({"prune_budget": "passes"}, r"`prune_budget` \('passes'\) with needs_steps, which decides itself"),
            (
                {"prune_budget": "passes", "prune_target_saving": 0.2},
                r"`prune_budget` \('passes'\) with needs_steps, which decides itself",
            ),
        ],
    )
    def test_is_refused_without_a_number_of_steps(self, given, says, flags, tmp_path):
        with pytest.raises(ValueError, match=says):
            pruning_trainer(vit(), Images(SIZE), tmp_path, policy=NeedsSteps(0.5), **flags, **given)

    def test_is_refused_with_arguments_of_the_stock_trainer(self, tmp_path):
        with pytest.raises(ValueError, match="needs_steps decides itself"):
            DynPruneTrainer(
                vit(), TrainingArguments(**arguments(tmp_path)), train_dataset=Images(), policy=NeedsSteps(0.5)
            )
        args = TrainingArguments(**arguments(tmp_path, max_steps=3))
        trainer = DynPruneTrainer(vit(), args, train_dataset=Images(), policy=NeedsSteps(0.5))
        trainer.train()
        assert trainer.state.global_step == 3

    def test_is_refused_by_its_name_when_the_arguments_are_made(self, tmp_path, needs_steps_is_registered):
        flags = arguments(tmp_path, prune_method="needs_steps")
        with pytest.raises(ValueError, match="needs_steps decides itself how much to prune"):
            DynPruneTrainingArguments(**flags)
        with pytest.raises(ValueError, match=r"`prune_budget` \('passes'\) with needs_steps"):
            DynPruneTrainingArguments(**flags, prune_budget="passes", prune_target_saving=0.5)
        args = DynPruneTrainingArguments(**flags, prune_target_saving=0.5, prune_ratio=0.7)
        assert args.build_policy() == NeedsSteps(0.7)

    def test_wrapped_in_a_guarantee_it_still_does(self):
        assert CoverEvery(NeedsSteps(0.5), 3).needs_steps
        assert not CoverEvery(RandomPruning(0.5), 3).needs_steps


@pytest.fixture
def needs_steps_is_registered():
    POLICIES.register("needs_steps")(NeedsSteps)
    yield
    del POLICIES.classes["needs_steps"]
