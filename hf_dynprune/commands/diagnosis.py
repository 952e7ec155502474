"""What `hf-dynprune doctor` finds: versions, what is installed badly, and why a run with these flags would be refused.

Each check is a function that returns findings; none changes anything.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.metadata
import importlib.util
import math
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from .._version import __version__
from ..common.words import counted

if TYPE_CHECKING:
    from packaging.requirements import Requirement

NEEDED = {"torch": "2.6", "transformers": "5.14", "accelerate": "1.10"}
"""Lowest supported version by package."""
BEFORE = {"transformers": "6"}
"""First version that is not supported any more."""
FOR = {
    "matplotlib": "pictures: `quickstart`, `report`, `compare`",
    "scikit-learn": "the embedded digits",
    "kornia": "augmentation in the image examples",
    "pytorch_optimizer": "LARS and LAMB in the image example",
    "peft": "adapters",
    "trl": "`SFTTrainer`",
    "nvidia-ml-py": "energy in the savings account",
}
"""What optional packages are for."""
ALWAYS_REFUSED = (
    "iterable data sets, and a sampler or loader of your own, without a selector (`prune_selector`)",
    "losses that compare the samples of a batch (CLIP, in-batch negatives), match sets (Mask2Former, DETR), or are "
    "no sum over samples (the root of a mean, dice over a whole batch)",
    "a `training_step` that calls neither `super().training_step` nor `self.compute_loss`",
    "`MixingCollator` (mixup, cutmix) with a selector, or with another loss than that of classification",
    "packing of several samples into one row, and trainers that make their own batches (GRPO)",
    "tensor, context and sequence parallelism; `batch_rebalance`",
)


OF_A_SCRIPT = (
    " One that your own script registers is not known here, since doctor does not run the script: test it with "
    "`hf_dynprune.testing`, and see at the start of the run's log what it can save."
)


@dataclass(frozen=True)
class Finding:
    """One line of the report, and for a problem what to do; `state` is "ok", "note" (worth knowing) or "problem"."""

    state: str
    text: str


def examine() -> list[Finding]:
    """Findings on Python, the installed packages, the Trainer's methods and the devices."""
    checks: Sequence[Callable[[], Iterator[Finding]]] = (_versions, _hooks, _torchvision, _devices, _optional, _pairs)
    return [finding for check in checks for finding in check()]


def installed(package: str) -> str | None:
    """Version of an installed package, or None where it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions() -> Iterator[Finding]:
    from packaging.version import Version

    yield Finding("ok", f"hf_dynprune {__version__}, Python {platform.python_version()}, {platform.system()}")
    for package, lowest in NEEDED.items():
        version, below = installed(package), BEFORE.get(package)
        wanted = f"{package}>={lowest}" + (f",<{below}" if below else "")
        if version is None:
            yield Finding("problem", f"{package} is not installed: pip install '{wanted}'")
        elif Version(version) < Version(lowest) or (below and Version(version) >= Version(below)):
            yield Finding("problem", f"{package} {version} is not supported: pip install '{wanted}'")
        else:
            yield Finding("ok", f"{package} {version}")


def _hooks() -> Iterator[Finding]:
    """Whether the Trainer has the methods that this package overrides or calls."""
    try:
        from transformers import Trainer

        from ..training.hooks import TRAINER_HOOKS, check_hooks

        check_hooks(Trainer)
    except ImportError as error:
        yield Finding("problem", str(error))
    else:
        yield Finding("ok", f"the Trainer has the {len(TRAINER_HOOKS)} methods that are built on")


def _torchvision() -> Iterator[Finding]:
    """A problem where torchvision does not fit torch: that breaks the image processors of transformers."""
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # whatever a library of another build raises
        yield Finding(
            "problem",
            f"torchvision {installed('torchvision')} cannot be imported ({error}), which breaks the image processors "
            "of transformers: pip uninstall torchvision (nothing here needs it), or install the build for your torch",
        )


def _devices() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Finding("ok", f"{counted(len(names), 'GPU')}: {', '.join(names)}")
        if len(names) > 1:
            yield Finding("note", "several GPUs: start with torchrun, one process each; DataParallel is not tested")
    elif getattr(torch.backends, "mps", None) is not None and torch.backends.mps.is_available():
        yield Finding("note", "MPS: pruning has not been run on it")
    else:
        yield Finding("ok", f"no GPU; {counted(torch.get_num_threads(), 'CPU thread')}")


def _optional() -> Iterator[Finding]:
    for package, purpose in FOR.items():
        version = installed(package)
        if version is None:
            yield Finding("note", f"{package} is not installed; it is for {purpose}")
        else:
            yield Finding("ok", f"{package} {version}")


def _pairs() -> Iterator[Finding]:
    """Problems where two installed packages do not fit each other, by what each one says that it needs.

    pip does not see what transformers needs of optional packages: that stands in a table of its own.
    """
    for package in (*NEEDED, *FOR):
        version = installed(package)
        for wanted in () if version is None else _wishes(package):
            other = installed(wanted.name)
            if other is None or wanted.specifier.contains(other, prereleases=True):
                continue
            yield Finding(
                "problem",
                f"{package} {version} needs {wanted.name}{wanted.specifier}, but {wanted.name} {other} is installed: "
                f"pip install '{wanted.name}{wanted.specifier}'; where there is no such version yet, an older "
                f"{package}, or no {wanted.name if wanted.name in FOR else package} if you do without it",
            )


def _wishes(package: str) -> Iterator[Requirement]:
    """Versions that an installed package needs of `NEEDED` and of the optional packages in `FOR`."""
    from packaging.requirements import Requirement

    texts = [*(importlib.metadata.requires(package) or ())]
    if package == "transformers":
        with contextlib.suppress(ImportError, AttributeError):  # no part of its public interface
            texts += importlib.import_module("transformers.dependency_versions_table").deps.values()
    for wanted in map(Requirement, texts):
        applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if applies and wanted.name in (*NEEDED, *FOR) and wanted.name != package:
            yield wanted


def examine_model(name: str) -> list[Finding]:
    """Whether there is a per-sample loss for a model, found without its weights.

    `name` is a class of transformers such as ViTForImageClassification, a folder, or a name on the hub.
    """
    import torch
    import transformers

    from ..losses import find_loss
    from ..losses.interception import InterceptedLoss

    try:
        cls = getattr(transformers, name, None) if name.isidentifier() else None
        if cls is None:
            config = transformers.AutoConfig.from_pretrained(name)
            architecture = (config.architectures or ["of no named class"])[0]
            cls = getattr(transformers, architecture, None)
            if cls is None:
                return [Finding("problem", f"the model {name} is {architecture}, which transformers does not have")]
        else:
            config = cls.config_class()
        with torch.device("meta"):
            model = cls(config)
    except Exception as error:  # of a config, the hub, or a model's constructor
        return [Finding("problem", f"the model {name} cannot be built: {error}")]
    try:
        loss = find_loss(model)
    except ValueError as error:
        return [Finding("problem", str(error))]
    if isinstance(loss, InterceptedLoss):
        text = "its own loss is taken apart by sample; the first batch shows whether it can be"
        return [Finding("note", f"{cls.__name__}: {text}")]
    return [Finding("ok", f"{cls.__name__}: the loss of a sample comes from {type(loss).__name__}")]


def examine_flags(flags: Sequence[str], num_samples: int | None = None) -> list[Finding]:
    """What the trainer would say to these flags of a training script, before it sees model and data.

    Flags that are not the Trainer's or ours are named and left out. With `num_samples`, scoring before the run and the
    optimizer steps are counted.
    """
    from transformers import HfArgumentParser

    from ..training_args import DynPruneTrainingArguments

    misspelt = [*_misspelt(flags)]
    with tempfile.TemporaryDirectory() as folder:
        # Without its own --help, which prints all flags of the Trainer and ends the process.
        parser: Any = HfArgumentParser(DynPruneTrainingArguments, allow_abbrev=False, add_help=False)  # type: ignore[arg-type]
        parser.error = _refuse  # the message without the usage of two hundred flags
        try:
            args, others = parser.parse_args_into_dataclasses(
                ["--output_dir", folder, *flags], return_remaining_strings=True, look_for_args_file=False
            )
        except (ValueError, ImportError) as error:
            unknown = str(error).startswith(("Unknown pruning method", "Unknown selector"))
            return [*misspelt, Finding("problem", f"{error}{OF_A_SCRIPT if unknown else ''}")]
    if others:
        misspelt.append(Finding("note", f"no flags of the Trainer, so not looked at: {' '.join(others)}"))
    return [*misspelt, *_examine_run(args, num_samples)]


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)


def _misspelt(flags: Sequence[str]) -> Iterator[Finding]:
    """Problems for flags that look like ours, found before parsing: another flag's mistake must not hide them."""
    from ..training_args import DynPruneArguments

    ours = [f"--{name}" for name in DynPruneArguments.__dataclass_fields__]
    known = {*ours, *(f"--{flag[2:].replace('_', '-')}" for flag in ours)}
    for flag in (flag.partition("=")[0] for flag in flags if flag.startswith("--prune")):
        if flag in known:
            continue
        near = difflib.get_close_matches(flag, ours, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(ours)}"
        yield Finding("problem", f"there is no flag {flag}: {hint}")


def _examine_run(args: Any, num_samples: int | None) -> Iterator[Finding]:
    from ..decisions.budget import check_epochs, check_target
    from ..decisions.forecast import describe_savings
    from ..decisions.guarantees import CoverEvery
    from ..decisions.length import counts_steps, shorter_epochs
    from ..decisions.schedule import RunLength
    from ..methods.none import NoPruning
    from ..training.batch_run import describe_selection
    from ..training.refusals import check_batch_size, refuse_dropped_visits, refuse_unsupported

    selector, target, epochs = args.build_selector(), args.prune_target_saving, float(args.num_train_epochs)
    policy = args.build_policy()
    try:
        if args.max_steps <= 0:
            check_epochs(epochs)
        if selector is not None or not isinstance(policy, NoPruning):
            refuse_unsupported([0], args)
        if selector is not None:
            check_batch_size(selector, args.train_batch_size)
            yield Finding("ok", describe_selection(selector, args.train_batch_size))
            return
        if args.prune_max_unseen_epochs is not None:
            policy = CoverEvery(policy, args.prune_max_unseen_epochs)
        refuse_dropped_visits(policy, args.dataloader_drop_last)
        full = None
        if target is not None and counts_steps(policy, args.prune_budget):
            epochs, full = shorter_epochs(policy, target, epochs, num_samples), epochs
            policy.check_length(epochs)
        elif target is not None:
            check_target(policy, target, epochs, args.prune_warmup_epochs, num_samples)
    except ValueError as error:
        yield Finding("problem", str(error))
        return
    batch = args.train_batch_size * args.gradient_accumulation_steps
    updates = 1 if num_samples is None else max(1, -(-num_samples // batch))
    steps = args.max_steps if full is None else math.ceil(epochs * updates)
    length = RunLength(updates, steps, epochs, steps > 0, full)
    text, is_little = describe_savings(policy, length, args.prune_warmup_epochs, target, num_samples)
    yield Finding("note" if is_little else "ok", text)
