"""Small models and data sets under the names that TRL's tests load from the hub, so that these run without a network.

`transformers` and `datasets` prefer a folder of the working directory to a repository of that name; so tests that are
started in the folder written here find `trl-internal-testing/zen` and the rest in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PretrainedConfig, PreTrainedTokenizerFast, set_seed

ORGANISATION = "trl-internal-testing"
END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SAID = tuple(
    f"{first} is better than {second} {third}."
    for first, second in (
        ("Plain", "ornate"),
        ("Flat", "nested"),
        ("Early", "late"),
        ("Whole", "half"),
        ("Now", "never"),
    )
    for third in ("in code", "in prose", "at first sight", "for whoever reads it")
)
"""Twenty sentences: 17 to train on, three to evaluate with."""
TRAINING = 17
SMALL = {
    "hidden_size": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 32,
}
MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
CAUSAL: Mapping[str, tuple[str, Mapping[str, Any], str]] = {
    "tiny-Qwen2ForCausalLM-2.5": ("Qwen2", {}, "qwen2_5"),
    "tiny-Qwen3ForCausalLM": ("Qwen3", {"head_dim": 4}, "qwen3"),
    "tiny-Qwen3MoeForCausalLM": ("Qwen3Moe", {"head_dim": 4, **MIXTURE}, "qwen3"),
    "tiny-LlamaForCausalLM-3.2": ("Llama", {}, "llama3_2"),
    "tiny-LlamaForCausalLM-3.1": ("Llama", {}, "llama3_1"),
    "tiny-LlamaForCausalLM-3": ("Llama", {}, "llama3"),
    "tiny-MistralForCausalLM-0.1": ("Mistral", {}, "qwen2_5"),
    "tiny-MistralForCausalLM-0.2": ("Mistral", {}, "qwen2_5"),
    "tiny-GemmaForCausalLM": ("Gemma", {"head_dim": 4}, "gemma"),
    "tiny-Gemma2ForCausalLM": ("Gemma2", {"head_dim": 4}, "gemma"),
    "tiny-Phi3ForCausalLM": ("Phi3", {"pad_token_id": 0}, "phi3"),
    "tiny-CohereForCausalLM": ("Cohere", {}, "cohere"),
    "tiny-Cohere2ForCausalLM": ("Cohere2", {}, "cohere2"),
    "tiny-Olmo3ForCausalLM": ("Olmo3", {}, "qwen2_5"),
    "tiny-GPTNeoXForCausalLM": ("GPTNeoX", {}, "qwen2_5"),
    "tiny-GptOssForCausalLM": ("GptOss", {"head_dim": 4, "num_local_experts": 4, "num_experts_per_tok": 2}, "gptoss"),
}
"""Family, what its configuration has beside `SMALL`, and TRL's chat template, by name."""
CLASSIFIERS = {"tiny-Qwen2ForSequenceClassification-2.5": ("Qwen2", {"num_labels": 1}, "qwen2_5")}


def write_stand_ins(folder: Path) -> None:
    """The data sets and models, below `folder`; what lies there already is kept."""
    root = folder / ORGANISATION
    if (root / "complete").exists():
        return
    root.mkdir(parents=True, exist_ok=True)
    _write_data_set(root / "zen", _zen())
    words = _tokenizer()
    for kind, table in (("ForCausalLM", CAUSAL), ("ForSequenceClassification", CLASSIFIERS)):
        for name, (family, config, template) in table.items():
            _write_model(root / name, family, kind, config)
            words.chat_template = _template(template)
            words.save_pretrained(root / name)
    (root / "complete").touch()


def _tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level pairs, so that every text can be written with it."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    special = [END, START, STOP, "<think>", "</think>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    words.train_from_iterator(SAID, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token=END, eos_token=STOP, model_max_length=2048)


def _template(name: str) -> str:
    import trl

    text = Path(trl.__file__).with_name("chat_templates") / f"{name}.jinja"
    return text.read_text(encoding="utf-8")


def _write_model(folder: Path, family: str, kind: str, config: Mapping[str, Any]) -> None:
    set_seed(0)
    tokens = {"vocab_size": len(_tokenizer()), "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": None}
    made: PretrainedConfig = getattr(transformers, f"{family}Config")(**{**SMALL, **tokens, **config})
    model = getattr(transformers, f"{family}{kind}")(made).to(torch.float32)
    with torch.no_grad():  # weights that are equal do not move in a test's few steps
        for weights in model.parameters():
            weights.add_(0.05 * torch.randn_like(weights))
    model.save_pretrained(folder)


def _write_data_set(folder: Path, configurations: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    lines = ["---", "configs:"]
    for name, rows in configurations.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        for split, part in (("train", rows[:TRAINING]), ("test", rows[TRAINING:])):
            file = folder / name / f"{split}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
            lines += [f"  - split: {split}", f"    path: {name}/{split}.jsonl"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")


def _zen() -> dict[str, list[dict[str, Any]]]:
    """The configurations of `trl-internal-testing/zen`: each kind of row, as text and as messages."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for form, ask, say in (("standard", str, str), ("conversational", _user, _assistant)):
        for number, sentence in enumerate(SAID):
            head, _, tail = sentence.rpartition(" than ")
            other = SAID[(number + 7) % len(SAID)].rpartition(" than ")[2]
            prompt, good, bad = ask(f"{head} than"), say(f" {tail}"), say(f" {other}")
            whole, worse = prompt + good, prompt + bad
            kinds: dict[str, dict[str, Any]] = {
                "language_modeling": {"text" if form == "standard" else "messages": whole},
                "prompt_only": {"prompt": prompt},
                "prompt_completion": {"prompt": prompt, "completion": good},
                "preference": {"prompt": prompt, "chosen": good, "rejected": bad},
                "implicit_prompt_preference": {"chosen": whole, "rejected": worse},
                "unpaired_preference": {"prompt": prompt, "completion": good, "label": number % 2 == 0},
            }
            for kind, row in kinds.items():
                rows.setdefault(f"{form}_{kind}", []).append(row)
    return rows


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text.strip()}]
