"""Compare a model in several runtimes, and a module with its parent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from graft.rewriter.arrays import Array
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.runtimes import runtimes
from graft.rewriter.runtimes.apart import Apart, Ran
from graft.rewriter.runtimes.base import Runtime
from graft.rewriter.runtimes.differences import Difference, Outputs
from graft.rewriter.runtimes.ort import OnnxRuntime, PlainOnnxRuntime
from graft.rewriter.runtimes.trial import SINGLES, Batch, Trial

Step = Callable[[str], object]
log = logging.getLogger("graft")
TOLERANCE = 1e-3
"""Largest difference of numbers that counts as none, relative to their scale."""


@dataclass(frozen=True)
class Verdict:
    """What a runtime makes of a file.

    Attributes:
        name: of the runtime.
        version: of it; ``None``: not installed.
        difference: from onnxruntime; ``None``: it gives no outputs.
        seconds: of the fastest run of the first batch; ``None``: not timed.
        ratio: of the time to onnxruntime's.
        error: why it does not run the file.
        parent_error: why it does not run the parent, or how far that is off; ``None``: it does, or there is
            no parent.
        parent_off: largest difference of the parent where it runs and is not right.
        parent_ratio: of the time to the parent's in the same runtime.
        installed: it is there.
    """

    name: str
    version: str | None
    difference: Difference | None = None
    seconds: float | None = None
    ratio: float | None = None
    error: str | None = None
    parent_error: str | None = None
    parent_off: float | None = None
    parent_ratio: float | None = None
    installed: bool = True

    def holds(self, tolerance: float) -> bool:
        """Return whether nothing is wrong that is not wrong with the parent, too.

        Args:
            tolerance: largest difference that is none; twice the parent's where that is more.
        """
        if not self.installed or (self.parent_error is not None and self.parent_off is None):
            return True
        most = max(tolerance, 2 * (self.parent_off or 0.0))
        return self.error is None and self.difference is not None and self.difference.largest <= most

    def plain(self) -> dict[str, Any]:
        """Return it as ``--json`` prints it."""
        found = self.difference
        return {
            "version": self.version,
            "installed": self.installed,
            "max_difference": None if found is None else found.largest,
            "decisions_changed": None if found is None else found.changed,
            "latency_ratio": self.ratio,
            "latency_ms": None if self.seconds is None else 1e3 * self.seconds,
            "error": self.error,
            "parent_error": self.parent_error,
            "latency_over_parent": self.parent_ratio,
        }


@dataclass(frozen=True, eq=False)
class Subject:
    """A file, the model in it, and what it is fed with.

    Attributes:
        path: of the file.
        model: read from it.
        batches: see :meth:`Trial.batches`.
        expected: what onnxruntime makes of them.
    """

    path: Path
    model: Model
    batches: Sequence[Batch]
    expected: Ran = field(default_factory=Ran)

    @property
    def outputs(self) -> Outputs:
        """The outputs of the file, which may lack one that a card names inside the graph."""
        names = tuple(value.name for value in onnx.load(self.path, load_external_data=False).graph.output)
        card = self.model.card
        return Outputs(names, card.output, len(card.labels)) if card else Outputs(names)

    def compare(self, found: Sequence[Sequence[Array]]) -> Difference:
        """Compare what a runtime gives with what onnxruntime gives, batch after batch."""
        outputs, total = self.outputs, Difference()
        for one, other in zip(found, self.expected.outputs, strict=False):
            total += outputs.compare(one, other)
        return total


@dataclass(frozen=True)
class Verification:
    """Run models in runtimes, each in a process of its own.

    Attributes:
        runtimes: that are asked; ``None``: all that there are, those that are not installed are named.
        batch: samples at once.
        threads: that a runtime may use.
        limit: seconds that a runtime may take for a file.
        tolerance: largest difference that is none, relative to the scale.
        timed: measure times.
    """

    runtimes: Sequence[Runtime] | None = None
    batch: int = 8
    threads: int = 2
    limit: float = 120.0
    tolerance: float = TOLERANCE
    timed: bool = True

    def subject(self, path: Path, model: Model, trial: Trial) -> Subject:
        """Run a file in onnxruntime.

        Args:
            path: the file.
            model: read from it.
            trial: the samples.

        Raises:
            GraftError: ``model-not-runnable`` where onnxruntime does not run it.
        """
        found = Subject(path, model, trial.batches(model, self.batch))
        ran = self._apart.run(OnnxRuntime(), path, found.batches, self.timed)
        if ran.error is not None and self.batch > 1 and len(trial) > 1:
            alone = replace(found, batches=trial.batches(model, 1))
            again = self._apart.run(OnnxRuntime(), path, alone.batches, self.timed)
            if again.error is None:
                log.warning("%s takes one sample at a time: several at once are not tried", path.name)
                found, ran = alone, again
        if ran.error is not None:
            raise GraftError(
                "model-not-runnable",
                f"onnxruntime does not run {path.name} on the samples: {ran.error}",
                "check model and card, or give real samples: --data DATA",
            )
        return replace(found, expected=ran)

    def measure(self, subject: Subject, parent: Subject | None = None, step: Step = len) -> list[Verdict]:
        """Run a file in every runtime.

        Args:
            subject: the file.
            parent: runs in every runtime, too: what it cannot do is not held against the file.
            step: called with the name of every runtime when it is done.
        """
        found = []
        for runtime in self.runtimes if self.runtimes is not None else runtimes().values():
            found.append(self._measured(runtime, subject, parent))
            step(runtime.name)
        return found

    @property
    def _apart(self) -> Apart:
        return Apart(self.threads, self.limit)

    def _measured(self, runtime: Runtime, subject: Subject, parent: Subject | None) -> Verdict:
        if not runtime.installed:
            return Verdict(runtime.name, None, error=f"not installed: {runtime.command}", installed=False)
        before = None if parent is None else self._alone(runtime, parent)
        found = self._alone(runtime, subject)
        if before is None:
            return found
        wrong, off = None if before.holds(self.tolerance) else before.error, None
        if wrong is None and before.difference is not None and not before.holds(self.tolerance):
            off = before.difference.largest
            wrong = f"it is off by {off:.2g}"
        timed = found.seconds is not None and before.seconds
        ratio = found.seconds / before.seconds if timed else None  # type: ignore[operator]
        return replace(found, parent_error=wrong, parent_off=off, parent_ratio=ratio)

    def _alone(self, runtime: Runtime, subject: Subject) -> Verdict:
        """Return what a runtime makes of a file."""
        own = type(runtime) is OnnxRuntime
        asked = PlainOnnxRuntime() if own else runtime
        batches = list(subject.batches)
        chosen = list(range(len(batches)))
        if runtime.slow:  # one batch of several samples, one of a single one
            chosen = sorted({0, len(batches) - 1})
        timed = self.timed and not (own or runtime.slow)
        ran = self._apart.run(asked, subject.path, [batches[k] for k in chosen], timed)
        expected = [subject.expected.outputs[k] for k in chosen]
        part = replace(subject, expected=replace(subject.expected, outputs=tuple(expected)))
        difference = part.compare(ran.outputs) if ran.outputs else None
        error = ran.error or (difference.error if difference else None)
        if own and difference is not None:
            difference += self._alike(subject)
        seconds = subject.expected.seconds if own else ran.seconds if error is None else None
        base = subject.expected.seconds
        ratio = seconds / base if seconds is not None and base else None
        if error is not None:
            difference = None if ran.error is None else difference
        return Verdict(runtime.name, runtime.version, difference, seconds, ratio, error)

    def _alike(self, subject: Subject) -> Difference:
        """Compare samples that onnxruntime ran one at a time with the same ones among others."""
        outputs = subject.outputs
        first, total = subject.expected.outputs[0], Difference()
        several = _count(subject.batches[0])
        singles = [k for k, batch in enumerate(subject.batches) if _count(batch) == 1][-SINGLES:]
        if several == 1 or len(singles) < min(SINGLES, several):
            return total
        for place, alone in enumerate(subject.expected.outputs[k] for k in singles[-min(SINGLES, several) :]):
            rows = [
                value[place : place + 1] if value.ndim and len(value) == several else value for value in first
            ]
            if [value.shape for value in rows] == [value.shape for value in alone]:
                total += outputs.compare(alone, rows)
        return total


def _count(batch: Batch) -> int:
    return max((len(array) for array in batch.values() if array.ndim), default=1)
