"""Seq2SeqTrainer with generation; trainers whose loss no sample has for itself are refused before they are built."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import datasets
import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    DataCollatorForSeq2Seq,
    LlamaForSequenceClassification,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    set_seed,
)

from hf_dynprune import (
    DynPruneArguments,
    DynPruneMixin,
    DynPruneSeq2SeqTrainer,
    DynPruneSeq2SeqTrainingArguments,
    DynPruneTrainingArguments,
    InfoBatch,
    RandomPruning,
    RandomSelector,
)
from tests.support.helpers import Images, arguments, assert_same_bits, bert, vit, weights_of
from tests.support.tiny_text import EOS, PAD, ForwardedRows, llama, sentences, texts, tokenizer
from tests.trainer.test_resume import untimed, untimed_logs

SIZE = 22


def t5():
    set_seed(5)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.1}
    names = {"pad_token_id": PAD, "eos_token_id": EOS, "decoder_start_token_id": PAD}
    return T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer()), **sizes, **names))


def bart():
    set_seed(5)
    parts = {
        f"{part}_{name}": size
        for part in ("encoder", "decoder")
        for name, size in {"layers": 1, "attention_heads": 2, "ffn_dim": 24}.items()
    }
    names = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": EOS, "decoder_start_token_id": EOS}
    names |= {"forced_eos_token_id": EOS}
    config = BartConfig(vocab_size=len(tokenizer()), d_model=16, max_position_embeddings=32, **parts, **names)
    return BartForConditionalGeneration(config)


def pairs(size=SIZE, seed=0):
    """Sentences and their first words."""
    words = tokenizer()
    rows = []
    for text in sentences(size, seed):
        ids = words(text)["input_ids"]
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [*ids[: len(ids) // 2 + 1], EOS]})
    return rows


def exact_match(prediction):
    labels = [[token for token in row if token != -100] for row in prediction.label_ids]
    guesses = [[token for token in row if token not in (PAD, -100)] for row in prediction.predictions]
    right = [guess[: len(label)] == label for guess, label in zip(guesses, labels, strict=True)]
    return {"match": sum(right) / len(right), "sentences": len(guesses)}


def seq2seq(make, out, stock=False, callbacks=(), policy=None, **flags):
    flags = {"eval_strategy": "epoch", "predict_with_generate": True, "generation_max_length": 8, **flags}
    flags = arguments(out, **flags)
    model = make()
    if not stock:
        flags.setdefault("prune_method", "none")
    return (Seq2SeqTrainer if stock else DynPruneSeq2SeqTrainer)(
        model=model,
        args=(Seq2SeqTrainingArguments if stock else DynPruneSeq2SeqTrainingArguments)(**flags),
        train_dataset=pairs(),
        eval_dataset=pairs(6, seed=7),
        data_collator=DataCollatorForSeq2Seq(tokenizer(), model=model),
        compute_metrics=exact_match,
        callbacks=list(callbacks),
        **({} if stock else {"policy": policy}),
    )


@pytest.mark.parametrize("make", [t5, bart])
def test_seq2seq_without_pruning_is_the_stock_trainer(make, tmp_path):
    runs = []
    for stock in (True, False):
        runs.append(seq2seq(make, tmp_path / str(stock), stock))
        runs[-1].train()
    # The model takes the mean over all tokens at once; here they are summed by sample first.
    for name, ours in weights_of(runs[1]).items():
        torch.testing.assert_close(ours, weights_of(runs[0])[name], rtol=1e-5, atol=1e-6)
    for theirs, mine in zip(untimed_logs(runs[0]), untimed_logs(runs[1]), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("make", [t5, bart])
def test_seq2seq_prunes_generates_at_evaluation_and_resumes_exactly(make, tmp_path):
    flags = {"policy": InfoBatch(ratio=0.7, delta=1.0), "save_strategy": "steps", "save_steps": 1}
    log = ForwardedRows()
    whole = seq2seq(make, tmp_path / "whole", callbacks=[log], **flags)
    whole.train()
    assert log.by_epoch == [record.forward_passes for record in whole.pruning_history]
    assert log.by_epoch[1] < log.by_epoch[0] == SIZE
    evaluations = [row for row in whole.state.log_history if "eval_match" in row]
    assert [row["epoch"] for row in evaluations] == [1, 2, 3]
    assert all(row["eval_sentences"] == 6 for row in evaluations)
    first = whole.pruning_history[0].steps
    for step in (1, first + 1):
        resumed = seq2seq(make, tmp_path / "resumed", **flags)
        resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert_same_bits(weights_of(resumed), weights_of(whole))
        assert untimed(resumed.pruning_history) == untimed(whole.pruning_history)
        assert untimed_logs(resumed)[:-1] == untimed_logs(whole)[:-1]


def test_arguments_of_any_class_take_the_flags(tmp_path):
    @dataclass
    class Arguments(DynPruneArguments, Seq2SeqTrainingArguments):
        pass

    assert Arguments(str(tmp_path), prune_ratio=0.3).build_policy().ratio == 0.3
    with pytest.raises(ValueError, match="`prune_seed` must be a whole number, got 'a'"):
        Arguments(str(tmp_path), prune_seed="a")


class Counting(Trainer):
    """Overrides what pruning wraps: it reaches this class through `super()`."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.steps, self.rows = 0, []

    def training_step(self, *args, **kwargs):
        self.steps += 1
        return super().training_step(*args, **kwargs)

    def log(self, logs, *args, **kwargs):
        self.rows.append(logs)
        super().log(logs, *args, **kwargs)


def test_overrides_of_what_pruning_wraps_go_on_working(tmp_path):
    class Pruning(DynPruneMixin, Counting):
        pass

    args = DynPruneTrainingArguments(**arguments(tmp_path))
    trainer = Pruning(model=vit(), args=args, train_dataset=Images(), policy=RandomPruning(0.5))
    trainer.train()
    assert trainer.steps == trainer.state.global_step > 0
    assert any("loss" in row for row in trainer.rows)
    assert any("dynprune/kept" in row for row in trainer.rows)


class Scaled(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return 2 * super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)


class OwnLoader(Trainer):
    def get_train_dataloader(self):
        return super().get_train_dataloader()


COLUMNS = {name: sentences(24, seed) for seed, name in enumerate("abc")}
COLUMNS |= {"label": [float(at % 2) for at in range(24)], "score": [at / 24 for at in range(24)]}


def combined(base):
    return type("Pruning", (DynPruneMixin, base), {})


def test_a_loss_of_the_users_own_stands_for_that_of_the_class(tmp_path):
    def doubled(model, inputs, outputs):
        return 2 * torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"], reduction="none")

    args = DynPruneTrainingArguments(**arguments(tmp_path, prune_method="none"))
    trainer = combined(Scaled)(model=vit(), args=args, train_dataset=Images(), per_sample_loss=doubled)
    trainer.train()
    stock = Scaled(model=vit(), args=args, train_dataset=Images())
    stock.train()
    ours, theirs = ([row["loss"] for row in run.state.log_history if "loss" in row] for run in (trainer, stock))
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_loader_of_the_class_serves_a_selector_but_no_plan(tmp_path):
    args = DynPruneTrainingArguments(**arguments(tmp_path))
    with pytest.raises(
        ValueError, match="OwnLoader has a `get_train_dataloader` of its own, which Pruning would not use"
    ):
        combined(OwnLoader)(model=vit(), args=args, train_dataset=Images())
    selected = combined(OwnLoader)(model=vit(), args=args, train_dataset=Images(), selector=RandomSelector(0.5))
    selected.train()
    assert selected.pruning_history[0].kept == 11


SERVED = {
    "BinaryCrossEntropyLoss": ("cross_encoder", ("a", "b", "label")),
    "MSELoss": ("cross_encoder", ("a", "b", "score")),
    "CosineSimilarityLoss": ("bi_encoder", ("a", "b", "score")),
    "TripletLoss": ("bi_encoder", ("a", "b", "c")),
    "ContrastiveLoss": ("bi_encoder", ("a", "b", "label")),
}


class TestSentenceTransformers:
    """Losses of single samples are pruned; losses that compare samples show on the first batch."""

    @pytest.fixture(autouse=True)
    def package(self):
        return pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

    @staticmethod
    def cross_encoder(folder, loss, columns, **flags):
        from sentence_transformers import cross_encoder

        bert(num_labels=1).save_pretrained(folder / "model")
        tokenizer().save_pretrained(folder / "model")
        model = cross_encoder.CrossEncoder(str(folder / "model"), device="cpu", num_labels=1)
        made = getattr(cross_encoder.losses, loss)(model)
        trainer, config = cross_encoder.CrossEncoderTrainer, cross_encoder.CrossEncoderTrainingArguments
        return TestSentenceTransformers.build(trainer, config, model, made, folder, columns, **flags)

    @staticmethod
    def bi_encoder(folder, loss, columns, **flags):
        import sentence_transformers
        from sentence_transformers.sentence_transformer import losses, modules

        sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        config = BertConfig(vocab_size=len(tokenizer()), hidden_size=16, **sizes)
        BertModel(config).save_pretrained(folder / "model")
        tokenizer().save_pretrained(folder / "model")
        layers = modules.Transformer(str(folder / "model"), max_seq_length=32)
        model = sentence_transformers.SentenceTransformer(modules=[layers, modules.Pooling(16)], device="cpu")
        trainer = sentence_transformers.SentenceTransformerTrainer
        config = sentence_transformers.SentenceTransformerTrainingArguments
        return TestSentenceTransformers.build(
            trainer, config, model, getattr(losses, loss)(model), folder, columns, **flags
        )

    @staticmethod
    def build(trainer, config, model, loss, folder, columns, selector=None, **flags):
        args = dataclasses.make_dataclass("Arguments", [], bases=(DynPruneArguments, config))
        flags = arguments(folder / "run", **flags)
        if selector is None:
            flags |= {"prune_method": "infobatch", "prune_kwargs": {"delta": 1.0}}
        rows = datasets.Dataset.from_dict({name: COLUMNS[name] for name in columns})
        return combined(trainer)(model=model, args=args(**flags), train_dataset=rows, loss=loss, selector=selector)

    @pytest.mark.parametrize("loss", SERVED)
    def test_losses_of_single_samples_are_pruned(self, loss, tmp_path):
        kind, columns = SERVED[loss]
        trainer = getattr(self, kind)(tmp_path, loss, columns)
        trainer.train()
        kept = [record.kept for record in trainer.pruning_history]
        assert kept[0] == 24 > min(kept)

    def test_a_selector_chooses_pairs(self, tmp_path):
        trainer = self.cross_encoder(
            tmp_path, "BinaryCrossEntropyLoss", ("a", "b", "label"), selector=RandomSelector(0.5)
        )
        trainer.train()
        assert [record.kept for record in trainer.pruning_history] == [12] * 3

    @pytest.mark.parametrize("kind", ["cross_encoder", "bi_encoder"])
    def test_a_loss_that_compares_samples_is_refused_on_the_first_batch(self, kind, tmp_path):
        trainer = getattr(self, kind)(tmp_path, "MultipleNegativesRankingLoss", ("a", "b"))
        with pytest.raises(ValueError, match="in its batch and .* alone: samples are compared with each other"):
            trainer.train()
        assert trainer.state.global_step == 0

    @pytest.mark.parametrize("sampler", ["no_duplicates", "group_by_label"])
    def test_a_batch_sampler_that_composes_batches_is_refused(self, sampler, tmp_path):
        with pytest.raises(
            ValueError, match=f"whose batch sampler composes batches itself .`batch_sampler` '{sampler}'"
        ):
            self.bi_encoder(tmp_path, "ContrastiveLoss", ("a", "b", "label"), batch_sampler=sampler)


class TestTRL:
    """Its trainers but SFTTrainer, which has tests of its own."""

    @pytest.fixture(autouse=True)
    def trl(self, monkeypatch):
        monkeypatch.setenv("CI", "1")
        return pytest.importorskip("trl", reason="TRL is not installed")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("KTOTrainer", "TRL's KTOTrainer, whose loss compares an answer with the mean KL divergence of its batch"),
            ("GRPOTrainer", "GRPOTrainer, which samples and generates its own batches"),
            ("RLOOTrainer", "RLOOTrainer, which samples and generates its own batches"),
        ],
    )
    def test_refused_before_data_are_prepared(self, trl, name, message):
        base = getattr(trl, name)
        with pytest.raises(ValueError, match=message):
            combined(base)(model=llama(), args=None, train_dataset=texts(), processing_class=tokenizer())

    def test_arguments_that_drop_the_flags_are_named(self, trl, tmp_path):
        args = DynPruneTrainingArguments(**arguments(tmp_path))
        with pytest.raises(ValueError, match=r"got DynPruneTrainingArguments, .* `class Arguments\(.*, DPOConfig\)`"):
            combined(trl.DPOTrainer)(model=llama(), args=args, train_dataset=texts(), processing_class=tokenizer())


class TestWithoutPruning:
    """Trainers whose losses cannot be pruned are, with `none`, what they are without this package."""

    @staticmethod
    def compare(base, config, folder, make):
        """`make(trainer class, arguments)` builds a trainer; both must train to the same bits."""
        pruning = dataclasses.make_dataclass("Arguments", [], bases=(DynPruneArguments, config))
        runs = []
        for name, kind in (("stock", base), ("ours", combined(base))):
            flags = arguments(folder / name, num_train_epochs=2)
            args = config(**flags) if name == "stock" else pruning(**flags, prune_method="none")
            runs.append(make(kind, args))
            runs[-1].train()
        assert runs[0].state.global_step > 2
        assert_same_bits(weights_of(runs[0]), weights_of(runs[1]))
        assert untimed_logs(runs[0]) == untimed_logs(runs[1])

    @pytest.mark.parametrize("loss", ["MultipleNegativesRankingLoss", "CosineSimilarityLoss"])
    def test_sentence_transformers(self, loss, tmp_path):
        package = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
        from sentence_transformers.sentence_transformer import losses, modules

        sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        words = tokenizer()
        BertModel(BertConfig(vocab_size=len(words), hidden_size=16, **sizes)).save_pretrained(tmp_path / "model")
        words.save_pretrained(tmp_path / "model")
        some = sentences(24)
        data = {"a": some[:12], "b": some[12:]}
        data |= {"score": [0.1 * at for at in range(12)]} if loss == "CosineSimilarityLoss" else {}

        def make(kind, args):
            layers = modules.Transformer(str(tmp_path / "model"), max_seq_length=32)
            model = package.SentenceTransformer(modules=[layers, modules.Pooling(16)], device="cpu")
            rows = datasets.Dataset.from_dict(data)
            return kind(model=model, args=args, train_dataset=rows, loss=getattr(losses, loss)(model))

        config = package.SentenceTransformerTrainingArguments
        self.compare(package.SentenceTransformerTrainer, config, tmp_path, make)

    @pytest.mark.parametrize("name", ["DPO", "Reward"])
    def test_preferences_in_trl(self, name, monkeypatch, tmp_path):
        monkeypatch.setenv("CI", "1")
        trl = pytest.importorskip("trl", reason="TRL is not installed")
        some = sentences(24)
        rows = {"prompt": ["the " for _ in range(12)], "chosen": some[:12], "rejected": some[12:]}

        def make(kind, args):
            config = llama(num_labels=1).config  # seeds
            model = llama() if name == "DPO" else LlamaForSequenceClassification(config)
            parts = {"ref_model": llama()} if name == "DPO" else {}
            data = datasets.Dataset.from_dict(rows)
            return kind(model=model, args=args, train_dataset=data, processing_class=tokenizer(), **parts)

        self.compare(getattr(trl, f"{name}Trainer"), getattr(trl, f"{name}Config"), tmp_path, make)
