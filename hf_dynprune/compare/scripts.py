"""The comparison's runs by a script of the user's: which flags each arm gets, and what a run must leave behind."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.secrets import hidden_in, secret_values
from .folders import read_history, read_run
from .results import FULL, Arm, RunResult

OWN_FLAGS = ("prune_method", "seed", "output_dir", "methods", "seeds", "control_epochs")
"""Flags that the comparison sets for each run, or that would make a script run several."""
METHOD_FLAGS = (
    *("prune_ratio", "prune_kwargs", "prune_target_saving", "prune_warmup_epochs"),
    *("prune_max_unseen_epochs", "prune_class_floor", "prune_budget"),
)
"""Flags that say what the method prunes: the other arms do without them."""


class ScriptRunner:
    """Runs of a script that parses `DynPruneTrainingArguments` from its command line, each in a process of its own.

    The arguments are those of the method's run, without method, seed and output folder. The other arms get them without
    the flags that say what to prune.

    Raises:
        ValueError: there is no such script, or a flag has no place among the arguments.
    """

    def __init__(self, script: Path, arguments: Sequence[str]) -> None:
        if not script.is_file():
            raise ValueError(f"`--script` must be a file, got {script}.")
        self.script, self.arguments = script, list(arguments)
        for flag in map(_flag, self.arguments):
            if flag in OWN_FLAGS:
                raise ValueError(f"`--{flag}` is among the script's arguments: compare sets it for each run.")
            if flag in ("max_steps", "prune_selector"):
                raise ValueError(
                    f"`--{flag}` is among the script's arguments: only runs by `num_train_epochs`, with a method that "
                    "prunes before each epoch, can be compared at equal forward passes."
                )

    def settings(self, arm: Arm) -> dict[str, Any]:
        """Name and digest of the script, and the arguments that it gets."""
        digest = hashlib.sha256(self.script.read_bytes()).hexdigest()
        return {"script": f"{self.script.name} {digest[:12]}", "arguments": self._of_arm(arm)}

    def run(self, arm: Arm) -> RunResult:
        """Run the script; what it prints goes into `log.txt` of the run's folder, without its secrets."""
        log = arm.folder / "log.txt"
        command = [sys.executable, str(self.script), *self._of_arm(arm), "--output_dir", str(arm.folder)]
        code = self._logged(command, log)
        if code:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            last = "\n".join(line.rpartition("\r")[2] for line in lines[-5:])
            raise ValueError(
                f"{arm.name}, seed {arm.seed}, ended with exit code {code}; the same command goes on behind "
                f"the finished runs. The end of {log}:\n{last}"
            )
        result = read_run(arm.folder, arm.name, arm.seed)
        if result is None:
            raise ValueError(
                f"{arm.name}, seed {arm.seed}, left no evaluation or no history in {arm.folder}: the script must "
                "train a DynPruneTrainer in `output_dir` and end with "
                '`trainer.save_metrics("eval", trainer.evaluate())`.'
            )
        return result

    def _logged(self, command: Sequence[str], log: Path) -> int:
        """The exit code of a command whose output goes line by line into the file."""
        values = secret_values(self.arguments, os.environ)
        with (
            open(log, "wb") as output,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run,
        ):
            try:
                for line in run.stdout or ():
                    text = hidden_in(line.decode("utf-8", "surrogateescape"), values)
                    output.write(text.encode("utf-8", "surrogateescape"))
                    output.flush()
            except BaseException:
                run.kill()  # as `subprocess.run` does
                raise
        return run.returncode

    def _of_arm(self, arm: Arm) -> list[str]:
        arguments = self.arguments
        if arm.name == FULL or arm.share < 1 or arm.saving is not None:
            arguments = _without(arguments, METHOD_FLAGS)
        if arm.share < 1:
            arguments = [*arguments, *self._shortened(arm, arguments)]
        if arm.saving is not None:
            arguments = [*arguments, "--prune_target_saving", f"{arm.saving:.5f}"]
        if arm.rate is not None:
            arguments = [*arguments, "--learning_rate", f"{self._learning_rate() * arm.rate:.6g}"]
        return [*arguments, "--prune_method", arm.method, "--seed", str(arm.seed)]

    def _learning_rate(self) -> float:
        given = _value(self.arguments, "learning_rate")
        if given is None:
            raise ValueError(
                "`--control_learning_rates` are factors of `--learning_rate`, which is not among the script's "
                "arguments: pass it behind --, where a recipe or the script sets it too."
            )
        return float(given)

    def _shortened(self, arm: Arm, arguments: Sequence[str]) -> list[str]:
        """Flags for fewer epochs, and for the warm-up where it is given in steps; as a share it shortens by itself."""
        history = read_history(arm.reference or arm.folder.parent / f"{FULL}-seed{arm.seed}")
        if not history:
            raise ValueError(f"{FULL}, seed {arm.seed}, has no history beside {arm.folder}: move its folder away.")
        epochs = arm.share * history.forward_passes / history[0].num_samples
        shortened = ["--num_train_epochs", f"{epochs:.4f}"]
        warmup = _value(arguments, "warmup_steps")
        if warmup is not None and float(warmup) >= 1:
            shortened += ["--warmup_steps", str(math.ceil(float(warmup) * arm.share))]
        return shortened


def _flag(word: str) -> str:
    """Name of the flag with underscores, also where it is written with dashes; empty for words that are no flag."""
    return word.partition("=")[0][2:].replace("-", "_") if word.startswith("--") else ""


def _without(arguments: Sequence[str], flags: Sequence[str]) -> list[str]:
    """The arguments without these flags, each of which takes one value."""
    kept, is_value = [], False
    for word in arguments:
        if _flag(word) in flags:
            is_value = "=" not in word
        elif is_value:
            is_value = False
        else:
            kept.append(word)
    return kept


def _value(arguments: Sequence[str], flag: str) -> str | None:
    """The last value that a flag is given; None where it is not among the arguments."""
    found = None
    for place, word in enumerate(arguments):
        if _flag(word) == flag:
            found = word.partition("=")[2] if "=" in word else "".join(arguments[place + 1 : place + 2])
    return found
