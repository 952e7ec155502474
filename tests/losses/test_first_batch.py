"""What the first batch shows of code that makes a loss: where weights do not act; usual ways of writing pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from hf_dynprune.losses.interception import InterceptedLoss
from hf_dynprune.training.candidates import without_trace
from hf_dynprune.training.passing_on import passes_loss_on

B, C = 4, 3
BATCH = {"x": torch.randn(B, C, generator=torch.Generator().manual_seed(0)), "labels": torch.tensor([0, 2, 1, 2])}


class ByHand(torch.autograd.Function):
    """A cross-entropy whose gradient is code of its own."""

    @staticmethod
    def forward(ctx, z, y):
        ctx.save_for_backward(z, y)
        return functional.cross_entropy(z, y)

    @staticmethod
    def backward(ctx, gradient):
        z, y = ctx.saved_tensors
        return gradient * (z.softmax(-1) - functional.one_hot(y, C)) / len(y), None


def counted_without_gradient(z, y):
    each = functional.cross_entropy(z, y, reduction="none")
    with torch.no_grad():
        number = torch.ones_like(each).sum()
    return each.sum() / number


def weighed_without_gradient(z, y):
    each = functional.cross_entropy(z, y, reduction="none")
    with torch.no_grad():
        weight = torch.tensor([1.0, 2.0, 3.0])[y]
        total = weight.sum()
    return (weight * each).sum() / total


def grown_in_place(z, y):
    loss = z.new_zeros(())
    loss += functional.cross_entropy(z, y)
    loss += 0.1 * z.pow(2).mean()
    return loss


SERVED = {
    "a count without gradient": counted_without_gradient,
    "weights without gradient": weighed_without_gradient,
    "a number that grows in place": grown_in_place,
    "axis": lambda z, y: -(functional.one_hot(y, C) * z.log_softmax(-1)).sum(axis=1).mean(),
    "other names of arithmetic": lambda z, y: torch.multiply(torch.divide(functional.cross_entropy(z, y), 3), 2.0),
    "type as": lambda z, y: functional.cross_entropy(z, y).type_as(z),
    "Python's sum of a dictionary": lambda z, y: sum(
        {"a": functional.cross_entropy(z, y), "b": z.abs().mean()}.values()
    ),
}
REFUSED = {
    "a gradient by hand": lambda z, y: ByHand.apply(z, y),
    "divided by itself": lambda z, y: functional.cross_entropy(z, y) / functional.cross_entropy(z, y).detach(),
    "a root": lambda z, y: functional.mse_loss(z, functional.one_hot(y, C).float()).sqrt(),
}


def first_batch(code, model):
    loss = InterceptedLoss(model, compute=lambda model, inputs, _: code(model(inputs["x"]), inputs["labels"]))
    with torch.no_grad():
        loss.verify(model, BATCH, loss(model, BATCH, loss.forward(model, BATCH)), 1e-4)
    return loss


@pytest.mark.parametrize("name", SERVED)
def test_usual_ways_of_writing_a_loss_pass(name):
    torch.manual_seed(0)
    model = nn.Linear(C, C)
    loss = first_batch(SERVED[name], model)
    weights = torch.full((B,), 2.0)
    found = loss.apart(lambda: loss.compute(model, dict(BATCH), None), BATCH, B, weights=weights)
    torch.testing.assert_close(found.value, 2 * SERVED[name](model(BATCH["x"]), BATCH["labels"]))


@pytest.mark.parametrize("name", REFUSED)
def test_a_loss_on_which_weights_do_not_act_is_refused(name):
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="do not act on the loss|it is no sum over samples|cannot be taken apart"):
        first_batch(REFUSED[name], nn.Linear(C, C))


def test_gradients_are_left_as_they_were():
    model = nn.Linear(C, C)
    model.weight.grad = torch.ones_like(model.weight)
    with without_trace(model, torch.device("cpu")):
        assert model.weight.grad is None
        model(BATCH["x"]).sum().backward()
    assert torch.equal(model.weight.grad, torch.ones_like(model.weight))
    assert model.bias.grad is None


class Base:
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return None


class PassesOn(Base):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        self.last = outputs
        return (loss, outputs) if return_outputs else loss


class Keywords(Base):
    def compute_loss(self, model, inputs, *args, **kwargs):
        return super().compute_loss(model, inputs, *args, **kwargs)


class Scales(Base):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return 2 * super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


class Grows(Base):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss += 1
        return loss


class Twice(Base):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        for _ in range(2):
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return loss


class Backward(Base):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        model(inputs).sum().backward()
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


class WithoutNumber(Base):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return super().compute_loss(model, inputs, return_outputs)


class OtherNumber(Base):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        num_items_in_batch = None
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


@pytest.mark.parametrize("cls", [PassesOn, Keywords])
def test_code_that_passes_the_loss_on(cls):
    assert passes_loss_on(vars(cls)["compute_loss"])


@pytest.mark.parametrize("cls", [Scales, Grows, Twice, Backward, WithoutNumber, OtherNumber])
def test_code_that_does_not(cls):
    assert not passes_loss_on(vars(cls)["compute_loss"])
    assert not passes_loss_on(eval("lambda *args: None"))
