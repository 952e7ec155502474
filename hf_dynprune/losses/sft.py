"""The per-sample loss of TRL's SFTTrainer, from the outputs that its own loss and metrics are made of.

    nll:  S_i = -sum_t log p_it                 dft:  S_i = -sum_t sg(p_it) log p_it
    n_i = the sample's scored tokens            score_i = -sum_t log p_it / n_i

p_it is the probability of sample i's scored token t, sg stops the gradient. The score is the plain loss in both cases:
the loss of Dynamic Fine-Tuning is small where p is small, so pruning by it would remove what has not been learned.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..decisions.proxy import GradientProxy
from .base import LossTerms, PerSampleLoss
from .labels import IGNORE
from .registry import register_trainer_loss


def is_sft(trainer_class: type) -> bool:
    """Whether it is TRL's SFTTrainer itself, not one of its subclasses with losses of their own."""
    return trainer_class.__name__ == "SFTTrainer" and trainer_class.__module__.startswith("trl.")


def refuse_sft_settings(name: str, arguments: Any) -> None:
    """Raise a ValueError where rows are no samples, or where SFTTrainer's loss differs from `SFTLoss`.

    `arguments` are an `SFTConfig`; None, or another class, stands for its defaults.
    """
    for flag in ("packing", "padding_free"):
        if getattr(arguments, flag, False):
            raise ValueError(
                f"`{flag}=True` in {name} puts several samples into one row, which has one loss for all of them: they "
                f"can be neither scored nor left out one by one. Set `{flag}=False`; to pad less, use "
                "`train_sampling_strategy='group_by_length'`."
            )
    smoothing = getattr(arguments, "label_smoothing_factor", 0.0)
    if smoothing:
        raise ValueError(
            f"`label_smoothing_factor` {smoothing} in {name}: the log-probabilities that SFTTrainer's loss is made of "
            "carry no smoothing, and TRL gives it up with its version 2. Set it to 0."
        )


@register_trainer_loss(is_sft, refuse_sft_settings)
class SFTLoss(PerSampleLoss):
    """What `SFTTrainer.compute_loss` sums over a batch, by sample; made from a built SFTTrainer.

    Raises:
        ValueError: this version of TRL has no log-probabilities to make it of.
    """

    trainer_gathers_metrics = True

    def __init__(self, trainer: Any) -> None:
        if not hasattr(sys.modules["trl.trainer.sft_trainer"], "add_fused_lm_head"):
            raise ValueError(
                "Data pruning takes SFTTrainer's loss apart as TRL 1.16 makes it, got trl "
                f"{sys.modules['trl'].__version__}: install trl>=1.16, or pass `per_sample_loss=fn`."
            )
        if trainer.prune_flags.loss_options:
            raise ValueError(
                f"Unknown parameter {next(iter(trainer.prune_flags.loss_options))!r} in `prune_loss_kwargs`: the "
                "per-sample loss of SFTTrainer takes no parameters."
            )
        self.is_dft = trainer.args.loss_type == "dft"
        self.gradient_proxy = None if self.is_dft else GradientProxy("cross_entropy")
        self.router_weight: float | None = trainer.router_aux_loss_coef if trainer.aux_loss_enabled else None

    def count(self, inputs: Mapping[str, Any]) -> Tensor:
        """The tokens that are scored: those with a label, except the first token, which nothing predicts."""
        labels = inputs.get("labels")
        if not isinstance(labels, Tensor) or labels.dim() != 2:
            has = ", ".join(key for key in inputs if not key.startswith("__"))
            raise ValueError(
                f"The training batch has no `labels` [B, tokens], only: {has or 'nothing'}. Use SFTTrainer's own "
                "collator, or one that gives a label to each token."
            )
        return labels[:, 1:].ne(IGNORE).sum(1)

    def forward(self, model: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
        """The forward pass of `SFTTrainer.compute_loss`: log-probabilities, never the whole logits."""
        routed = {} if self.router_weight is None else {"output_router_logits": True}
        return model(**{**inputs, "use_cache": False, **routed}, fused_lm_head=True)

    def __call__(self, model: Any, inputs: Mapping[str, Any], outputs: Any) -> LossTerms:
        each = -outputs.log_probs
        total = (each * outputs.log_probs.exp().detach() if self.is_dft else each).sum(1)
        score = each.detach().sum(1) / self.count(inputs).clamp(min=1)
        extra = None if self.router_weight is None else self.router_weight * outputs.aux_loss
        return LossTerms(total=total, score=score, extra=extra)
