"""Strict restoring of a checkpoint's weights, where the stock Trainer only logs that keys did not match."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from ..serving.generators import private_torch_rng

ADAPTER_FILE = "adapter_model.safetensors"


def restore_strictly(model: torch.nn.Module, folder: str, missing: list[str], unexpected: list[str]) -> None:
    """Load every weight in `folder` into `model`, converting the names in the file back to the module's.

    `save_pretrained` writes the hub's names, which for ViT, Swin, DeiT, DINOv2, BEiT and Segformer are not those of the
    module, and the Trainer loads the file without converting back (transformers issue 43701, open in 5.23). With a
    release that restores them, this function is no longer reached. `missing` and `unexpected` are the keys that the
    plain load did not find in the file and in the model; the model may have been changed since it was built.

    Raises:
        RuntimeError: if some weight cannot be restored.
    """
    if not isinstance(model, PreTrainedModel):
        raise _misfit(model, folder, missing, unexpected)
    names = _names_in_file(model)
    saved = _read_weights(folder)
    state = {own: saved[name] for own, name in names.items() if name in saved}
    if state.keys() == model.state_dict().keys() and set(names.values()) >= saved.keys():
        model.load_state_dict(state, strict=True)
        return
    # Weights that are split or merged on saving have no name of their own: only the model class can convert them.
    with private_torch_rng(torch.device(model.device)):
        loaded: Any = type(model).from_pretrained(folder, config=copy.deepcopy(model.config), output_loading_info=True)
    fresh, info = loaded
    lost = sorted(map(str, [*info.get("missing_keys", ()), *info.get("mismatched_keys", ())]))
    left = sorted(map(str, info.get("unexpected_keys", ())))
    if lost or left or fresh.state_dict().keys() != model.state_dict().keys():
        raise _misfit(model, folder, lost or missing, left or unexpected)
    model.load_state_dict(fresh.state_dict(), strict=True)


def restored(model: Any, folder: str, missing: list[str], unexpected: list[str], must: bool) -> bool:
    """Whether `restore_strictly` restored all weights; where they `must` be, what it raises is raised."""
    try:
        restore_strictly(model, folder, missing, unexpected)
    except RuntimeError:
        if must:
            raise
        return False
    return True


def check_adapters(model: Any, folder: str) -> None:
    """Raise a RuntimeError unless the checkpoint holds exactly the weights of a PEFT model's adapters.

    PEFT itself loads what it finds and misses nothing. Other models are passed over.
    """
    found = _active_adapter(model, folder)
    if found is None:
        return
    name, file = found
    from peft import get_peft_model_state_dict

    own = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    saved = load_file(file).keys()
    missing = sorted(own.keys() - saved)
    unexpected = sorted(saved - own.keys() - model.state_dict().keys())  # embeddings are saved by their own names
    if missing or unexpected:
        raise _misfit(model, folder, missing, unexpected)


def load_named_adapter(model: Any, folder: str) -> None:
    """Load the best checkpoint's adapter where it has its own folder: the Trainer looks in `folder` only.

    Models without PEFT's adapters are passed over.
    """
    found = _active_adapter(model, folder)
    if found is not None and found[1].parent != Path(folder):
        name, file = found
        model.load_adapter(str(file.parent), name, is_trainable=not model.peft_config[name].inference_mode)


def _active_adapter(model: Any, folder: str) -> tuple[str, Path] | None:
    """The name of a PEFT model's active adapter and its file in the checkpoint; None where there is no such file.

    PEFT writes the adapter `default` into the folder itself, others into folders of their names.
    """
    if getattr(model, "peft_config", None) is None or not hasattr(model, "active_adapters"):
        return None
    name = model.active_adapters[0]
    places = Path(folder) / ADAPTER_FILE, Path(folder) / name / ADAPTER_FILE
    return next(((name, file) for file in places if file.exists()), None)


def _misfit(model: torch.nn.Module, folder: str, missing: list[str], unexpected: list[str]) -> RuntimeError:
    return RuntimeError(
        f"The weights in {folder} do not fit {type(model).__name__}: missing {missing[:5]}, "
        f"unexpected {unexpected[:5]}. Build the model as it was when the checkpoint was saved."
    )


def _names_in_file(model: PreTrainedModel) -> dict[str, str]:
    """Name in a saved file for each of the model's own, as far as saving renames and does no more.

    Found by saving's own conversion: a renamed tensor is still the same memory.
    """
    from transformers.core_model_loading import revert_weight_conversion

    own = model.state_dict()
    renamed = {_memory(tensor): name for name, tensor in revert_weight_conversion(model, dict(own)).items()}
    return {name: renamed[_memory(tensor)] for name, tensor in own.items() if _memory(tensor) in renamed}


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _read_weights(folder: str) -> dict[str, Tensor]:
    """All tensors of the checkpoint, from one file or from shards; none where it has another format."""
    files = sorted(Path(folder).glob("model*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}
