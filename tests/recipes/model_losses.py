"""Losses inside models, written in the model's `forward` as users write it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.recipes.data import CLASSES, FEATURES, Classifier, classified, points, seeded, sentences
from tests.recipes.recipe import FAILS, flags_for, recipe


class Body(nn.Module):
    """Two layers; subclasses write the loss."""

    outputs = CLASSES

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, self.outputs))


def trained(base, args_class, out, flags, model, rows, **own):
    return base(model=seeded(model), args=args_class(**flags_for(out, flags, **own)), train_dataset=rows)


@recipe("focal loss in the model", "`reduction='none'`, focal factor, `mean()` inside `forward`")
def focal_inside(base, args_class, out, **flags):
    class Focal(Body):
        def forward(self, x, labels=None):
            logits = self.net(x)
            entropy = F.cross_entropy(logits, labels, reduction="none")
            return {"loss": ((1 - torch.exp(-entropy)) ** 2 * entropy).mean(), "logits": logits}

    return trained(base, args_class, out, flags, Focal, classified())


@recipe("triplet loss", "`nn.TripletMarginLoss` of anchor, positive and negative; no labels")
def triplet(base, args_class, out, **flags):
    class Triplet(Body):
        def forward(self, x, positive, negative):
            a, p, n = self.net(x), self.net(positive), self.net(negative)
            return {"loss": nn.TripletMarginLoss(margin=1.0)(a, p, n), "embeddings": a}

    rows = points(positive=lambda i, x: x + 0.1 * (i % 5), negative=lambda i, x: x.flip(0))
    return trained(base, args_class, out, flags, Triplet, rows)


@recipe("cosine embedding loss", "`nn.CosineEmbeddingLoss` of two inputs and a label in -1, 1")
def cosine(base, args_class, out, **flags):
    class Cosine(Body):
        def forward(self, x, other, labels):
            one, two = self.net(x), self.net(other)
            return {"loss": nn.CosineEmbeddingLoss(margin=0.2)(one, two, labels), "similarity": one}

    rows = points(other=lambda i, x: x.roll(1), labels=lambda i, x: 2 * (i % 2) - 1)
    return trained(base, args_class, out, flags, Cosine, rows)


@recipe("Gaussian likelihood", "`nn.GaussianNLLLoss` of a mean and a variance that the model gives")
def gaussian(base, args_class, out, **flags):
    class Gaussian(Body):
        outputs = 2

        def forward(self, x, labels=None):
            mean, log_variance = self.net(x).unbind(-1)
            return {"loss": nn.GaussianNLLLoss()(mean, labels, log_variance.exp()), "mean": mean}

    return trained(base, args_class, out, flags, Gaussian, points(labels=lambda i, x: float(x.sum())))


@recipe("multi-label soft margin", "`nn.MultiLabelSoftMarginLoss`")
def soft_margin(base, args_class, out, **flags):
    class SoftMargin(Body):
        def forward(self, x, labels=None):
            logits = self.net(x)
            return {"loss": nn.MultiLabelSoftMarginLoss()(logits, labels), "logits": logits}

    rows = points(labels=lambda i, x: torch.tensor([i % 2, i % 3 == 0, i % 5 == 0]).float())
    return trained(base, args_class, out, flags, SoftMargin, rows)


@recipe("regression (MSE)", "`F.mse_loss` in `forward`, labels called `target`")
def regression(base, args_class, out, **flags):
    class Regression(Body):
        outputs = 1

        def forward(self, x, target=None):
            value = self.net(x).squeeze(-1)
            return {"loss": F.mse_loss(value, target), "value": value}

    return trained(base, args_class, out, flags, Regression, points(target=lambda i, x: float(x.sum())))


@recipe("robust regression (Huber)", "`nn.SmoothL1Loss` and `nn.HuberLoss` of two targets, added")
def huber(base, args_class, out, **flags):
    class Huber(Body):
        outputs = 2

        def forward(self, x, height=None, width=None):
            value = self.net(x)
            loss = nn.SmoothL1Loss()(value[:, 0], height) + 0.5 * nn.HuberLoss(delta=0.5)(value[:, 1], width)
            return {"loss": loss, "value": value}

    rows = points(height=lambda i, x: float(x.sum()), width=lambda i, x: float(x[0]))
    return trained(base, args_class, out, flags, Huber, rows)


@recipe("autoencoder", "`F.mse_loss(decoded, x)`; no labels anywhere")
def autoencoder(base, args_class, out, **flags):
    class AutoEncoder(Body):
        outputs = FEATURES

        def forward(self, x):
            decoded = self.net(x)
            return {"loss": F.mse_loss(decoded, x), "decoded": decoded}

    return trained(base, args_class, out, flags, AutoEncoder, points())


@recipe("variational autoencoder", "reconstruction and KL term; noise while training, the mean in evaluation")
def vae(base, args_class, out, **flags):
    class VAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.Linear(FEATURES, 4), nn.Linear(2, FEATURES)

        def forward(self, x):
            mu, log_var = self.encoder(x).chunk(2, dim=-1)
            z = mu + torch.randn_like(mu) * torch.exp(0.5 * log_var) if self.training else mu
            recon = F.mse_loss(self.decoder(z), x, reduction="sum") / x.size(0)
            kl = torch.mean(-0.5 * torch.sum(1 + log_var - mu**2 - log_var.exp(), dim=1), dim=0)
            return {"loss": recon + 0.1 * kl, "z": z}

    return trained(base, args_class, out, flags, VAE, points())


@recipe("forecaster", "`past_values` and `future_values`, mean absolute error; no `labels`")
def forecaster(base, args_class, out, **flags):
    class Forecaster(Body):
        outputs = 2

        def forward(self, past_values, future_values=None):
            prediction = self.net(past_values)
            loss = None if future_values is None else nn.L1Loss()(prediction, future_values)
            return {"loss": loss, "prediction_outputs": prediction}

    rows = [{"past_values": row["x"], "future_values": row["x"][:2] * 0.5 + 0.1} for row in points()]
    return trained(base, args_class, out, flags, Forecaster, rows)


@recipe("wrapper with `**batch`", "`forward(self, **batch)` around another model")
def wrapper(base, args_class, out, **flags):
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = Classifier()

        def forward(self, **batch):
            outputs = self.model(batch["x"])
            return {"loss": F.cross_entropy(outputs.logits, batch["labels"]), "logits": outputs.logits}

    return trained(base, args_class, out, flags, Wrapper, classified(), remove_unused_columns=False)


@recipe("a tuple from the model", "`return loss, logits`")
def tuple_output(base, args_class, out, **flags):
    class Tuple(Body):
        def forward(self, x, labels=None):
            logits = self.net(x)
            return F.cross_entropy(logits, labels), logits

    return trained(base, args_class, out, flags, Tuple, classified())


@recipe("losses `[B]` from the model", "`reduction='none'` and no mean, as for a pruning trainer", stock=FAILS)
def losses_per_sample(base, args_class, out, **flags):
    class Losses(Body):
        def forward(self, x, labels=None):
            logits = self.net(x)
            return {"loss": F.cross_entropy(logits, labels, reduction="none"), "logits": logits}

    return trained(base, args_class, out, flags, Losses, classified())


@recipe("dice loss by image", "intersection and union summed by image, then `mean()`, and BCE added")
def dice(base, args_class, out, **flags):
    class Dice(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, pixel_values, labels=None):
            logits = self.net(pixel_values).squeeze(1)
            p = torch.sigmoid(logits)
            overlap, size = (p * labels).sum(dim=(1, 2)), (p + labels).sum(dim=(1, 2))
            loss = (1 - (2 * overlap + 1) / (size + 1)).mean() + F.binary_cross_entropy_with_logits(logits, labels)
            return {"loss": loss, "logits": logits}

    rows = [
        {"pixel_values": row["x"].outer(row["x"])[None], "labels": (row["x"].outer(row["x"]) > 0).float()}
        for row in points()
    ]
    return trained(base, args_class, out, flags, Dice, rows)


@recipe("CTC", "`nn.CTCLoss` with lengths of inputs and targets in the batch")
def ctc(base, args_class, out, **flags):
    class Speech(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(FEATURES, 5)

        def forward(self, frames, labels, label_lengths):
            log_probs = self.net(frames).log_softmax(-1)
            lengths = torch.full((len(frames),), frames.shape[1])
            loss = nn.CTCLoss(zero_infinity=True)(log_probs.transpose(0, 1), labels, lengths, label_lengths)
            return {"loss": loss, "logits": log_probs}

    rows = [
        {
            "frames": torch.stack([row["x"].roll(t) for t in range(8)]),
            "labels": torch.tensor([1 + i % 4, 1 + (i + 1) % 4, 1 + (i + 2) % 4]),
            "label_lengths": 1 + i % 3,
        }
        for i, row in enumerate(points())
    ]
    return trained(base, args_class, out, flags, Speech, rows)


@recipe("center loss", "distance of features to a learned centre of the sample's class, added to cross entropy")
def center(base, args_class, out, **flags):
    class Center(Body):
        def __init__(self):
            super().__init__()
            self.centers = nn.Parameter(torch.randn(CLASSES, CLASSES))

        def forward(self, x, labels=None):
            features = self.net(x)
            distance = (features - self.centers[labels]).pow(2).sum(dim=1)
            loss = nn.CrossEntropyLoss()(features, labels) + 0.1 * distance.clamp(min=1e-12, max=1e12).mean()
            return {"loss": loss, "logits": features}

    return trained(base, args_class, out, flags, Center, classified())


@recipe("ArcFace", "an angular margin on the label's logit, then scaled cross entropy")
def arcface(base, args_class, out, **flags):
    class ArcFace(Body):
        outputs = 4

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(CLASSES, 4))

        def forward(self, x, labels=None):
            cosine = F.linear(F.normalize(self.net(x)), F.normalize(self.weight))
            shifted = torch.cos(torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6)) + 0.2)
            hot = torch.zeros_like(cosine).scatter_(1, labels.view(-1, 1), 1.0)
            logits = 8.0 * (hot * shifted + (1 - hot) * cosine)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    return trained(base, args_class, out, flags, ArcFace, classified())


@recipe("token classifier of one's own", "`nn.CrossEntropyLoss(ignore_index=-100)` over `[B * T, C]`")
def tagger(base, args_class, out, **flags):
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, CLASSES)

        def forward(self, input_ids, attention_mask=None, labels=None):
            logits = self.head(self.embed(input_ids))
            loss = nn.CrossEntropyLoss(ignore_index=-100)(logits.view(-1, CLASSES), labels.view(-1))
            return {"loss": loss, "logits": logits}

    rows = [{**row, "labels": [t % 3 if t else -100 for t in row["input_ids"]]} for row in sentences()]
    return trained(base, args_class, out, flags, Tagger, rows)
