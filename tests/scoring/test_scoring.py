"""Static scores: equal to naive computations and hand-made traces, reproducible, kept in files, charged for."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re

import datasets
import numpy as np
import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments, ViTForImageClassification
from typer.testing import CliRunner

from hf_dynprune import (
    DynPruneTrainingArguments,
    MixingCollator,
    PruningHistory,
    StaticPruning,
    load_scores,
    score_dataset,
)
from hf_dynprune.cli import app
from hf_dynprune.common.files import json_digest
from hf_dynprune.records.score_file import ScoreFileError, StaticScores
from hf_dynprune.scoring.rules import el2n_scores, forgetting_counts
from hf_dynprune.scoring.training_run import _Watch
from tests.support.helpers import (
    CLASSES,
    Images,
    arguments,
    bert,
    pruning_trainer,
    resnet,
    stock_trainer,
    vit,
    weights_of,
)

SIZE = 10


class Sentences(torch.utils.data.Dataset):
    """Token sequences of different lengths, some padded by the collator."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.labels = rng.integers(0, CLASSES, SIZE)
        self.tokens = [rng.integers(1, 50, rng.integers(3, 9)).tolist() for _ in range(SIZE)]

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> dict:
        return {"input_ids": self.tokens[index], "labels": int(self.labels[index])}


def padded(items: list[dict]) -> dict[str, torch.Tensor]:
    length = max(len(item["input_ids"]) for item in items)
    rows = [item["input_ids"] + [0] * (length - len(item["input_ids"])) for item in items]
    mask = [[1] * len(item["input_ids"]) + [0] * (length - len(item["input_ids"])) for item in items]
    labels = [item["labels"] for item in items]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask), "labels": torch.tensor(labels)}


def args(tmp_path, **flags) -> TrainingArguments:
    return TrainingArguments(**arguments(tmp_path / "never", per_device_eval_batch_size=4, **flags))


def score(method, tmp_path, model=vit, dataset=None, *, epochs=None, runs=1, flags=None, **options) -> StaticScores:
    dataset = Images(SIZE) if dataset is None else dataset
    scores = score_dataset(method, model, dataset, args(tmp_path, **(flags or {})), epochs=epochs, runs=runs, **options)
    assert not (tmp_path / "never").exists()
    return scores


def trained(model, dataset, tmp_path, seed=11, collator=None, **flags):
    """By the stock Trainer, from the weights and the seed that a run of scoring has."""
    trainer = stock_trainer(model(), dataset, tmp_path / "stock", data_collator=collator, seed=seed, **flags)
    trainer.train()
    return trainer.model.eval()


def naive(method, model, dataset, collator=None) -> np.ndarray:
    """One sample at a time, with the model's own loss."""
    collator = collator or (lambda items: {k: torch.stack([torch.as_tensor(i[k]) for i in items]) for k in items[0]})
    scores = []
    for index in range(len(dataset)):
        batch = collator([dataset[index]])
        model.zero_grad()
        outputs = model(**batch)
        if method == "el2n":
            wrong = outputs.logits[0].softmax(0) - torch.eye(CLASSES)[batch["labels"][0]]
            scores.append(float(wrong.square().sum().sqrt().detach()))
        else:
            outputs.loss.backward()
            squares = [float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None]
            scores.append(sum(squares) ** 0.5)
    return np.array(scores)


class Counted:
    """A method, and how often it was called."""

    def __init__(self, method) -> None:
        self.method, self.calls = method, 0

    def __get__(self, owner, kind=None):
        def call(*args, **kwargs):
            self.calls += 1
            return self.method(owner, *args, **kwargs)

        return call


# ---- The three scores ----

CASES = {"vit": (vit, None, "vmap"), "resnet": (resnet, None, "vmap"), "bert": (bert, padded, "loop")}


@pytest.mark.parametrize("method", ["el2n", "grand"])
@pytest.mark.parametrize("case", CASES)
def test_scores_equal_a_naive_computation(case, method, tmp_path):
    model, collator, way = CASES[case]
    dataset = Images(SIZE) if collator is None else Sentences()
    scores = score(method, tmp_path, model, dataset, epochs=1, data_collator=collator, flags={"num_train_epochs": 1})
    expected = naive(
        method, trained(model, dataset, tmp_path, collator=collator, num_train_epochs=1), dataset, collator
    )
    assert expected.std() > 1e-4
    np.testing.assert_allclose(scores.score, expected, rtol=1e-5, atol=1e-5)
    assert scores.facts.get("gradients") == (way if method == "grand" else None)


@pytest.mark.parametrize("way", ["vmap", "loop"])
def test_grand_at_initialisation_in_chunks_and_one_by_one(way, tmp_path):
    scores = score("grand", tmp_path, resnet, epochs=0, gradients=way, chunk=3)
    np.testing.assert_allclose(scores.score, naive("grand", resnet().eval(), Images(SIZE)), rtol=1e-5, atol=1e-5)
    assert scores.facts["forward_passes"] == SIZE


def test_grand_is_over_the_trainable_parameters(tmp_path):
    def head_only():
        model = vit()
        model.vit.requires_grad_(False)
        return model

    model = head_only().eval()
    scores = score("grand", tmp_path, head_only, epochs=0)
    np.testing.assert_allclose(scores.score, naive("grand", model, Images(SIZE)), rtol=1e-5, atol=1e-5)
    assert (scores.score < score("grand", tmp_path, vit, epochs=0).score).all()


def test_grand_of_several_labels(tmp_path):
    class Several(Images):
        def __getitem__(self, index):
            return {"pixel_values": self.pixels[index], "labels": torch.eye(CLASSES)[self.labels[index]]}

    def model():
        return vit(problem_type="multi_label_classification")

    scores = score("grand", tmp_path, model, Several(SIZE), epochs=0)
    np.testing.assert_allclose(scores.score, naive("grand", model().eval(), Several(SIZE)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["el2n", "forgetting"])
def test_scores_for_one_label_refuse_several_at_the_first_batch(method, tmp_path, monkeypatch):
    class Several(Images):
        def __getitem__(self, index):
            return {"pixel_values": self.pixels[index], "labels": torch.eye(CLASSES)[self.labels[index]]}

    monkeypatch.setattr(Trainer, "training_step", counted := Counted(Trainer.training_step))
    with pytest.raises(ValueError, match="defined for one label per sample, `problem_type` is 'multi_label_class"):
        score(method, tmp_path, lambda: vit(problem_type=None), Several(SIZE), epochs=1)
    assert counted.calls == 1


@pytest.mark.parametrize("method", ["el2n", "forgetting"])
def test_scores_for_one_label_refuse_shares_of_classes(method, tmp_path):
    class Shares(Images):
        def __getitem__(self, index):
            return super().__getitem__(index) | {"labels": torch.tensor([0.6, 0.3, 0.1])}

    with pytest.raises(ValueError, match="the labels are shares of the classes .torch.float32.: pass class numbers"):
        score(method, tmp_path, lambda: vit(problem_type="single_label_classification"), Shares(SIZE), epochs=1)


def test_forgetting_refuses_mixed_images_and_el2n_scores_whole_ones(tmp_path):
    with pytest.raises(ValueError, match="Forgetting counts right answers to whole images, and the collator mixes"):
        score("forgetting", tmp_path, data_collator=MixingCollator())
    assert score("el2n", tmp_path, epochs=1, data_collator=MixingCollator()).score.max() < 2**0.5


def test_forgetting_counts_of_a_hand_made_trace():
    trace = [
        # never, always, learned once, forgotten once, twice, right at first only
        [0, 1, 0, 0, 1, 1],
        [0, 1, 0, 1, 0, 0],
        [0, 1, 1, 0, 1, 0],
        [0, 1, 1, 1, 0, 0],
    ]
    counts = forgetting_counts(np.array(trace, bool))
    assert counts.tolist() == [4, 0, 0, 1, 2, 1]
    assert counts.dtype == np.float32
    assert forgetting_counts(np.array([[1, 0]], bool)).tolist() == [0, 1]


def test_el2n_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [1.0, 1e-30, 1e-30]]))
    scores = el2n_scores(logits, torch.tensor([0, 2]))
    expected = [(0.5**2 + 2 * 0.25**2) ** 0.5, 2**0.5]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_forgetting_is_counted_in_the_training_forward_passes(tmp_path, monkeypatch):
    # Dropout and batches of three: nothing but the training's own forward passes has these answers.
    seen = np.zeros((4, SIZE), int) - 1
    dataset, stock = Images(SIZE), Trainer.compute_loss

    class Recording(Trainer):
        def compute_loss(self, model, inputs, *rest, **kwargs):
            loss, outputs = stock(self, model, inputs, return_outputs=True, num_items_in_batch=None)
            for pixels, right in zip(inputs["pixel_values"], outputs.logits.argmax(1) == inputs["labels"], strict=True):
                sample = int((dataset.pixels == pixels).flatten(1).all(1).nonzero())
                seen[int(self.state.epoch), sample] = right
            return loss

    flags = {"num_train_epochs": 4, "learning_rate": 0.03, "per_device_train_batch_size": 3}
    model = vit(dropout=0.2)
    torch.manual_seed(0)
    Recording(model=model, args=args(tmp_path / "stock", **flags), train_dataset=dataset).train()
    assert (seen >= 0).all()
    scores = score("forgetting", tmp_path, lambda: vit(dropout=0.2), dataset, flags=flags)
    assert scores.score.tolist() == forgetting_counts(seen == 1).tolist()
    assert len(set(scores.score.tolist())) > 1
    assert scores.facts["forward_passes"] == 4 * SIZE


def test_a_watched_run_that_starts_over_forgets_what_it_saw():
    watch, state, control = _Watch(2, 5, "title"), None, type("Control", (), {"should_training_stop": False})()
    quiet = type("Args", (), {"disable_tqdm": True})()
    for _ in range(2):
        watch.on_train_begin(quiet, state, control)
        watch.note(torch.tensor([1]), torch.tensor([0]), torch.tensor([[2.0, 1.0]]))
        watch.note(torch.tensor([0]), torch.tensor([0]), torch.tensor([[0.0, 1.0]]))
        watch.on_epoch_end(quiet, state, control)
    assert np.stack(watch.rows).tolist() == [[False, True]]


def test_a_set_of_the_datasets_library_is_scored_in_its_order(tmp_path):
    images = Images(SIZE)
    columns = {
        "pixel_values": images.pixels.numpy().tolist(),
        "labels": images.labels.tolist(),
        "id": list("abcdefghij"),
    }
    dataset = datasets.Dataset.from_dict(columns).with_format("torch")
    expected = score("grand", tmp_path, epochs=0).score
    np.testing.assert_allclose(score("grand", tmp_path, dataset=dataset, epochs=0).score, expected, rtol=1e-5)


def test_augmentation_is_for_training_only(tmp_path):
    class Noisy(Images):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            return item | {"pixel_values": item["pixel_values"] + torch.randn(1, 8, 8)}

    scores = score("grand", tmp_path, dataset=Noisy(SIZE), plain_dataset=Images(SIZE), epochs=0)
    assert scores.score.tolist() == score("grand", tmp_path, epochs=0).score.tolist()


def test_the_arguments_of_the_training_serve_for_scoring(tmp_path):
    flags = {
        "prune_target_saving": 0.2,
        "prune_method": "ucb",
        "prune_max_unseen_epochs": 20,
        "prune_class_floor": 0.1,
        "prune_warmup_epochs": 1,
        "prune_seed": 5,
    }
    pruning = DynPruneTrainingArguments(**arguments(tmp_path / "never", per_device_eval_batch_size=4, **flags))
    selecting = DynPruneTrainingArguments(
        **arguments(tmp_path / "never", per_device_eval_batch_size=4, prune_selector="orderdp")
    )
    expected = score("el2n", tmp_path, epochs=1).score.tolist()
    for given in (pruning, selecting):
        assert score_dataset("el2n", vit, Images(SIZE), given, epochs=1, runs=1).score.tolist() == expected
    assert pruning.prune_target_saving == 0.2


# ---- Runs, seeds, generators ----


def test_scores_are_the_mean_of_runs_that_follow_from_their_seeds(tmp_path):
    both = score("el2n", tmp_path, epochs=1, runs=2, seed=3)
    again = [score("el2n", tmp_path, epochs=1, seed=seed) for seed in (3, 4)]
    assert both.runs.tolist() == [again[0].score.tolist(), again[1].score.tolist()]
    assert again[0].score.tolist() != again[1].score.tolist()
    np.testing.assert_allclose(both.score, (again[0].score + again[1].score) / 2, rtol=1e-6)
    assert both.facts["seeds"] == [3, 4]


def test_the_seed_also_makes_the_initial_weights(tmp_path):
    config = vit().config
    first, second = score("grand", tmp_path, lambda: ViTForImageClassification(config), epochs=0, runs=2).runs
    again = score("grand", tmp_path, lambda: ViTForImageClassification(config), epochs=0, seed=12)
    assert first.tolist() != second.tolist()
    np.testing.assert_allclose(again.score, second, rtol=1e-6)


def test_the_learning_rate_is_that_of_the_whole_run(tmp_path):
    # Stopped after one of three epochs: weights as the stock run has them there.
    class StopAfterOne(TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs):
            control.should_training_stop = True

    stock = stock_trainer(vit(), Images(SIZE), tmp_path / "stock", [StopAfterOne()])
    stock.train()
    expected = naive("el2n", stock.model.eval(), Images(SIZE))
    np.testing.assert_allclose(score("el2n", tmp_path, epochs=1).score, expected, rtol=1e-5)


def test_scores_of_a_run_in_mixed_precision_are_taken_without_it(tmp_path):
    model = vit()
    model.load_state_dict(weights_of(_stock_in_bf16(tmp_path)))
    for method in ("el2n", "grand"):
        scores = score(method, tmp_path, epochs=1, flags={"num_train_epochs": 1, "bf16": True})
        expected = naive(method, model.eval(), Images(SIZE))
        np.testing.assert_allclose(scores.score, expected, rtol=1e-5, atol=1e-5)


def _stock_in_bf16(tmp_path):
    trainer = stock_trainer(vit(), Images(SIZE), tmp_path / "stock", num_train_epochs=1, bf16=True)
    trainer.train()
    return trainer


def test_global_generators_are_left_as_they_were(tmp_path):
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002

    before = states()
    score("grand", tmp_path, epochs=1)
    assert states() == before


def test_it_is_said_which_way_the_gradients_go(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "hf_dynprune"):
        score("grand", tmp_path, bert, Sentences(), epochs=0, runs=2, data_collator=padded)
        score("grand", tmp_path, vit, epochs=0)
    said = [record.message for record in caplog.records if "gradients by" in record.message]
    assert len(said) == 2
    assert said[0].startswith("Per-sample gradients by loop: BertForSequenceClassification cannot be vmapped: vmap: ")
    assert said[1] == "Per-sample gradients by vmap: two samples agree with one-by-one gradients."
    with pytest.raises(RuntimeError, match="vmap"):
        score("grand", tmp_path, bert, Sentences(), epochs=0, data_collator=padded, gradients="vmap")


# ---- Files ----


def test_a_file_gives_back_what_was_saved(tmp_path):
    scores = score("el2n", tmp_path, epochs=1, runs=2)
    again = load_scores(scores.save(tmp_path / "out" / "s.safetensors"))
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["s.json", "s.safetensors"]
    assert again.score.tolist() == scores.score.tolist()
    assert again.runs.tolist() == scores.runs.tolist()
    assert again.facts == scores.facts
    facts = dict(again.facts)
    assert facts.pop("seconds") > 0
    assert facts.pop("mean") == pytest.approx(scores.score.mean())
    assert facts.pop("std") == pytest.approx(scores.score.std())
    assert re.fullmatch(r"[0-9a-f]{16}", facts.pop("model_config_sha256"))
    assert re.fullmatch(r"[0-9a-f]{16}", facts.pop("fingerprint"))
    assert facts.pop("package_version")
    assert facts.pop("training")["learning_rate"] == 5e-3
    assert facts == {
        "method": "el2n",
        "model": "ViTForImageClassification",
        "epochs": 1,
        "runs": 2,
        "seeds": [11, 12],
        "num_samples": SIZE,
        "forward_passes": 2 * (SIZE + SIZE),  # an epoch of training and a pass of scoring, twice
    }


def flip_a_byte(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def change_json(file, **changes):
    content = json.loads(file.with_suffix(".json").read_text())
    file.with_suffix(".json").write_text(json.dumps(content | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_byte, r"its SHA-256 is not the one in s\.json"),
        (lambda file: file.write_bytes(file.read_bytes()[:-4]), "its SHA-256 is not the one"),
        (lambda file: file.unlink(), r"there is no .*s\.safetensors"),
        (lambda file: file.with_suffix(".json").unlink(), r"there is no .*s\.json"),
        (lambda file: file.with_suffix(".json").write_text("{"), r"s\.json is damaged or another program's"),
        (lambda file: file.with_suffix(".json").write_text("[]"), r"s\.json is damaged or another program's"),
        (lambda file: file.with_suffix(".json").write_text("{}"), r"s\.json is damaged or another program's"),
        (lambda file: change_json(file, format="weights"), r"the format of s\.json is 'weights'"),
        (lambda file: change_json(file, format_version=9), "its format version is 9, this version reads 1"),
        (lambda file: change_json(file, facts={"forward_passes": 0}), r"s\.json was changed after it was written"),
        (lambda file: change_json(file, facts=None), r"s\.json was changed after it was written"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(damage, message, tmp_path):
    file = StaticScores(np.ones(3, np.float32), np.ones((1, 3), np.float32), {"forward_passes": 9}).save(
        tmp_path / "s.safetensors"
    )
    damage(file)
    with pytest.raises(ScoreFileError, match=rf"s\.safetensors is no usable score file: {message}.*hf-dynprune score"):
        load_scores(file)


BAD_SCORES = {
    "not finite": ([1.0, np.nan], [[1.0, 2.0]], "`score` must be finite, but that of sample 1 is not"),
    "a run not finite": ([1.0, 2.0], [[np.inf, 2.0]], "`runs` must be finite, but that of sample 0 is not"),
    "shape": ([[1.0, 2.0]], [[1.0, 2.0]], r"`score` must be \[N\] and `runs` \[R, N\], got shapes \(1, 2\) and"),
    "lengths": ([1.0], [[1.0, 2.0]], r"`score` must be \[N\] and .*, got shapes \(1,\) and \(1, 2\)"),
    "none": ([], [[]], r"`score` must be a float32 array \[N\] of at least one sample, got float32 \[0\]"),
    "dtype": (np.ones(2), [[1.0, 2.0]], r"`score` must be a float32 array \[N\] .*, got float64 \[2\]"),
}


@pytest.mark.parametrize("case", BAD_SCORES)
def test_what_is_no_score_is_refused_in_memory_and_in_a_file(case, tmp_path):
    from safetensors.numpy import save

    score, runs, message = BAD_SCORES[case]
    score = score if isinstance(score, np.ndarray) else np.array(score, np.float32)
    runs = np.array(runs, np.float32)
    with pytest.raises(ValueError, match=f"StaticScores: {message}"):
        StaticScores(score, runs, {})
    tensors, file = save({"score": score, "runs": runs}), tmp_path / "s.safetensors"
    StaticScores(np.ones(2, np.float32), np.ones((1, 2), np.float32), {}).save(file)
    file.write_bytes(tensors)
    change_json(file, tensors_sha256=hashlib.sha256(tensors).hexdigest(), facts_sha256=json_digest({}))
    with pytest.raises(ScoreFileError, match=f"no usable score file: it does not hold scores .*{message}"):
        load_scores(file)


def test_scores_that_were_changed_are_not_saved(tmp_path):
    scores = StaticScores(np.ones(3, np.float32), np.ones((1, 3), np.float32), {})
    scores.score[1] = np.nan
    with pytest.raises(ValueError, match="`score` must be finite, but that of sample 1 is not"):
        scores.save(tmp_path / "s.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_program_is_not_replaced(tmp_path):
    scores = StaticScores(np.ones(3, np.float32), np.ones((1, 3), np.float32), {})
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ScoreFileError, match=r"config\.json is another program's, and a score file would replace it"):
        scores.save(tmp_path / "config.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    scores.save(scores.save(tmp_path / "mine.safetensors"))


# ---- Training by a file ----


@pytest.fixture
def file(tmp_path):
    return score("el2n", tmp_path, epochs=1).save(tmp_path / "el2n.safetensors")


def test_a_run_is_charged_for_scoring_once(file, tmp_path):
    kwargs = {"scores": str(file), "keep": "lowest"}
    trainer = pruning_trainer(
        vit(), Images(SIZE), tmp_path / "out", prune_method="static", prune_ratio=0.3, prune_kwargs=kwargs
    )
    trainer.train()
    history = PruningHistory.load(tmp_path / "out")
    assert [record.kept for record in history] == [7, 7, 7]
    assert [record.scoring_forward_passes for record in history] == [2 * SIZE, 0, 0]
    assert history[0].seconds_scoring == load_scores(file).facts["seconds"]
    assert (history.forward_passes, history.scoring_forward_passes) == (21, 2 * SIZE)
    assert history.charged_forward_passes == 21 + 2 * SIZE
    account = history.account()
    assert (account.training, account.scoring, account.candidates) == (21, 2 * SIZE, 0)
    assert account.saved == pytest.approx(1 - (21 + 2 * SIZE) / account.full)
    assert account.saved < 0 < account.saved_in_training
    assert history.account(num_epochs=len(history) / 2).full == account.full / 2
    # Of 30 forward passes 9 are not made, and 20 were made before.
    assert history[-1].projected_saving == pytest.approx((9 - 20) / 30)


def test_the_first_line_says_that_scoring_is_not_taken_off(file, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "hf_dynprune"):
        pruning_trainer(vit(), Images(SIZE), tmp_path / "out", policy=StaticPruning(file, 0.3)).train()
    (line,) = [record.message for record in caplog.records if "can save at most" in record.message]
    assert line.endswith("Not taken off: the 20 forward passes that scoring cost before the run.")


def test_equal_scores_keep_the_same_samples_in_every_epoch(tmp_path):
    trainer = pruning_trainer(vit(), Images(SIZE), tmp_path / "out", policy=StaticPruning(np.ones(SIZE), 0.5))
    plans = []
    for epoch in range(3):
        plans.append(_plan_of(trainer, epoch))
    assert plans[0] == plans[1] == plans[2]
    trainer.args.seed = 12
    assert _plan_of(trainer, 0) != plans[0]


def _plan_of(trainer, epoch):
    from hf_dynprune.decisions.schedule import RunLength
    from hf_dynprune.training.epoch_run import EpochRun

    run = EpochRun(
        trainer.policy,
        trainer._training.identity(trainer._loss_step),
        trainer._context.layout,
        RunLength(3, 9, 3.0, False),
    )
    return run.make_plan(run.epoch_info(epoch, epoch * 3)).kept_indices.tolist()


def test_resumed_equals_uninterrupted_and_is_charged_once(file, tmp_path):
    flags = {"save_strategy": "steps", "save_steps": 3, "num_train_epochs": 3}
    whole = pruning_trainer(vit(), Images(SIZE), tmp_path / "a", policy=StaticPruning(file, 0.3), **flags)
    whole.train()
    resumed = pruning_trainer(vit(), Images(SIZE), tmp_path / "a", policy=StaticPruning(file, 0.3), **flags)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    assert all(torch.equal(a, b) for a, b in zip(weights_of(whole).values(), weights_of(resumed).values(), strict=True))
    assert resumed.pruning_history.charged_forward_passes == whole.pruning_history.charged_forward_passes


def test_resumed_from_the_same_file_elsewhere(file, tmp_path, monkeypatch):
    flags = {"save_strategy": "epoch"}
    pruning_trainer(vit(), Images(SIZE), tmp_path / "a", policy=StaticPruning(file, 0.3), **flags).train()
    monkeypatch.chdir(tmp_path)
    moved = load_scores(file).save(tmp_path / "moved.safetensors")
    for scores in (f"./{file.name}", moved, load_scores(file)):
        again = pruning_trainer(vit(), Images(SIZE), tmp_path / "a", policy=StaticPruning(scores, 0.3), **flags)
        again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
        assert len(again.pruning_history) == 3
    free = pruning_trainer(vit(), Images(SIZE), tmp_path / "a", policy=StaticPruning(load_scores(file).score, 0.3))
    with pytest.raises(ValueError, match=r"exactly\. forward passes of scoring: 20 then, 0 now\. Use the saved"):
        free.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))


def test_a_file_that_changed_under_a_checkpoint_is_named(file, tmp_path):
    flags = {"save_strategy": "epoch"}
    pruning_trainer(vit(), Images(SIZE), tmp_path / "a", policy=StaticPruning(file, 0.3), **flags).train()
    score("el2n", tmp_path, epochs=2).save(file)
    other = pruning_trainer(vit(), Images(SIZE), tmp_path / "a", policy=StaticPruning(file, 0.3), **flags)
    with pytest.raises(ValueError, match="parameters: .*'digest': .* then, .*'digest': .* now"):
        other.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))


def test_another_data_set_is_refused_before_the_first_step(file, tmp_path):
    for dataset, message in ((Images(SIZE + 1), "has 10 scores"), (Images(SIZE, seed=5), "made for another data set")):
        trainer = pruning_trainer(vit(), dataset, tmp_path / "out", policy=StaticPruning(file, 0.3))
        with pytest.raises(ValueError, match=message):
            trainer.train()


# ---- Mistakes ----


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from Images(SIZE)


def test_whole_numbers_may_be_of_numpy(tmp_path):
    scores = score("el2n", tmp_path, epochs=np.int64(1), runs=np.int64(1))
    assert load_scores(scores.save(tmp_path / "s.safetensors")).facts["epochs"] == 1


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("el3n", {}, "`method` must be one of forgetting, el2n, grand, got 'el3n'"),
        ("el2n", {}, r"`epochs` of el2n must be a whole number in \[1, 3\], .*got None"),
        ("el2n", {"epochs": 0}, r"`epochs` of el2n must be .* in \[1, 3\], .*got 0"),
        ("grand", {"epochs": 4}, r"`epochs` of grand must be .* in \[0, 3\], .*got 4"),
        ("grand", {"epochs": 0.5}, r"`epochs` of grand .*got 0\.5"),
        ("forgetting", {"runs": 0}, "`runs` must be a whole number of at least 1, got 0"),
        ("forgetting", {"flags": {"num_train_epochs": 2.5}}, "whole epochs, got `num_train_epochs` 2.5"),
        ("forgetting", {"flags": {"max_steps": 5}}, "whole epochs, got `max_steps` 5"),
        ("grand", {"epochs": 0, "gradients": "fast"}, "`gradients` must be auto, vmap or loop, got 'fast'"),
        ("grand", {"epochs": 0, "chunk": 0}, "`chunk` must be a whole number of at least 1, got 0"),
        ("grand", {"epochs": 0, "plain_dataset": Images(9)}, "`plain_dataset` must hold the 10 samples .* got 9"),
        ("grand", {"epochs": 0, "plain_dataset": Images(SIZE, seed=3)}, "same order, but its labels are others"),
        ("grand", {"epochs": True}, r"`epochs` of grand .*got True"),
        ("el2n", {"epochs": 1, "runs": True}, "`runs` must be a whole number of at least 1, got True"),
        ("el2n", {"epochs": 1, "dataset": Endless()}, "`dataset` must be a map-style data set, got a Endless without"),
        ("grand", {"epochs": 0, "plain_dataset": Endless()}, "`plain_dataset` must be a map-style data set, got a End"),
    ],
)
def test_bad_arguments_are_named(method, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        score(method, tmp_path, **options)


@pytest.mark.parametrize("method", ["forgetting", "el2n", "grand"])
def test_a_sample_without_a_label_is_refused(method, tmp_path):
    dataset = Images(SIZE)
    dataset.labels[3] = -100
    with pytest.raises(ValueError, match=r"without a label \(-100\) cannot be scored"):
        score(method, tmp_path, dataset=dataset, epochs=1)


def test_scores_that_are_not_finite_are_an_error(tmp_path):
    def broken():
        model = vit()
        model.classifier.weight.data[:] = float("nan")
        return model

    with pytest.raises(FloatingPointError, match="The grand score of sample 0 is nan: the model has diverged"):
        score("grand", tmp_path, broken, epochs=0, gradients="loop")


# ---- Command line ----


def test_the_command_writes_a_file_and_says_what_it_cost(tmp_path):
    out = tmp_path / "new" / "grand.safetensors"
    result = CliRunner().invoke(
        app,
        ["score", "--method", "grand", "--train-size", "40", "--runs", "2", "--train-epochs", "2", "--out", str(out)],
    )
    assert result.exit_code == 0, result.output
    scores = load_scores(out)
    assert scores.runs.shape == (2, 40)
    assert scores.facts["epochs"] == 1
    assert "handwritten digits: 40 training" in result.output
    assert f"cost: {scores.facts['forward_passes']} forward passes" in result.output
    assert scores.facts["forward_passes"] == 2 * (40 + 40) + 4
    assert str(out) in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "el3n"], "`method` must be one of forgetting, el2n, grand, got 'el3n'"),
        (["--method", "el2n", "--out", "scores.pt"], r"must end in \.safetensors, got 'scores\.pt'"),
        (["--method", "el2n", "--epochs", "30"], r"`epochs` of el2n must be a whole number in \[1, 20\]"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["score", "--train-size", "20", *options])
    assert result.exit_code == 2
    assert re.fullmatch(rf"Error: .*{message}.*\n", result.stderr)
    assert not list(tmp_path.iterdir())
