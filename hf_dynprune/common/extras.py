"""Packages that only some parts need, and what to install where one is missing."""

from __future__ import annotations

from importlib import import_module

PACKAGES = {"PIL": "pillow", "sklearn": "scikit-learn"}
"""Names of packages on PyPI, where they differ from what is imported."""


def require(module: str, needs: str) -> None:
    """Raise an ImportError unless the module can be imported.

    The message is `needs`, then how to install the package that brings the module.

    Examples:
        >>> require("json", "The report needs json")
        >>> require("not_there", "The report needs not_there")
        Traceback (most recent call last):
        ImportError: The report needs not_there: pip install not_there
    """
    try:
        import_module(module)
    except ImportError as error:
        raise ImportError(f"{needs}: pip install {distribution_of(module)}") from error


def distribution_of(module: str) -> str:
    """The package on PyPI that a module comes with.

    Examples:
        >>> distribution_of("sklearn.datasets")
        'scikit-learn'
    """
    name = module.partition(".")[0]
    return PACKAGES.get(name, name)
