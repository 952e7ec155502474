"""Packages that only some parts need, and what to install where one is missing."""

from __future__ import annotations

from importlib import import_module


def require(module: str, needs: str, extra: str = "quickstart") -> None:
    """Raise an ImportError unless the module can be imported.

    The message is `needs`, then how to install the `extra` of this package that brings the module.

    Example:
        >>> require("json", "The report needs json")
        >>> require("not_there", "The report needs not_there")
        Traceback (most recent call last):
        ImportError: The report needs not_there: pip install "hf_dynprune[quickstart]".
    """
    try:
        import_module(module)
    except ImportError as error:
        raise ImportError(f'{needs}: pip install "hf_dynprune[{extra}]".') from error
