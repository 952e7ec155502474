"""Names of classes by id, for data sets that have them."""

from __future__ import annotations

from collections import Counter


class ClassNames:
    """What data sets with named classes share; `classes` holds the name of each class id from 0."""

    classes: tuple[str, ...]

    @property
    def id2label(self) -> dict[int, str]:
        """Class names by class id, as model configs take them."""
        return dict(enumerate(self.classes))

    @property
    def label2id(self) -> dict[str, int]:
        """Class ids by class name."""
        return {name: number for number, name in self.id2label.items()}

    def check_names(self) -> None:
        """Raise a ValueError where two classes have one name."""
        twice = sorted(name for name, count in Counter(self.classes).items() if count > 1)
        if twice:
            raise ValueError(f"Each of `classes` needs a name of its own, these are there twice: {', '.join(twice)}.")
