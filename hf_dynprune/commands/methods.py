"""The command `hf-dynprune methods`: how methods and selectors are printed, all of them or one."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from ..common.console import fitted
from ..common.words import did_you_mean
from ..decisions.registry import list_policies
from ..docs_pages.methods import MethodDescription, describe_method, describe_selector
from ..selectors.contract import list_selectors
from .common import one_line_errors

START_WITH = """\
What to start with:
  - Train shorter first: set `num_train_epochs` lower. It is often as good as pruning.
  - To prune: `--prune_method auto --prune_target_saving 0.5`. It saves this share of the steps, and leaves \
samples out only while the run shows that this pays.
  - To measure what a method does on your own task: `hf-dynprune compare`.
More on one method: `hf-dynprune methods NAME`."""

Name = Annotated[
    str | None,
    typer.Argument(help="A method or selector to describe in full. Without it: the list.", show_default=False),
]


def methods(name: Name = None) -> None:
    """List methods and selectors, and what to start with; with a NAME, all about one: rule, parameters, example."""
    with one_line_errors():
        if name is None:
            _list_all()
        else:
            _describe(name)


# ---- All ----


def _list_all() -> None:
    _echo_lines(START_WITH)
    typer.echo()
    for method in map(describe_method, list_policies()):
        _echo_head(f"{method.name}: {method.summary}")
        _echo_claims(method.unbiased_claim, method.cost, method.reference)
    typer.echo("\nSelectors, which choose inside each batch (`prune_selector`):\n")
    for selector in map(describe_selector, list_selectors()):
        _echo_head(f"{selector.name}: {selector.summary.removesuffix('.')}")
        _echo_claims(selector.unbiased, selector.cost, selector.reference)


def _echo_claims(unbiased: str, cost: str, source: str) -> None:
    for label, text in (("unbiased", unbiased), ("cost", cost), ("source", source)):
        _echo_field(label, text.removesuffix("."), 10)


# ---- One ----


def _describe(name: str) -> None:
    """Print a method, a selector, or both where they share the name."""
    _refuse_unknown(name)
    if name in list_policies():
        method = describe_method(name)
        _echo_card(method, "prune_kwargs")
        _echo_field("example", "python train.py " + method.flags.strip("`"), 16)
    if name in list_selectors():
        if name in list_policies():
            typer.echo("\nThe selector of this name, which chooses inside each batch:\n")
        selector = describe_selector(name)
        _echo_card(selector, "prune_selector_kwargs")
        _echo_field("example", f"python train.py --prune_selector {name}", 16)


def _refuse_unknown(name: str) -> None:
    methods, selectors = list_policies(), list_selectors()
    if name in methods or name in selectors:
        return
    hint = did_you_mean(name, [*methods, *selectors])
    known = f"Known methods: {', '.join(methods)}. Known selectors: {', '.join(selectors)}."
    raise ValueError(f"Unknown method or selector {name!r}.{hint} {known}")


def _echo_card(method: MethodDescription, flag: str) -> None:
    _echo_head(f"{method.name}: {method.summary}")
    typer.echo()
    fields = {
        "when to use": method.when,
        "unbiased": method.unbiased_claim,
        "cost": method.cost,
        "selection": method.holds,
        "source": method.reference,
    }
    for label, text in fields.items():
        if text:
            _echo_field(label, text.removesuffix("."), 16)
    if method.rule:
        typer.echo("\nRule:\n")
        _echo_rule(method.rule)
    typer.echo(f"\nParameters (`{flag}`):\n" if method.parameters else "\nIt has no parameters.")
    for each in method.parameters:
        default = each.default.strip("`")
        _echo_field(each.name, f"{'' if default == 'required' else 'default '}{default}. {each.meaning}", 16)
    typer.echo()


def _echo_rule(rule: str) -> None:
    """Paragraphs broken between words; equations, which are blocks of code, as they are."""
    for number, part in enumerate(rule.split("```")):
        for block in part.removeprefix("text").strip("\n").split("\n\n"):
            if block.strip():
                _echo_lines(
                    textwrap.indent(block, "    ") if number % 2 else textwrap.indent(block, "  "), number % 2 == 1
                )


# ---- Lines ----


def _echo_lines(text: str, as_is: bool = False) -> None:
    """Lines, each broken at the width of the terminal and indented as it begins."""
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip(" -")))
        typer.echo(line if as_is else fitted(line, indent))


def _echo_head(text: str) -> None:
    typer.echo(fitted(text, "    "))


def _echo_field(label: str, text: str, width: int) -> None:
    typer.echo(fitted(f"    {label + ':':{width}}{'' if len(label) < width - 1 else ' '}{text}", " " * (4 + width)))
