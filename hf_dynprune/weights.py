"""Strict restoring of a checkpoint's weights, where the stock Trainer only logs that keys did not match."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import PreTrainedModel

__all__ = ["restore_strictly"]


def restore_strictly(model: torch.nn.Module, folder: str, missing: list[str], unexpected: list[str]) -> None:
    """Load every weight in `folder` into `model`, through the model class's own key conversion.

    `save_pretrained` writes the hub's key names, which for ViT, Swin, DeiT, DINOv2, BEiT and Segformer are not those of
    the module, and the Trainer loads the file without converting back (transformers issue 43701, open in 5.23). With a
    release that restores them, this function is no longer reached.

    Args:
        model: its weights are replaced.
        folder: the checkpoint.
        missing: keys of the model that the plain load did not find.
        unexpected: keys in the file that the model does not have.

    Raises:
        RuntimeError: if some weight cannot be restored.
    """
    what = f"{folder} does not fit {type(model).__name__}"
    if not isinstance(model, PreTrainedModel):
        raise RuntimeError(
            f"{what}: missing {missing[:5]}, unexpected {unexpected[:5]}. Resume with the saved model's class."
        )
    devices = [] if model.device.type == "cpu" else [model.device]
    with torch.random.fork_rng(devices):
        loaded: Any = type(model).from_pretrained(folder, config=copy.deepcopy(model.config), output_loading_info=True)
    fresh, info = loaded
    lost: dict[str, Any] = {key: sorted(map(str, info.get(key) or ())) for key in ("missing_keys", "mismatched_keys")}
    if lost["missing_keys"] or lost["mismatched_keys"]:
        raise RuntimeError(
            f"{what}: missing {lost['missing_keys'][:5]}, of another shape {lost['mismatched_keys'][:5]}."
        )
    model.load_state_dict(fresh.state_dict(), strict=True)
