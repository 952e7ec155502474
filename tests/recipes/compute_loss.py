"""Losses of the user's own: `compute_loss` overridden, or `compute_loss_func`."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.recipes.data import CLASSES, VIT, Classifier, classified, points, seeded, sentences
from tests.recipes.recipe import flags_for, recipe
from tests.support.helpers import Images, bert, vit


@recipe("class weights", "`nn.CrossEntropyLoss(weight=...)` on the logits")
def class_weights(base, args_class, out, **flags):
    class WeightedTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss_fct = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
            loss = loss_fct(outputs.logits.view(-1, self.model.config.num_labels), labels.view(-1))
            return (loss, outputs) if return_outputs else loss

    args = args_class(**flags_for(out, flags))
    return WeightedTrainer(model=vit(**VIT), args=args, train_dataset=Images(24))


@recipe("multi-label with `pos_weight`", "`nn.BCEWithLogitsLoss(pos_weight=...)`, labels as floats")
def positive_weights(base, args_class, out, **flags):
    class MultiLabelTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs.get("labels")
            outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 4.0, 2.0]))(outputs.logits, labels.float())
            return (loss, outputs) if return_outputs else loss

    rows = sentences(lambda i: [float(i % 2), float(i % 3 == 0), float(i % 5 == 0)])
    return MultiLabelTrainer(model=bert(), args=args_class(**flags_for(out, flags)), train_dataset=rows)


@recipe("focal loss", "cross entropy with `reduction='none'`, times `(1 - pt) ** gamma`, then `mean()`")
def focal(base, args_class, out, **flags):
    class FocalTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            entropy = F.cross_entropy(outputs.logits, labels, reduction="none")
            pt = torch.exp(-entropy)
            loss = (0.25 * (1 - pt) ** 2 * entropy).mean()
            return (loss, outputs) if return_outputs else loss

    return FocalTrainer(model=vit(**VIT), args=args_class(**flags_for(out, flags)), train_dataset=Images(24))


class Tagger(nn.Module):
    """Logits `[B, T, 3]` of tokens."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, 3)

    def forward(self, input_ids):
        return {"logits": self.head(self.embed(input_ids))}


@recipe("masked focal loss over tokens", "`(loss * mask).sum() / mask.sum()` of losses `[B, T]`")
def masked_focal(base, args_class, out, **flags):
    class TokenTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            mask = inputs["attention_mask"].float()
            outputs = model(inputs["input_ids"])
            entropy = F.cross_entropy(outputs["logits"].transpose(1, 2), inputs["labels"], reduction="none")
            loss = (1 - torch.exp(-entropy)) ** 2 * entropy
            loss = (loss * mask).sum() / mask.sum()
            return (loss, outputs) if return_outputs else loss

    rows = [{**row, "labels": [token % 3 for token in row["input_ids"]]} for row in sentences()]
    return TokenTrainer(
        model=seeded(Tagger), args=args_class(**flags_for(out, flags, remove_unused_columns=False)), train_dataset=rows
    )


@recipe("label smoothing by hand", "`log_softmax`, `gather`, `mean()` of both terms")
def label_smoothing(base, args_class, out, **flags):
    class SmoothingTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            log_probs = torch.log_softmax(outputs.logits, dim=-1)
            nll = -log_probs.gather(dim=-1, index=labels.unsqueeze(-1)).squeeze(-1)
            smooth = -log_probs.mean(dim=-1)
            loss = 0.9 * nll.mean() + 0.1 * smooth.mean()
            return (loss, outputs) if return_outputs else loss

    return SmoothingTrainer(model=bert(), args=args_class(**flags_for(out, flags)), train_dataset=sentences())


@recipe("knowledge distillation", "the model's own loss and `nn.KLDivLoss('batchmean')` to a teacher")
def distillation(base, args_class, out, **flags):
    class DistillationTrainer(base):
        def __init__(self, *args, teacher_model=None, temperature=2.0, alpha=0.5, **kwargs):
            super().__init__(*args, **kwargs)
            self.teacher, self.temperature, self.alpha = teacher_model.eval(), temperature, alpha

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            outputs = model(**inputs)
            with torch.no_grad():
                teacher = self.teacher(**inputs).logits
            t = self.temperature
            divergence = nn.KLDivLoss(reduction="batchmean")(
                F.log_softmax(outputs.logits / t, dim=-1), F.softmax(teacher / t, dim=-1)
            )
            loss = self.alpha * outputs.loss + (1 - self.alpha) * t**2 * divergence
            return (loss, outputs) if return_outputs else loss

    teacher = bert(initializer_range=0.5)
    args = args_class(**flags_for(out, flags))
    return DistillationTrainer(model=bert(), args=args, train_dataset=sentences(), teacher_model=teacher)


@recipe("R-Drop", "`super().compute_loss` twice, and the divergence of the two outputs")
def r_drop(base, args_class, out, **flags):
    class RDropTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            first, one = super().compute_loss(model, inputs, True, num_items_in_batch)
            second, two = super().compute_loss(model, inputs, True, num_items_in_batch)
            p, q = F.log_softmax(one.logits, dim=-1), F.log_softmax(two.logits, dim=-1)
            divergence = F.kl_div(p, q.exp(), reduction="batchmean") + F.kl_div(q, p.exp(), reduction="batchmean")
            loss = (first + second) / 2 + divergence / 2
            return (loss, one) if return_outputs else loss

    model = vit(dropout=0.1, **VIT)
    return RDropTrainer(model=model, args=args_class(**flags_for(out, flags)), train_dataset=Images(24))


@recipe("`compute_loss_func`", "a function of outputs, labels and `num_items_in_batch`; accumulation over two batches")
def loss_function(base, args_class, out, **flags):
    def summed(outputs, labels, num_items_in_batch=None):
        total = F.cross_entropy(outputs.logits, labels, reduction="sum", label_smoothing=0.1)
        return total / (num_items_in_batch if num_items_in_batch is not None else len(labels))

    args = args_class(**flags_for(out, flags, per_device_train_batch_size=2, gradient_accumulation_steps=2))
    return base(model=vit(**VIT), args=args, train_dataset=Images(24), compute_loss_func=summed)


@recipe("`super()` without `num_items_in_batch`", "`super().compute_loss(model, inputs, return_outputs=True)`")
def super_without_items(base, args_class, out, **flags):
    class CountingTrainer(base):
        margins = 0.0

        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
            self.margins += float(outputs.logits.detach().std())
            return (loss, outputs) if return_outputs else loss

    return CountingTrainer(model=bert(), args=args_class(**flags_for(out, flags)), train_dataset=sentences())


@recipe("metrics logged from `compute_loss`", "accuracy of the batch by `self.log`, then the model's own loss")
def logged_metrics(base, args_class, out, **flags):
    class LoggingTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            outputs = model(**inputs)
            loss = outputs["loss"]
            if self.state.global_step % 2 == 0 and model.training:
                hits = outputs.logits.argmax(-1) == inputs["labels"]
                self.log({"train_accuracy": hits.float().mean().item()})
            return (loss, outputs) if return_outputs else loss

    return LoggingTrainer(model=vit(**VIT), args=args_class(**flags_for(out, flags)), train_dataset=Images(24))


@recipe("ordinal regression (CORAL)", "`logsigmoid` over ordered levels, summed by sample, then `mean`")
def coral(base, args_class, out, **flags):
    class CoralTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            levels = (inputs["labels"].unsqueeze(1) > torch.arange(CLASSES - 1)).float()
            outputs = model(inputs["x"])
            log_p = F.logsigmoid(outputs.logits)
            loss = torch.mean(-torch.sum(log_p * levels + (log_p - outputs.logits) * (1 - levels), dim=1))
            return (loss, outputs) if return_outputs else loss

    args = args_class(**flags_for(out, flags, remove_unused_columns=False))
    return CoralTrainer(model=Classifier(CLASSES - 1), args=args, train_dataset=classified())


@recipe("margins by class (LDAM)", "a margin taken from the label's logit, then weighted cross entropy")
def class_margins(base, args_class, out, **flags):
    class MarginTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs["labels"]
            outputs = model(inputs["x"])
            hot = F.one_hot(labels, CLASSES).float()
            logits = outputs.logits - hot * torch.tensor([0.5, 0.3, 0.1])
            loss = F.cross_entropy(5 * logits, labels, weight=torch.tensor([1.0, 0.5, 2.0]))
            return (loss, outputs) if return_outputs else loss

    return MarginTrainer(
        model=Classifier(),
        args=args_class(**flags_for(out, flags, remove_unused_columns=False)),
        train_dataset=classified(),
    )


@recipe("regression with sample weights", "`(weights * (pred - labels) ** 2).mean()`, weights in the batch")
def weighted_regression(base, args_class, out, **flags):
    class RegressionTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            weights, labels = inputs.pop("weights"), inputs.pop("labels")
            outputs = model(**inputs)
            loss = (weights * (outputs.logits.squeeze(-1) - labels) ** 2).mean()
            return (loss, outputs) if return_outputs else loss

    rows = points(labels=lambda i, x: float(x.sum()), weights=lambda i, x: 1.0 + i % 4)
    args = args_class(**flags_for(out, flags, remove_unused_columns=False))
    return RegressionTrainer(model=Classifier(1), args=args, train_dataset=rows)


@recipe("quantile regression", "`torch.max(q * e, (q - 1) * e)` of three quantiles, summed and averaged")
def quantiles(base, args_class, out, **flags):
    class PinballTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            outputs = model(inputs["x"])
            losses = []
            for i, q in enumerate((0.1, 0.5, 0.9)):
                errors = inputs["labels"] - outputs.logits[:, i]
                losses.append(torch.max(q * errors, (q - 1) * errors).unsqueeze(1))
            loss = torch.mean(torch.sum(torch.cat(losses, dim=1), dim=1))
            return (loss, outputs) if return_outputs else loss

    rows = points(labels=lambda i, x: float(x.sum()))
    return PinballTrainer(
        model=Classifier(3), args=args_class(**flags_for(out, flags, remove_unused_columns=False)), train_dataset=rows
    )


@recipe("ranking pairs", "two forward passes, `-logsigmoid(chosen - rejected).mean()`")
def ranking(base, args_class, out, **flags):
    class PairTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            chosen = model(inputs["x"]).logits
            rejected = model(inputs["other"]).logits
            loss = -F.logsigmoid(chosen - rejected).mean()
            return (loss, {"chosen": chosen, "rejected": rejected}) if return_outputs else loss

    rows = points(other=lambda i, x: x.flip(0) - 0.2 * i)
    args = args_class(**flags_for(out, flags, remove_unused_columns=False))
    return PairTrainer(model=Classifier(1), args=args, train_dataset=rows)


class TwoHeads(Classifier):
    """A class and a number, with the log-variances that weigh their losses."""

    def __init__(self):
        super().__init__(CLASSES + 1)
        self.log_vars = nn.Parameter(torch.zeros(2))


@recipe(
    "two tasks with learned weights",
    "`exp(-s) * loss + s` of two heads, `s` a parameter (Kendall et al.)",
    scales=False,
)
def multi_task(base, args_class, out, **flags):
    class MultiTaskTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            outputs = model(inputs["x"])
            classes, number = outputs.logits[:, :CLASSES], outputs.logits[:, CLASSES]
            s = model.log_vars
            loss = torch.exp(-s[0]) * F.cross_entropy(classes, inputs["labels"]) + s[0]
            loss = loss + torch.exp(-s[1]) * F.mse_loss(number, inputs["targets"]) + s[1]
            return (loss, outputs) if return_outputs else loss

    rows = classified(targets=lambda i, x: float(x[0] - x[1]))
    args = args_class(**flags_for(out, flags, remove_unused_columns=False))
    return MultiTaskTrainer(model=TwoHeads(), args=args, train_dataset=rows)


@recipe("penalty added to the loss", "`loss + 1e-3 * sum(p.pow(2).sum())`, L2 by hand", scales=False)
def penalty(base, args_class, out, **flags):
    class PenaltyTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = F.cross_entropy(outputs.logits, labels)
            loss = loss + 1e-3 * sum(p.pow(2).sum() for p in model.parameters())
            return (loss, outputs) if return_outputs else loss

    return PenaltyTrainer(model=vit(**VIT), args=args_class(**flags_for(out, flags)), train_dataset=Images(24))


@recipe("mean of the model's losses `[B]`", "`outputs.loss` is `[B]`; `compute_loss` takes `.mean()`")
def mean_of_losses(base, args_class, out, **flags):
    class Losses(Classifier):
        def forward(self, x, labels=None):
            outputs = super().forward(x)
            if labels is not None:
                outputs.loss = F.cross_entropy(outputs.logits, labels, reduction="none")
            return outputs

    class MeanTrainer(base):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            outputs = model(**inputs)
            loss = outputs.loss.mean()
            return (loss, outputs) if return_outputs else loss

    return MeanTrainer(model=Losses(), args=args_class(**flags_for(out, flags)), train_dataset=classified())
