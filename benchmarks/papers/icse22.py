"""Tables of Pan and Rajan, ICSE 2022: their networks cannot be had, so the methods run on another ResNet-20.

The network is that of $GRAFT_BENCH/vision, trained on CIFAR-10 with batch normalization, which is folded.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.papers.table import Row, Table, fraction, printed
from graft.passes.base import Context
from graft.passes.mask import Mask
from graft.passes.parent import Parent
from graft.passes.published import masks
from graft.passes.published.icse22 import CONV
from graft.passes.published.icse22_maps import Watched
from graft.rewriter.arrays import Scores
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import score
from graft.rewriter.run.session import Device

PAPER = "icse22"
DEVICE = Device(("cpu",))
APPROACHES = ("ci-ti-mc", "bln", "bi")
READINGS = ("network", "linear")
RERUN = "CIFAR10-R20"
"""The row of table 1 whose kind of network is at hand."""
TESTED = 100
"""Test images of each class that modules are measured on."""
CONCERNED = {"network": 500, "linear": 99}
"""Examples of a class: all; and few for the linear reading, where the printed losses look like few."""
NO_BENCH = "set GRAFT_BENCH to the folder with the network and data"
NO_NETWORK = "the authors' networks cannot be had"
NO_DATA = "the images of this data set are not in the bench"
OTHER_NETWORK = "another ResNet-20, of other weights; {reading}"
HOW = {
    "network": "activations as in the network, 500 examples of a class: nothing is lost",
    "linear": "examples pass through the layers without activations, 99 of a class",
}
UNDETERMINED = (
    "the printed index is not determined: no share of positions is near it, and weights do not change; here "
    "the share of positions that stay"
)
PAIRS = "which classes are meant is not published; here the mean over all 45 pairs"


@dataclass(frozen=True, eq=False)
class Measured:
    """What the ten modules of an approach say of the test images.

    Attributes:
        own: float (images, modules): log-odds of the class of each module.
        labels: int64 (images,).
        kept: mean share of the positions that stay.
        between: mean over pairs of modules: positions that stay in both, over those that do in either.
    """

    own: Scores
    labels: np.ndarray
    kept: float
    between: float

    @property
    def top1(self) -> float:
        """By vote: where exactly one module says yes it decides, else the surest."""
        return float((self._order()[:, 0] == self.labels).mean())

    @property
    def top5(self) -> float:
        """Among the five surest; how the paper forms it is not said."""
        return float((self._order()[:, :5] == self.labels[:, None]).any(axis=1).mean())

    def pair(self, one: int, two: int) -> float:
        """Return the accuracy of two modules on the images of their classes."""
        asked = np.isin(self.labels, (one, two))
        said = np.where(self.own[asked, one] >= self.own[asked, two], one, two)
        return float((said == self.labels[asked]).mean())

    def _order(self) -> np.ndarray:
        return np.argsort(-self.own, axis=1, kind="stable")


def bench() -> Path | None:
    """Return the folder of the network, or ``None``."""
    root = os.environ.get("GRAFT_BENCH", "")
    found = Path(root) / "vision"
    return found if root and found.is_dir() else None


@functools.cache
def parent() -> tuple[Parent, Samples, Samples]:
    """Return the network, its training samples, and its test samples."""
    folder = bench()
    assert folder is not None
    found = Parent.load(folder / "resnet20_cifar10.onnx")
    data = Dataset.load(folder / "cifar10.npz")
    train = Samples.match(data.split("train"), found.card)
    return found, train, Samples.match(data.split("test"), found.card, per_class=TESTED)


@functools.cache
def measured(approach: str, reading: str) -> Measured:
    """Return what the modules of an approach say.

    Args:
        approach: such as ``bln``.
        reading: how examples pass through the network.
    """
    of, train, test = parent()
    method = masks()[f"{PAPER}:{approach}"].with_options(propagation=reading, concerned=CONCERNED[reading])
    context = Context(samples=train, device=DEVICE)
    own, maps = [], []
    for label in of.card.labels:
        module = Mask(label, method)(of, context).model
        maps.append(_positions(module, of.model))
        samples = Samples.match(test.split, module.require_card(), names=of.card.labels).take(test.indices)
        scores = score(module, samples, DEVICE).scores
        own.append(scores[:, 0] - scores[:, 1])
    pairs = [(one & two).sum() / max(1, (one | two).sum()) for one, two in itertools.combinations(maps, 2)]
    kept = float(np.mean([each.mean() for each in maps]))
    return Measured(np.stack(own, axis=1), test.labels, kept, float(np.mean(pairs)))


def _positions(module: Model, whole: Model) -> np.ndarray:
    """Return which positions behind convolutions stay in a module, bool (positions,)."""
    names = [node.outputs[0].name for node in whole.graph.nodes if node.op == "Conv"]
    shapes = Watched.of(whole.copy(), names, CONV).tensors
    tensors = {t.name: t for node in module.graph.nodes for t in node.inputs}
    parts = []
    for name, shape in shapes.items():
        on = tensors.get(f"{name}/map")
        parts.append(np.ones(np.prod(shape), bool) if on is None else (on.values != 0).reshape(-1))
    return np.concatenate(parts)


def table_1() -> list[Row]:
    """Return accuracy, top-5 and Jaccard index of every network and approach."""
    found = []
    for network, figures in printed()[PAPER]["1"].items():
        why = _unavailable(network)
        for kind, value in zip(("top-1", "top-5"), figures["parent"], strict=True):
            here = None if why else _parent()[kind]
            reason = why or "another ResNet-20, of other weights"
            found.append(Row(PAPER, "1", f"{network} parent {kind}", fraction(value), here, reason))
        for approach in APPROACHES:
            for reading in READINGS if not why else ("network",):
                found += _approach(network, approach, reading, figures[approach], why)
    return found


def _approach(network: str, approach: str, reading: str, figures: Sequence[float], why: str) -> list[Row]:
    of = None if why else measured(approach, reading)
    name = f"{network} {approach}" + ("" if why else f" {reading}")
    reason = why or OTHER_NETWORK.format(reading=HOW[reading])
    here = (None,) * 2 if of is None else (of.top1, of.top5)
    rows = [
        Row(PAPER, "1", f"{name} {kind}", fraction(value), each, reason)
        for kind, value, each in zip(("top-1", "top-5"), figures, here, strict=False)
    ]
    share = None if of is None else of.kept
    rows.append(Row(PAPER, "1", f"{name} jaccard", figures[2], share, why or UNDETERMINED))
    if of is not None:
        rows.append(
            Row(
                PAPER,
                "1",
                f"{name} jaccard between modules",
                None,
                of.between,
                "positions of both over either",
            )
        )
    return rows


def _unavailable(network: str) -> str:
    if network != RERUN:
        return NO_NETWORK if network.startswith("CIFAR10-") else NO_DATA
    return "" if bench() else NO_BENCH


@functools.cache
def _parent() -> dict[str, float]:
    of, _, test = parent()
    summary = score(of.model, test, DEVICE).summary()
    return {"top-1": summary["top1"], "top-5": summary["top5"]}


def table_2() -> list[Row]:
    """Return the accuracy of two modules composed."""
    found = []
    rerun = bench() is not None
    mean = _mean_of_pairs() if rerun else None
    for name, (trained, modules) in printed()[PAPER]["2"].items():
        own = name.startswith("CIFAR-10 ")
        here = mean if own else None
        reason = (PAIRS if rerun else NO_BENCH) if own else NO_DATA
        found.append(Row(PAPER, "2", name, fraction(modules), here, reason))
        found.append(Row(PAPER, "2", f"{name} trained", fraction(trained), None, NO_NETWORK))
    if rerun:
        labels, of = parent()[0].card.labels, measured("bln", "network")
        for one, two in itertools.combinations(range(len(labels)), 2):
            reason = "not in the paper: the pairs of the network at hand"
            found.append(
                Row(PAPER, "2", f"CIFAR-10 {labels[one]} {labels[two]}", None, of.pair(one, two), reason)
            )
    return found


def _mean_of_pairs() -> float:
    of = measured("bln", "network")
    return float(np.mean([of.pair(*pair) for pair in itertools.combinations(range(of.own.shape[1]), 2)]))


def _not_rerun(number: str) -> list[Row]:
    """Return the rows of a table whose networks or data cannot be had; of several figures the modules'."""
    found = []
    for name, figures in printed()[PAPER][number].items():
        flat = np.asarray(figures, float).reshape(-1)
        value = {"3": flat[1], "4": flat[1:].mean(), "5": flat[min(1, len(flat) - 1)]}[number]
        reason = NO_NETWORK if number == "4" and name.startswith("CIFAR-10 ") else NO_DATA
        found.append(Row(PAPER, number, name, fraction(float(value)), None, reason))
    return found


TABLES = (
    Table(PAPER, "1", "accuracy of all modules composed, and the Jaccard index", table_1),
    Table(PAPER, "2", "two modules of one network composed", table_2),
    Table(
        PAPER, "3", "modules of two data sets composed (before continuous learning)", lambda: _not_rerun("3")
    ),
    Table(PAPER, "4", "a module replaced by a better one (mean over the classes)", lambda: _not_rerun("4")),
    Table(PAPER, "5", "a module replaced by that of another data set (top-1)", lambda: _not_rerun("5")),
)
