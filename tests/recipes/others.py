"""Other trainers, adapters and features."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset
from transformers import LlamaConfig, LlamaForSequenceClassification, set_seed

from tests.recipes.data import VIT, gpt2, seeded, sentences
from tests.recipes.recipe import OTHER, flags_for, recipe
from tests.support.helpers import Images, bert, vit
from tests.support.tiny_text import EOS, PAD, WORDS, llama, tokenizer
from tests.support.tiny_text import sentences as texts

ROWS = 24


def preferences(with_prompt):
    """Columns `chosen` and `rejected`, and `prompt`."""
    good, bad, prompts = texts(ROWS, 1), texts(ROWS, 2), texts(ROWS, 3)
    columns = {"chosen": [f" {text}" for text in good], "rejected": [f" {text}" for text in bad]}
    return Dataset.from_dict({"prompt": prompts, **columns} if with_prompt else columns)


@recipe(
    "supervised fine-tuning", "TRL's `SFTTrainer`", trainer="trl.SFTTrainer", arguments="trl.SFTConfig", needs=("trl",)
)
def sft(base, args_class, out, **flags):
    args = args_class(**flags_for(out, flags, bf16=False, gradient_checkpointing=False, max_length=16))
    rows = Dataset.from_dict({"text": texts(ROWS)})
    return base(model=llama(), args=args, train_dataset=rows, processing_class=tokenizer())


@recipe(
    "preferences (DPO)",
    "TRL's `DPOTrainer`",
    trainer="trl.DPOTrainer",
    arguments="trl.DPOConfig",
    needs=("trl",),
)
def dpo(base, args_class, out, **flags):
    args = args_class(**flags_for(out, flags, bf16=False, gradient_checkpointing=False, max_length=24))
    return base(
        model=llama(), ref_model=llama(), args=args, train_dataset=preferences(True), processing_class=tokenizer()
    )


@recipe(
    "reward model", "TRL's `RewardTrainer`", trainer="trl.RewardTrainer", arguments="trl.RewardConfig", needs=("trl",)
)
def reward(base, args_class, out, **flags):
    set_seed(3)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    names = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": EOS}
    config = LlamaConfig(vocab_size=len(WORDS) + 3, max_position_embeddings=32, num_labels=1, **sizes, **names)
    args = args_class(**flags_for(out, flags, bf16=False, gradient_checkpointing=False, max_length=16))
    model = LlamaForSequenceClassification(config)
    return base(model=model, args=args, train_dataset=preferences(False), processing_class=tokenizer())


@recipe(
    "pairs of texts (cross-encoder)",
    "sentence-transformers' `CrossEncoderTrainer` with `BinaryCrossEntropyLoss`",
    trainer="sentence_transformers.cross_encoder.CrossEncoderTrainer",
    arguments="sentence_transformers.cross_encoder.CrossEncoderTrainingArguments",
    needs=("sentence_transformers",),
)
def cross_encoder(base, args_class, out, **flags):
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    folder = Path(out) / "start"
    bert(num_labels=1).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    model = CrossEncoder(str(folder), device="cpu", num_labels=1)
    columns = {"query": texts(ROWS, 1), "answer": texts(ROWS, 2), "label": [float(i % 2) for i in range(ROWS)]}
    args = args_class(**flags_for(out, flags))
    rows = Dataset.from_dict(columns)
    return base(model=model, args=args, train_dataset=rows, loss=BinaryCrossEntropyLoss(model))


@recipe("LoRA", "`get_peft_model` around BERT", needs=("peft",))
def lora(base, args_class, out, **flags):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"], lora_dropout=0.1)
    model = seeded(lambda: get_peft_model(bert(), config))
    return base(model=model, args=args_class(**flags_for(out, flags)), train_dataset=sentences())


@recipe("prompt tuning", "PEFT's `PromptTuningConfig` around GPT-2", needs=("peft",))
def prompt_tuning(base, args_class, out, **flags):
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = seeded(lambda: get_peft_model(gpt2(), config))
    rows = [{**row, "labels": [t or -100 for t in row["input_ids"]]} for row in sentences()]
    return base(model=model, args=args_class(**flags_for(out, flags)), train_dataset=rows)


@recipe("gradient checkpointing", "`gradient_checkpointing=True` and dropout")
def checkpointing(base, args_class, out, **flags):
    args = args_class(**flags_for(out, flags, gradient_checkpointing=True))
    return base(model=bert(hidden_dropout_prob=0.1), args=args, train_dataset=sentences())


@recipe("gradient accumulation", "ViT, whose loss is divided by the items of all micro-batches")
def accumulation(base, args_class, out, **flags):
    more = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    return base(model=vit(**VIT), args=args_class(**flags_for(out, flags, **more)), train_dataset=Images(24))


@recipe(
    "gradient accumulation with BERT",
    "a model that ignores `num_items_in_batch`",
    none=OTHER,
    remark="stock adds up the means of the micro-batches, ours divides by all their items (see accumulation in Tasks)",
)
def accumulation_of_means(base, args_class, out, **flags):
    more = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    return base(model=bert(), args=args_class(**flags_for(out, flags, **more)), train_dataset=sentences())


@recipe("mixture of experts", "Mixtral with `output_router_logits=True`: the router's term in the loss", scales=False)
def experts(base, args_class, out, **flags):
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MixtralConfig(
        vocab_size=50,
        num_key_value_heads=2,
        num_local_experts=2,
        max_position_embeddings=32,
        router_aux_loss_coef=0.1,
        output_router_logits=True,
        **sizes,
    )
    rows = [{**row, "labels": [t or -100 for t in row["input_ids"]]} for row in sentences()]
    model = seeded(lambda: MixtralForCausalLM(config))
    return base(model=model, args=args_class(**flags_for(out, flags)), train_dataset=rows)


@recipe(
    "sequence to sequence",
    "`Seq2SeqTrainer` with `predict_with_generate`",
    trainer="transformers.Seq2SeqTrainer",
    arguments="transformers.Seq2SeqTrainingArguments",
)
def seq2seq(base, args_class, out, **flags):
    from transformers import DataCollatorForSeq2Seq, T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    names = {"pad_token_id": PAD, "eos_token_id": EOS, "decoder_start_token_id": PAD}
    config = T5Config(vocab_size=50, **sizes, **names)
    model = seeded(lambda: T5ForConditionalGeneration(config))
    rows = [{**row, "labels": row["input_ids"][: 2 + i % 3]} for i, row in enumerate(sentences(same_length=False))]
    return base(
        model=model,
        args=args_class(**flags_for(out, flags, predict_with_generate=True)),
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer(), model=model),
    )
