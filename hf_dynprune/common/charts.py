"""What all charts share: the palette, a figure without a window, plain axes.

Matplotlib is imported when one is drawn. Where it is missing, commands leave their pictures out and say so.
"""

from __future__ import annotations

from collections.abc import Callable
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


def why_no_pictures() -> str:
    """What a command says where matplotlib is missing, on the terminal and in what it writes; else an empty text."""
    try:
        require("matplotlib", "No pictures, since matplotlib is missing")
    except ImportError as error:
        return str(error)
    return ""


def ink() -> str:
    """The colour of letters, for lines of that colour: it differs on dark pages."""
    import matplotlib

    return str(matplotlib.rcParams["text.color"])


def ground() -> str:
    """The colour behind the picture, for what is to look empty."""
    import matplotlib

    return str(matplotlib.rcParams["figure.facecolor"])


def new_figure(width: float, height: float, dpi: int, needs: str = "The picture needs matplotlib") -> Figure:
    """An empty figure, in inches and dots per inch, that no window shows and that need not be closed.

    `needs` is for the message where matplotlib is missing, see `require`. `pyplot` is not used.
    """
    require("matplotlib", needs)
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def bare(axes: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """Give the axes a light grid, and remove their frame above and to the right."""
    axes.grid(axis=grid, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """Add a legend of these axes below all axes of the figure, where it covers nothing."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False)


def whole_numbers(axes: Axes) -> None:
    """Put the ticks of the x axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


def draw_if_possible(file: Path, draw: Callable[[Path], object]) -> bool:
    """Let `draw` write the picture, and return whether it could.

    Without matplotlib a picture that an earlier call left there is removed: it may be of other runs.
    """
    if why_no_pictures():
        file.unlink(missing_ok=True)
        return False
    draw(file)
    return True


def save_picture(figure: Figure, file: Path) -> None:
    """Save the figure in the format that the file's ending names; a missing folder is created."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
