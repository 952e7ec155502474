"""What the docs say about each method, read off its class: `docs/methods.md`.

The class is the only source. Its docstring gives the line that says what is kept and the meaning of its parameters, its
fields their defaults, its attributes the claims, and the docstring of its file everything else: paragraphs and
equations, a line each that begins with "When to use:", "Flags:" and "Cost:", and last the one that begins with
"Source:". What a method does not say is "not stated"; nothing is required of it.

`make methods` writes the files, and `docs/flags.md` beside them; a test compares them with what is written here.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.tables import page_table, with_links
from ..decisions.policy import PruningPolicy
from ..decisions.registry import get_policy, list_policies
from ..selectors.contract import get_selector

NOT_STATED = "not stated"
LABELS = {"when to use": "when", "flags": "flags", "cost": "cost", "source": "source", "sources": "source"}

INTRODUCTION = """# Methods

Every pruning method: its rule, parameters, cost and source, from its class (`make methods` writes this page).
`prune_method` takes the name and `prune_kwargs` the parameters ([which one to choose](choosing.md)).

A kept sample's loss is multiplied by its weight w; p is the probability that the sample is kept. A method is
**unbiased** where w p = 1 and p > 0 for every sample. The weighted sum of an epoch's losses is then, on average over
the draws, that of the full data. So is the sum of the gradients while the model stands still. Optimizers that rescale
steps change this ([Loss](how_it_works.md#loss)). "Yes" and "no" are for the default parameters.

A sample is **scored** once it has a finite loss. Methods that read scores keep all others, so their
first epoch is full.
"""


@dataclass(frozen=True)
class Parameter:
    """One field of a policy: its default as Python code or "required", and its meaning from the class docstring."""

    name: str
    default: str
    meaning: str


@dataclass(frozen=True)
class MethodDescription:
    """What a method's class says of itself, in Markdown. `NOT_STATED` where it is silent.

    Args:
        name: registered name.
        class_name: of the policy.
        summary: what an epoch keeps, in one line.
        unbiased: "yes" or "no" with the default parameters, or "depends on its parameters".
        claim: what that depends on, or why; may be empty.
        cost: beside the training itself.
        reference: the paper.
        when: when to use it.
        flags: an example of the command line.
        rule: paragraphs and equations.
        source: source, and where the authors' code differs.
        holds: how long a selection holds.
        parameters: in the order of the fields.
        remarks: what the class docstring says beside its parameters; may be empty.
    """

    name: str
    class_name: str
    summary: str
    unbiased: str
    claim: str
    cost: str
    reference: str
    when: str
    flags: str
    rule: str
    source: str
    holds: str
    parameters: tuple[Parameter, ...]
    remarks: str

    @property
    def unbiased_claim(self) -> str:
        """Whether the method is unbiased, and what that depends on, in one phrase."""
        joint = ";" if ":" in self.claim else ":"
        return f"{self.unbiased}{joint} {self.claim}" if self.claim else self.unbiased


def describe_method(name: str) -> MethodDescription:
    """What a registered method's class says of itself.

    Examples:
        >>> describe_method("random").unbiased, describe_method("random").parameters[0].default
        ('no', 'required')
    """
    cls = get_policy(name)
    module = inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "")
    own = inspect.cleandoc(_class_doc(cls))
    sections = _sections(module)
    # The class may say it too, and counts first: one module may hold several methods.
    sections |= {key: text for key, text in _sections(own).items() if key != "rule"}
    unbiased, claim = _claim(cls)
    remarks, meanings = _arguments(own.partition("\n\n")[2])
    return MethodDescription(
        name=name,
        class_name=cls.__name__,
        summary=_joined(own.partition("\n\n")[0]) or NOT_STATED,
        unbiased=unbiased,
        claim=claim,
        cost=sections.get("cost", NOT_STATED),
        reference=cls.reference or NOT_STATED,
        when=sections.get("when", NOT_STATED),
        flags=sections.get("flags", NOT_STATED),
        rule=sections["rule"],
        source=sections.get("source", cls.reference or NOT_STATED),
        holds=_holds(cls),
        parameters=tuple(
            Parameter(field.name, _default(field), meanings.get(field.name, NOT_STATED))
            for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        ),
        remarks=remarks,
    )


def describe_selector(name: str) -> MethodDescription:
    """What a registered selector's class says of itself."""
    cls = get_selector(name)
    own = inspect.cleandoc(_class_doc(cls))
    sections = _sections(inspect.cleandoc(sys.modules[cls.__module__].__doc__ or ""))
    remarks, meanings = _arguments(own.partition("\n\n")[2])
    return MethodDescription(
        name=name,
        class_name=cls.__name__,
        summary=_joined(own.partition("\n\n")[0]) or NOT_STATED,
        unbiased="yes" if cls.unbiased else "no",
        claim="",
        cost="a forward pass, without gradient, of every candidate",
        reference=cls.reference or NOT_STATED,
        when=sections.get("when", ""),
        rule=sections["rule"],
        source=sections.get("source", cls.reference or NOT_STATED),
        holds="anew in every batch",
        parameters=tuple(
            Parameter(field.name, _default(field), meanings.get(field.name, NOT_STATED))
            for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        ),
        remarks=remarks,
        flags=f"`--prune_selector {name}`",
    )


def methods_table() -> str:
    """The short table of all methods, with links to their sections."""
    rows = []
    for method in map(describe_method, list_policies()):
        link = f"[`{method.name}`](#{method.name})"
        rows.append((link, method.summary, method.unbiased))
    return _table(("`prune_method`", "An epoch keeps", "Unbiased"), rows) + "\n"


def methods_page() -> str:
    """The content of `docs/methods.md`: the short table, then a section per method."""
    return "\n".join([INTRODUCTION, methods_table(), *map(_card, map(describe_method, list_policies()))])


def write_docs(root: Path) -> list[Path]:
    """Write `docs/methods.md` and `docs/flags.md` under `root`; the files that were out of date."""
    from .flags import flags_page  # needs transformers, which the list of methods does not

    texts = {root / "docs" / "methods.md": methods_page(), root / "docs" / "flags.md": flags_page()}
    stale = [file for file, text in texts.items() if not file.exists() or file.read_text(encoding="utf-8") != text]
    for file in stale:
        file.write_text(texts[file], encoding="utf-8")
    return stale


def _card(method: MethodDescription) -> str:
    facts = {
        "When to use": method.when,
        "Flags": method.flags,
        "Unbiased": method.unbiased_claim,
        "Extra cost": method.cost,
        "Selection": method.holds,
    }
    lines = [f"## {method.name}", "", f"{method.summary.removesuffix('.')} (`{method.class_name}`).", ""]
    lines += _items({f"**{label}:**": text for label, text in facts.items()})
    if method.rule:
        lines += ["", method.rule]
    if method.parameters:
        defaults = {f"`{each.name}` ({each.default}):": each.meaning for each in method.parameters}
        lines += ["", "Parameters (defaults):", "", *_items(defaults)]
    else:
        lines += ["", "It has no parameters."]
    if method.remarks:
        lines += ["", method.remarks]
    return "\n".join([*lines, "", f"**Source.** {with_links(method.source)}", ""])


def _items(texts: Mapping[str, str]) -> list[str]:
    """A list, each item with its label."""
    return [f"- {label} {text.removesuffix('.')}." for label, text in texts.items()]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The period that ends a docstring's sentence is dropped where it ends a cell."""
    return page_table(head, [[cell.removesuffix(".") for cell in row] for row in rows])


def _class_doc(cls: type) -> str:
    """The class's own docstring. The one that `dataclass` makes up, the signature, says nothing."""
    doc = vars(cls).get("__doc__") or ""
    return "" if doc.startswith(f"{cls.__name__}(") else doc


def _sections(doc: str) -> dict[str, str]:
    """Labelled lines by label, and under "rule" the paragraphs between the first line and the source."""
    found: dict[str, str] = {}
    rule: list[str] = []
    for paragraph in doc.split("\n\n")[1:]:
        # A label takes the lines up to the next one or the end of the paragraph; the source takes all that follows.
        label, free = "source" if "source" in found else None, []
        for line in paragraph.splitlines():
            head, colon, rest = line.partition(": ")
            if colon and head.lower() in LABELS:
                label = LABELS[head.lower()]
                found[label] = rest
            elif label is None:
                free.append(line)
            else:
                found[label] = f"{found.get(label, '')} {line.strip()}".strip()
        if free:
            rule.append(_paragraph(free))
    return {**found, "rule": "\n\n".join(rule)}


def _paragraph(lines: list[str]) -> str:
    """Prose in one line; indented lines, which are equations, as a block."""
    if all(line.startswith("    ") for line in lines):
        return "\n".join(["```text", *(line[4:] for line in lines), "```"])
    return _joined("\n".join(lines))


def _joined(text: str) -> str:
    return " ".join(text.split())


def _arguments(doc: str) -> tuple[str, dict[str, str]]:
    """(paragraphs beside the sections, meaning by parameter) of a docstring without its first line."""
    remarks: list[str] = []
    meanings: dict[str, str] = {}
    for block in doc.split("\n\n"):
        lines = block.splitlines()
        if not lines or lines[0].startswith(" ") or re.fullmatch(r"[A-Z]\w+:", lines[0]):
            if lines and lines[0] == "Args:":
                entries = re.split(r"^ {4}(?! )", "\n".join(lines[1:]), flags=re.MULTILINE)
                pairs = (entry.partition(": ") for entry in entries if ": " in entry)
                meanings = {name: _joined(text) for name, _, text in pairs}
        elif lines[0].partition(": ")[0].lower() not in LABELS:
            remarks.append(_joined(block))
    return "\n\n".join(remarks), meanings


def _of_defaults(cls: type[PruningPolicy], name: str) -> Any:
    """A property of the class with its default parameters, or None where it also needs one that has no default.

    The object is made without its constructor, which would ask for those: most claims do not depend on them.
    """
    policy = object.__new__(cls)
    try:
        return getattr(policy, name)
    except Exception:  # whatever a property of someone else's raises on an object without its fields
        return None


def _claim(cls: type[PruningPolicy]) -> tuple[str, str]:
    """(yes, no or neither, the docstring of its `unbiased`)."""
    own = inspect.getattr_static(cls, "unbiased")
    said = own.__doc__ if isinstance(own, property) and own is not vars(PruningPolicy)["unbiased"] else ""
    claim = _of_defaults(cls, "unbiased")
    text = "depends on its parameters" if claim is None else "yes" if claim else "no"
    return text, _lower(_joined(said or "").removesuffix("."))


def _lower(text: str) -> str:
    """The text with a small first letter, for the middle of a sentence."""
    return text[:1].lower() + text[1:]


def _holds(cls: type[PruningPolicy]) -> str:
    period = _of_defaults(cls, "period")
    is_parameter = "period" in {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if is_parameter:
        return "anew every `period` epochs"
    if period is None:
        return "once, for the whole run"
    return "anew in every epoch" if period == 1 else f"anew every {period} epochs"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    return "required" if field.default_factory is dataclasses.MISSING else f"`{field.default_factory()!r}`"


if __name__ == "__main__":
    for changed in write_docs(Path.cwd()):
        print(f"written: {changed.relative_to(Path.cwd())}")
