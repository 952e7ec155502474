"""What happened to each sample in each epoch, kept in the run folder for reports; nothing of it stays in memory.

`_dynprune_samples/` holds one file per epoch, of about 2 1/8 bytes per sample, and the labels where they are known:

    epoch-00003.safetensors    kept_bits uint8 [ceil(N / 8)], one bit per sample; score float16 [K], in the order of the
                               kept samples, NaN where the epoch recorded none
    labels.safetensors         label int64 [N]
    about.json                 number of samples, fingerprint of the data, names of the classes

Its name begins with an underscore, which the Trainer leaves out of what it pushes to the hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from ..common.files import write_atomically
from ..common.reading import read_json
from ..common.schema import Count
from ..common.tensors import read_tensors
from ..common.words import counted
from ..decisions.plan import PrunePlan

SAMPLE_LOG = "_dynprune_samples"
_LARGEST = float(np.finfo(np.float16).max)
_ON_TRUST = 10_000_000
"""So many samples are believed to be there; more, where the files are large enough."""


class _About(TypedDict):
    """What `about.json` must have."""

    num_samples: Count
    fingerprint: str
    class_names: list[str] | None


@dataclass(frozen=True)
class EpochSamples:
    """What one epoch did with each sample.

    Args:
        epoch: from 0.
        kept: bool `[N]`.
        score: float32 `[N]`, rounded to half precision; NaN where the epoch recorded none.
    """

    epoch: int
    kept: NDArray[np.bool_]
    score: NDArray[np.float32]


class SampleLog:
    """The log of single samples in a run's output folder, which need not exist yet."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder) / SAMPLE_LOG

    # ---- Writing ----

    def begin(
        self,
        num_samples: int,
        fingerprint: str,
        labels: NDArray[np.integer] | None,
        class_names: Sequence[str] | None,
        finished: int,
    ) -> None:
        """Start the log of a run, or continue it.

        Args:
            num_samples: N.
            fingerprint: of the training set.
            labels: `[N]`, where there is one class number per sample.
            class_names: by class number.
            finished: epochs that the run has finished; files of later ones belong to a run that is given up.
        """
        about = {"num_samples": num_samples, "fingerprint": fingerprint, "class_names": list(class_names or []) or None}
        keep = finished if self._is_of(fingerprint) else 0
        for epoch in self.epochs:
            if epoch >= keep:
                self._file(epoch).unlink()
        write_atomically(self.folder / "about.json", json.dumps(about, indent=1).encode())
        own = self.folder / "labels.safetensors"
        if labels is None:
            own.unlink(missing_ok=True)
        else:
            write_atomically(own, save({"label": np.array(labels, np.int64)}))

    def _is_of(self, fingerprint: str) -> bool:
        """Whether the existing log, if there is one, belongs to this data set."""
        try:
            return self.fingerprint == fingerprint
        except ValueError:
            return False

    def write(
        self, epoch: int, plan: PrunePlan, index: NDArray[np.signedinteger[Any]], score: NDArray[np.float32]
    ) -> None:
        """Add an epoch: its plan, and the recorded scores `[B]` of the samples `index` `[B]`.

        Of several scores of one sample the last one counts.
        """
        # Halved before they are put in place: places in random order cost more the wider the values.
        halves = np.clip(score, -_LARGEST, _LARGEST).astype(np.float16)
        finite = np.isfinite(score)
        if not finite.all():
            halves[~finite] = np.nan
        latest = np.full(plan.num_samples, np.nan, np.float16)
        latest[index] = halves
        mask = np.zeros(plan.num_samples, bool)
        mask[plan.kept_indices] = True
        kept = latest if plan.is_full else latest[plan.kept_indices]
        stored: dict[str, NDArray[Any]] = {"kept_bits": np.packbits(mask), "score": kept}
        write_atomically(self._file(epoch), save(stored), is_lasting=False)

    # ---- Reading ----

    @property
    def epochs(self) -> list[int]:
        """Numbers of the epochs that have a file, in order."""
        return sorted(self._number(file) for file in self.folder.glob("epoch-*.safetensors"))

    def _number(self, file: Path) -> int:
        match = re.fullmatch(r"epoch-(\d{5,9})", file.stem)
        if match is None:
            raise ValueError(f"{file} is no epoch's file, whose name would end in a number of five digits: remove it.")
        return int(match[1])

    @property
    def num_samples(self) -> int:
        """Number of samples in the run's training set."""
        size = self._about()["num_samples"]
        held = 8 * max((self._file(epoch).stat().st_size for epoch in self.epochs), default=0)  # a bit for each
        if size > max(held, _ON_TRUST):
            raise ValueError(
                f"{self.folder / 'about.json'} is damaged (`num_samples` must be at most {max(held, _ON_TRUST)}, by "
                f"the size of the epochs' files, got {size})."
            )
        return size

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the run's training set, as `dataset_fingerprint` gives it."""
        return self._about()["fingerprint"]

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes by class number; None where the data set does not name them."""
        return self._about()["class_names"]

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """`[N]`, where the training set has one class number per sample.

        Raises:
            ValueError: the file is damaged.
        """
        file = self.folder / "labels.safetensors"
        if not file.exists():
            return None
        try:
            return read_tensors(file, {"label": "I64"})[0]["label"]
        except ValueError as error:
            raise ValueError(f"{file} is damaged ({error}): remove it, and reports go without labels.") from error

    def read(self, epoch: int) -> EpochSamples:
        """What one epoch did with each sample.

        Raises:
            ValueError: the epoch's file is damaged.
        """
        file = self._file(epoch)
        try:
            stored, _ = read_tensors(file, {"kept_bits": "U8", "score": "F16"})
            bits, halves, size = stored["kept_bits"], stored["score"], self._about()["num_samples"]
            if len(bits) != -(-size // 8):
                raise ValueError(
                    f"`kept_bits` must have {-(-size // 8)} bytes for {counted(size, 'sample')}, got {len(bits)}"
                )
            kept = np.unpackbits(bits, count=size).astype(bool)
            if len(halves) != np.count_nonzero(kept):
                raise ValueError(f"`score` must have a value for each kept sample, got {len(halves)}")
            score = np.full(size, np.nan, np.float32)
            score[kept] = halves
        except ValueError as error:
            raise ValueError(f"{file} is damaged ({error}): remove it, and reports go without this epoch.") from error
        return EpochSamples(epoch, kept, score)

    def __iter__(self) -> Iterator[EpochSamples]:
        return map(self.read, self.epochs)

    def __bool__(self) -> bool:
        return bool(self.epochs)

    def _file(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:05d}.safetensors"

    def _about(self) -> _About:
        file = self.folder / "about.json"
        if not file.exists():
            raise ValueError(
                f"There is no log of single samples in {self.folder.parent}: runs of `DynPruneTrainer` write it unless "
                "`prune_sample_log` is False, and a selector has none."
            )
        return read_json(file, _About, "{file} is damaged ({why}).")
