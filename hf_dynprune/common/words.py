"""Numbers and nouns in lines that people read: "1 epoch", "1,004 samples", "1, 2 and 3"."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

_HISSING = ("s", "x", "tch", "sh")
"""Nouns that end so take "es": class, box, batch, wish; epoch does not."""


def counted(number: float, noun: str) -> str:
    """A number and its noun, which is singular for 1 alone. Words before the last one stay: "forward passes".

    Examples:
        >>> counted(1, "epoch"), counted(1437, "sample"), counted(0, "forward pass"), counted(0.5, "epoch")
        ('1 epoch', '1,437 samples', '0 forward passes', '0.5 epochs')
    """
    shown = f"{int(number):,}" if float(number).is_integer() else f"{number:,g}"
    return f"{shown} {agree(number, noun, noun + ('es' if noun.endswith(_HISSING) else 's'))}"


def agree(number: float, one: str, many: str) -> str:
    """The word that goes with a number: `one` with 1, else `many`.

    Examples:
        >>> agree(1, "is", "are"), agree(2, "is", "are")
        ('is', 'are')
    """
    return one if number == 1 else many


def listed(words: Sequence[str]) -> str:
    """Words in a sentence.

    Examples:
        >>> listed(["1"]), listed(["1", "2"]), listed(["1", "2", "3"])
        ('1', '1 and 2', '1, 2 and 3')
    """
    return " and ".join([", ".join(words[:-1]), *words[-1:]] if len(words) > 1 else words)


def fixed(value: float, form: str = ".1f") -> str:
    """A number with fixed decimals; one that rounds to zero is never negative.

    Examples:
        >>> fixed(-0.04), fixed(-0.06), fixed(0.04, "+.1f"), fixed(-0.04, "+.1f")
        ('0.0', '-0.1', '+0.0', '+0.0')
    """
    text = f"{value:{form}}"
    return text if text.strip("-0.,") else f"{0.0:{form}}"


def times(ratio: float) -> str:
    """A ratio with two digits that count, and none behind the point from 10 on.

    Examples:
        >>> times(0.953), times(1.26), times(11.76), times(-123.4)
        ('0.95', '1.3', '12', '-123')
    """
    return f"{ratio:.0f}" if abs(ratio) >= 10 else fixed(ratio, ".1f" if abs(ratio) >= 1 else ".2f")


def did_you_mean(name: str, known: Collection[str]) -> str:
    """A question, after a space, with the known name that is nearest; empty where none is near.

    Examples:
        >>> did_you_mean("infobach", ["infobatch", "ucb"]), did_you_mean("xy", ["infobatch"])
        (" Did you mean 'infobatch'?", '')
    """
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def seconds(value: float) -> str:
    """A number of seconds with as many decimals as small ones need.

    Examples:
        >>> seconds(1234.56), seconds(0.5), seconds(0.046), seconds(0.0042), seconds(0.0), seconds(1e-6)
        ('1,234.6', '0.50', '0.05', '0.004', '0.0', 'below 0.001')
    """
    if not value or abs(value) >= 1:
        return f"{value:,.1f}"
    if abs(value) < 0.001:
        return "below 0.001"
    return f"{value:.2f}" if abs(value) >= 0.01 else f"{value:.3f}"
