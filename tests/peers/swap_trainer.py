"""A pytest plug-in for other libraries' own tests: their trainer classes are replaced by ours with nothing pruned.

`pytest -p swap_trainer --trainer ours`; with `--trainer stock`, the default, only the time limit holds. This folder has
to be on `PYTHONPATH`, since the other library's tests are a package called `tests` too.
"""

from __future__ import annotations

import functools
import importlib
import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

TRL_TRAINERS = {"SFTTrainer": "sft_trainer", "DPOTrainer": "dpo_trainer", "RewardTrainer": "reward_trainer"}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("peers")
    group.addoption("--trainer", choices=("stock", "ours"), default="stock", help="whose trainer classes are tested")
    group.addoption("--seconds", type=int, default=120, help="time limit of a test")
    group.addoption("--results", help="file for one line of JSON per test, written as they end")
    group.addoption("--with-trl", action="store_true", help="replace TRL's trainers instead of those of transformers")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--trainer") == "stock":
        return
    if config.getoption("--with-trl"):
        swap_trl()
    else:
        swap_transformers()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Ends a test that takes too long, so that the ones after it are run."""
    seconds: int = item.config.getoption("--seconds")

    def stop(*_: Any) -> None:
        raise TimeoutError(f"the test took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Writes how each test ended: "passed", "skipped", or "failed" with the error's last line."""
    report: Any = yield
    file = item.config.getoption("--results")
    if file and (report.when == "call" or (report.outcome != "passed" and report.when == "setup")):
        error = "" if call.excinfo is None else call.excinfo.exconly()
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(json.dumps([item.nodeid, report.outcome, error]) + "\n")
    return report  # type: ignore[no-any-return]


def unpruned(stock: type) -> type:
    """A class of the same name and module that trains as `DynPruneMixin` does with the policy `none`."""
    from hf_dynprune import DynPruneMixin, NoPruning

    @functools.wraps(stock.__init__)  # type: ignore[misc]
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("policy", NoPruning())
        DynPruneMixin.__init__(self, *args, **kwargs)

    members = {"__init__": init, "__module__": stock.__module__, "__doc__": stock.__doc__}
    return type(stock.__name__, (DynPruneMixin, stock), members)


def swap_transformers() -> None:
    """`Trainer` and `Seq2SeqTrainer`, wherever tests import them from."""
    import transformers
    import transformers.trainer as of_trainer
    import transformers.trainer_seq2seq as of_seq2seq

    for name, module in (("Trainer", of_trainer), ("Seq2SeqTrainer", of_seq2seq)):
        ours = unpruned(getattr(module, name))
        setattr(module, name, ours)
        setattr(transformers, name, ours)


def swap_trl() -> None:
    """The trainers of `TRL_TRAINERS`; what they are derived from stays as it is."""
    import trl
    import trl.trainer

    for name, module_name in TRL_TRAINERS.items():
        module = importlib.import_module(f"trl.trainer.{module_name}")
        ours = unpruned(getattr(module, name))
        for place in (module, trl.trainer, trl):
            setattr(place, name, ours)
