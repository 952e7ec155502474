"""A multilayer perceptron for tables of numbers: two hidden layers.

    h_1 = relu(W_1 x + b_1),   h_2 = relu(W_2 h_1 + b_2),   z = W_3 h_2 + b_3

Columns should be standardised. Source: none beyond the textbook; transformers has no model for plain numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    initialization,
)
from transformers.modeling_outputs import SequenceClassifierOutput


class TablePerceptronConfig(PreTrainedConfig):
    """Shape of a perceptron for rows of numbers.

    Args:
        num_columns: numbers in a row.
        hidden_size: width of both hidden layers.
        kwargs: those of `PreTrainedConfig`, such as `num_labels`.

    Examples:
        >>> model = TablePerceptronForSequenceClassification(TablePerceptronConfig(num_columns=3, num_labels=2))
        >>> model(features=torch.zeros(5, 3)).logits.shape
        torch.Size([5, 2])
    """

    model_type = "table_perceptron"

    def __init__(self, num_columns: int = 16, hidden_size: int = 128, **kwargs: Any) -> None:
        if num_columns < 1 or hidden_size < 1:
            raise ValueError(
                f"`num_columns` and `hidden_size` must be at least 1, got {num_columns} and {hidden_size}."
            )
        self.num_columns = num_columns
        self.hidden_size = hidden_size
        super().__init__(**kwargs)


class TablePerceptronForSequenceClassification(PreTrainedModel):
    """Rows of numbers to classes. The class of models is transformers' nearest: one vector in, one label out."""

    config_class = TablePerceptronConfig
    base_model_prefix = "perceptron"
    main_input_name = "features"

    def __init__(self, config: TablePerceptronConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.layers = nn.Sequential(
            nn.Linear(config.num_columns, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, config.num_labels or 0),
        )
        self.post_init()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As torch makes linear layers."""
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            initialization.uniform_(module.weight, -bound, bound)
            initialization.uniform_(module.bias, -bound, bound)

    def forward(self, features: Tensor, labels: Tensor | None = None, **kwargs: Any) -> SequenceClassifierOutput:
        """Logits `[B, C]` of rows `[B, columns]`, and the loss where there are labels `[B]`."""
        logits = self.layers(features)
        loss = None if labels is None else self.loss_function(labels, logits, self.config, **kwargs)
        return SequenceClassifierOutput(loss=loss, logits=logits)


AutoConfig.register(TablePerceptronConfig.model_type, TablePerceptronConfig, exist_ok=True)
AutoModelForSequenceClassification.register(
    TablePerceptronConfig, TablePerceptronForSequenceClassification, exist_ok=True
)
