"""Per-sample losses of every task equal the models' own; what cannot be taken apart by sample is refused."""

from __future__ import annotations

import math

import pytest
import torch
import transformers as hf
from torch import nn
from torch.nn import functional

from hf_dynprune import RandomSelector
from hf_dynprune.losses import LossTerms, PerSampleLoss, find_loss, weighted_loss
from hf_dynprune.losses.choices import SpanLoss
from hf_dynprune.losses.classification import ClassificationLoss
from hf_dynprune.losses.interception import InterceptedLoss
from hf_dynprune.testing import check_loss
from tests.losses.task_table import BEGIN, BOUND, END, PAGE, measure
from tests.support.helpers import Images, assert_same_bits, pruning_trainer, stock_trainer, vit, weights_of
from tests.support.task_models import FEW, PAIRS, B, Pair, bert, gpt2, sounds, t5, texts_with, token_labels, wav2vec2
from tests.support.task_models import VOCABULARY as V

IDS = [f"{i}-{pair.task}" for i, pair in enumerate(PAIRS)]
BY_TASK = {pair.task: pair for pair in PAIRS}


@pytest.fixture(scope="module")
def measured():
    return {}


@pytest.mark.parametrize("pair", PAIRS, ids=IDS)
def test_equals_the_models_own_loss(pair, measured):
    found = measured[pair] = measure(pair)
    assert found.batch <= BOUND
    assert found.gradient <= BOUND
    assert found.alone <= BOUND
    assert found.alone_gradient <= BOUND


@pytest.mark.parametrize("pair", PAIRS, ids=IDS)
def test_holds_to_what_users_losses_are_held_to(pair):
    model, batch = pair.build()
    check_loss(find_loss(model), model, batch, tolerance=1e-6)


def test_the_docs_list_what_was_measured(measured):
    rows = [f"| {measured[p].model} | {p.task} | `{measured[p].loss}` | {p.count} |" for p in PAIRS if p in measured]
    if len(rows) < len(PAIRS):
        pytest.skip("needs the comparisons of all tasks, in the same process")
    assert len({(found.model, pair.task) for pair, found in measured.items()}) >= 20
    written = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    assert [line for line in written.splitlines() if line.startswith("| ")][1:] == rows, (
        "docs/tasks.md is out of date: run `python -m tests.losses.task_table`"
    )


class Rows(torch.utils.data.Dataset):
    """A batch's rows, several times over."""

    def __init__(self, batch, times=4):
        self.rows = [{key: value[i] for key, value in batch.items()} for i in range(B)] * times

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


TRAINED = ["token classification", "causal language model", "sequence to sequence", "question answering"]
TRAINED += ["multiple choice", "masked words and next sentence", "causal, mixture of experts"]


@pytest.mark.parametrize("task", TRAINED)
def test_training_equals_the_stock_trainers(task, tmp_path):
    """To the bit: nothing pruned, no accumulation (which the stock Trainer gets wrong for some models), float32."""
    flags = {"num_train_epochs": 1, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0, "prune_method": "none"}
    after = []
    for name, make in (("ours", pruning_trainer), ("stock", stock_trainer)):
        model, batch = BY_TASK[task].build(torch.float32)
        run_flags = {k: v for k, v in flags.items() if name == "ours" or k != "prune_method"}
        trainer = make(model, Rows(batch), tmp_path / name, **run_flags)
        trainer.train()
        after.append(weights_of(trainer))
    for name, tensor in after[1].items():
        assert torch.equal(after[0][name], tensor), name


def test_accumulation_is_one_large_batch(tmp_path):
    """Windows whose micro-batches have unequal numbers of tokens."""
    after = []
    for batch_size, accumulation in ((6, 1), (2, 3)):
        model, batch = BY_TASK["causal language model"].build(torch.float32)
        trainer = pruning_trainer(
            model,
            Rows(batch),
            tmp_path / str(batch_size),
            num_train_epochs=1,
            optim="sgd",
            learning_rate=0.1,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
        )
        trainer.train()
        after.append(weights_of(trainer))
    for name, tensor in after[0].items():
        torch.testing.assert_close(after[1][name], tensor, rtol=1e-5, atol=1e-6)


class SmoothedMore(PerSampleLoss):
    """Says that its smoothing is another than it is."""

    def __init__(self, loss):
        self.loss, self.label_smoothing = loss, 2 * loss.label_smoothing
        self.count, self.forward = loss.count, loss.forward

    def count(self, inputs):
        raise NotImplementedError

    def __call__(self, model, inputs, outputs):
        return self.loss(model, inputs, outputs)


@pytest.mark.parametrize(
    "task",
    [
        "token classification",
        "masked language model",
        "causal language model",
        "sequence to sequence",
        "multiple choice",
    ],
)
def test_label_smoothing_is_the_trainers(task):
    model, batch = BY_TASK[task].build()
    if task == "sequence to sequence":
        with pytest.raises(ValueError, match=r"`label_smoothing_factor` 0.1 needs `decoder_input_ids` in the batch"):
            find_loss(model, label_smoothing=0.1).count(batch)
        batch["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    smoother = hf.trainer_pt_utils.LabelSmoother(epsilon=0.1)
    loss = find_loss(model, label_smoothing=0.1)
    outputs = loss.forward(model, batch)
    ours = weighted_loss(loss(model, batch, outputs), torch.ones(B), loss.count(batch).sum())
    expected = smoother({"logits": outputs.logits}, batch["labels"], shift_labels=task.startswith("causal"))
    assert ours.item() == pytest.approx(expected.item(), rel=1e-6)
    check_loss(loss, model, batch, tolerance=1e-6)
    with pytest.raises(AssertionError, match=r"must equal the smoothed loss of .*, got"):
        check_loss(SmoothedMore(loss), model, batch)


def test_label_smoothing_is_refused_where_the_trainer_has_none():
    with pytest.raises(ValueError, match=r"0.1 does not apply to question answering"):
        find_loss(bert("QuestionAnswering", num_labels=2)(), 0.1)
    with pytest.raises(ValueError, match=r"`label_smoothing_factor` 0.1 with BertForNextSentencePrediction"):
        find_loss(bert("NextSentencePrediction")(), 0.1)


def test_spans_outside_of_the_text_count_nothing():
    """Of unequal numbers of starts and ends, as the model: the mean of two means."""
    model, _ = BY_TASK["question answering"].build()
    positions = {"start_positions": torch.tensor([1, 90, 99]), "end_positions": torch.tensor([3, 5, 99])}
    batch = texts_with(**positions)()
    loss = find_loss(model)
    assert isinstance(loss, SpanLoss)
    count = loss.count(batch)
    assert count.tolist() == [2, 1, 0]
    terms = loss(model, batch, loss.forward(model, batch))
    assert (terms.total.sum() / count.sum()).item() == pytest.approx(model(**batch).loss.item(), rel=1e-6)
    assert terms.total[2] == terms.score[2] == 0


def test_the_decoder_starts_from_the_labels_or_from_what_the_collator_made():
    model = t5().eval()
    batch = texts_with(labels=token_labels(V))()
    loss = find_loss(model)
    given = batch | {"decoder_input_ids": torch.full_like(batch["labels"], 5)}
    own, other = (loss(model, b, loss.forward(model, b)).total.sum() / loss.count(b).sum() for b in (batch, given))
    assert own.item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)
    assert other.item() == pytest.approx(model(**given).loss.item(), rel=1e-5)
    assert abs(own.item() - other.item()) > 1e-6


def test_a_sample_without_a_labelled_token_has_score_0(tmp_path):
    model, batch = BY_TASK["causal language model"].build(torch.float32)
    batch["labels"][1] = -100
    trainer = pruning_trainer(model, Rows(batch, times=2), tmp_path, num_train_epochs=1)
    trainer.train()
    view = trainer._training.run.store.view()
    assert (view.score == 0).tolist() == [False, True, False] * 2
    assert view.seen.all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.full((B, 7), V), rf"Label {V} is out of range: the model has {V} classes.*Check the tokenizer"),
        (torch.zeros(B, 7), r"one class number per token, `labels` torch.int64 \[B, T\], got torch.float32"),
        (torch.zeros(B, dtype=torch.int64), r"one class number per token.* of shape \(3,\)"),
    ],
)
def test_wrong_token_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        find_loss(gpt2()()).count(texts_with(labels=labels)())


# ---- Interception ----


class Own(nn.Module):
    """A user's model: two losses, one of them weighted, reduced as `loss` says."""

    def __init__(self, loss):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.loss = loss

    def forward(self, x, labels=None):
        return {"loss": self.loss(self.linear(x), labels), "logits": self.linear(x)}


def batch_of(labels):
    return {"x": torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), "labels": labels}


INTS = torch.tensor([0, 2, 1, -100, 2])
WEIGHTS = torch.tensor([1.0, 2.0, 0.5])
REDUCED = {
    "cross-entropy": (lambda z, y: functional.cross_entropy(z, y), INTS),
    "with class weights": (lambda z, y: functional.cross_entropy(z, y, WEIGHTS), INTS),
    "as a module": (lambda z, y: nn.CrossEntropyLoss(weight=WEIGHTS)(z, y), INTS),
    "smoothed": (lambda z, y: functional.cross_entropy(z, y, label_smoothing=0.2), INTS),
    "of shares": (lambda z, y: functional.cross_entropy(z, y), torch.rand(5, 3).softmax(1)),
    "log-softmax": (lambda z, y: functional.nll_loss(z.log_softmax(1), y), INTS),
    "binary": (lambda z, y: functional.binary_cross_entropy(z.sigmoid(), y), torch.rand(5, 3)),
    "squares": (lambda z, y: functional.mse_loss(z, y), torch.rand(5, 3)),
    "two losses": (lambda z, y: functional.l1_loss(z, y) + 0.3 * functional.huber_loss(z, y) / 2, torch.rand(5, 3)),
    "smooth": (lambda z, y: nn.SmoothL1Loss()(z, y), torch.rand(5, 3)),
}


@pytest.mark.parametrize("kind", REDUCED)
def test_any_reduction_of_torch_is_kept_apart(kind):
    function, labels = REDUCED[kind]
    torch.manual_seed(0)
    model, batch = Own(function), batch_of(labels)
    loss = find_loss(model)
    assert isinstance(loss, InterceptedLoss)
    terms = loss(model, batch, loss.forward(model, batch))
    own = model(**batch)["loss"]
    assert own.dim() == 0, "a call without interception gives one number again"
    ours = terms.total.sum() / loss.count(batch).sum()
    assert ours.item() == pytest.approx(own.item(), rel=1e-6)
    gradient = torch.autograd.grad(own, model.linear.weight)[0]
    torch.testing.assert_close(torch.autograd.grad(ours, model.linear.weight)[0], gradient, rtol=1e-5, atol=1e-7)
    for i in range(5):
        alone = model(**{key: value[i : i + 1] for key, value in batch.items()})["loss"].item()
        if math.isfinite(alone):
            assert terms.score[i].item() == pytest.approx(alone, rel=1e-5)
        else:
            assert terms.score[i] == terms.total[i] == 0  # its only label is -100, where torch divides by 0
    with torch.no_grad():
        loss.verify(model, batch, terms, 1e-6)


def test_a_sum_over_texts_is_kept_apart():
    """CTC by default: the loss is the sum over the batch."""
    model = wav2vec2(hf.Wav2Vec2ForCTC)().eval()
    batch = sounds(FEW)()
    loss = find_loss(model)
    terms = loss(model, batch, loss.forward(model, batch))
    assert (terms.total.sum() / loss.count(batch).sum()).item() == pytest.approx(model(**batch).loss.item(), rel=1e-6)
    with torch.no_grad():
        loss.verify(model, batch, terms, 1e-6)


def twenty(*tensors):
    """Numbers that are not a whole number of rows."""
    return [torch.cat([tensor, tensor]).flatten()[:20] for tensor in tensors]


def contrast(z, y):
    return functional.cross_entropy(z @ z.T, torch.arange(len(z)))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda z, y: (z - y).pow(2).mean().sqrt(), r"it is no sum over samples, such as a root or a power of a mean"),
        (lambda z, y: functional.mse_loss(z, y).exp(), r"it is no sum over samples"),
        (lambda z, y: functional.mse_loss(z.sum(0), y.sum(0)), r"no sum over samples|cannot be taken apart by sample"),
        (lambda z, y: torch.linalg.norm(z - y), r"The loss of Own \(of shape \(\)\) cannot be taken apart by sample"),
        (lambda z, y: functional.mse_loss(z[:3], y[:3]), r"cannot be taken apart"),
        (
            lambda z, y: functional.mse_loss(*twenty(z, y)),
            r"loss of a sample is .* in its batch and .* alone|cannot be taken apart",
        ),
        (lambda z, y: functional.mse_loss(z, y) / max(0, functional.mse_loss(z, y).item()), r"alone: samples are comp"),
        (contrast, r"loss of a sample is [\d.]+ in its batch and 0 alone: samples are compared with each other"),
        (
            lambda z, y: functional.mse_loss(z.T.flatten(), y.T.flatten()),
            "divided by the size of their batch by the code itself, or cannot be told apart",
        ),
    ],
)
def test_what_cannot_be_kept_apart_is_refused_on_the_first_batch(function, message, tmp_path):
    torch.manual_seed(0)
    rows = [{"x": torch.randn(4), "labels": torch.rand(3)} for _ in range(8)]
    trainer = pruning_trainer(Own(function), rows, tmp_path, prune_method="infobatch")
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert trainer.state.global_step == 0
    stock, ours = (
        make(Own(function), rows, tmp_path / make.__name__, num_train_epochs=2)
        for make in (stock_trainer, pruning_trainer)
    )
    ours.model.load_state_dict(stock.model.state_dict())
    for trainer in (stock, ours):
        trainer.train()
    assert_same_bits(weights_of(stock), weights_of(ours))


def test_candidates_are_verified_though_one_row_is_trained(tmp_path):
    torch.manual_seed(0)
    rows = [{"x": torch.randn(4), "labels": torch.rand(3)} for _ in range(8)]
    trainer = pruning_trainer(Own(contrast), rows, tmp_path, selector=RandomSelector(ratio=0.75))
    with pytest.raises(ValueError, match="samples are compared with each other"):
        trainer.train()


class Slightly(ClassificationLoss):
    """A loss that is wrong by half a per cent."""

    def __call__(self, model, inputs, outputs):
        terms = super().__call__(model, inputs, outputs)
        return LossTerms(1.005 * terms.total, terms.score)


def test_autocast_is_no_reason_for_a_loose_comparison(tmp_path):
    model = vit()
    trainer = pruning_trainer(model, Images(8), tmp_path, bf16=True, per_sample_loss=Slightly(model))
    with pytest.raises(ValueError, match="the model computes another loss"):
        trainer.train()


def test_sums_of_half_precision_losses_do_not_overflow():
    model = Own(lambda z, y: functional.mse_loss(z, y))
    model.linear = nn.Identity()
    batch = {"x": torch.full((2, 100_000), 2.0, dtype=torch.float16), "labels": torch.zeros(2, 100_000).half()}
    loss = InterceptedLoss(model)
    terms = loss(model, batch, loss.forward(model, batch))
    assert terms.score.tolist() == [4.0, 4.0]


def test_a_model_of_the_users_own_trains_and_prunes(tmp_path):
    torch.manual_seed(0)
    rows = [{"x": torch.randn(4), "labels": torch.rand(3)} for _ in range(32)]
    trainer = pruning_trainer(
        Own(lambda z, y: functional.mse_loss(z, y)), rows, tmp_path, prune_method="infobatch", prune_kwargs={"delta": 1}
    )
    trainer.train()
    assert min(record.kept for record in trainer.pruning_history) < 32


class Weighted(hf.BertForSequenceClassification):
    """A head of the stock kind with a loss of its own, which a batch of one class does not show."""

    def forward(self, labels=None, **inputs):
        outputs = super().forward(**inputs)
        weight = torch.tensor([1.0, 50.0, 1.0, 1.0], dtype=outputs.logits.dtype)
        outputs.loss = functional.cross_entropy(outputs.logits, labels, weight)
        return outputs


def test_a_subclass_with_a_loss_of_its_own_keeps_it():
    hf.set_seed(0)
    model = Weighted(bert("SequenceClassification")().config).double().eval()
    loss, batch = find_loss(model), texts_with(labels=torch.tensor([0, 1, 2]))()
    assert isinstance(loss, InterceptedLoss)
    terms = loss(model, batch, loss.forward(model, batch))
    assert (terms.total.sum() / 3).item() == pytest.approx(model(**batch).loss.item(), rel=1e-6)
    with pytest.raises(ValueError, match=r"`label_smoothing_factor` 0.1 with Weighted"):
        find_loss(model, 0.1)


@pytest.mark.parametrize("kind", ["XLMWithLMHeadModel", "XLNetLMHeadModel"])
def test_language_models_that_take_labels_unshifted(kind):
    heads = {"XLMWithLMHeadModel": (hf.XLMConfig, {"emb_dim": 16, "n_heads": 2, "n_layers": 1})}
    heads["XLNetLMHeadModel"] = (hf.XLNetConfig, {"d_model": 16, "n_head": 2, "n_layer": 1, "d_inner": 16})
    config, widths = heads[kind]
    pair = Pair("", lambda: getattr(hf, kind)(config(vocab_size=V, **widths)), texts_with(labels=token_labels(V)))
    found = measure(pair)
    assert found.loss == "InterceptedLoss"
    assert max(found.batch, found.gradient, found.alone, found.alone_gradient) <= BOUND


def test_a_router_weighs_what_the_model_says():
    widths = {"hidden_size": 16, "num_hidden_layers": 1, "num_key_value_heads": 2, "kv_channels": 8}
    experts = {"num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size": 16, "output_router_logits": True}
    hf.set_seed(0)
    model = hf.JetMoeForCausalLM(hf.JetMoeConfig(vocab_size=V, **widths, **experts)).eval()
    batch, loss = texts_with(labels=token_labels(V))(), find_loss(model)
    batch["output_router_logits"] = True  # transformers 5.14 does not read the config's
    outputs = loss.forward(model, batch)
    terms = loss(model, batch, outputs)
    assert terms.extra.item() > 0
    ours = weighted_loss(terms, torch.ones(B), loss.count(batch).sum())
    assert ours.item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)
    assert find_loss(model, 0.1)(model, batch, outputs).extra is None, "the Trainer's smoothing leaves it out"
    loss.router_weight = None
    with pytest.raises(ValueError, match="gives an `aux_loss`, but neither it nor its config says what it weighs"):
        loss(model, batch, outputs)


def test_pairs_are_refused_by_their_first_batch(tmp_path):
    """Not for the name of an argument: what each pair gives alone shows that it is compared with the others."""
    widths = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vision = {**widths, "image_size": 8, "patch_size": 4}
    config = hf.CLIPConfig(text_config={**widths, "vocab_size": 9}, vision_config=vision)
    row = {"input_ids": torch.tensor([1, 2, 8]), "attention_mask": torch.ones(3, dtype=torch.int64)}
    rows = [{**row, "pixel_values": torch.randn(3, 8, 8)} for _ in range(8)]

    def collate(items):
        return {key: torch.stack([item[key] for item in items]) for key in items[0]} | {"return_loss": True}

    trainer = pruning_trainer(hf.CLIPModel(config), rows, tmp_path, prune_method="infobatch")
    trainer.data_collator = collate
    with pytest.raises(ValueError, match=r"CLIPModel's loss of a sample is .* samples are compared with each other"):
        trainer.train()


def test_half_precision_is_reduced_in_single():
    model, batch = BY_TASK["causal language model"].build(torch.bfloat16)
    loss = find_loss(model)
    terms = loss(model, batch, loss.forward(model, batch))
    assert terms.total.dtype == terms.score.dtype == torch.float32
