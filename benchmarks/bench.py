"""What the benchmark scripts share: a parent with its data, and how figures are printed."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from pathlib import Path

from graft.passes.base import Context
from graft.passes.compose import Compose, Modules
from graft.passes.decompose import Decompose, DecomposeReport
from graft.passes.parent import Parent
from graft.passes.select.observe import Observe
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure import metrics
from graft.rewriter.measure.evaluation import Scored, score
from graft.rewriter.record.profile import Profile
from graft.rewriter.run.session import Device

DEVICE = Device(("cpu",))


class Bench:
    """A parent with its data, profiled on all training samples.

    Args:
        folder: where model and data are.
        model: name of the model's file.
        data: name of the ``.npz`` file, or of the folder of images.
        apart: classes to profile apart; default: all.
    """

    def __init__(self, folder: Path, model: str, data: str, apart: Sequence[str] | None = None) -> None:
        self.name = model
        self.model = Model.load(folder / f"{model}.onnx")
        images = folder / data
        dataset = Dataset.load(images if images.is_dir() else folder / f"{data}.npz")
        self.card = self.model.require_card()
        self.train = Samples.match(dataset.split("train"), self.card)
        self.test = Samples.match(dataset.split("test"), self.card)
        self.parent = Parent(self.model)
        self.profile: Profile = Observe(DEVICE, apart)(self.parent.model, self.train, self.parent.sha256, "")

    @functools.cached_property
    def whole(self) -> Scored:
        """What the parent says of the test samples."""
        return score(self.parent.model, self.test, DEVICE)

    def modules(self, decompose: Decompose, plan: Plan | None = None) -> list[DecomposeReport]:
        """One module a class."""
        return [
            decompose(self.parent, self.profile, [name], plan, data=self.train, device=DEVICE)
            for name in self.card.labels
        ]

    def joined(self, reports: Sequence[DecomposeReport]) -> Scored:
        """All modules as branches, on the test samples."""
        return score(
            Compose("branches")(Modules([report.model for report in reports]), Context()).model,
            self.test,
            DEVICE,
        )

    def loss(self, found: Scored) -> tuple[float, float]:
        """Points lost against the parent, and the paired standard error."""
        lost, error = metrics.paired_difference(self.whole.correct, found.correct)
        return 100 * lost, 100 * error


def row(*cells: object) -> None:
    """A row of a Markdown table."""
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def points(pair: tuple[float, float]) -> str:
    """``1.23 ± 0.20``."""
    return f"{pair[0]:+.2f} ± {pair[1]:.2f}"


def mean_over(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error over sets of classes."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return statistics.mean(values), error
