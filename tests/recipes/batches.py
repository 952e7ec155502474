"""Collators, data sets and callbacks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset, IterableDataset
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    TrainerCallback,
)

from tests.recipes.data import CLASSES, SIZE, VIT, Classifier, classified, gpt2, seeded, sentences
from tests.recipes.recipe import OTHER, flags_for, recipe
from tests.support.helpers import Images, bert, vit

REPRODUCIBLE = (
    "with `prune_reproducible_augmentation`; without it a resumed run draws other numbers, as a stock one does"
)


class WithLoss(Classifier):
    """A classifier that computes its loss."""

    def forward(self, x, labels=None):
        outputs = super().forward(x)
        outputs.loss = None if labels is None else F.cross_entropy(outputs.logits, labels)
        return outputs


@recipe("dynamic padding", "`DataCollatorWithPadding`: each batch is padded to its longest text")
def dynamic_padding(base, args_class, out, **flags):
    from tests.support.tiny_text import tokenizer

    rows = sentences(same_length=False)
    args = args_class(**flags_for(out, flags))
    return base(model=bert(), args=args, train_dataset=rows, data_collator=DataCollatorWithPadding(tokenizer()))


@recipe("a collator that drops `None`", "samples that cannot be read are `None` and left out of their batch")
def dropped_samples(base, args_class, out, **flags):
    class Holes(Dataset):
        rows = classified()

        def __len__(self):
            return SIZE

        def __getitem__(self, index):
            return None if index in (3, 10, 17) else self.rows[index]

    def collate(items):
        items = [item for item in items if item is not None]
        return torch.utils.data.default_collate(items)

    return base(
        model=WithLoss(),
        args=args_class(**flags_for(out, flags)),
        train_dataset=Holes(),
        data_collator=collate,
    )


@recipe("strings in the batch", "a list of texts, which the model tokenizes itself")
def strings(base, args_class, out, **flags):
    class TextModel(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(128, 8), nn.Linear(8, CLASSES)

        def forward(self, texts, labels=None):
            pooled = torch.stack([self.embed(torch.tensor([*text.encode()])).mean(0) for text in texts])
            logits = self.head(pooled)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    def collate(items):
        return {"texts": [i["texts"] for i in items], "labels": torch.tensor([i["labels"] for i in items])}

    rows = [{"texts": "abc"[i % 3] * (1 + i % 4), "labels": i % 3} for i in range(SIZE)]
    args = args_class(**flags_for(out, flags, remove_unused_columns=False))
    return base(model=seeded(TextModel), args=args, train_dataset=rows, data_collator=collate)


@recipe("nested dictionaries in the batch", "`batch['features']['x']`, with the identifiers of the samples beside it")
def nested(base, args_class, out, **flags):
    class Nested(WithLoss):
        def forward(self, features, labels=None, meta=None):
            return super().forward(features["x"], labels)

    def collate(items):
        return {
            "features": {"x": torch.stack([item["x"] for item in items])},
            "labels": torch.tensor([item["labels"] for item in items]),
            "meta": [{"id": f"sample-{item['labels']}"} for item in items],
        }

    args = args_class(**flags_for(out, flags, remove_unused_columns=False))
    return base(model=Nested(), args=args, train_dataset=classified(), data_collator=collate)


@recipe("batches made by `default_collate` of tuples", "a torchvision-like data set of `(image, label)` and a lambda")
def tuples(base, args_class, out, **flags):
    class Pairs(Dataset):
        images = Images(24)

        def __len__(self):
            return 24

        def __getitem__(self, index):
            item = self.images[index]
            return item["pixel_values"], item["labels"]

    def collate(items):
        pixels, labels = zip(*items, strict=True)
        return {"pixel_values": torch.stack(pixels), "labels": torch.tensor(labels)}

    args = args_class(**flags_for(out, flags))
    return base(model=vit(**VIT), args=args, train_dataset=Pairs(), data_collator=collate)


@recipe(
    "masked language modelling",
    "`DataCollatorForLanguageModeling(mlm=True)`, masked anew at each visit",
    remark=REPRODUCIBLE,
    pruning={"prune_reproducible_augmentation": True},
)
def masked_language_model(base, args_class, out, **flags):
    from tests.support.tiny_text import tokenizer

    words = tokenizer()
    words.add_special_tokens({"mask_token": "<mask>"})
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(intermediate_size=32, max_position_embeddings=16, **sizes)
    rows = [{"input_ids": row["input_ids"][:6] + [7] * 2} for row in sentences()]
    return base(
        model=seeded(lambda: BertForMaskedLM(config)),
        args=args_class(**flags_for(out, flags)),
        train_dataset=rows,
        data_collator=DataCollatorForLanguageModeling(words, mlm_probability=0.4),
    )


@recipe(
    "causal language modelling",
    "`DataCollatorForLanguageModeling(mlm=False)` and GPT-2, texts of several lengths",
    none=OTHER,
    remark="stock divides by all labels, ours by those that are predicted: the first token of a text is not",
)
def causal_language_model(base, args_class, out, **flags):
    from tests.support.tiny_text import tokenizer

    rows = [{"input_ids": row["input_ids"]} for row in sentences(same_length=False)]
    return base(
        model=gpt2(),
        args=args_class(**flags_for(out, flags)),
        train_dataset=rows,
        data_collator=DataCollatorForLanguageModeling(tokenizer(), mlm=False),
    )


@recipe("curriculum by callback", "`train_dataloader.dataset.level = ...` at each epoch's begin")
def curriculum(base, args_class, out, **flags):
    class Levels(Dataset):
        rows, level = classified(), 0

        def __len__(self):
            return SIZE

        def __getitem__(self, index):
            row = self.rows[index]
            return {"x": row["x"] * (1 + self.level), "labels": row["labels"]}

    class Curriculum(TrainerCallback):
        def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
            train_dataloader.dataset.level = int(state.epoch or 0)

    args = args_class(**flags_for(out, flags))
    return base(model=WithLoss(), args=args, train_dataset=Levels(), callbacks=[Curriculum()])


@recipe(
    "augmentation in the data set",
    "`__getitem__` flips and shifts by torch's global generator",
    remark=REPRODUCIBLE,
    pruning={"prune_reproducible_augmentation": True},
)
def augmentation(base, args_class, out, **flags):
    class Augmented(Images):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            if torch.rand(1).item() < 0.5:
                item["pixel_values"] = item["pixel_values"].flip(-1)
            return {**item, "pixel_values": item["pixel_values"].roll(int(torch.randint(3, (1,))), -1)}

    return base(model=vit(**VIT), args=args_class(**flags_for(out, flags)), train_dataset=Augmented(24))


@recipe("early stopping", "`EarlyStoppingCallback` on `eval_loss`, evaluated at each epoch's end")
def early_stopping(base, args_class, out, **flags):
    return base(
        model=vit(**VIT),
        args=args_class(
            **flags_for(out, flags, eval_strategy="epoch", metric_for_best_model="eval_loss", greater_is_better=False)
        ),
        train_dataset=Images(24),
        eval_dataset=Images(8, seed=1),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=3)],
    )


@recipe("layers frozen by callback", "`requires_grad` off in the first epoch, on from the second")
def freezing(base, args_class, out, **flags):
    class Unfreeze(TrainerCallback):
        def on_epoch_begin(self, args, state, control, model=None, **kwargs):
            for parameter in model.vit.parameters():
                parameter.requires_grad = (state.epoch or 0) >= 1

    args = args_class(**flags_for(out, flags))
    return base(model=vit(**VIT), args=args, train_dataset=Images(24), callbacks=[Unfreeze()])


@recipe("weights averaged by callback (EMA)", "a copy of the weights, moved after each step and saved nowhere")
def averaged_weights(base, args_class, out, **flags):
    class Averaged(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            now = {name: p.detach().clone() for name, p in model.named_parameters()}
            old = getattr(self, "ema", now)
            self.ema = {name: 0.9 * old[name] + 0.1 * now[name] for name in now}

    args = args_class(**flags_for(out, flags))
    return base(model=bert(), args=args, train_dataset=sentences(), callbacks=[Averaged()])


@recipe(
    "a sampler of one's own",
    "`WeightedRandomSampler` from `_get_train_sampler`",
    refused="two would choose the samples of an epoch: the sampler and the plan",
    message="_get_train_sampler|sampler",
)
def own_sampler(base, args_class, out, **flags):
    class BalancedTrainer(base):
        def _get_train_sampler(self, *args, **kwargs):
            labels = torch.tensor([row["labels"] for row in self.train_dataset])
            weights = 1.0 / labels.bincount()[labels]
            return torch.utils.data.WeightedRandomSampler(
                weights, len(labels), generator=torch.Generator().manual_seed(5)
            )

    return BalancedTrainer(model=WithLoss(), args=args_class(**flags_for(out, flags)), train_dataset=classified())


@recipe(
    "iterable data set",
    "`IterableDataset` and `max_steps`",
    refused="a stream has no numbered samples to choose from; the selectors take streams",
    message="chooses samples by index",
)
def stream(base, args_class, out, **flags):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(classified())

    args = args_class(**flags_for(out, flags, max_steps=18))
    return base(model=WithLoss(), args=args, train_dataset=Stream())
