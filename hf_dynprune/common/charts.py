"""What all charts share: the palette, a figure without a window, bare axes. Matplotlib is imported as one is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = (("#000000", "o"), ("#E69F00", "s"), ("#0072B2", "^"), ("#009E73", "D"), ("#D55E00", "v"), ("#CC79A7", "P"))
"""Colours that colour-blind readers tell apart (Okabe and Ito), each with a marker of its own."""
BLACK, ORANGE, BLUE, GREEN, RED, PINK = (color for color, _ in STYLES)
SKY, GREY = "#56B4E9", "#999999"
"""Two more, where six are too few."""


def new_figure(
    width: float,
    height: float,
    dpi: int,
    needs: str = "The picture needs matplotlib",
    extra: str = "quickstart",
) -> Figure:
    """An empty figure that no window shows and that need not be closed: `pyplot` has no part in it.

    Args:
        width: in inches.
        height: in inches.
        dpi: pixels per inch.
        needs: the beginning of the message where matplotlib is missing.
        extra: of this package, that installs it.

    Raises:
        ImportError: matplotlib is not installed.
    """
    require("matplotlib", needs, extra)
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def bare(axes: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """A light grid, and no frame above and to the right."""
    axes.grid(axis=grid, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """What the axes show by name, below all axes, where it hides nothing."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False)


def whole_numbers(axes: Axes) -> None:
    """Ticks of the x axis at whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def save_picture(figure: Figure, file: Path) -> None:
    """As a file of the kind that its name says; its folder is made where missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
