"""The private parts of the Trainer that this package builds on, checked when the trainer is imported."""

from __future__ import annotations

import inspect

TRAINER_HOOKS: dict[str, tuple[str, ...]] = {
    "train": ("resume_from_checkpoint",),
    "_hp_search_setup": ("trial",),
    "get_train_dataloader": (),
    "set_initial_training_values": ("args", "dataloader"),
    "_init_training_state": (
        "max_steps",
        "num_update_steps_per_epoch",
        "num_train_epochs",
        "resume_from_checkpoint",
        "trial",
    ),
    "_run_epoch": (
        "model",
        "epoch",
        "train_dataloader",
        "steps_in_epoch",
        "num_update_steps_per_epoch",
        "trial",
        "ignore_keys_for_eval",
        "start_time",
        "resume_from_checkpoint",
        "epochs_trained",
        "steps_trained_in_current_epoch",
    ),
    "get_batch_samples": ("epoch_iterator", "num_batches", "device"),
    "_prepare_inputs": ("inputs",),
    "training_step": ("model", "inputs", "num_items_in_batch"),
    "_get_num_items_in_batch": ("batch_samples", "device"),
    "compute_loss": ("model", "inputs", "return_outputs", "num_items_in_batch"),
    "_clip_grad_norm": ("model",),
    "_get_grad_norm": ("model", "grad_norm"),
    "create_scheduler": ("num_training_steps", "optimizer"),
    "evaluate": ("eval_dataset", "ignore_keys", "metric_key_prefix"),
    "_save_checkpoint": ("model", "trial"),
    "_save_rng_state": ("output_dir",),
    "create_model_card": (),
    "push_to_hub": ("commit_message", "blocking", "token", "revision"),
    "_push_from_checkpoint": ("checkpoint_folder",),
    "_finish_current_push": (),
    "_load_from_checkpoint": ("resume_from_checkpoint", "model"),
    "_load_best_model": (),
    "_issue_warnings_after_load": ("load_result",),
    "_get_train_sampler": ("train_dataset",),
    "_finalize_training": ("trial", "num_train_samples", "start_time"),
    "_get_output_dir": ("trial",),
    "_remove_unused_columns": ("dataset", "description"),
    "_get_collator_with_removed_columns": ("data_collator", "description"),
}
"""Methods overridden or called, with the parameters used, in order."""


def check_hooks(trainer_class: type) -> None:
    """Raise unless every hook is there with the parameters used here; further parameters must have defaults.

    Raises:
        ImportError: naming the method, what was expected and what was found, and the supported versions.
    """
    for name, expected in TRAINER_HOOKS.items():
        method = getattr(trainer_class, name, None)
        parameters = list(inspect.signature(method).parameters.values())[1:] if method else []
        named = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
        found = tuple(p.name for p in named)
        surplus = [p.name for p in named[len(expected) :] if p.default is inspect.Parameter.empty]
        if method is None or found[: len(expected)] != expected or surplus:
            import transformers

            has = f"has {name}({', '.join(found)})" if method else f"has no {name}"
            raise ImportError(
                f"hf_dynprune needs {trainer_class.__name__}.{name}({', '.join(expected)}), but transformers "
                f"{transformers.__version__} {has}. Install a supported version: transformers>=5.14,<6."
            )
