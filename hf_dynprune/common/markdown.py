"""Text from files, data sets and users inside Markdown: it is shown as it is, and never read as marks or HTML."""

from __future__ import annotations

import re


def marked(text: str) -> str:
    r"""Text on one line, with all that Markdown or HTML would interpret escaped, but for code between single backticks.

    Examples:
        >>> print(marked("a*b <i> `x_1 | y` and ``` alone"))
        a\*b \<i\> `x_1 \| y` and \`\`\` alone
    """
    pieces = re.split(r"(?<!`)(`[^`]+`)(?!`)", " ".join(text.split()))
    return "".join(
        piece.replace("|", r"\|") if number % 2 else re.sub(r"([\\*_<>\[\]|`~$]|&(?=#|\w+;))", r"\\\1", piece)
        for number, piece in enumerate(pieces)
    )


def code_span(text: str) -> str:
    """Text on one line as code, between more backticks than are in it.

    Examples:
        >>> code_span("infobatch"), code_span("a``b"), code_span("`")
        ('`infobatch`', '```a``b```', '`` ` ``')
    """
    line = " ".join(text.split())
    fence = "`" * (_longest(line) + 1)
    needs_blanks = not line or line[0] == "`" or line[-1] == "`"
    return f"{fence} {line} {fence}" if needs_blanks else f"{fence}{line}{fence}"


def code_block(text: str, language: str) -> str:
    """Lines of code, between more backticks than are in them.

    Examples:
        >>> print(code_block("a = 1", "python"))
        ```python
        a = 1
        ```
    """
    fence = "`" * max(3, _longest(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _longest(text: str) -> int:
    """Length of the longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
