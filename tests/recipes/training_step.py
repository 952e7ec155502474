"""Steps of the user's own: `training_step` overridden, and the optimizer."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.recipes.data import CLASSES, VIT, Classifier, classified, sentences
from tests.recipes.recipe import flags_for, recipe
from tests.support.helpers import Images, bert, vit


@recipe("FGM", "`super().training_step`, word embeddings moved along their gradient, loss and gradients once more")
def fgm(base, args_class, out, **flags):
    class FGMTrainer(base):
        def training_step(self, model, inputs, num_items_in_batch=None):
            loss = super().training_step(model, inputs, num_items_in_batch)
            weight = model.get_input_embeddings().weight
            backup = weight.data.clone()
            norm = torch.norm(weight.grad)
            if norm != 0 and not torch.isnan(norm):
                weight.data.add_(1.0 * weight.grad / norm)
            with self.compute_loss_context_manager():
                adversarial = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
            self.accelerator.backward(adversarial)
            weight.data = backup
            return loss

    return FGMTrainer(model=bert(), args=args_class(**flags_for(out, flags)), train_dataset=sentences())


@recipe("PGD", "three steps on the word embeddings within a ball, `super().training_step` at each")
def pgd(base, args_class, out, **flags):
    class PGDTrainer(base):
        def training_step(self, model, inputs, num_items_in_batch=None):
            loss = super().training_step(model, dict(inputs), num_items_in_batch)
            weight = model.get_input_embeddings().weight
            backup, kept = weight.data.clone(), [None if p.grad is None else p.grad.clone() for p in model.parameters()]
            for step in range(3):
                move = 0.3 * weight.grad / (weight.grad.norm() + 1e-12)
                weight.data.add_(move)
                change = weight.data - backup
                weight.data = backup + change * min(1.0, 1.0 / (change.norm().item() + 1e-12))
                model.zero_grad()
                if step == 2:
                    for p, grad in zip(model.parameters(), kept, strict=True):
                        p.grad = grad
                super().training_step(model, dict(inputs), num_items_in_batch)
            weight.data = backup
            return loss

    return PGDTrainer(model=bert(), args=args_class(**flags_for(out, flags)), train_dataset=sentences())


@recipe("SAM", "`super().training_step`, weights moved uphill, gradients anew at that point, weights moved back")
def sam(base, args_class, out, **flags):
    class SAMTrainer(base):
        def training_step(self, model, inputs, num_items_in_batch=None):
            loss = super().training_step(model, dict(inputs), num_items_in_batch)
            moves = {}
            with torch.no_grad():
                norm = torch.norm(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]))
                for p in model.parameters():
                    if p.grad is not None:
                        moves[p] = p.grad * (0.05 / (norm + 1e-12))
                        p.add_(moves[p])
            model.zero_grad()
            super().training_step(model, dict(inputs), num_items_in_batch)
            with torch.no_grad():
                for p, move in moves.items():
                    p.sub_(move)
            return loss

    return SAMTrainer(model=vit(**VIT), args=args_class(**flags_for(out, flags)), train_dataset=Images(24))


@recipe("AWP", "weights moved along their gradient relative to their norm, `self.compute_loss` once more")
def awp(base, args_class, out, **flags):
    class AWPTrainer(base):
        def training_step(self, model, inputs, num_items_in_batch=None):
            loss = super().training_step(model, inputs, num_items_in_batch)
            backup = {}
            for name, p in model.named_parameters():
                if p.grad is not None and "weight" in name:
                    backup[name] = p.data.clone()
                    size = p.grad.norm()
                    if size != 0:
                        p.data.add_(0.01 * p.grad / (size + 1e-6) * (p.data.norm() + 1e-6))
            adversarial = self.compute_loss(model, self._prepare_inputs(inputs), False, num_items_in_batch)
            self.accelerator.backward(adversarial)
            for name, p in model.named_parameters():
                if name in backup:
                    p.data = backup[name]
            return loss

    return AWPTrainer(model=bert(), args=args_class(**flags_for(out, flags)), train_dataset=sentences())


@recipe("gradient surgery (PCGrad)", "`super().training_step` for each of two tasks, gradients projected and added")
def gradient_surgery(base, args_class, out, **flags):
    class PCGradTrainer(base):
        task = 0

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            outputs = model(inputs["x"])
            if self.task == 0:
                loss = F.cross_entropy(outputs.logits[:, :CLASSES], inputs["labels"])
            else:
                loss = F.mse_loss(outputs.logits[:, CLASSES], inputs["targets"])
            return (loss, outputs) if return_outputs else loss

        def training_step(self, model, inputs, num_items_in_batch=None):
            total, grads = 0.0, []
            for self.task in (0, 1):
                model.zero_grad()
                total = total + super().training_step(model, dict(inputs), num_items_in_batch)
                grads.append([p.grad.clone() for p in model.parameters()])
            self.task = 0
            dot = sum((a * b).sum() for a, b in zip(*grads, strict=True))
            size = sum((b * b).sum() for b in grads[1])
            for p, a, b in zip(model.parameters(), *grads, strict=True):
                p.grad = a + b - (torch.clamp(dot, max=0) / size) * b
            return total

    rows = classified(targets=lambda i, x: float(x[0] - x[1]))
    args = args_class(**flags_for(out, flags, remove_unused_columns=False))
    return PCGradTrainer(model=Classifier(CLASSES + 1), args=args, train_dataset=rows)


@recipe("noise on gradients", "`super().training_step`, then `torch.randn_like` added to each gradient", scales=False)
def gradient_noise(base, args_class, out, **flags):
    class NoisyTrainer(base):
        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            for p in self.model.parameters():
                if p.grad is not None:
                    p.grad.add_(1e-3 * torch.randn_like(p.grad))
            return loss

    return NoisyTrainer(model=vit(**VIT), args=args_class(**flags_for(out, flags)), train_dataset=Images(24))


@recipe(
    "`training_step` without `super()`",
    "forward, loss and `backward` written out",
    refused="the step leaves the Trainer's behind, so losses would be neither weighted nor recorded",
    message="training_step|compute_loss",
)
def own_step(base, args_class, out, **flags):
    class OwnStepTrainer(base):
        def training_step(self, model, inputs, num_items_in_batch=None):
            model.train()
            inputs = self._prepare_inputs(inputs)
            loss = F.cross_entropy(model(inputs["x"]).logits, inputs["labels"])
            self.accelerator.backward(loss)
            return loss.detach()

    return OwnStepTrainer(
        model=Classifier(),
        args=args_class(**flags_for(out, flags, remove_unused_columns=False)),
        train_dataset=classified(),
    )


@recipe(
    "layer-wise learning rates", "`create_optimizer` overridden: groups with a rate that falls with depth", scales=False
)
def layerwise_rates(base, args_class, out, **flags):
    class LayerwiseTrainer(base):
        def create_optimizer(self, *args, **kwargs):
            if self.optimizer is None:
                names = [name for name, _ in self.model.named_parameters()]
                parameters = dict(self.model.named_parameters())
                groups = [
                    {
                        "params": [parameters[name]],
                        "lr": self.args.learning_rate * (1.0 if "classifier" in name else 0.5),
                    }
                    for name in names
                ]
                self.optimizer = torch.optim.AdamW(groups, lr=self.args.learning_rate)
            return self.optimizer

    return LayerwiseTrainer(model=bert(), args=args_class(**flags_for(out, flags)), train_dataset=sentences())


@recipe("an optimizer and a schedule of one's own", "`optimizers=(SGD, OneCycleLR)` of torch", scales=False)
def own_optimizers(base, args_class, out, **flags):
    model = vit(**VIT)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=18)
    args = args_class(**flags_for(out, flags))
    return base(model=model, args=args, train_dataset=Images(24), optimizers=(optimizer, schedule))


@recipe("an evaluation of one's own", "`prediction_step` and `evaluate` overridden, training as it is")
def own_evaluation(base, args_class, out, **flags):
    class EvaluatingTrainer(base):
        def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
            with torch.no_grad():
                logits = model(inputs["x"])["logits"]
            loss = nn.functional.cross_entropy(logits, inputs["labels"])
            return loss, logits, inputs["labels"]

        def evaluate(self, *args, **kwargs):
            metrics = super().evaluate(*args, **kwargs)
            self.log({"eval_perplexity": 2 ** metrics["eval_loss"]})
            return metrics

    class WithLoss(Classifier):
        def forward(self, x, labels=None):
            outputs = super().forward(x)
            loss = None if labels is None else F.cross_entropy(outputs.logits, labels)
            return {"loss": loss, "logits": outputs.logits}

    args = args_class(**flags_for(out, flags, eval_strategy="epoch"))
    return EvaluatingTrainer(model=WithLoss(), args=args, train_dataset=classified(), eval_dataset=classified())
