"""One class per token: token classification, masked, causal and sequence-to-sequence language models.

With z_t the logits at place t of sample i, y_t its label (in a causal model: the next token), and V_i the places whose
label is not -100:

    S_i = sum over t in V_i of -log softmax(z_t)[y_t], with label smoothing as the Trainer's
    n_i = |V_i|

Models with experts add their router's loss, which belongs to the batch: it is `extra`, and carries no sample's weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..decisions.proxy import GradientProxy, smoothed_entropy
from .base import LossTerms, PerSampleLoss
from .labels import IGNORE, RangeCheck, at_least_single, is_named, labels_of, logits_of, refuse_own_loss_function
from .registry import register_loss

_CAUSAL = ("ForCausalLM", "LMHeadModel")
_UNSHIFTED = (
    *("XLMWithLMHeadModel", "FlaubertWithLMHeadModel", "XLNetLMHeadModel"),
    *("CpmAntForCausalLM", "ProphetNetForCausalLM"),
)


class TokenLoss(PerSampleLoss):
    """The loss of models that give logits `[B, T, C]` for labels `[B, T]`.

    `shifted` says whether the logits at a place are for the label of the next place.
    """

    withheld: tuple[str, ...] = ("labels", "shift_labels")

    def __init__(self, model: torch.nn.Module, label_smoothing: float = 0.0, *, shifted: bool = False) -> None:
        refuse_own_loss_function(model)
        config: Any = model.config
        is_labelled = is_named(model, "ForTokenClassification")
        classes = config.num_labels if is_labelled else getattr(config.get_text_config(), "vocab_size", None)
        advice = "`num_labels` of the model's config" if is_labelled else "the tokenizer against the model's vocabulary"
        self._check_range = None if classes is None else RangeCheck(classes, IGNORE, f"Check {advice}.")
        self.label_smoothing = label_smoothing
        if classes is not None or not label_smoothing:
            self.gradient_proxy = GradientProxy("cross_entropy", smoothed_entropy(label_smoothing, classes or 1))
        self.shifted = shifted
        # The Trainer's smoothing leaves the router's loss out.
        self.router_weight = 0.0 if label_smoothing else _router_weight(model)

    def count(self, inputs: Mapping[str, Any]) -> Tensor:
        """int64 `[B]`: the number of tokens of each sample whose label is not -100."""
        targets = self._targets(inputs)
        if self._check_range is not None:
            self._check_range(targets)
        return targets.ne(IGNORE).sum(1)

    def __call__(self, model: torch.nn.Module, inputs: Mapping[str, Any], outputs: Any) -> LossTerms:
        logits = at_least_single(logits_of(outputs))
        targets = self._targets(inputs).to(logits.device)
        if logits.shape[:2] != targets.shape:
            raise ValueError(
                f"The model gives logits for {tuple(logits.shape[:2])} tokens where the labels have "
                f"{tuple(targets.shape)}: pass the loss as `per_sample_loss=fn`, with fn(model, inputs, outputs) "
                "returning [B]."
            )
        losses = functional.cross_entropy(
            logits.flatten(0, 1),
            targets.flatten(),
            ignore_index=IGNORE,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        total = losses.view(targets.shape).sum(1)
        score = total.detach() / targets.ne(IGNORE).sum(1).clamp(min=1)
        return LossTerms(total=total, score=score, extra=self._router_loss(outputs))

    def _targets(self, inputs: Mapping[str, Any]) -> Tensor:
        """int64 `[B, T]`: the label that the logits at each place are for."""
        shifted = inputs.get("shift_labels") if self.shifted else None
        labels: Tensor = labels_of(inputs) if shifted is None else shifted
        if labels.dim() != 2 or labels.dtype != torch.int64:
            raise ValueError(
                f"This task needs one class number per token, `labels` torch.int64 [B, T], got {labels.dtype} of shape "
                f"{tuple(labels.shape)}: pad them with {IGNORE} in the collator, and use `.long()`."
            )
        if not self.shifted or shifted is not None:
            return labels
        # A column is moved to the end instead of cutting the last logits off, which would copy them.
        return functional.pad(labels, (0, 1), value=IGNORE)[:, 1:].contiguous()

    def _router_loss(self, outputs: Any) -> Tensor | None:
        aux = outputs.get("aux_loss") if isinstance(outputs, Mapping) else None
        if not isinstance(aux, Tensor) or self.router_weight == 0:
            return None
        if self.router_weight is None:
            raise ValueError(
                "The model gives an `aux_loss`, but neither it nor its config says what it weighs "
                "(`router_aux_loss_coef`, `aux_loss_coef`): set one, or pass the loss as `per_sample_loss=fn`."
            )
        return self.router_weight * aux


class SequenceToSequenceLoss(TokenLoss):
    """The loss of T5, BART and models of their form, whose decoder starts from the labels moved by one place.

    The model makes `decoder_input_ids` from the labels where the collator did not.
    """

    withheld = ("labels",)

    def __init__(self, model: torch.nn.Module, label_smoothing: float = 0.0) -> None:
        super().__init__(model, label_smoothing)
        self._decoder_inputs: Callable[..., Tensor] = model.prepare_decoder_input_ids_from_labels  # type: ignore[assignment]

    def count(self, inputs: Mapping[str, Any]) -> Tensor:
        if self.label_smoothing and not _has_decoder_inputs(inputs):
            raise ValueError(
                f"`label_smoothing_factor` {self.label_smoothing} needs `decoder_input_ids` in the batch, since the "
                "Trainer withholds the labels that they are made from: let the collator add them, as "
                "`DataCollatorForSeq2Seq(tokenizer, model=model)` does, or set it to 0."
            )
        return super().count(inputs)

    def forward(self, model: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
        """The outputs; the batch gets decoder inputs, since without labels the model could not make them."""
        if not _has_decoder_inputs(inputs):
            inputs = {**inputs, "decoder_input_ids": self._decoder_inputs(labels=labels_of(inputs))}
        return super().forward(model, {"use_cache": False, **inputs})


def _has_decoder_inputs(inputs: Mapping[str, Any]) -> bool:
    return "decoder_input_ids" in inputs or "decoder_inputs_embeds" in inputs


def _router_weight(model: torch.nn.Module) -> float | None:
    """The weight of a mixture's router loss in the model's loss; None where nothing gives it."""
    for owner in (model, model.config, model.config.get_text_config()):  # type: ignore[union-attr, operator]
        for name in ("router_aux_loss_coef", "aux_loss_coef"):
            if getattr(owner, name, None) is not None:
                return float(getattr(owner, name))
    return None


def _is_plain_language_model(model: torch.nn.Module) -> bool:
    """Whether the model is causal and shifts its labels; other losses of such names are intercepted."""
    if is_named(model, *_UNSHIFTED):
        return False
    config = getattr(model, "config", None)
    return is_named(model, *_CAUSAL) and config is not None and not getattr(config, "is_encoder_decoder", False)


@register_loss(_is_plain_language_model)
def causal(model: torch.nn.Module, label_smoothing: float = 0.0) -> TokenLoss:
    """The loss of causal language models: GPT-2, Llama, Mixtral and the like."""
    return TokenLoss(model, label_smoothing, shifted=True)


@register_loss(lambda model: is_named(model, "ForTokenClassification", "ForMaskedLM") and hasattr(model, "config"))
def unshifted(model: torch.nn.Module, label_smoothing: float = 0.0) -> TokenLoss:
    """The loss of token classification and of masked language models."""
    return TokenLoss(model, label_smoothing)


def _translates(model: torch.nn.Module) -> bool:
    is_two = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    writes = is_named(model, "ForConditionalGeneration", "MTModel")
    return bool(is_two and writes and hasattr(model, "prepare_decoder_input_ids_from_labels"))


register_loss(_translates)(SequenceToSequenceLoss)
