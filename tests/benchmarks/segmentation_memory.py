"""Peak memory of the segmentation loss, forward and backward, against the stock model's, at ADE20K's size.

    python -m tests.benchmarks.segmentation_memory

Logits of 4 images and 150 classes at a quarter of 512 x 512, as SegFormer gives them; then at full size, as UPerNet
does. Each measurement is a process of its own: the most memory the process ever held, less what it held before the
loss, and what is kept between the two passes. On a CUDA device torch's own counters are read.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import torch
from torch.nn import functional

from hf_dynprune.losses import segmentation

BATCH, CLASSES, SIDE = 4, 150, 512
WAYS = ("stock", "ours, whole batch at once", "ours")
MIB = 2**20


def stock_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """What `SegformerForSemanticSegmentation` and its like compute from logits and labels."""
    upsampled = functional.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return functional.cross_entropy(upsampled, labels, ignore_index=255)


def our_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same number from losses of pixels."""
    return segmentation.pixel_losses(logits, labels).sum() / labels.ne(255).sum()


class Meter:
    """Memory in bytes: held now, and the most ever held."""

    def __init__(self, device: str) -> None:
        self.is_cuda = device == "cuda"

    def now(self) -> int:
        """Held now."""
        if self.is_cuda:
            torch.cuda.synchronize()
            return torch.cuda.memory_allocated()
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    def peak(self) -> int:
        """The most held since the process began."""
        if self.is_cuda:
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(way: str, side: int, device: str) -> dict[str, Any]:
    """One forward and one backward pass of the loss in this process."""
    torch.manual_seed(0)
    labels = torch.randint(0, CLASSES, (BATCH, SIDE, SIDE), device=device)
    labels[:, :50] = 255
    logits = torch.randn(BATCH, CLASSES, side, side, device=device, requires_grad=True)
    small = logits[:1, :2, :4, :4].detach().requires_grad_()
    loss_of = stock_loss if way == "stock" else our_loss
    loss_of(small, labels[:1, :8, :8].clamp(max=1)).backward()  # loads what both passes need
    if way == "ours, whole batch at once":
        segmentation.WHOLE_BATCH = 2**62
    meter = Meter(device)
    before, began = meter.now(), time.perf_counter()
    loss = loss_of(logits, labels)
    between = meter.now() - before
    loss.backward()
    seconds = meter.now() and time.perf_counter() - began
    assert logits.grad is not None
    return {
        "loss": loss.item(),
        "gradient": logits.grad.double().norm().item(),
        "between": between,
        "peak": meter.peak() - before,
        "seconds": seconds,
    }


def measure_apart(way: str, side: int, device: str) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.segmentation_memory", "--one", way, "--side", str(side)]
    done = subprocess.run([*command, "--device", device], capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.side, given.device)))
        return
    print(f"{BATCH} x {CLASSES} x {SIDE} x {SIDE} on {given.device}, torch {torch.__version__}, MiB")
    print("| logits | loss | kept between the passes | peak | seconds | loss value | gradient norm |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for side in (SIDE // 4, SIDE):
        for way in WAYS:
            r = measure_apart(way, side, given.device)
            memory = f"{r['between'] / MIB:.0f} | {r['peak'] / MIB:.0f} | {r['seconds']:.2f}"
            print(f"| {side} x {side} | {way} | {memory} | {r['loss']:.6f} | {r['gradient']:.6e} |", flush=True)


if __name__ == "__main__":
    main()
