"""A profile: what every channel does for every class, as statistics that add up."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from graft.rewriter.arrays import Table
from graft.rewriter.card.card import OTHER
from graft.rewriter.errors import GraftError
from graft.rewriter.files import writing

FORMAT = "graft/profile/1"


@dataclass(frozen=True)
class Statistic:
    """A figure of one position of a channel axis for one sample, and how figures of samples merge.

    Attributes:
        name: key in files.
        meaning: what it is, averaged over the other axes of the tensor (space, time).
        merge: how tables of two profiles become one; ``sum`` is all there is so far.
    """

    name: str
    meaning: str
    merge: str = "sum"

    @property
    def by_step(self) -> Statistic:
        """The same of every time step apart, step after step in a row."""
        return replace(self, name=f"{self.name}@step", meaning=f"{self.meaning}, at every time step")


ACTIVE = Statistic("active", "share of positions with a value above zero")
SUM = Statistic("sum", "mean value")
SQUARES = Statistic("squares", "mean squared value")
PRODUCTS = Statistic("products", "mean product of the values at two positions, row by row")


@dataclass(frozen=True)
class Profile:
    """Per-class statistics of the tensors of one parent.

    Attributes:
        parent: graph hash of the parent.
        data: fingerprint of the data it was made from, with the split.
        classes: names of the rows; the last may be ``(other)``, all classes not asked for together.
        counts: int64 (classes,), samples a row.
        correct: int64 (classes,), samples that the parent had right.
        tables: statistic name to tensor name to float64 (classes, positions of the channel axis): the
            sum over the samples of the class. Of recurrent layers also by time step: (classes, steps *
            positions).
        steps: int64 (classes, steps), the labels of each class at each time step, where every step has one.
    """

    parent: str
    data: str
    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    correct: NDArray[np.int64]
    tables: dict[str, dict[str, Table]] = field(default_factory=dict)
    steps: NDArray[np.int64] | None = None

    def has(self, statistic: Statistic, tensor: str, positions: int) -> bool:
        """Whether ``statistic`` of ``tensor`` was recorded, for an axis of so many positions.

        Behind a head that kept some classes only, tensors of the parent's name can be narrower.
        """
        table = self.tables.get(statistic.name, {}).get(tensor)
        columns = positions**2 if statistic is PRODUCTS else positions
        return table is not None and table.shape[1] == columns

    def mean(self, statistic: Statistic, tensor: str, classes: Sequence[str] | None = None) -> Table:
        """Mean over samples, every class (of ``classes``, default all) weighing the same: (positions,)."""
        rows = [row for row in self.rows(classes) if self.counts[row]]
        if not rows:
            raise GraftError(
                "profile-class",
                f"the profile holds no sample of {', '.join(classes or self.classes)}",
                "profile again with samples of it",
            )
        table = self.tables[statistic.name][tensor][rows]
        result: Table = (table / self.counts[rows][:, None]).mean(axis=0)
        return result

    def over_time(self, statistic: Statistic, tensor: str, name: str) -> Table:
        """Mean over the samples of one class, at every time step: (steps, positions).

        NaN where no sample has the class at that step.

        Raises:
            GraftError: the profile does not tell the class, or steps of the tensor, apart.
        """
        (row,) = self.rows([name])
        table = self.tables.get(statistic.by_step.name, {}).get(tensor)
        if table is None:
            known = ", ".join(self.tables.get(statistic.by_step.name, {})) or "none"
            raise GraftError(
                "profile-step", f"no time steps of {tensor} were recorded", f"there are: {known}"
            )
        pooled = self.tables[statistic.name][tensor]
        steps = table.shape[1] // pooled.shape[1]
        counts = self.steps[row] if self.steps is not None else np.repeat(self.counts[row], steps)
        with np.errstate(invalid="ignore"):
            result: Table = table[row].reshape(steps, -1) / counts[:, None]
        return result

    def blend(self, statistic: Statistic, tensor: str, classes: Sequence[str]) -> Table:
        """As :meth:`mean`, with ``classes`` together weighing as much as all others together."""
        others = [name for name in self.seen if name not in classes]
        mean = self.mean(statistic, tensor, classes)
        return (mean + self.mean(statistic, tensor, others)) / 2 if others else mean

    @property
    def seen(self) -> tuple[str, ...]:
        """The classes that have samples."""
        return tuple(name for name, count in zip(self.classes, self.counts, strict=True) if count)

    def rows(self, classes: Sequence[str] | None = None) -> list[int]:
        """Row numbers of ``classes``; of all where ``None``.

        Raises:
            GraftError: a class that the profile did not record apart.
        """
        if classes is None:
            return list(range(len(self.classes)))
        missing = [name for name in classes if name not in self.classes]
        if missing:
            raise GraftError(
                "profile-class",
                f"the profile does not tell class {missing[0]} apart",
                "profile again with that class",
            )
        return [self.classes.index(name) for name in classes]

    def merge(self, other: Profile) -> Profile:
        """The profile of both sets of samples together."""
        if (self.parent, self.classes) != (other.parent, other.classes):
            raise GraftError("profile-merge", "profiles of different models or classes do not add up")
        tables = {
            name: {tensor: table + other.tables[name][tensor] for tensor, table in tables.items()}
            for name, tables in self.tables.items()
        }
        return replace(
            self,
            counts=self.counts + other.counts,
            correct=self.correct + other.correct,
            tables=tables,
            steps=None if self.steps is None or other.steps is None else self.steps + other.steps,
        )

    def with_others(self, other: Profile) -> Profile:
        """With all samples of ``other``, of the same parent, as samples of ``(other)``."""
        if self.parent != other.parent:
            raise GraftError("profile-merge", "profiles of different models do not add up")
        place = list(self.classes).index(OTHER) if OTHER in self.classes else len(self.classes)

        def added(own: NDArray[Any], more: NDArray[Any]) -> NDArray[Any]:
            rows = own if place < len(own) else np.concatenate([own, np.zeros_like(own[:1])])
            rows = rows.copy()
            rows[place] += more.sum(axis=0)
            return rows

        return replace(
            self,
            classes=(*self.classes, OTHER)[: max(len(self.classes), place + 1)],
            counts=added(self.counts, other.counts),
            correct=added(self.correct, np.zeros_like(other.correct)),
            tables={
                name: {tensor: added(table, other.tables[name][tensor]) for tensor, table in tables.items()}
                for name, tables in self.tables.items()
            },
            steps=None if self.steps is None or other.steps is None else added(self.steps, other.steps),
        )

    @property
    def top1(self) -> float:
        """Accuracy of the parent on the samples of the profile."""
        return float(self.correct.sum() / max(1, self.counts.sum()))

    # --------------------------------------------------------------- files

    def to_bytes(self) -> bytes:
        """The content of a profile file: safetensors, float64, with a JSON header."""
        tensors: dict[str, NDArray[Any]] = {"counts": self.counts, "correct": self.correct}
        if self.steps is not None:
            tensors["steps"] = self.steps
        for name in sorted(self.tables):
            for tensor in sorted(self.tables[name]):
                tensors[f"{name}|{tensor}"] = np.ascontiguousarray(self.tables[name][tensor])
        header = {
            "format": FORMAT,
            "parent": self.parent,
            "data": self.data,
            "classes": list(self.classes),
        }
        return save(tensors, {"graft": json.dumps(header, sort_keys=True)})

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of :meth:`to_bytes`; taken once, since every module names it."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def save(self, path: str | Path, force: bool = False) -> None:
        """Write the profile, whole or not at all."""
        with writing(Path(path), force) as temporary:
            temporary.write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a profile file.

        Raises:
            GraftError: it is missing, no profile, or of another format.
        """
        try:
            with safe_open(str(path), "numpy") as file:
                header = json.loads((file.metadata() or {})["graft"])
                if header["format"] != FORMAT:
                    raise GraftError(
                        "profile-format",
                        f"expected a profile of format {FORMAT}, found {header['format']}",
                        "profile again, or update Graft",
                    )
                tables: dict[str, dict[str, Table]] = {}
                for key in file.keys():  # noqa: SIM118 - not a dict
                    name, _, tensor = key.partition("|")
                    if tensor:
                        tables.setdefault(name, {})[tensor] = file.get_tensor(key)
                return cls(
                    header["parent"],
                    header["data"],
                    tuple(header["classes"]),
                    file.get_tensor("counts"),
                    file.get_tensor("correct"),
                    tables,
                    file.get_tensor("steps") if "steps" in file.keys() else None,  # noqa: SIM118
                )
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise GraftError(
                "profile-unreadable",
                f"{path} is missing or no profile",
                "make it with 'graft profile MODEL --data DATA -o PROFILE'",
            ) from error
