"""A profile: statistics of every channel for every class, which add up over samples."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from graft.rewriter.arrays import Table
from graft.rewriter.card.card import OTHER
from graft.rewriter.errors import GraftError
from graft.rewriter.files import writing
from graft.rewriter.graph.sizes import Sizes, sizes_from_json, sizes_to_json
from graft.rewriter.regular_files import require_regular

FORMAT = "graft/profile/1"
Bytes = bytes | memoryview
_DTYPES = {np.dtype(np.int64): "I64", np.dtype(np.float64): "F64"}


@dataclass(frozen=True)
class Statistic:
    """A figure of one position of a channel axis for one sample; the figures of samples add up.

    Attributes:
        name: key in files.
    """

    name: str


# Each is averaged over the other axes of the tensor (space, time).
ACTIVE = Statistic("active")
"""Share of positions with a value above zero."""
SUM = Statistic("sum")
"""Mean value."""
SQUARES = Statistic("squares")
"""Mean squared value."""
PRODUCTS = Statistic("products")
"""Mean product of the values at two positions, row by row."""

STATISTICS = {statistic.name: statistic for statistic in (ACTIVE, SUM, SQUARES, PRODUCTS)}


@dataclass(frozen=True)
class Profile:
    """Per-class statistics of the tensors of one parent.

    Attributes:
        parent: graph hash of the parent.
        data: fingerprint of the data it was made from, with the split.
        classes: names of the rows; the last may be ``(other)``, all other classes together.
        counts: int64 (classes,), samples a row.
        correct: int64 (classes,), samples that the parent had right.
        tables: statistic name to tensor name to float64 (classes, positions of the channel axis): the
            sum over the samples of the class.
        label_source: ``data``, or ``predictions`` of the parent for samples without labels.
        sizes: of the samples, where the parent leaves axes of its inputs free.
        label_classes: the only classes that predictions were among; ``None``: all of the parent.
    """

    parent: str
    data: str
    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    correct: NDArray[np.int64]
    tables: dict[str, dict[str, Table]] = field(default_factory=dict)
    label_source: str = "data"
    sizes: Sizes = field(default_factory=dict)
    label_classes: tuple[str, ...] | None = None

    def has(self, statistic: Statistic, tensor: str, positions: int) -> bool:
        """Return true where a statistic was recorded.

        Behind a head that kept some classes only, tensors of the parent's name can be narrower.

        Args:
            statistic: the figure.
            tensor: its name in the parent.
            positions: length of the channel axis.
        """
        table = self.tables.get(statistic.name, {}).get(tensor)
        columns = positions**2 if statistic is PRODUCTS else positions
        return table is not None and table.shape[1] == columns

    def mean(self, statistic: Statistic, tensor: str, classes: Sequence[str] | None = None) -> Table:
        """Return the mean over samples, every class weighing the same: float64 (positions,).

        Args:
            statistic: the figure.
            tensor: its name in the parent.
            classes: over which the mean is taken; ``None``: all.

        Raises:
            GraftError: ``profile-class`` where none of them has samples.
        """
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

    def blend(self, statistic: Statistic, tensor: str, classes: Sequence[str]) -> Table:
        """Return the mean with ``classes`` together weighing as much as all others together.

        Args:
            statistic: the figure.
            tensor: its name in the parent.
            classes: the classes of a module.

        Raises:
            GraftError: ``profile-class`` where ``classes`` have no samples.
        """
        others = [name for name in self.seen if name not in classes]
        mean = self.mean(statistic, tensor, classes)
        return (mean + self.mean(statistic, tensor, others)) / 2 if others else mean

    @property
    def seen(self) -> tuple[str, ...]:
        """The classes that have samples."""
        return tuple(name for name, count in zip(self.classes, self.counts, strict=True) if count)

    def rows(self, classes: Sequence[str] | None = None) -> list[int]:
        """Return the row numbers of ``classes``; of all where ``None``.

        Raises:
            GraftError: ``profile-class`` where the profile has no row of its own for a class.
        """
        if classes is None:
            return list(range(len(self.classes)))
        missing = [name for name in classes if name not in self.classes]
        if missing:
            raise GraftError(
                "profile-class",
                f"the profile has no row for class {missing[0]}",
                "profile again with that class",
            )
        return [self.classes.index(name) for name in classes]

    def checked(self) -> Profile:
        """Return the profile itself.

        Raises:
            GraftError: ``data-range`` where activations are so large that their sums are not finite.
        """
        for name, tables in self.tables.items():
            for tensor, table in tables.items():
                if not np.isfinite(table).all():
                    raise GraftError(
                        "data-range",
                        f"the activations {tensor} are so large that their {name} are not finite",
                        "check the scale of the data, and scale, mean and std in the card",
                    )
        return self

    def merge(self, other: Profile) -> Profile:
        """Return the profile of both sets of samples together.

        Raises:
            GraftError: ``profile-merge`` where parents or classes differ.
        """
        if (self.parent, self.classes) != (other.parent, other.classes):
            raise GraftError("profile-merge", "profiles of different models or classes do not add up")
        tables = {
            name: {tensor: table + other.tables[name][tensor] for tensor, table in tables.items()}
            for name, tables in self.tables.items()
        }
        among = {each.label_classes for each in (self, other) if each.label_source != "data"}
        return replace(
            self,
            counts=self.counts + other.counts,
            correct=self.correct + other.correct,
            tables=tables,
            label_source=max(self.label_source, other.label_source),  # predictions, if of either
            label_classes=among.pop() if len(among) == 1 else None,
        )

    def with_others(self, other: Profile) -> Profile:
        """Return the profile with all samples of ``other``, of the same parent, as samples of ``(other)``.

        Raises:
            GraftError: ``profile-merge`` where parents differ.
        """
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
        )

    @property
    def top1(self) -> float:
        """Accuracy of the parent on the samples of the profile."""
        return float(self.correct.sum() / max(1, self.counts.sum()))

    # --------------------------------------------------------------- files

    def pieces(self) -> Iterator[Bytes]:
        """Yield the content of a profile file: safetensors, float64, with a JSON header.

        Tables are as large as weights: none is copied.
        """
        tensors: dict[str, NDArray[Any]] = {"correct": self.correct, "counts": self.counts}  # int64 is first
        tables = {
            f"{name}|{tensor}": each for name in self.tables for tensor, each in self.tables[name].items()
        }
        tensors |= {key: tables[key] for key in sorted(tables)}
        place = 0
        header: dict[str, Any] = {"__metadata__": {"graft": json.dumps(self._header(), sort_keys=True)}}
        for key, array in tensors.items():
            sizes, offsets = list(array.shape), [place, place := place + array.nbytes]
            header[key] = {"dtype": _DTYPES[array.dtype], "shape": sizes, "data_offsets": offsets}
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        yield len(text).to_bytes(8, "little") + text
        for array in tensors.values():
            yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data

    def _header(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "parent": self.parent,
            "data": self.data,
            "classes": list(self.classes),
            **({} if self.label_source == "data" else {"label_source": self.label_source}),
            **({} if self.label_classes is None else {"label_classes": list(self.label_classes)}),
            **({"sizes": sizes_to_json(self.sizes)} if self.sizes else {}),
        }

    def to_bytes(self) -> bytes:
        """Return the content of a profile file (:meth:`pieces`)."""
        return b"".join(self.pieces())

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of :meth:`to_bytes` in hex; computed once, since every module names it."""
        found = hashlib.sha256()
        for piece in self.pieces():
            found.update(piece)
        return found.hexdigest()

    def save(self, path: str | Path, force: bool = False) -> None:
        """Write the profile, whole or not at all.

        Raises:
            GraftError: ``output-exists`` or ``output-unwritable``.
        """
        with writing(Path(path), force) as temporary, temporary.open("wb") as file:
            file.writelines(self.pieces())

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a profile file.

        Raises:
            GraftError: ``profile-unreadable`` (missing, or no profile) or ``profile-format``.
        """
        try:
            require_regular(path)
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
                    if tensor and name in STATISTICS:  # earlier versions wrote others, too
                        tables.setdefault(name, {})[tensor] = file.get_tensor(key)
                found = cls(
                    str(header["parent"]),
                    str(header["data"]),
                    tuple(map(str, header["classes"])),
                    file.get_tensor("counts"),
                    file.get_tensor("correct"),
                    tables,
                    str(header.get("label_source", "data")),
                    sizes_from_json(header.get("sizes", "{}")),
                    tuple(map(str, header["label_classes"])) if header.get("label_classes") else None,
                )
            found._check()
        except GraftError:
            raise
        except MemoryError:
            raise
        except Exception as error:  # what it holds leads the parsers into errors of many kinds
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise GraftError(
                "profile-unreadable",
                f"{path} is missing or no profile: {reason}",
                "make it with 'graft profile MODEL --data DATA -o PROFILE'",
            ) from error
        return found

    def _check(self) -> None:
        """Raise ValueError unless the statistics fit the classes and each other, and are finite."""
        rows = len(self.classes)
        if not rows or len(set(self.classes)) < rows:
            raise ValueError("its classes are none, or not different")
        for counts in (self.counts, self.correct):
            if counts.shape != (rows,) or counts.dtype != np.int64 or (counts < 0).any():
                raise ValueError(f"it has no whole counts of its {rows} classes")
        for name, tables in self.tables.items():
            for tensor, table in tables.items():
                if table.ndim != 2 or len(table) != rows or table.dtype != np.float64:
                    raise ValueError(f"'{name}' of {tensor} does not fit its {rows} classes")
                if not np.isfinite(table).all():
                    raise ValueError(f"'{name}' of {tensor} holds NaN or infinity")
                self._check_beside_sums(name, tensor)

    def _check_beside_sums(self, name: str, tensor: str) -> None:
        """Raise ValueError unless a table goes with the sums of the same channels."""
        table, sums = self.tables[name][tensor], self.tables.get(SUM.name, {}).get(tensor)
        if sums is None or table.shape[1] != sums.shape[1] ** (2 if name == PRODUCTS.name else 1):
            raise ValueError(f"'{name}' of {tensor} has no sums of the same channels beside it")
