"""Resumed inside an epoch with another batch size or accumulation: scores and plan kept, the rest dealt out anew."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from hf_dynprune import InfoBatch, OrderDP, RandomPruning
from hf_dynprune.records.state_files import CheckpointError
from hf_dynprune.serving.indexed import INDEX_KEY
from tests.support.helpers import Images, StepLog, pruning_trainer, resnet, vit, weights_of

SIZE = 46
POLICIES = {"infobatch": InfoBatch(ratio=0.7, delta=0.8), "orderdp": OrderDP(0.8, 0.6), "random": RandomPruning(0.4)}


class Visits(StepLog):
    """Which samples each epoch trained, by the indices that reached the loss."""

    trainer = None

    def __init__(self):
        super().__init__()
        self.by_epoch = {}

    def attach(self, trainer):
        self.trainer, plain = trainer, trainer.compute_loss

        def compute_loss(model, inputs, *args, **kwargs):
            if INDEX_KEY in inputs:
                epoch = trainer._training.run.clock.current.epoch
                self.by_epoch.setdefault(epoch, []).append(inputs[INDEX_KEY].tolist())
            return plain(model, inputs, *args, **kwargs)

        trainer.compute_loss = compute_loss
        return trainer


def build(folder, method, log, model=None, **flags):
    flags = {"num_train_epochs": 4, "save_strategy": "steps", "save_steps": 1, "optim": "sgd", **flags}
    return log.attach(pruning_trainer(model or vit(), Images(SIZE), folder, [log], policy=POLICIES[method], **flags))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """By method, made once: the folder with a checkpoint of each step, the trainer, what each epoch trained."""
    made = {}

    def get(method):
        if method not in made:
            log = Visits()
            folder = tmp_path_factory.mktemp(method) / "whole"
            whole = build(folder, method, log)
            whole.train()
            made[method] = folder, whole, log
        return made[method]

    return get


def flat(batches):
    return sorted(index for batch in batches for index in batch)


CHANGES = {
    "smaller batch": {"per_device_train_batch_size": 3},
    "larger batch": {"per_device_train_batch_size": 10},
    "accumulation": {"gradient_accumulation_steps": 3},
    "both": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 5},
    "larger than the rest": {"per_device_train_batch_size": 64},
}


@pytest.mark.parametrize("method", POLICIES)
@pytest.mark.parametrize("change", CHANGES)
def test_each_kept_sample_is_trained_once(change, method, uninterrupted, tmp_path):
    folder, whole, first = uninterrupted(method)
    start = whole.pruning_history[0].steps
    step = start + 3  # three batches of four into the second epoch
    log = Visits()
    resumed = build(tmp_path / "resumed", method, log, **CHANGES[change])
    resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
    before = first.by_epoch[1][:3]
    assert flat(before + log.by_epoch[1]) == flat(first.by_epoch[1])
    record = resumed.pruning_history[1]
    assert record.kept == whole.pruning_history[1].kept
    assert record.forward_passes == record.kept
    window = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, **CHANGES[change]}
    assert record.steps == 3 + sum(1 for row in log.steps if row["epoch"] <= 2.0)
    assert len(log.by_epoch[2][0]) == min(window["per_device_train_batch_size"], resumed.pruning_history[2].kept)
    assert resumed.state.global_step == resumed.state.max_steps == step + len(log.steps)
    assert resumed.state.epoch == 4.0
    epochs = [row["epoch"] for row in log.steps]
    assert epochs == sorted(epochs)
    assert epochs[0] > 1
    rates = [row["lr"] for row in log.steps]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert rates[0] <= first.steps[step - 1]["lr"] * 1.06  # at the same share of the run, to half a step


def test_same_total_batch_goes_on_with_the_same_batches(tmp_path):
    """Four per batch, two accumulated, as eight at once: the very same optimizer steps."""
    first = Visits()
    whole = build(tmp_path / "whole", "orderdp", first, gradient_accumulation_steps=2)
    whole.train()
    log = Visits()
    flags = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    resumed = build(tmp_path / "resumed", "orderdp", log, **flags)
    at = whole.pruning_history[0].steps + 1
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{at}"))
    assert [row["step"] for row in log.steps] == [row["step"] for row in first.steps][at:]
    assert [row["lr"] for row in log.steps] == pytest.approx([row["lr"] for row in first.steps][at:], rel=1e-9)
    for name, value in weights_of(whole).items():
        torch.testing.assert_close(weights_of(resumed)[name], value, rtol=0, atol=1e-5)


def test_changing_there_and_back_inside_one_epoch(uninterrupted, tmp_path):
    folder, whole, first = uninterrupted("random")
    at = whole.pruning_history[0].steps + 2
    visited = first.by_epoch[1][:2]
    for number, flags in enumerate(
        ({"per_device_train_batch_size": 3}, {"gradient_accumulation_steps": 2}, {"per_device_train_batch_size": 4})
    ):
        log = Visits()
        trainer = build(tmp_path / str(number + 1), "random", log, **flags)
        trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{at}"))
        folder = tmp_path / str(number + 1)
        assert flat(visited + log.by_epoch[1]) == flat(first.by_epoch[1])
        visited += log.by_epoch[1][: flags.get("gradient_accumulation_steps", 1)]
        at += 1
    assert trainer.pruning_history[1].forward_passes == trainer.pruning_history[1].kept
    assert trainer.state.epoch == 4.0


@pytest.mark.parametrize(("batch", "updates"), [(3, 9), (7, 4)])
def test_at_an_epochs_end_nothing_is_dealt_out_anew(batch, updates, uninterrupted, tmp_path, caplog):
    folder, whole, _ = uninterrupted("random")
    at = whole.pruning_history[0].steps
    log = Visits()
    resumed = build(tmp_path / "resumed", "random", log, per_device_train_batch_size=batch)
    resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{at}"))
    assert [len(log.by_epoch[epoch]) for epoch in (1, 2, 3)] == [updates] * 3
    assert log.steps[-1]["lr"] == pytest.approx(0, abs=1e-12)
    assert log.steps[0]["epoch"] == pytest.approx(1 + 1 / updates)
    assert not any("dealt out anew" in record.message for record in caplog.records)
    assert any("Saved with 1 process x batch 4" in record.message for record in caplog.records)


def test_max_steps_makes_exactly_as_many(tmp_path):
    build(tmp_path / "whole", "random", Visits(), max_steps=30).train()
    log = Visits()
    resumed = build(tmp_path / "resumed", "random", log, max_steps=30, per_device_train_batch_size=3)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-13"))
    assert [row["step"] for row in log.steps] == list(range(14, 31))
    assert [row["lr"] for row in log.steps] == pytest.approx([5e-3 * (30 - s) / 30 for s in range(14, 31)], abs=1e-9)


def test_ignore_data_skip_restarts_the_epoch_in_the_new_layout(uninterrupted, tmp_path):
    folder, whole, _ = uninterrupted("random")
    at = whole.pruning_history[0].steps + 2
    log = Visits()
    resumed = build(tmp_path / "resumed", "random", log, per_device_train_batch_size=9, ignore_data_skip=True)
    resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{at}"))
    assert len(flat(log.by_epoch[1])) == resumed.pruning_history[1].kept
    assert resumed.pruning_history[1].steps == 2 + 3
    assert log.steps[-1]["lr"] == pytest.approx(0, abs=1e-12)


def test_a_lone_last_sample_does_not_break_batch_normalisation(tmp_path):
    """27 kept, 12 done, then batches of seven: the last would hold one."""
    build(tmp_path / "whole", "random", Visits(), resnet()).train()
    log = Visits()
    resumed = build(tmp_path / "resumed", "random", log, resnet(), per_device_train_batch_size=7)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{7 + 3}"))
    assert min(map(len, log.by_epoch[1])) > 1


def out_of_memory_above(size):
    def loss(model, inputs, outputs):
        if len(inputs["labels"]) > size:
            raise RuntimeError("CUDA out of memory. Tried to allocate")  # the text that Accelerate looks for
        return torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")

    return loss


def test_out_of_memory_in_a_resumed_run_goes_on_with_a_smaller_batch(uninterrupted, tmp_path):
    folder, _, first = uninterrupted("random")
    log = Visits()
    flags = {"auto_find_batch_size": True, "per_sample_loss": out_of_memory_above(3)}
    resumed = build(tmp_path / "resumed", "random", log, **flags)
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-10"))
    assert resumed._train_batch_size == 3
    tried = len(log.by_epoch[1][0])
    assert tried == 4
    succeeded = [batch for batch in log.by_epoch[1] if len(batch) <= 3]
    done = first.by_epoch[1][: 10 - 7]
    assert flat(done + succeeded) == flat(first.by_epoch[1])
    assert resumed.state.epoch == 4.0
    assert [dataclasses.asdict(r)["kept"] for r in resumed.pruning_history] == [27] * 4
    assert np.isfinite(resumed._training.run.store.view().score[list(set(flat(succeeded)))]).all()


def onecycle(folder, log, **flags):
    model = vit()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=48)
    return build(folder, "random", log, model, optimizers=(optimizer, scheduler), **flags)


def test_a_scheduler_of_the_users_own_cannot_change_its_steps(tmp_path):
    """It is restored with its old length: with smaller batches it would step past its end."""
    onecycle(tmp_path / "whole", Visits()).train()
    at = str(tmp_path / "whole" / "checkpoint-9")
    resumed = onecycle(tmp_path / "smaller", Visits(), per_device_train_batch_size=3)
    with pytest.raises(CheckpointError, match="OneCycleLR, a scheduler of your own, counts optimizer steps"):
        resumed.train(resume_from_checkpoint=at)
    # The same total batch has the same steps.
    log = Visits()
    flags = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    resumed = onecycle(tmp_path / "same", log, **flags)
    resumed.train(resume_from_checkpoint=at)
    assert resumed.lr_scheduler.last_epoch == 48


def test_a_finished_fractional_run_in_other_units_is_still_finished(tmp_path):
    flags = {"num_train_epochs": 2.5, "per_device_train_batch_size": 5}
    whole = build(tmp_path / "whole", "random", Visits(), **flags)
    whole.train()
    log = Visits()
    flags |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}
    again = build(tmp_path / "again", "random", log, **flags)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{whole.state.global_step}"))
    assert again.state.max_steps >= again.state.global_step >= whole.state.global_step
    assert len(log.steps) <= 1


def test_a_restarted_epoch_in_another_layout_is_said(uninterrupted, tmp_path, caplog):
    folder, _, _ = uninterrupted("random")
    flags = {"per_device_train_batch_size": 9, "ignore_data_skip": True}
    again = build(tmp_path / "again", "random", Visits(), **flags)
    again.train(resume_from_checkpoint=str(folder / "checkpoint-9"))
    (line,) = [record.message for record in caplog.records if "Saved with" in record.message]
    assert "Saved with 1 process x batch 4 x accumulation 1, resumed with 1 process x batch 9" in line
    assert "equals no uninterrupted run to the bit" in line
