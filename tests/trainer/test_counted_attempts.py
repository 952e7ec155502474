"""Optimizer steps that a grad scaler skips, counted as transformers will after 5.24: not in `global_step`, but in
`state.optimizer_step_attempts`. Samples, rates and records are those of a run under today's count.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import Trainer

from hf_dynprune import DynPruneMixin, DynPruneTrainingArguments, NoPruning, RandomPruning
from tests.support.helpers import Images, StepLog, arguments, assert_same_bits, vit, weights_of

SKIPPED = {2, 7, 8, 12}
FILE = "attempts.json"
POLICIES = pytest.mark.parametrize("policy", [NoPruning(), RandomPruning(0.4)], ids=str)


class TodaysCount(Trainer):
    """Skips the attempts of `SKIPPED`, from 1."""

    attempts = 0

    def has_skipped(self) -> bool:
        return self.attempts in SKIPPED

    def attempt(self) -> None:
        self.attempts += 1


class CountToCome(TodaysCount):
    """The stock step adds 1 to `global_step` after a skipped step too; here that 1 is taken away before."""

    def _init_training_state(self, max_steps, updates, epochs, checkpoint, trial, is_unsized_dataloader=False):
        result = super()._init_training_state(max_steps, updates, epochs, checkpoint, trial)
        self.attempts = json.loads(Path(checkpoint, FILE).read_text()) if checkpoint else 0
        self.state.optimizer_step_attempts = self._initial_optimizer_step_attempts = self.attempts
        if checkpoint:  # the place in the data will be counted in attempts too
            epoch, step = divmod(self.attempts, updates)
            return epoch, step * self.args.gradient_accumulation_steps
        return result

    def attempt(self) -> None:
        super().attempt()
        self.state.optimizer_step_attempts = self.attempts
        self.state.global_step -= self.has_skipped()

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        Path(self.args.output_dir, f"checkpoint-{self.state.global_step}", FILE).write_text(json.dumps(self.attempts))


class Log(StepLog):
    trainer: TodaysCount

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.trainer.attempt()


@pytest.fixture
def run(tmp_path, monkeypatch):
    def run(base, name, policy, checkpoint=None, **flags):
        log = Log()
        trainer = type("Pruned", (DynPruneMixin, base), {})(
            vit(),
            DynPruneTrainingArguments(**{**arguments(tmp_path / name), **flags}),
            train_dataset=Images(24),
            policy=policy,
            callbacks=[log],
        )
        log.trainer = trainer
        skipped = property(lambda accelerator: trainer.has_skipped())
        monkeypatch.setattr(type(trainer.accelerator), "optimizer_step_was_skipped", skipped)
        trainer.result = trainer.train(resume_from_checkpoint=checkpoint)
        trainer.rates = [row["lr"] for row in log.steps]
        return trainer

    return run


def records(trainer):
    return [(record.epoch, record.steps, record.kept) for record in trainer.pruning_history]


@POLICIES
def test_a_run_by_epochs_is_the_same_under_both_counts(run, policy):
    today, to_come = (run(base, base.__name__, policy) for base in (TodaysCount, CountToCome))
    assert to_come.state.global_step == today.state.global_step - len(SKIPPED & set(range(today.attempts + 1)))
    assert to_come.attempts == today.attempts == today.state.global_step
    assert to_come.rates == today.rates
    assert records(to_come) == records(today)
    assert_same_bits(weights_of(to_come), weights_of(today))


@POLICIES
def test_fixed_steps_are_those_that_were_not_skipped(run, policy):
    trainer = run(CountToCome, "run", policy, max_steps=14)
    assert trainer.state.global_step == trainer.lr_scheduler.last_epoch == 14
    assert trainer.attempts == 14 + len(SKIPPED)
    assert sum(steps for _, steps, _ in records(trainer)) == trainer.attempts
    applied = [rate for attempt, rate in enumerate(trainer.rates, 1) if attempt not in SKIPPED]
    assert applied == pytest.approx([5e-3 * (14 - done) / 14 for done in range(1, 15)])


@POLICIES
@pytest.mark.parametrize("flags", [{}, {"max_steps": 14}], ids=["epochs", "max_steps"])
@pytest.mark.parametrize("step", [1, 3, 5, 8])
def test_a_resumed_run_goes_on_where_it_was(run, policy, flags, step):
    whole = run(CountToCome, "whole", policy, **flags, save_strategy="steps", save_steps=1)
    checkpoint = Path(whole.args.output_dir, f"checkpoint-{step}")
    again = run(CountToCome, "again", policy, str(checkpoint), **flags)
    assert again.attempts == whole.attempts
    assert records(again) == records(whole)
    assert again.rates == whole.rates[len(whole.rates) - len(again.rates) :]
    assert_same_bits(weights_of(again), weights_of(whole))


def test_an_old_checkpoint_has_no_such_count(run):
    """As transformers will, which then takes `global_step`."""
    whole = run(TodaysCount, "whole", RandomPruning(0.4), save_strategy="steps", save_steps=1)
    checkpoint = Path(whole.args.output_dir, "checkpoint-6")
    (checkpoint / FILE).write_text("6")
    again = run(CountToCome, "again", RandomPruning(0.4), str(checkpoint))
    assert records(again) == records(whole)
    assert_same_bits(weights_of(again), weights_of(whole))
