"""TRL's SFTTrainer with LoRA: stock with pruning off, counted with it on, resumed to the bit; its logs; refusals."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch
from datasets import Dataset
from transformers import TrainingArguments

from hf_dynprune import (
    DynPruneArguments,
    DynPruneMixin,
    DynPruneTrainingArguments,
    InfoBatch,
    OrderDPSelector,
    PruningHistory,
    RandomPruning,
)
from hf_dynprune.losses import find_trainer_loss
from hf_dynprune.losses.sft import SFTLoss, refuse_sft_settings
from tests.losses.test_losses import without_its_check
from tests.support.helpers import LoggedRows, StepLog, arguments, assert_same_bits, weights_of
from tests.support.tiny_text import ForwardedRows, llama, questions, sentences, texts, tokenizer
from tests.trainer.test_resume import Interrupt, InterruptAt, untimed, untimed_logs

pytest.importorskip("trl", reason="TRL is not installed")
pytest.importorskip("peft", reason="PEFT is not installed")

from peft import LoraConfig, PromptTuningConfig
from trl import SFTConfig, SFTTrainer

pytestmark = pytest.mark.usefixtures("quiet_data_sets")
SIZE = 22


@dataclass
class Arguments(DynPruneArguments, SFTConfig):
    pass


class PruningSFTTrainer(DynPruneMixin, SFTTrainer):
    pass


def lora(**config):
    return LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.1, task_type="CAUSAL_LM", **config)


def chats(size):
    """A column `messages`: a question and its answer."""
    pairs = zip(sentences(size, 0), sentences(size, 1), strict=True)
    roles = ("user", "assistant")
    turns = [[{"role": role, "content": text} for role, text in zip(roles, pair, strict=True)] for pair in pairs]
    return Dataset.from_dict({"messages": turns})


def chat_tokenizer():
    """The tiny tokenizer, with a template that marks what the assistant says."""
    found = tokenizer()
    found.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + ' <eos> ' }}"
        "{% endgeneration %}{% else %}{{ m['content'] + ' ' }}{% endif %}{% endfor %}"
    )
    return found


def build(out, dataset=None, model=None, callbacks=(), stock=False, peft_config=None, tokens=None, **flags):
    """An SFTTrainer with LoRA; of TRL itself where `stock`."""
    names = ("policy", "per_sample_loss", "selector", "eval_dataset", "compute_metrics")
    parts = {key: flags.pop(key) for key in list(flags) if key in names}
    common = {"bf16": False, "gradient_accumulation_steps": 2, "learning_rate": 1e-2, "num_train_epochs": 2}
    flags = arguments(out, **common) | flags
    if not stock and "policy" not in parts and "selector" not in parts:
        flags.setdefault("prune_method", "none")
    return (SFTTrainer if stock else PruningSFTTrainer)(
        model=llama() if model is None else model,
        args=(SFTConfig if stock else Arguments)(**flags),
        train_dataset=texts(SIZE) if dataset is None else dataset,
        processing_class=tokens or tokenizer(),
        peft_config=peft_config or lora(),
        callbacks=list(callbacks),
        **parts,
    )


def test_the_loss_of_the_sft_trainer_is_registered():
    found = find_trainer_loss(SFTTrainer)
    assert found.make is SFTLoss
    assert found.refuse_settings is refuse_sft_settings
    assert SFTLoss.trainer_gathers_metrics


SETTINGS = {
    "text": {},
    "no gradient checkpointing": {"gradient_checkpointing": False, "gradient_accumulation_steps": 1},
    "accumulation 4, evaluated": {
        "gradient_accumulation_steps": 4,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "eval_dataset": texts(5, seed=4),
    },
    "completions only": {"dataset": questions(SIZE), "max_length": 12},
    "prompts and completions": {"dataset": questions(SIZE), "completion_only_loss": False},
    "assistants only": {"dataset": chats(SIZE), "tokens": chat_tokenizer(), "assistant_only_loss": True},
    "Dynamic Fine-Tuning": {"loss_type": "dft"},
    "logged every third step": {"logging_steps": 3},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_pruning_off_is_the_stock_sft_trainer(name, tmp_path):
    runs = []
    for stock in (True, False):
        log = StepLog()
        trainer = build(tmp_path / str(stock), callbacks=[log], stock=stock, **SETTINGS[name])
        trainer.train()
        runs.append((trainer, log))
    (stock, stock_log), (ours, our_log) = runs
    assert_same_bits(weights_of(stock), weights_of(ours))
    assert stock_log.steps == our_log.steps
    assert len(our_log.steps) > 0
    rows = list(zip(untimed_logs(stock), untimed_logs(ours), strict=True))
    assert any("mean_token_accuracy" in row and "entropy" in row and "num_tokens" in row for row, _ in rows)
    for theirs, mine in rows:
        assert theirs.keys() == mine.keys()
        for key, value in theirs.items():
            # The same tokens are summed by sample first.
            assert mine[key] == (pytest.approx(value, rel=1e-6) if key in ("loss", "train_loss") else value), key


def moe(**config):
    from transformers import MixtralConfig, MixtralForCausalLM, set_seed

    set_seed(3)
    return MixtralForCausalLM(
        MixtralConfig(
            vocab_size=len(tokenizer()),
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_local_experts=2,
            max_position_embeddings=32,
            pad_token_id=0,
            eos_token_id=1,
            router_aux_loss_coef=0.1,
            output_router_logits=True,
            **config,
        )
    )


@pytest.mark.parametrize("coefficient", [None, 0.0])
def test_the_router_term_of_experts_is_kept_as_it_is(coefficient, tmp_path):
    flags = {"router_aux_loss_coef": coefficient, "gradient_checkpointing": False}
    runs = []
    for stock in (True, False):
        runs.append(build(tmp_path / str(stock), model=moe(), stock=stock, **flags))
        runs[-1].train()
    assert_same_bits(weights_of(runs[0]), weights_of(runs[1]))
    logged = [key for row in runs[1].state.log_history for key in row]
    assert ("aux_loss" in logged) == (coefficient is None)
    for theirs, mine in zip(untimed_logs(runs[0]), untimed_logs(runs[1]), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize(
    "flags", [{"packing": True, "max_length": 16}, {"packing": True, "max_length": 16, "packing_strategy": "wrapped"}]
)
def test_packing_without_pruning_is_the_stock_trainers(flags, tmp_path):
    """Refused where something is pruned."""
    runs = []
    for stock in (True, False):
        runs.append(build(tmp_path / str(stock), stock=stock, **flags))
        runs[-1].train()
    assert_same_bits(weights_of(runs[0]), weights_of(runs[1]))
    assert untimed_logs(runs[0]) == untimed_logs(runs[1])
    assert all(record.concentration is None for record in runs[1].pruning_history)


def test_infobatch_saves_the_forward_passes_it_says(tmp_path):
    log = ForwardedRows()
    trainer = build(tmp_path, callbacks=[log], policy=InfoBatch(ratio=0.8, delta=0.8), num_train_epochs=5)
    trainer.train()
    history = PruningHistory.load(tmp_path)
    assert log.by_epoch == [record.forward_passes for record in history] == [record.kept for record in history]
    assert log.by_epoch[0] == log.by_epoch[-1] == SIZE
    saved = 1 - sum(log.by_epoch) / (5 * SIZE)
    assert 0 < saved < 0.8
    assert history[-1].projected_saving == pytest.approx(saved)
    assert trainer.state.epoch == 5


def test_scores_are_the_mean_losses_of_the_tokens(tmp_path):
    """Of a model that does not move: one epoch's scores against each sentence alone."""
    trainer = build(tmp_path, policy=RandomPruning(0.0), learning_rate=0.0, num_train_epochs=1, peft_config=lora())
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    trainer.train()
    scores = trainer._training.run.store.view().score
    model, words = trainer.model.eval(), tokenizer()
    for score, sentence in zip(scores, sentences(SIZE), strict=True):
        ids = torch.tensor([words(f"{sentence} <eos>")["input_ids"]])
        with torch.no_grad():
            assert float(score) == pytest.approx(float(model(input_ids=ids, labels=ids).loss), rel=1e-5)


def without_tokens(rows):
    """TRL counts the tokens of one call of `train`; the last row's mean loss is over it too."""
    return [{key: value for key, value in row.items() if key != "num_tokens"} for row in rows[:-1]]


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path):
    policy = InfoBatch(ratio=0.7, delta=1.0)
    flags = {"policy": policy, "save_strategy": "steps", "save_steps": 1, "gradient_checkpointing": False}
    whole = build(tmp_path / "whole", **flags)
    whole.train()
    assert whole.pruning_history[1].ratio > 0
    steps, first = whole.state.global_step, whole.pruning_history[0].steps
    with pytest.raises(Interrupt):
        build(tmp_path / "cut", callbacks=[InterruptAt(first + 1)], **flags).train()
    folders = [tmp_path / "whole" / f"checkpoint-{step}" for step in (1, steps - 1)]
    for folder in (*folders, tmp_path / "cut" / f"checkpoint-{first + 1}"):
        assert (folder / "adapter_model.safetensors").exists()
        assert not (folder / "model.safetensors").exists()
        resumed = build(tmp_path / "resumed", **flags)
        for parameter in resumed.model.parameters():
            if parameter.requires_grad:  # what is not restored shows
                parameter.data.zero_()
        resumed.train(resume_from_checkpoint=str(folder))
        assert_same_bits(weights_of(resumed), weights_of(whole))
        assert untimed(resumed.pruning_history) == untimed(whole.pruning_history)
        assert without_tokens(untimed_logs(resumed)) == without_tokens(untimed_logs(whole))


def test_prunings_rows_do_not_take_the_metrics_of_the_next_row(tmp_path):
    """TRL clears its metrics with every row: those of steps before an epoch's end belong to the row after it."""
    log = LoggedRows()
    trainer = build(tmp_path, callbacks=[log], policy=RandomPruning(0.3), logging_steps=3)
    assert (
        trainer._context.layout.batch_size * 2 * 3 > SIZE * 0.7 > trainer._context.layout.batch_size * 2
    )  # 2 updates an epoch
    trainer.train()
    rows = log.rows
    pruning = [row for row in rows if "dynprune/kept" in row]
    assert len(pruning) == 2
    assert all(not {"entropy", "mean_token_accuracy", "eval_entropy"} & row.keys() for row in pruning)
    assert all("mean_token_accuracy" in row for row in rows if "loss" in row)


def test_the_first_batchs_check_leaves_no_trace_in_the_evaluation(tmp_path):
    values = []
    for check in (True, False):
        data = {"eval_dataset": texts(5, seed=9), "eval_strategy": "steps", "eval_steps": 1, "max_steps": 1}
        trainer = build(tmp_path / str(check), policy=RandomPruning(0.0), **data)
        if not check:
            trainer._make_loss_step = without_its_check(trainer)
        trainer.train()
        values += [
            {k: row[k] for k in row if "entropy" in k} for row in trainer.state.log_history if "eval_loss" in row
        ]
    assert values[0] == values[1]
    assert "eval_entropy" in values[0]


def test_a_selector_chooses_rows_of_an_sft_batch(tmp_path):
    log = ForwardedRows()
    selector = OrderDPSelector(pool_ratio=1.0, top_ratio=0.5)
    trainer = build(tmp_path, callbacks=[log], selector=selector, gradient_accumulation_steps=1)
    trainer.train()
    assert log.by_epoch == [record.kept for record in trainer.pruning_history] == [SIZE // 2] * 2
    tokens = [row["num_tokens"] for row in trainer.state.log_history if "num_tokens" in row]
    assert tokens[-1] < 2 * sum(len(sentence.split()) + 1 for sentence in sentences(SIZE))


def test_a_loss_of_the_users_own_replaces_that_of_sft(tmp_path):
    def likelihood(model, inputs, outputs):
        logits, labels = outputs.logits[:, :-1], inputs["labels"][:, 1:]
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        return each.sum(1) / labels.ne(-100).sum(1)

    trainer = build(tmp_path, policy=RandomPruning(0.5), per_sample_loss=likelihood)
    trainer.train()
    assert [record.kept for record in trainer.pruning_history] == [SIZE // 2] * 2


def test_the_example_of_the_docs_runs_and_resumes(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "peft_and_trl.md").read_text(encoding="utf-8")
    given, training, *_ = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    script = ModuleType("script_of_the_docs")
    monkeypatch.setitem(sys.modules, script.__name__, script)  # checkpoints name the arguments' class and its module
    exec(given, vars(script))
    exec(training, vars(script))
    history = PruningHistory.load(tmp_path / "sft")
    assert [record.num_samples for record in history] == [48] * 4
    assert history[1].kept < 48
    weights = weights_of(script.trainer)
    for number in range(script.trainer.state.global_step, 6, -1):  # as if it had been killed in the second epoch
        shutil.rmtree(tmp_path / "sft" / f"checkpoint-{number}", ignore_errors=True)
    exec(training, vars(script))
    assert_same_bits(weights, weights_of(script.trainer))
    assert [record.kept for record in PruningHistory.load(tmp_path / "sft")] == [record.kept for record in history]


REFUSED = {
    "packing": (
        {"packing": True, "max_length": 16},
        "`packing=True` in PruningSFTTrainer puts several samples into one row",
    ),
    "padding_free": ({"padding_free": True, "max_length": None}, "`padding_free=True` .* one loss for all of them"),
    "label smoothing": (
        {"label_smoothing_factor": 0.1},
        "`label_smoothing_factor` 0.1 in PruningSFTTrainer: .* Set it to 0",
    ),
    "parameters of the loss": (
        {"prune_loss_kwargs": {"score": "max"}},
        "Unknown parameter 'score' in `prune_loss_kwargs`: the per-sample loss of SFTTrainer takes no parameters",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_without_a_loss_per_sample_are_refused(name, tmp_path):
    flags, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        build(tmp_path, prune_method="infobatch", **flags)


def test_flags_that_trl_would_drop_are_refused(tmp_path):
    args = DynPruneTrainingArguments(**arguments(tmp_path))
    with pytest.raises(
        ValueError, match=r"got DynPruneTrainingArguments.* `class Arguments\(DynPruneArguments, SFTConfig"
    ):
        PruningSFTTrainer(model=llama(), args=args, train_dataset=texts(), processing_class=tokenizer())


def test_stock_arguments_mean_the_default_flags(tmp_path):
    args = TrainingArguments(**arguments(tmp_path))
    trainer = PruningSFTTrainer(model=llama(), args=args, train_dataset=texts(), processing_class=tokenizer())
    assert trainer.policy == InfoBatch()


def test_the_combined_arguments_check_the_flags(tmp_path):
    with pytest.raises(ValueError, match="`prune_warmup_epochs` must be a whole number of at least 0, got -1"):
        Arguments(**arguments(tmp_path, prune_warmup_epochs=-1))


class Distilling(SFTTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return 2 * super().compute_loss(model, inputs, False, num_items_in_batch)


class Counting(SFTTrainer):
    def _get_num_items_in_batch(self, batch_samples, device):
        return super()._get_num_items_in_batch(batch_samples, device)


@pytest.mark.parametrize("base", [Distilling, Counting])
def test_a_subclass_with_a_loss_or_a_count_of_its_own_keeps_it(base, tmp_path):
    class Pruning(DynPruneMixin, base):
        pass

    weights = []
    for cls, flags in ((base, {}), (Pruning, {"prune_method": "none"})):
        args = (SFTConfig if cls is base else Arguments)(**arguments(tmp_path / cls.__name__, bf16=False), **flags)
        trainer = cls(model=llama(), args=args, train_dataset=texts(), processing_class=tokenizer())
        trainer.train()
        weights.append(weights_of(trainer))
    assert_same_bits(*weights)
    args = Arguments(**arguments(tmp_path / "pruned", bf16=False), prune_method="infobatch", prune_kwargs={"delta": 1})
    trainer = Pruning(model=llama(), args=args, train_dataset=texts(), processing_class=tokenizer())
    trainer.train()
    assert min(record.kept for record in trainer.pruning_history) < len(trainer.train_dataset)


def test_prompt_tuning_is_trained_on_trls_own_loss(tmp_path):
    prompt = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    trainer = build(tmp_path, peft_config=prompt, prune_method="infobatch", prune_kwargs={"delta": 1})
    trainer.train()
    assert min(record.kept for record in trainer.pruning_history) < len(trainer.train_dataset)
