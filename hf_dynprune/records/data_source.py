"""Where a run's training set came from and how it was read, kept in `dynprune_run.json`: reports read it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..common.schema import Count


@dataclass(frozen=True)
class DataSource:
    """Which reader made the training set, and with what settings. It holds no folder of the machine.

    Args:
        reader: its name in `readers.data_sources.READERS`.
        name: last part of the folder, name on the hub, or name of data that come with the package.
        settings: the reader's keyword arguments.
        num_samples: N.
        digests: by column, of what was read; they differ where names of files, sizes, labels or order do.
        skipped: files that were read and then left out, by their place below the folder; rows of a table as `[3]`.
    """

    reader: str
    name: str
    settings: dict[str, Any]
    num_samples: Count
    digests: dict[str, str]
    skipped: tuple[str, ...] = ()
