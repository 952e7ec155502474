"""What keeping a model's losses apart by sample costs: training steps with interception against plain ones.

Both are made in turn, in one process, on the same batch; the median of the ratios of neighbours is printed.

    python -m tests.benchmarks.interception
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from transformers import BertConfig, BertForNextSentencePrediction

from hf_dynprune.losses.interception import InterceptedLoss

PAIRS = 30


def step_time(model: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> float:
    """Seconds of a forward and a backward pass."""
    model.zero_grad()
    began = time.perf_counter()
    loss().backward()
    return time.perf_counter() - began


def compare(width: int, layers: int, batch: int, length: int) -> tuple[float, float]:
    """Milliseconds of a plain step, and the ratio of an intercepted one to it."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 32, intermediate_size=4 * width
    )
    model = BertForNextSentencePrediction(config)
    inputs = {"input_ids": torch.randint(0, 1000, (batch, length)), "labels": torch.randint(0, 2, (batch,))}
    intercepted = InterceptedLoss(model)

    def by_sample() -> torch.Tensor:
        return intercepted(model, inputs, intercepted.forward(model, inputs)).total.mean()

    plain, ratios = [], []
    for _ in range(PAIRS):
        plain.append(step_time(model, lambda: model(**inputs).loss))
        ratios.append(step_time(model, by_sample) / plain[-1])
    return 1000 * statistics.median(plain), statistics.median(ratios)


def main() -> None:
    """Print a line per size."""
    print("| BERT | batch | plain step, ms | intercepted / plain |\n|---|---|--:|--:|")
    for width, layers, batch, length in ((32, 2, 8, 16), (128, 2, 16, 64), (256, 6, 16, 128)):
        milliseconds, ratio = compare(width, layers, batch, length)
        print(
            f"| {layers} layers of width {width} | {batch} x {length} | {milliseconds:.1f} | {ratio:.2f} |", flush=True
        )


if __name__ == "__main__":
    main()
