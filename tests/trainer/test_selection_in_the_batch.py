"""Training with a selector: streams end to end, exact resume, no trace of the candidates' forward pass."""

from __future__ import annotations

import dataclasses
import logging
import random
import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset as HFDataset
from torch.utils.data import IterableDataset
from transformers import TrainingArguments

from hf_dynprune import (
    BatchSelector,
    DynPruneTrainer,
    OrderDPSelector,
    PruningHistory,
    RandomPruning,
    RandomSelector,
    SelectiveBackprop,
)
from hf_dynprune.decisions.dealing import Layout
from hf_dynprune.records.state_files import CheckpointError
from hf_dynprune.serving.generators import private_generators
from hf_dynprune.serving.indexed import INDEX_KEY, WEIGHT_KEY
from hf_dynprune.training.batch_run import BatchRun, BatchRunIdentity
from hf_dynprune.training.candidates import evaluation_mode, number_rows, take_rows
from hf_dynprune.training.in_batch import InBatchSelection
from hf_dynprune.training.refusals import check_first_batch, is_map_style, refuse_dispatch
from tests.support.helpers import (
    Images,
    LoggedRows,
    StepLog,
    arguments,
    assert_same_bits,
    pruning_trainer,
    resnet,
    stock_trainer,
    vit,
    weights_of,
)
from tests.trainer.test_resume import Interrupt, InterruptAt, untimed, untimed_logs

KEEP_ALL = {"random": RandomSelector(0.0), "orderdp": OrderDPSelector(1.0, 1.0), "selective": SelectiveBackprop(beta=0)}
HALF = {
    "random": RandomSelector(0.5),
    "orderdp": OrderDPSelector(0.8, 0.6),
    "selective_backprop": SelectiveBackprop(beta=1.0, history=10),
}


class Stream(IterableDataset):
    """The images one after the other; 22 of them are 5 batches of 4 and one of 2."""

    def __init__(self, size=22):
        self.images = Images(size)

    def __iter__(self):
        yield from (self.images[i] for i in range(len(self.images.labels)))


def hf_stream(size=22):
    images = Images(size)
    columns = {"pixel_values": images.pixels.numpy(), "labels": images.labels.numpy()}
    stream = HFDataset.from_dict(columns).to_iterable_dataset(num_shards=2)
    return stream.shuffle(seed=3, buffer_size=8).with_format("torch")


STREAMS = {"torch": Stream, "datasets": hf_stream}


def build(out, selector, dataset=None, callbacks=(), model=None, **flags):
    """A trainer with a selector; over a stream 8 steps, which pass over it more than once."""
    dataset = Stream() if dataset is None else dataset
    defaults = {"save_strategy": "steps", "save_steps": 1} | ({} if is_map_style(dataset) else {"max_steps": 8})
    flags = {**defaults, **flags}
    return pruning_trainer(model or vit(dropout=0.2), dataset, out, callbacks, selector=selector, **flags)


def resume_everywhere(tmp_path, steps_to_try=None, **parts):
    """Interrupt at each step and resume; everything must be as in the run that was not interrupted."""
    whole = build(tmp_path / "whole", **{k: v() if k in ("dataset", "model") else v for k, v in parts.items()})
    whole.train()
    steps = whole.state.global_step
    history = untimed(whole.pruning_history)
    for step in steps_to_try or range(1, steps + 1):
        made = [{k: v() if k in ("dataset", "model") else v for k, v in parts.items()} for _ in range(2)]
        folder = tmp_path / f"cut-{step}"
        with pytest.raises(Interrupt):
            build(folder, callbacks=[InterruptAt(step)], **made[0]).train()
        log = StepLog()
        resumed = build(folder, callbacks=[log], **made[1])
        resumed.train(resume_from_checkpoint=True)
        assert_same_bits(weights_of(resumed), weights_of(whole))
        assert untimed(resumed.pruning_history) == history, f"after an interrupt at step {step}"
        assert untimed(PruningHistory.load(folder)) == history
        assert [row["step"] for row in log.steps] == list(range(step + 1, steps + 1))
        assert (resumed.state.max_steps, resumed.state.epoch) == (whole.state.max_steps, whole.state.epoch)
        assert untimed_logs(resumed)[:-1] == untimed_logs(whole)[:-1]
        shutil.rmtree(folder)
    return whole


def test_a_plan_without_ghosts_says_nothing_of_a_selector_after_it(tmp_path):
    """A search over flags may set one after the other in one trainer; a selector's ghosts must not count."""
    trainer = build(tmp_path, None, Images(), save_strategy="no", num_train_epochs=1)
    trainer.train()
    assert not trainer._loss_step.has_ghosts
    trainer._training = trainer._context.training = InBatchSelection(trainer._context, RandomSelector(0.5), None)
    trainer.train()
    assert trainer._loss_step.has_ghosts


# ---- Streams, end to end ----


RESUMED_AT = {("orderdp", "torch"): None, ("orderdp", "datasets"): [3, 6], ("selective_backprop", "datasets"): [7]}
"""Steps to interrupt at; None: each. The first pass over the stream has six."""


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("name", HALF)
def test_a_stream_is_trained_and_resumed_exactly(name, stream, tmp_path):
    steps = RESUMED_AT.get((name, stream), [5])
    whole = resume_everywhere(tmp_path, steps, selector=HALF[name], dataset=STREAMS[stream])
    first, second = whole.pruning_history
    assert (first.num_samples, first.steps, second.num_samples, second.steps) == (22, 6, 8, 2)
    for record in whole.pruning_history:
        assert record.candidate_forward_passes == record.num_samples
        assert record.forward_passes == record.kept < record.num_samples
        assert record.ratio == 1 - record.kept / record.num_samples
        assert record.weight_range == [1, 1]
    history = whole.pruning_history
    assert history.charged_forward_passes == history.forward_passes + 30


def test_accumulation_over_a_stream_is_resumed_exactly(tmp_path):
    steps = [2, 3, 4, 7]  # inside the first pass, at its end, inside the second and third
    whole = resume_everywhere(
        tmp_path, steps, selector=HALF["selective_backprop"], dataset=Stream, gradient_accumulation_steps=2
    )
    assert [record.steps for record in whole.pruning_history] == [3, 3, 2]
    assert [record.num_samples for record in whole.pruning_history] == [22, 22, 16]


@pytest.mark.parametrize("name", ["orderdp", "selective_backprop"])
def test_a_map_style_data_set_is_resumed_exactly(name, tmp_path):
    whole = resume_everywhere(
        tmp_path,
        [2, 3, 4],  # inside the first epoch, at its end on a ragged batch, inside the second
        selector=HALF[name],
        dataset=Images,
        model=resnet,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        per_device_train_batch_size=5,
    )
    assert [(record.epoch, record.steps, record.num_samples) for record in whole.pruning_history] == [
        (0, 3, 22),
        (1, 3, 22),
    ]


@dataclasses.dataclass(frozen=True)
class AboveRunningMean(BatchSelector):
    """Remembers two single numbers."""

    share = 0.5

    def start(self):
        return {"sum": np.array(0.0), "count": np.array(0)}

    def observe(self, losses, state):
        assert all(isinstance(value, np.ndarray) and value.shape == () for value in state.values())
        return {"sum": state["sum"] + losses.sum(), "count": state["count"] + len(losses)}

    def select(self, losses, state, rng):
        rows = np.flatnonzero(losses >= min(state["sum"] / state["count"], losses.max()))
        return rows, np.ones(len(rows))


def test_a_state_of_single_numbers_is_resumed_exactly(tmp_path):
    resume_everywhere(tmp_path, [3], selector=AboveRunningMean(), dataset=Stream)


# ---- Nothing but the rows changes ----


def rng_states():
    return torch.get_rng_state().tolist(), random.getstate(), [str(part) for part in np.random.get_state()]  # noqa: NPY002


def dropout():
    return vit(dropout=0.2)


@pytest.mark.parametrize(
    ("name", "model", "dataset", "flags"),
    [
        ("orderdp", dropout, Images, {"gradient_accumulation_steps": 3}),
        ("random", dropout, Stream, {"max_steps": 8}),
        ("selective", dropout, lambda: Stream(24), {"max_steps": 5, "gradient_accumulation_steps": 2}),
        ("orderdp", dropout, Stream, {"max_steps": 6, "bf16": True}),
        ("random", resnet, Images, {}),
        ("selective", resnet, Stream, {"max_steps": 8}),
    ],
    ids=["dropout", "dropout, stream", "dropout, stream, accumulation", "bf16", "batch norm", "batch norm, stream"],
)
def test_choosing_everything_equals_the_stock_trainer(name, model, dataset, flags, tmp_path):
    logs, weights, states, losses = [], [], [], []
    for build_one, parts in ((stock_trainer, {}), (pruning_trainer, {"selector": KEEP_ALL[name]})):
        log = StepLog()
        trainer = build_one(model(), dataset(), tmp_path / build_one.__name__, [log], **flags, **parts)
        trainer.train()
        logs.append(log.steps)
        weights.append(weights_of(trainer))
        states.append(rng_states())
        losses.append([row["loss"] for row in trainer.state.log_history if "loss" in row])
    assert_same_bits(*weights)
    assert logs[0] == logs[1]
    assert states[0] == states[1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert len(logs[0]) > 4


class Chosen(DynPruneTrainer):
    """Notes the rows of each micro-batch and the losses they were chosen by."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen, self.expected = [], []

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        def noted():
            for batch in epoch_iterator:
                mode = [module.training for module in self.model.modules()]
                before = {k: v.clone() for k, v in self.model.state_dict().items()}
                self.model.eval()
                with torch.no_grad():
                    logits = self.model(pixel_values=batch["pixel_values"]).logits
                self.expected.append(torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none"))
                for module, training in zip(self.model.modules(), mode, strict=True):
                    module.training = training
                assert_same_bits(before, self.model.state_dict())
                yield batch

        return super().get_batch_samples(noted(), num_batches, device)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if INDEX_KEY in inputs:
            assert set(inputs[WEIGHT_KEY].tolist()) == {1.0}
            assert len(inputs["pixel_values"]) == len(inputs["labels"]) == len(inputs[INDEX_KEY])
            self.seen.append((inputs[INDEX_KEY].tolist(), int(num_items_in_batch)))
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


def test_the_rows_with_the_largest_losses_of_the_model_as_it_is_are_trained(tmp_path):
    from hf_dynprune import DynPruneTrainingArguments

    flags = {"max_steps": 4, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 8}
    args = DynPruneTrainingArguments(**arguments(tmp_path, **flags))
    selector = OrderDPSelector(pool_ratio=1.0, top_ratio=0.25)
    trainer = Chosen(model=resnet(), args=args, train_dataset=Stream(64), selector=selector)
    trainer.train()
    assert len(trainer.seen) == 8
    for (rows, items), losses in zip(trainer.seen, trainer.expected, strict=True):
        assert rows == sorted(losses.topk(2).indices.tolist())
        assert items == 4  # of both batches of the window


def test_other_seeds_choose_other_rows_and_the_same_seed_the_same(tmp_path):
    def weights(name, **flags):
        trainer = build(tmp_path / name, HALF["random"], model=vit(), save_strategy="no", **flags)
        trainer.train()
        return weights_of(trainer)["classifier.weight"]

    assert torch.equal(weights("a", prune_seed=1), weights("b", prune_seed=1))
    assert not torch.equal(weights("c", prune_seed=1), weights("d", prune_seed=2))


# ---- The candidates' forward pass ----


def test_each_module_gets_its_own_mode_back():
    model = resnet()
    model.train()
    frozen = next(module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    frozen.eval()
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    assert not frozen.training
    assert sum(not module.training for module in model.modules()) == 1


def test_generators_are_private_and_the_same_for_the_same_source():
    def draw():
        return random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002

    before = rng_states()
    drawn = []
    for key in ((1,), (1,), (2,)):
        with private_generators(torch.device("cpu"), np.random.SeedSequence(0, spawn_key=key)):
            drawn.append(draw())
        draw_outside = rng_states()
        assert draw_outside == before
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(KeyError), private_generators(torch.device("cpu"), np.random.SeedSequence(0)):
        {}[draw()]
    assert rng_states() == before


def test_rows_of_every_tensor_and_list_are_taken():
    batch = number_rows(
        {
            "x": torch.arange(12).view(4, 3),
            "labels": torch.arange(4),
            "name": list("abcd"),
            "s": torch.tensor(5),
            "f": None,
        }
    )
    taken = take_rows(batch, np.array([1, 3]), np.array([1, 2], np.float32))
    assert taken["x"].tolist() == [[3, 4, 5], [9, 10, 11]]
    assert taken["labels"].tolist() == taken[INDEX_KEY].tolist() == [1, 3]
    assert (taken["name"], int(taken["s"]), taken["f"]) == (["b", "d"], 5, None)
    assert taken[WEIGHT_KEY].tolist() == [1, 2]
    whole = take_rows(batch, np.arange(4), np.ones(4, np.float32))
    assert whole["x"] is batch["x"]


class WithModes(torch.optim.SGD):
    """Has the modes of a schedule-free optimizer."""

    mode = "none"

    def train(self):
        self.mode = "train"

    def eval(self):
        self.mode = "eval"


def test_candidates_are_scored_with_the_optimizers_training_weights(tmp_path):
    model, modes = vit(), []
    optimizer = WithModes(model.parameters(), lr=0.01)

    def loss(model, inputs, outputs):
        modes.append((torch.is_grad_enabled(), optimizer.mode))
        return torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")

    flags = {"eval_dataset": Images(4), "eval_strategy": "steps", "eval_steps": 1, "max_steps": 2}
    build(
        tmp_path,
        HALF["random"],
        model=model,
        per_sample_loss=loss,
        optimizers=(optimizer, None),
        save_strategy="no",
        **flags,
    ).train()
    assert modes == [(False, "train"), (True, "train")] * 2
    assert optimizer.mode == "eval"


# ---- Losses that are not finite, labels that are not there ----


def a_run(selector=None, size=4):
    run = BatchRun(selector or HALF["selective_backprop"], BatchRunIdentity("stream", 0, 0, False, "random"), None)
    run.begin_pass(0, 0, 100, 0)
    return run


def test_losses_that_are_not_finite_are_never_chosen_nor_remembered(caplog):
    run = a_run(SelectiveBackprop(beta=0))
    losses = np.array([1, np.nan, 3, np.inf, 5], np.float32)
    with caplog.at_level(logging.WARNING):
        for step in range(2):
            ((rows, weights),) = run.choose(step, [losses], [np.ones(5, bool)])
            assert (rows.tolist(), weights.tolist()) == ([0, 2, 4], [1, 1, 1])
    assert run.state["losses"].tolist() == [1, 3, 5, 1, 3, 5]
    assert run.take_counts().tolist() == [10, 6, 6, 4]
    assert caplog.text.count("the loss of 2 of 5 candidates was NaN or infinite") == 1


def test_no_finite_loss_at_all_is_an_error():
    with pytest.raises(
        FloatingPointError, match="All 3 candidate losses of a batch were NaN or infinite after 7 optim"
    ):
        a_run().choose(7, [np.full(4, np.nan, np.float32)], [np.array([True, True, True, False])])


def test_samples_without_a_label_are_not_candidates():
    run = a_run(SelectiveBackprop(beta=0))
    chosen = run.choose(0, [np.zeros(3, np.float32)] * 2, [np.array([False, True, False]), np.zeros(3, bool)])
    assert [rows.tolist() for rows, _ in chosen] == [[1], [0]]
    assert run.state["losses"].tolist() == [0]
    assert run.take_counts().tolist() == [6, 2, 2, 0]


def test_a_row_chosen_alone_gets_one_of_weight_0_beside_it_where_one_fails():
    run = a_run(OrderDPSelector(1.0, 0.1))
    run.spare_single = True
    losses = [np.array(values, np.float32) for values in ([np.nan, 2, 3], [9, 2, 3], [4, np.inf], [1])]
    chosen = run.choose(0, losses, [np.ones(len(each), bool) for each in losses])
    assert [(rows.tolist(), weights.tolist()) for rows, weights in chosen] == [
        ([1, 2], [0, 1]),
        ([0, 1], [1, 0]),
        ([0], [1]),
        ([0], [1]),
    ]
    assert run.take_counts().tolist() == [9, 4, 6, 2]
    assert run.record.weight_range == [1, 1]


def test_a_stream_that_ends_inside_a_window_says_what_is_left_out(tmp_path, caplog):
    flags = {"gradient_accumulation_steps": 4, "max_steps": 2, "save_strategy": "no"}
    with caplog.at_level(logging.WARNING):
        trainer = build(tmp_path, HALF["random"], **flags)
        trainer.train()
    assert "its last 2 of 4 batches make no optimizer step and are not trained" in caplog.text
    assert [record.num_samples for record in trainer.pruning_history] == [16, 16]


# ---- Flags, logs, refusals that are not in the catalogue ----


@pytest.mark.parametrize(
    ("dataset", "layout", "is_dispatched"),
    [
        (Stream(), Layout(4, 1, 2), True),
        (Images(), Layout(4, 1, 2), False),
        (Images(), Layout(4, 1, 1), True),
        (Images(), Layout(4, 1, 2, split_batches=True), True),  # one batch per step, as many as are skipped
    ],
    ids=["stream", "not dispatched", "one process", "split"],
)
def test_dispatched_batches_are_refused_only_where_a_resume_goes_wrong(dataset, layout, is_dispatched):
    refuse_dispatch(dataset, layout, is_dispatched)
    with pytest.raises(ValueError, match="map-style data and 3 processes"):
        refuse_dispatch(Images(), Layout(4, 1, 3), True)


@pytest.mark.parametrize(
    ("size", "layout", "is_refused"),
    [
        (2, Layout(4, 1, 1), True),
        (1, Layout(4, 1, 1), False),
        (6, Layout(4, 1, 2), True),
        (5, Layout(4, 1, 2), False),  # the last process may get one sample
        (22, Layout(2, 1, 2, split_batches=True), False),
        (22, Layout(4, 1, 2, split_batches=True), True),
    ],
)
def test_a_first_batch_of_one_row_is_refused_where_it_should_have_more(size, layout, is_refused):
    check_first_batch(RandomSelector(0.0), 1, layout, Images(size))
    check_first_batch(RandomSelector(), 2, layout, Images(size))
    if not is_refused:
        check_first_batch(RandomSelector(), 1, layout, Images(size))
        return
    with pytest.raises(ValueError, match="the first batch has 1 row where"):
        check_first_batch(RandomSelector(), 1, layout, Images(size))


def test_a_last_batch_of_one_row_is_trained(tmp_path):
    for dataset in (Images(9), Stream(9)):
        trainer = build(tmp_path, HALF["random"], dataset, save_strategy="no", max_steps=6)
        trainer.train()
        assert [record.num_samples for record in trainer.pruning_history] == [9, 9]


def test_flags_choose_a_selector_and_an_object_wins_over_them(tmp_path):
    flags = {"prune_selector": "random", "prune_selector_kwargs": '{"ratio": 0.25}', "max_steps": 2}
    assert pruning_trainer(vit(), Stream(), tmp_path, **flags).selector == RandomSelector(0.25)
    assert pruning_trainer(vit(), Stream(), tmp_path, selector=HALF["orderdp"], **flags).selector == HALF["orderdp"]
    args = TrainingArguments(**arguments(tmp_path, max_steps=2))
    trainer = DynPruneTrainer(model=vit(), args=args, train_dataset=Stream(), selector=HALF["orderdp"])
    assert len(trainer.pruning_history) == 0


def test_the_start_says_what_is_trained_and_what_it_costs(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="hf_dynprune"):
        trainer = build(tmp_path, HALF["orderdp"], max_steps=7, save_strategy="no")
        trainer.add_callback(log := LoggedRows())
        result = trainer.train()
    assert "of each batch of 4 candidates about 48.0% are trained. Choosing costs one forward pass" in caplog.text
    rows = [row for row in log.rows if "dynprune/candidates" in row]
    assert [(row["dynprune/candidates"], row["dynprune/nonfinite"]) for row in rows] == [(22, 0), (4, 0)]
    rate, seconds = result.metrics["train_samples_per_second"], result.metrics["train_runtime"]
    assert rate * seconds == pytest.approx(trainer.pruning_history.forward_passes, rel=0.05)


def test_a_second_run_begins_anew_and_evaluation_is_stock(tmp_path):
    selector = HALF["selective_backprop"]
    trainer = build(tmp_path, selector, eval_dataset=Images(6), eval_strategy="steps", eval_steps=2)
    trainer.train()
    once = untimed(trainer.pruning_history)
    trainer.train()
    assert [row["num_samples"] for row in untimed(trainer.pruning_history)] == [row["num_samples"] for row in once]
    assert len(trainer._training.run.state["losses"]) == 10
    assert any("eval_loss" in row for row in trainer.state.log_history)


def test_a_finished_run_that_is_resumed_makes_no_further_step(tmp_path):
    whole = build(tmp_path, HALF["orderdp"])
    whole.train()
    again = build(tmp_path, HALF["orderdp"])
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 8
    assert untimed(again.pruning_history) == untimed(whole.pruning_history)


def test_epoch_checkpoints_of_a_stream_resume_with_the_next_pass(tmp_path):
    flags = {"save_strategy": "epoch", "max_steps": 15}
    whole = build(tmp_path / "whole", HALF["selective_backprop"], **flags)
    whole.train()
    resumed = build(tmp_path / "again", HALF["selective_backprop"], **flags)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-6"))
    assert_same_bits(weights_of(resumed), weights_of(whole))
    assert untimed(resumed.pruning_history) == untimed(whole.pruning_history)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    build(folder, HALF["orderdp"], max_steps=2).train()
    return str(folder / "checkpoint-1")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"selector": HALF["random"]}, "selector: 'orderdp' then, 'random' now; its parameters: .*'pool_ratio': 0.8"),
        (
            {"selector": OrderDPSelector(0.8, 0.5)},
            "its parameters: {.*'top_ratio': 0.6} then, {.*'top_ratio': 0.5} now",
        ),
        ({"prune_seed": 3}, "pruning seed: 11 then, 3 now"),
        ({"per_device_train_batch_size": 8}, "batches: '1 process x batch 4 x .* then, '1 process x batch 8 x"),
        ({"dataset": Images(), "max_steps": 2}, "or that it is a stream.: 'stream' then, '[0-9a-f]{16}' now"),
    ],
    ids=["selector", "parameters", "seed", "batch size", "data"],
)
def test_a_checkpoint_of_another_run_is_refused(parts, message, saved, tmp_path):
    trainer = build(tmp_path, **{"selector": HALF["orderdp"], **parts})
    with pytest.raises(CheckpointError, match=message):
        trainer.train(resume_from_checkpoint=saved)


def test_policy_and_selector_do_not_resume_each_other(saved, tmp_path):
    policy = pruning_trainer(
        vit(dropout=0.2),
        Images(),
        tmp_path / "p",
        policy=RandomPruning(0.5),
        max_steps=2,
        save_strategy="steps",
        save_steps=1,
    )
    with pytest.raises(CheckpointError, match="written with the selector 'orderdp', this run has no selector"):
        policy.train(resume_from_checkpoint=saved)
    policy.train()
    with pytest.raises(
        CheckpointError, match="written with the pruning method 'random', this run has the selector 'orde"
    ):
        build(tmp_path, HALF["orderdp"], Images(), max_steps=2).train(
            resume_from_checkpoint=str(tmp_path / "p" / "checkpoint-1")
        )


@dataclasses.dataclass(frozen=True)
class Broken(BatchSelector):
    rows: tuple = ()
    weights: tuple = ()
    share = 0.5

    def select(self, losses, state, rng):
        return np.array(self.rows), np.array(self.weights)


def test_a_selector_of_the_users_own_is_held_to_its_contract(tmp_path):
    trainer = build(tmp_path, Broken((0, 2), (1.0, 2.0)), max_steps=2, save_strategy="no", dataset=Stream(8))
    trainer.train()
    assert trainer.pruning_history[0].weight_range == [1, 2]
    with pytest.raises(
        ValueError, match=r"`select` of Broken must choose strictly increasing rows in \[0, 4\), got \[2, 0\]"
    ):
        build(tmp_path, Broken((2, 0), (1.0, 1.0)), save_strategy="no").train()
