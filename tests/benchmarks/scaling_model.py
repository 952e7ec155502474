"""Pruning with many processes, on paper: what an epoch's bookkeeping comes to, by samples N and processes R.

The formulas are those of `docs/appendix/scaling.md`. Constants were measured with `tests.benchmarks.processes`; each is
a flag, and `--json` reads those of another run of it. Bandwidths and the rate of training are assumptions.

    python -m tests.benchmarks.scaling_model
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_dynprune.common.tables import markdown_table

RATE = 1000
"""Samples per second and process, assumed."""
SIZES = (1_280_000, 10_000_000, 100_000_000, 1_000_000_000)
RANKS = (1, 8, 64, 1024)
PIECE_ROW, CHECK_ROW = 16, 24
VISIBLE_SHARE, VISIBLE_BYTES = 0.01, 2**30


@dataclass(frozen=True)
class Constants:
    """Nanoseconds are per sample and on every process at once, bytes per sample and process; InfoBatch.

    Args:
        merge: host work on a gathered sample, the transfer apart.
        fold: of a kept sample.
        check: of a sample of the data set, as are `plan` and `checkpoint`.
        plan: with the epoch's record.
        order: of a kept sample.
        checkpoint: on the first process, while the others wait.
        deal: of a sample in a batch of all processes, on each of them.
        rest_bytes: between epochs.
        peak_bytes: at most.
        checkpoint_bytes: in the file.
        kept: share of the samples that an epoch keeps.
        rate: samples per second and process.
        hop: microseconds from one process to the next, per collective.
        device_copy: GB/s from each device to the host.
        per_node: processes of a machine, which share its memory and its network.
        batch: samples of a process and step.
    """

    merge: float = 26.9
    fold: float = 91.6
    check: float = 7.4
    plan: float = 26.2
    order: float = 30.4
    checkpoint: float = 40.7
    deal: float = 64.0
    rest_bytes: float = 14.3
    peak_bytes: float = 31.3
    checkpoint_bytes: float = 9.7
    kept: float = 0.68
    rate: float = RATE
    hop: float = 10.0
    device_copy: float = 5.0
    per_node: int = 8
    batch: int = 128

    @property
    def host_ns(self) -> float:
        """Of an epoch's boundary, per sample of the data set, on every process."""
        return self.kept * (self.merge + self.fold + self.order) + self.check + self.plan


def share_of_a_process(kept: int, ranks: int, batch: int) -> int:
    """Entries that each process holds at the end of an epoch, ghosts included."""
    return math.ceil(kept / (ranks * batch)) * batch if ranks > 1 else kept


def merge_bytes(entries: int, width: int = 8) -> int:
    """What a process hands to collectives to merge: count and largest index, then index and score of its entries.

    Args:
        entries: the largest number that a process has.
        width: 8 while all indices fit into int32, else 12.
    """
    return PIECE_ROW + width * entries


def check_bytes() -> int:
    """What a process hands over to compare scores and plan: two checksums and whether it failed."""
    return CHECK_ROW


def sent_bytes(size: int, ranks: int, constants: Constants) -> int:
    """What leaves a process in an epoch: a ring passes on the rows of all others."""
    if ranks == 1:
        return 0
    width = 8 if size <= 2**31 else 12
    entries = share_of_a_process(round(constants.kept * size), ranks, constants.batch)
    return (ranks - 1) * (merge_bytes(entries, width) + check_bytes())


@dataclass(frozen=True)
class Epoch:
    """What one epoch comes to; seconds.

    Args:
        train: of the epoch itself.
        sent: bytes that leave each process, and each machine's network, whose processes form one ring.
        network: transfer by bandwidth in Gbit/s.
        device: from the device to the host.
        host: work of every process at the epoch's boundary.
        dealing: work of every process while it trains.
        node_rest: bytes of a machine, between epochs.
        node_peak: at most.
        checkpoint: to write one.
    """

    train: float
    sent: int
    network: dict[float, float]
    device: float
    host: float
    dealing: float
    node_rest: float
    node_peak: float
    checkpoint: float

    def boundary_share(self, bandwidth: float) -> float:
        """Of the epoch's time that its boundary adds."""
        return (self.network[bandwidth] + self.device + self.host) / self.train


def simulate(size: int, ranks: int, constants: Constants, bandwidths: tuple[float, ...] = (25.0, 100.0)) -> Epoch:
    """One epoch of N samples on R processes."""
    kept = constants.kept * size
    sent = sent_bytes(size, ranks, constants)
    pieces = 2 + math.ceil(8 * kept / 2**28) if ranks > 1 else 0
    hops = pieces * (ranks - 1) * constants.hop * 1e-6
    here = min(ranks, constants.per_node)
    return Epoch(
        train=kept / (ranks * constants.rate),
        sent=sent,
        network={each: hops + 8 * sent / (each * 1e9) for each in bandwidths},
        device=8 * kept / (constants.device_copy * 1e9),
        host=1e-9 * constants.host_ns * size,
        dealing=1e-9 * constants.deal * kept,
        node_rest=here * constants.rest_bytes * size,
        node_peak=here * constants.peak_bytes * size,
        checkpoint=1e-9 * constants.checkpoint * size,
    )


def visible_from(constants: Constants, bandwidth: float = 25.0) -> dict[str, float]:
    """Where the costs stop being invisible.

    Returns:
        "ranks": processes from which the boundary takes more than 1 % of an epoch of any size, and "ranks dealing" the
        same for dealing; "samples": N from which a full machine holds more than 1 GiB at its peak.
    """
    kept_ns = constants.host_ns / constants.kept + 8 / constants.device_copy + 64 / bandwidth
    return {
        "ranks": VISIBLE_SHARE / (1e-9 * kept_ns * constants.rate),
        "ranks dealing": VISIBLE_SHARE / (1e-9 * constants.deal * constants.rate),
        "samples": VISIBLE_BYTES / (constants.per_node * constants.peak_bytes),
    }


def from_measurement(result: dict[str, Any], **changed: Any) -> Constants:
    """The constants in what `tests.benchmarks.processes` wrote, processor time at its largest size."""
    row = result["rows"][-1]
    seconds = {part: statistics.median(each) for part, each in row["cpu_seconds"].items()}
    per_sample = {part: 1e9 * each / row["samples"] for part, each in seconds.items()}
    kept = row["kept"] / row["samples"]
    found = {
        "merge": (per_sample["merge"] - per_sample["bare"]) / kept,
        "fold": per_sample["fold"] / kept,
        "check": per_sample["check"],
        "plan": per_sample["plan"],
        "order": per_sample["order"] / kept,
        "checkpoint": per_sample["checkpoint"],
        "deal": result["dealing_ns"]["ours"],
        "rest_bytes": result["memory"]["at rest"],
        "peak_bytes": max(result["memory"].values()),
        "checkpoint_bytes": row["checkpoint_bytes"] / row["samples"],
        "kept": kept,
    }
    return Constants(**{name: round(value, 2) for name, value in found.items()} | changed)


def table(constants: Constants, bandwidths: tuple[float, ...] = (25.0, 100.0)) -> str:
    """Markdown."""
    head = [
        "samples",
        "processes",
        "epoch",
        "sent per process",
        *(f"transfer at {each:g} Gbit/s" for each in bandwidths),
    ]
    head += ["host work", "boundary, of the epoch", "dealing", "memory of a node: rest, peak", "a checkpoint"]
    rows = []
    for size in SIZES:
        for ranks in RANKS:
            epoch = simulate(size, ranks, constants, bandwidths)
            shares = [epoch.boundary_share(each) for each in bandwidths]
            rows.append(
                [
                    f"{size / 1e6:,g} M",
                    f"{ranks:,}",
                    seconds(epoch.train),
                    amount(epoch.sent),
                    *(seconds(each + epoch.device) if ranks > 1 else "" for each in epoch.network.values()),
                    seconds(epoch.host),
                    percent(max(shares)),
                    percent(epoch.dealing / epoch.train),
                    f"{amount(epoch.node_rest)}, {amount(epoch.node_peak)}",
                    f"{amount(constants.checkpoint_bytes * size)}, {seconds(epoch.checkpoint)}",
                ]
            )
    return markdown_table(head, rows, text_columns=0)


def percent(share: float) -> str:
    """Two digits."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def seconds(value: float) -> str:
    """With a unit that reads well."""
    for unit, factor in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if value >= factor * (2 if factor > 1 else 1):
            return f"{value / factor:,.3g} {unit}"
    return f"{1000 * value:.0f} ms"


def amount(value: float) -> str:
    """Bytes with a unit."""
    for unit in ("B", "KB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} GB"


def main() -> None:
    """Print constants, table and thresholds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="what tests.benchmarks.processes wrote")
    for field in dataclasses.fields(Constants):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default))
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    file = given.pop("json", None)
    constants = from_measurement(json.loads(file.read_text()), **given) if file else Constants(**given)
    limits = visible_from(constants)
    print(
        ", ".join(f"{name} {value:g}" for name, value in dataclasses.asdict(constants).items()),
        table(constants),
        f"More than 1 % of an epoch of any size: the boundary from {limits['ranks']:,.0f} processes on, dealing from "
        f"{limits['ranks dealing']:,.0f}. More than 1 GiB on a node: from {limits['samples'] / 1e6:,.2f} M samples on.",
        sep="\n\n",
    )


if __name__ == "__main__":
    main()
