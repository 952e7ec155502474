"""The private methods of the Trainer that we rely on; a changed one must be found when the package is imported."""

from __future__ import annotations

import inspect

import pytest
from transformers import Trainer

from hf_dynprune import DynPruneMixin
from hf_dynprune.training.hooks import TRAINER_HOOKS, check_hooks


@pytest.mark.parametrize("name", TRAINER_HOOKS)
def test_hook_exists_with_our_parameters(name):
    found = [p for p in inspect.signature(getattr(Trainer, name)).parameters if p != "self"]
    assert tuple(found[: len(TRAINER_HOOKS[name])]) == TRAINER_HOOKS[name]


def test_every_override_of_a_trainer_method_is_listed():
    overridden = {
        name
        for name, value in vars(DynPruneMixin).items()
        if callable(value) and hasattr(Trainer, name) and not name.startswith("__")
    }
    assert overridden <= set(TRAINER_HOOKS)
    assert "_run_epoch" in overridden


def renamed(self, model, epoch, loader):
    pass


def longer(self, batch_samples, device, scale):
    pass


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"_run_epoch": renamed},
            r"needs Changed._run_epoch\(model, epoch, train_dataloader, .* has _run_epoch\(model, epoch, loader\)",
        ),
        ({"_get_num_items_in_batch": longer}, r"has _get_num_items_in_batch\(batch_samples, device, scale\)"),
        ({"_save_checkpoint": None}, "has no _save_checkpoint"),
    ],
)
def test_a_changed_signature_is_an_import_error(change, says):
    changed = type("Changed", (Trainer,), change)
    with pytest.raises(ImportError, match=says + r".*transformers>=5.14,<6"):
        check_hooks(changed)


def test_a_new_parameter_with_a_default_is_accepted():
    def wider(self, batch_samples, device, scale=1):
        pass

    check_hooks(type("Changed", (Trainer,), {"_get_num_items_in_batch": wider}))


def test_set_initial_training_values_still_leads_with_the_number_of_epochs(tmp_path):
    from tests.support.helpers import Images, stock_trainer, vit

    trainer = stock_trainer(vit(), Images(), tmp_path, num_train_epochs=3)
    values = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())
    assert values[0] == 3
    assert values[-1] == 18
