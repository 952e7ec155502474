"""Tiny models of the tasks that transformers trains, each with a batch, for comparisons with the model's own loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import Tensor

from tests.support.segmenters import Scenes, segformer, upernet

B, T, VOCABULARY, CLASSES = 3, 7, 40, 4

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Pair:
    """A model and a task.

    Args:
        task: as the docs name it.
        make: the model, from a tiny config.
        batch: B samples for it, in the precision of its weights.
        count: what n_i counts, as the docs name it.
    """

    task: str
    make: Callable[[], hf.PreTrainedModel]
    batch: Callable[[], Batch]
    count: str = "1"

    def build(self, dtype: torch.dtype = torch.float64) -> tuple[hf.PreTrainedModel, Batch]:
        """The model in evaluation mode, its weights large enough to tell inputs apart, and the batch."""
        hf.set_seed(5)
        model = self.make()
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        batch = {k: v.to(dtype) if v.is_floating_point() else v for k, v in self.batch().items()}
        return model.to(dtype).eval(), batch


# ---- Models ----

WIDTHS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
PADS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def bert(kind: str, **config: Any) -> Callable[[], hf.PreTrainedModel]:
    config = {**WIDTHS, "vocab_size": VOCABULARY, "num_labels": CLASSES, **config}
    return lambda: getattr(hf, f"BertFor{kind}")(hf.BertConfig(**config))


def distilbert(kind: str, **config: Any) -> Callable[[], hf.PreTrainedModel]:
    config = {"vocab_size": VOCABULARY, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, **config}
    return lambda: getattr(hf, f"DistilBertFor{kind}")(hf.DistilBertConfig(**{"num_labels": CLASSES, **config}))


def roberta_masked() -> hf.PreTrainedModel:
    return hf.RobertaForMaskedLM(hf.RobertaConfig(**WIDTHS, **PADS, max_position_embeddings=20))


def vit(**config: Any) -> Callable[[], hf.PreTrainedModel]:
    config = {**WIDTHS, "image_size": 8, "patch_size": 4, "num_labels": CLASSES, **config}
    return lambda: hf.ViTForImageClassification(hf.ViTConfig(**config))


def resnet() -> hf.PreTrainedModel:
    widths = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    return hf.ResNetForImageClassification(hf.ResNetConfig(**widths, num_labels=CLASSES))


def convnext() -> hf.PreTrainedModel:
    widths = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "patch_size": 1}
    return hf.ConvNextForImageClassification(hf.ConvNextConfig(**widths, num_labels=CLASSES))


def swin() -> hf.PreTrainedModel:
    widths = {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2}
    return hf.SwinForImageClassification(hf.SwinConfig(image_size=8, patch_size=2, **widths, num_labels=CLASSES))


def gpt2(kind: type = hf.GPT2LMHeadModel) -> Callable[[], hf.PreTrainedModel]:
    return lambda: kind(hf.GPT2Config(n_embd=16, n_layer=1, n_head=2, num_labels=CLASSES, **PADS))


def llama() -> hf.PreTrainedModel:
    return hf.LlamaForCausalLM(hf.LlamaConfig(**WIDTHS, **PADS))


def mixtral() -> hf.PreTrainedModel:
    experts = {"num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "output_router_logits": True}
    # The other implementations have no float64.
    return hf.MixtralForCausalLM(hf.MixtralConfig(**WIDTHS, **PADS, **experts, experts_implementation="eager"))


def t5() -> hf.PreTrainedModel:
    widths = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return hf.T5ForConditionalGeneration(hf.T5Config(vocab_size=VOCABULARY, **widths, decoder_start_token_id=0))


def bart(name: str = "BartForConditionalGeneration", config: type = hf.BartConfig) -> Callable[[], hf.PreTrainedModel]:
    widths = {f"{part}_{what}": size for part in ("encoder", "decoder") for what, size in _SIDE.items()}
    return lambda: getattr(hf, name)(config(d_model=16, **widths, **PADS, decoder_start_token_id=2))


_SIDE = {"layers": 1, "attention_heads": 2, "ffn_dim": 32}


def videomae() -> hf.PreTrainedModel:
    frames = {"image_size": 8, "patch_size": 4, "num_frames": 2, "tubelet_size": 1}
    return hf.VideoMAEForVideoClassification(hf.VideoMAEConfig(**WIDTHS, **frames, num_labels=CLASSES))


def spectrogram_transformer() -> hf.PreTrainedModel:
    patches = {"patch_size": 4, "frequency_stride": 4, "time_stride": 4, "max_length": 8, "num_mel_bins": 8}
    return hf.ASTForAudioClassification(hf.ASTConfig(**WIDTHS, **patches, num_labels=CLASSES))


def wav2vec2(kind: type, **config: Any) -> Callable[[], hf.PreTrainedModel]:
    ears = {"conv_dim": [8, 8], "conv_kernel": [4, 4], "conv_stride": [4, 4], "num_conv_pos_embeddings": 4}
    words = {"vocab_size": 12, "pad_token_id": 0, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8}
    config = {**WIDTHS, **ears, **words, "num_labels": CLASSES, **config}
    return lambda: kind(hf.Wav2Vec2Config(**config))


def vilt() -> hf.PreTrainedModel:
    config = {**WIDTHS, "vocab_size": VOCABULARY, "image_size": 8, "patch_size": 4, "num_labels": CLASSES}
    return hf.ViltForQuestionAnswering(hf.ViltConfig(**config, max_image_length=-1))


# ---- Batches ----


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def whole(high: int, *shape: int, low: int = 0, seed: int = 1) -> Tensor:
    return torch.randint(low, high, shape, generator=draws(seed))


def real(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=draws(seed))


def texts() -> Batch:
    """Token ids, the last sample padded."""
    mask = torch.ones(B, T, dtype=torch.int64)
    mask[-1, 4:] = 0
    ids = whole(VOCABULARY, B, T, low=3, seed=0)
    return {"input_ids": torch.where(mask.bool(), ids, 0), "attention_mask": mask}


def token_labels(high: int) -> Tensor:
    """Of unequal numbers per sample."""
    labels = whole(high, B, T, low=3 if high == VOCABULARY else 0)
    labels[0, :3] = -100
    labels[-1, 2:] = -100
    return labels


def texts_with(**labels: Tensor) -> Callable[[], Batch]:
    return lambda: {**texts(), **labels}


def images_with(labels: Tensor, side: int = 8) -> Callable[[], Batch]:
    return lambda: {"pixel_values": real(B, 3, side, side), "labels": labels}


CLASS = whole(CLASSES, B)
SPAN = {"start_positions": torch.tensor([1, 4, 0]), "end_positions": torch.tensor([3, 5, 2])}


def choices() -> Batch:
    return {key: value[:, None].expand(-1, 3, -1) * 1 for key, value in texts().items()} | {
        "token_type_ids": whole(2, B, 3, T),
        "labels": torch.tensor([2, 0, 1]),
    }


def sounds(labels: Tensor) -> Callable[[], Batch]:
    return lambda: {"input_values": real(B, 320), "labels": labels}


def pictures_and_questions() -> Batch:
    return texts() | {"pixel_values": real(B, 3, 8, 8), "labels": real(B, CLASSES).sigmoid()}


TOKENS = "labelled tokens"
FEW = torch.tensor([[3, 4, 5], [6, -100, -100], [7, 8, -100]])

PAIRS = [
    Pair("image classification", vit(), images_with(CLASS)),
    Pair("image classification, several labels", vit(), images_with(whole(2, B, CLASSES).float())),
    Pair("regression of 3 values", vit(problem_type="regression", num_labels=3), images_with(real(B, 3))),
    Pair("image classification", resnet, images_with(CLASS, 32)),
    Pair("image classification", convnext, images_with(CLASS, 16)),
    Pair("image classification", swin, images_with(CLASS)),
    Pair("video classification", videomae, lambda: {"pixel_values": real(B, 2, 3, 8, 8), "labels": CLASS}),
    Pair("audio classification", spectrogram_transformer, lambda: {"input_values": real(B, 8, 8), "labels": CLASS}),
    Pair("audio classification", wav2vec2(hf.Wav2Vec2ForSequenceClassification), sounds(CLASS)),
    Pair("text classification", bert("SequenceClassification"), texts_with(labels=CLASS)),
    Pair("text classification", gpt2(hf.GPT2ForSequenceClassification), texts_with(labels=CLASS)),
    Pair("regression of 1 value", distilbert("SequenceClassification", num_labels=1), texts_with(labels=real(B))),
    Pair("token classification", bert("TokenClassification"), texts_with(labels=token_labels(CLASSES)), TOKENS),
    Pair("token classification", distilbert("TokenClassification"), texts_with(labels=token_labels(CLASSES)), TOKENS),
    Pair("masked language model", roberta_masked, texts_with(labels=token_labels(VOCABULARY)), TOKENS),
    Pair("causal language model", gpt2(), texts_with(labels=token_labels(VOCABULARY)), TOKENS),
    Pair("causal language model", llama, texts_with(labels=token_labels(VOCABULARY)), TOKENS),
    Pair("causal, mixture of experts", mixtral, texts_with(labels=token_labels(VOCABULARY)), TOKENS),
    Pair("sequence to sequence", t5, texts_with(labels=token_labels(VOCABULARY)), TOKENS),
    Pair("sequence to sequence", bart(), texts_with(labels=token_labels(VOCABULARY)), TOKENS),
    Pair("translation", bart("MarianMTModel", hf.MarianConfig), texts_with(labels=token_labels(VOCABULARY)), TOKENS),
    Pair("question answering", bert("QuestionAnswering", num_labels=2), texts_with(**SPAN), "start and end"),
    Pair("question answering", distilbert("QuestionAnswering", num_labels=2), texts_with(**SPAN), "start and end"),
    Pair("multiple choice", bert("MultipleChoice"), choices),
    Pair("semantic segmentation", segformer, lambda: Scenes(B).batch(), "labelled pixels"),
    Pair("semantic segmentation, auxiliary head", upernet, lambda: Scenes(B).batch(), "labelled pixels"),
    Pair("next sentence", bert("NextSentencePrediction"), texts_with(labels=whole(2, B))),
    Pair(
        "masked words and next sentence",
        bert("PreTraining"),
        texts_with(labels=whole(VOCABULARY, B, T, low=3), next_sentence_label=whole(2, B)),
        TOKENS,
    ),
    Pair("questions about images", vilt, pictures_and_questions),
    Pair("speech recognition (CTC)", wav2vec2(hf.Wav2Vec2ForCTC, ctc_loss_reduction="mean"), sounds(FEW)),
]
"""What the docs' table lists, in its order."""
