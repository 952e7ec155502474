"""The command `hf-dynprune methods`: how methods and selectors are printed."""

from __future__ import annotations

import typer

from ..decisions.registry import list_policies
from ..docs_pages.methods import describe_method
from ..selectors.contract import get_selector, list_selectors


def methods() -> None:
    """List methods and selectors: what each keeps, whether it claims to be unbiased, its extra cost, its paper."""
    for method in map(describe_method, list_policies()):
        typer.echo(f"{method.name}: {method.summary}")
        _echo_claims(method.unbiased_claim, method.cost, method.reference)
    typer.echo("\nSelectors, which choose inside each batch (`prune_selector`):\n")
    for name in list_selectors():
        selector = get_selector(name)
        typer.echo(f"{name}: {(selector.__doc__ or '').strip().splitlines()[0].removesuffix('.')}")
        cost = "a forward pass, without gradient, of every candidate"
        _echo_claims("yes" if selector.unbiased else "no", cost, selector.reference)


def _echo_claims(unbiased: str, cost: str, source: str) -> None:
    for label, text in (("unbiased", unbiased), ("cost", cost), ("source", source)):
        typer.echo(f"    {label + ':':10}{text.removesuffix('.')}")
