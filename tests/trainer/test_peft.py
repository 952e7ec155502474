"""LoRA on classifiers of images and sequences: the loss of the model inside, resume, best model, what is refused."""

from __future__ import annotations

import pytest
import torch

from hf_dynprune import InfoBatch, OrderDP, RandomPruning
from hf_dynprune.losses.classification import ClassificationLoss
from hf_dynprune.records.digests import DIGEST_FILE
from hf_dynprune.training.weights import check_adapters
from tests.support.helpers import Images, StepLog, assert_same_bits, pruning_trainer, stock_trainer, vit, weights_of
from tests.trainer.test_resume import untimed, untimed_logs

pytest.importorskip("peft", reason="PEFT is not installed")

from peft import AdaLoraConfig, LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

SIZE = 22


class Tokens(torch.utils.data.Dataset):
    """Random tokens with integer labels."""

    def __init__(self, size=SIZE, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(3, 40, (size, 6), generator=generator)
        self.labels = torch.randint(0, 3, (size,), generator=generator)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"input_ids": self.ids[index], "attention_mask": torch.ones(6).long(), "labels": int(self.labels[index])}


def linear_layers(model):
    """Their names in a block, which differ between versions of transformers."""
    names = {name.split(".")[-1] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    return sorted(names - {"classifier"})


def adapted(model, config=None, targets=2, adapter_name="default", **options):
    options = {"r": 4, "target_modules": linear_layers(model)[:targets], "lora_dropout": 0.1, **options}
    return get_peft_model(model, config or LoraConfig(**options), adapter_name=adapter_name)


def images(**options):
    return adapted(vit(dropout=0.1), modules_to_save=["classifier"], **options)


def sequences(**options):
    from tests.support.helpers import bert

    return adapted(bert(), task_type="SEQ_CLS", **options)


MODELS = {"image": (images, Images), "sequence": (sequences, Tokens)}


@pytest.mark.parametrize("task", MODELS)
def test_pruning_off_is_the_stock_trainer(task, tmp_path):
    make, data = MODELS[task]
    logs, runs = [], []
    for build in (stock_trainer, pruning_trainer):
        logs.append(StepLog())
        runs.append(build(make(), data(SIZE), tmp_path / build.__name__, [logs[-1]]))
        runs[-1].train()
    assert isinstance(runs[1].per_sample_loss, ClassificationLoss)
    assert_same_bits(weights_of(runs[0]), weights_of(runs[1]))
    assert logs[0].steps == logs[1].steps
    assert len(logs[1].steps) > 0
    norms = [[row["grad_norm"] for row in run.state.log_history if "grad_norm" in row] for run in runs]
    assert norms[0] == norms[1]


@pytest.mark.parametrize("task", MODELS)
def test_resume_is_exact_and_restores_the_adapters(task, tmp_path):
    make, data = MODELS[task]
    flags = {"policy": InfoBatch(ratio=0.7, delta=1.0), "save_strategy": "steps", "save_steps": 1}
    flags |= {"num_train_epochs": 2}
    whole = pruning_trainer(make(), data(SIZE), tmp_path / "whole", **flags)
    whole.train()
    assert whole.pruning_history[1].ratio > 0
    first = whole.pruning_history[0].steps
    for step in (1, first + 2):
        resumed = pruning_trainer(make(), data(SIZE), tmp_path / "resumed", **flags)
        for parameter in resumed.model.parameters():
            if parameter.requires_grad:  # what is not restored shows
                parameter.data.zero_()
        resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert_same_bits(weights_of(resumed), weights_of(whole))
        assert untimed(resumed.pruning_history) == untimed(whole.pruning_history)
        assert untimed_logs(resumed)[:-1] == untimed_logs(whole)[:-1]


def test_only_adapters_and_saved_modules_are_trained(tmp_path):
    trainer = pruning_trainer(images(), Images(SIZE), tmp_path, policy=OrderDP(pool_ratio=0.8, top_ratio=0.6))
    before = weights_of(trainer)
    trainer.train()
    changed = {name for name, tensor in weights_of(trainer).items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all("lora_" in name or "modules_to_save" in name for name in changed)
    assert any("modules_to_save" in name for name in changed)


@pytest.mark.parametrize("name", ["default", "mine"])
def test_the_best_adapters_are_loaded_at_the_end(name, tmp_path):
    class Best(StepLog):
        def on_save(self, args, state, control, model=None, **kwargs):
            if state.best_global_step == state.global_step:
                self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    log = Best()
    flags = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "learning_rate": 0.3}
    flags |= {"metric_for_best_model": "loss", "num_train_epochs": 4, "eval_dataset": Images(8, seed=5)}
    flags["greater_is_better"] = True  # the loss falls, so the "best" model is not the last one
    model = images(adapter_name=name)
    trainer = pruning_trainer(model, Images(SIZE), tmp_path, [log], policy=RandomPruning(0.5), **flags)
    trainer.train()
    assert trainer.state.best_global_step < trainer.state.global_step
    assert_same_bits(weights_of(trainer), log.weights)


class TestCheckpointsOfOtherAdapters:
    @pytest.fixture
    def saved(self, tmp_path):
        flags = {"policy": RandomPruning(0.5), "save_strategy": "steps", "save_steps": 1, "max_steps": 1}
        pruning_trainer(images(), Images(SIZE), tmp_path / "run", **flags).train()
        return tmp_path / "run" / "checkpoint-1"

    def refused(self, saved, tmp_path, model, message):
        trainer = pruning_trainer(model, Images(SIZE), tmp_path / "other", policy=RandomPruning(0.5), max_steps=2)
        with pytest.raises(RuntimeError, match=message):
            trainer.train(resume_from_checkpoint=str(saved))

    @pytest.mark.filterwarnings("ignore:Found missing adapter keys:UserWarning")
    @pytest.mark.parametrize(
        ("targets", "message"),
        [
            (3, r"do not fit PeftModel: missing \['base_model\.\S*\.lora_A\S*'.*\], unexpected \[\]"),
            (1, r"do not fit PeftModel: missing \[\], unexpected \['base_model\.\S*\.lora_A"),
        ],
    )
    def test_with_other_targets(self, saved, tmp_path, targets, message):
        self.refused(saved, tmp_path, images(targets=targets), message)

    def test_with_another_rank(self, saved, tmp_path):
        self.refused(saved, tmp_path, images(r=2), "size mismatch")

    @pytest.mark.filterwarnings("ignore:Found missing adapter keys:UserWarning")
    def test_with_weights_lost(self, saved, tmp_path):
        file = saved / "adapter_model.safetensors"
        weights = load_file(file)
        lost = next(iter(weights))
        save_file({name: tensor for name, tensor in weights.items() if name != lost}, file)
        with pytest.raises(RuntimeError, match=f"missing \\['{lost}'\\]"):
            check_adapters(images(), str(saved))

    @pytest.mark.filterwarnings("ignore:Found missing adapter keys:UserWarning")
    def test_with_weights_lost_of_an_adapter_with_a_name(self, tmp_path):
        flags = {"policy": RandomPruning(0.5), "save_strategy": "steps", "save_steps": 1, "max_steps": 1}
        pruning_trainer(images(adapter_name="mine"), Images(SIZE), tmp_path / "run", **flags).train()
        saved = tmp_path / "run" / "checkpoint-1"
        file = saved / "mine" / "adapter_model.safetensors"
        weights = load_file(file)
        lost = next(name for name in weights if "lora_A" in name)
        save_file({name: tensor for name, tensor in weights.items() if name != lost}, file)
        (saved / DIGEST_FILE).unlink()
        self.refused(saved, tmp_path, images(adapter_name="mine"), "do not fit PeftModel: missing")

    def test_as_saved(self, saved):
        check_adapters(images(), str(saved))
        check_adapters(vit(), str(saved))


def test_adapters_before_the_layers_work_where_a_sample_has_one_label(tmp_path):
    from tests.support.helpers import bert

    for config in (
        PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2),
        PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2),
    ):
        trainer = pruning_trainer(
            adapted(bert(), config), Tokens(SIZE), tmp_path, policy=RandomPruning(0.5), max_steps=2
        )
        trainer.train()
        assert isinstance(trainer.per_sample_loss, ClassificationLoss)


def as_stock(make_model, data, tmp_path):
    """Weights after stock training and with pruning off, and the trainer of a pruned run."""
    weights = []
    for make in (stock_trainer, pruning_trainer):
        trainer = make(make_model(), data, tmp_path / make.__name__, num_train_epochs=2)
        trainer.train()
        weights.append(weights_of(trainer))
    assert_same_bits(*weights)
    flags = {"prune_method": "infobatch", "num_train_epochs": 3, "prune_kwargs": {"delta": 1}}
    pruned = pruning_trainer(make_model(), data, tmp_path / "pruned", **flags)
    pruned.train()
    assert min(record.kept for record in pruned.pruning_history) < len(data)
    return pruned


def test_adapters_that_add_to_the_loss(tmp_path):
    """Their term belongs to no sample: it is in the loss as it is, and in the scores of none."""

    def model():
        return adapted(vit(), AdaLoraConfig(target_modules=linear_layers(vit())[:1], total_step=10))

    as_stock(model, Images(SIZE), tmp_path)


def test_virtual_tokens_before_labelled_tokens(tmp_path):
    """Outputs and labels differ in number; PEFT's own code makes the loss of them."""
    from tests.support.tiny_text import WORDS, llama

    def model():
        torch.manual_seed(0)
        return adapted(llama(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))

    rows = []
    for row in Tokens(SIZE):
        ids = row["input_ids"] % (len(WORDS) + 3)
        rows.append({"input_ids": ids, "attention_mask": row["attention_mask"], "labels": ids.clone()})
    as_stock(model, rows, tmp_path)
