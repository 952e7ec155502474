"""What the static scores are: pure functions of answers, of logits, and of a model in evaluation mode.

Norms of per-sample loss gradients are exact, over all trainable parameters. Two ways agree to rounding:

    vmap   `torch.func`: the gradients of a chunk of samples at once, in memory for (chunk x parameters) numbers
    loop   one forward and one backward pass per sample: any model, no extra memory

A model whose forward pass looks at values (BERT looks whether its attention mask masks anything) cannot be vmapped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..losses import PerSampleLoss

Norms = Callable[[torch.nn.Module, PerSampleLoss, Mapping[str, Any], int], Tensor]


def forgetting_counts(correct: NDArray[Any]) -> NDArray[np.float32]:
    """Forgetting events `[N]`; samples that were never right get the number of presentations P.

    `correct` is bool `[P, N]`: whether each sample was right at each of its presentations.

    Examples:
        >>> forgetting_counts(np.array([[0, 1, 0], [1, 0, 0], [0, 1, 0]], bool))
        array([1., 1., 3.], dtype=float32)
    """
    right = np.asarray(correct, bool)
    events = (right[:-1] & ~right[1:]).sum(0)
    return np.where(right.any(0), events, len(right)).astype(np.float32)


def el2n_scores(logits: Tensor, labels: Tensor) -> Tensor:
    """`[B]`: L2 norm of softmax minus one-hot, in `[0, sqrt(2)]`, from logits `[B, C]` and class numbers `[B]`.

    Examples:
        >>> el2n_scores(torch.zeros(1, 2), torch.tensor([0]))
        tensor([0.7071])
    """
    error = torch.softmax(logits.float(), 1)
    error[torch.arange(len(labels), device=labels.device), labels] -= 1
    norms: Tensor = torch.linalg.vector_norm(error, dim=1)
    return norms


def norms_by_loop(model: torch.nn.Module, loss: PerSampleLoss, batch: Mapping[str, Any], chunk: int = 1) -> Tensor:
    """`[B]`: the L2 norm of each sample's gradient, sample by sample; `chunk` is not used here.

    The model is in evaluation mode, so that samples do not mix. The batch is on the model's device; its tensors of
    another length than B go to every sample.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fixed, rows = _split(batch)
    norms = []
    for at in range(len(next(iter(rows.values())))):
        one = {**fixed, **{key: value[at : at + 1] for key, value in rows.items()}}
        gradients = torch.autograd.grad(_sample_loss(model, loss, one, model), parameters, allow_unused=True)
        norms.append(_root([gradient.float().pow(2).sum() for gradient in gradients if gradient is not None]))
    return torch.stack(norms)


def norms_by_vmap(model: torch.nn.Module, loss: PerSampleLoss, batch: Mapping[str, Any], chunk: int) -> Tensor:
    """The same norms `[B]`, computed for `chunk` samples at a time.

    Raises:
        RuntimeError: torch's, where the model cannot be vmapped.
    """
    trainable = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    fixed, rows = _split(batch)

    def loss_of(parameters: dict[str, Tensor], row: dict[str, Tensor]) -> Tensor:
        one = {**fixed, **{key: value[None] for key, value in row.items()}}
        return _sample_loss(model, loss, one, lambda **inputs: functional_call(model, parameters, kwargs=inputs))

    def norm_of(parameters: dict[str, Tensor], row: dict[str, Tensor]) -> Tensor:
        return _root([gradient.float().pow(2).sum() for gradient in grad(loss_of)(parameters, row).values()])

    # The fused attention kernels have no batching rule (torch 2.6 to 2.13): torch would warn and loop inside.
    with sdpa_kernel(SDPBackend.MATH):
        return vmap(norm_of, in_dims=(None, 0), chunk_size=chunk)(trainable, rows)


GRADIENTS: dict[str, Norms] = {"vmap": norms_by_vmap, "loop": norms_by_loop}
"""The two ways to compute per-sample gradient norms, by name."""


def choose_gradients(model: torch.nn.Module, loss: PerSampleLoss, batch: Mapping[str, Any]) -> tuple[str, str]:
    """(name, reason): "vmap" where two samples of the batch go through it and agree with the loop, else "loop"."""
    fixed, rows = _split(batch)
    two = {**fixed, **{key: value[:2] for key, value in rows.items()}}
    expected = norms_by_loop(model, loss, two)
    try:
        got = norms_by_vmap(model, loss, two, 2)
    except (RuntimeError, ValueError, TypeError) as error:
        return "loop", f"{type(model).__name__} cannot be vmapped: {str(error).strip().splitlines()[0]}"
    if not torch.allclose(got, expected, rtol=1e-4, atol=1e-6):
        return "loop", f"vmap gives {got.tolist()} for two samples, one by one they have {expected.tolist()}"
    return "vmap", "two samples agree with one-by-one gradients"


def _sample_loss(
    model: torch.nn.Module, loss: PerSampleLoss, one: Mapping[str, Any], forward: Callable[..., Any]
) -> Tensor:
    """The loss S_i of the one sample in this batch, as a scalar with its graph."""
    return loss(model, one, loss.forward(forward, one)).total.sum()


def _split(batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(what is the same for all samples, tensors with a row per sample)."""
    size = len(batch["labels"])
    rows = {key: value for key, value in batch.items() if isinstance(value, Tensor) and value.shape[:1] == (size,)}
    return {key: value for key, value in batch.items() if key not in rows}, rows


def _root(squares: list[Tensor]) -> Tensor:
    return torch.stack(squares).sum().sqrt()
