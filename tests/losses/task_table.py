"""Per-sample losses against the models' own, by task; `python -m tests.losses.task_table` writes them into the docs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hf_dynprune.losses import find_loss, weighted_loss
from tests.support.task_models import PAIRS, B, Pair

BEGIN, END = "<!-- tasks: written by `python -m tests.losses.task_table` -->", "<!-- end of tasks -->"
PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"
BOUND = 1e-6


@dataclass(frozen=True)
class Differences:
    """Relative: of the batch's loss, of its gradients (to the largest of all), of each sample's loss and gradients."""

    model: str
    loss: str
    batch: float
    gradient: float
    alone: float
    alone_gradient: float


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> list[torch.Tensor]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def difference(got: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """The largest, of the largest number expected anywhere."""
    largest = max(float(tensor.abs().max()) for tensor in expected)
    return max(float((a - b).abs().max()) for a, b in zip(got, expected, strict=True)) / largest


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return abs(got.item() - expected.item()) / abs(expected.item())


def own_loss(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | float]:
    """The model's loss, and what of it belongs to no sample."""
    outputs = model(**batch)
    router = outputs.get("aux_loss")
    return outputs.loss, 0.0 if router is None else model.config.router_aux_loss_coef * router


def measure(pair: Pair) -> Differences:
    """Ours against the model's, in float64 and evaluation mode."""
    model, batch = pair.build()
    loss = find_loss(model)
    terms, count = loss(model, batch, loss.forward(model, batch)), loss.count(batch)
    ours, (own, _) = weighted_loss(terms, torch.ones(B), count.sum()), own_loss(model, batch)
    assert int(count.sum()) > 0
    alone = alone_gradient = 0.0
    for i in (i for i in range(B) if count[i]):
        single, extra = own_loss(model, {key: value[i : i + 1] for key, value in batch.items()})
        single = single - extra
        per_item = terms.total[i] / count[i]
        for got in (per_item, terms.score[i]):
            alone = max(alone, relative(got, single))
        alone_gradient = max(alone_gradient, difference(gradients(model, per_item), gradients(model, single)))
    return Differences(
        type(model).__name__,
        type(loss).__name__,
        relative(ours, own),
        difference(gradients(model, ours), gradients(model, own)),
        alone,
        alone_gradient,
    )


def table() -> str:
    """The docs' table, measured; an AssertionError where a difference is above the bound."""
    lines = ["| model | task | per-sample loss | n counts |", "|---|---|---|---|"]
    for pair in PAIRS:
        found = measure(pair)
        assert max(found.batch, found.gradient, found.alone, found.alone_gradient) <= BOUND, found
        lines.append(f"| {found.model} | {pair.task} | `{found.loss}` | {pair.count} |")
    return "\n".join(lines) + "\n"


def with_table(page: str, rows: str) -> str:
    """The page with the table between its markers."""
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}\n\n{rows}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), table()), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.name}\n")
