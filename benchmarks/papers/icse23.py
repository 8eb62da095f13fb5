"""Tables of Imtiaz et al., ICSE 2023, on the networks of $GRAFT_BENCH/rnn.

The Clinc networks of one layer are the authors' own, computed as their evaluator does; others were trained
again with their settings: differences are to be compared, not figures.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.papers.table import Row, Table, printed
from graft.passes.base import Context
from graft.passes.mask import Mask
from graft.passes.parent import Parent
from graft.passes.published import masks
from graft.passes.published.icse23_cell import Cell
from graft.passes.published.icse23_network import RecurrentNetwork
from graft.rewriter.arrays import Scores
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import score
from graft.rewriter.measure.mask_metrics import kernels, value_jaccard
from graft.rewriter.operators.recurrent import Recurrent
from graft.rewriter.run.session import Device

PAPER = "icse23"
DEVICE = Device(("cpu",))
MODES = ("rolled", "unrolled", "rolled-gates", "unrolled-gates")
NETWORKS = {
    "clinc lstm-1": "clinc_lstm1_published_papereval",
    "clinc gru-1": "clinc_gru1_published_papereval",
    "mathqa lstm-1": "mathqa_lstm1_retrained",
    "mathqa gru-1": "mathqa_gru1_retrained",
    "brown lstm-1": "brown_lstm1_retrained",
    "brown gru-1": "brown_gru1_retrained",
}
"""Networks of the paper that are in the bench."""
CAPS = {"mathqa lstm-1": 0.2, "brown lstm-1": 0.1}
"""Where the authors' script removes more than 5 % of the units."""
NO_BENCH = "set GRAFT_BENCH to the folder with the networks and data"
NO_WEIGHTS = "the authors' weights of this network cannot be had"
NO_DATA = "the comments of this data set are not in the bench"
SIBLING = "a network trained again with the authors' settings: compare differences"
CONSTANT = (
    "the printed figure is the share of one class: the authors' rolled modules give one constant answer"
)
TIE = "one sample of 4,500: many gates tie, and the order of equal ones decides"
OTHER_INDEX = "no reading of the index with gates gives the printed figure"
SLIP = (
    "for GRU the authors' code takes one row of the output layer, as here; with the whole layer it is {:.4f}"
)
RETRAINED = "the networks that the modules are compared with are not published"


def bench() -> Path | None:
    """Return the folder of the networks, or ``None``."""
    root = os.environ.get("GRAFT_BENCH", "")
    found = Path(root) / "rnn"
    return found if root and found.is_dir() else None


class Network:
    """A network of the paper with its data.

    Args:
        name: such as ``clinc lstm-1``.
    """

    def __init__(self, name: str) -> None:
        folder = bench()
        assert folder is not None
        self.name = name
        self.parent = Parent.load(folder / f"{NETWORKS[name]}.onnx")
        data = Dataset.load(folder / f"{name.partition(' ')[0]}.npz")
        self.train = Samples.match(data.split("train"), self.parent.card)
        paper = name.startswith("brown")
        self.test = Samples.match(data.split("test_paper" if paper else "test"), self.parent.card)

    @staticmethod
    @functools.cache
    def of(name: str) -> Network:
        """Return the network, read once."""
        return Network(name)

    @functools.cached_property
    def accuracy(self) -> float:
        """Of the parent on the test samples; of all steps where there are several."""
        return float(score(self.parent.model, self.test, DEVICE).correct.mean())

    def modules(self, mode: str) -> list[Model]:
        """Return the modules of all classes."""
        method = masks()[f"{PAPER}:{mode}"].with_options(cap=CAPS.get(self.name))
        context = Context(samples=self.train, device=DEVICE)
        return [Mask(label, method)(self.parent, context).model for label in self.parent.card.labels]

    def sure(self, model: Model) -> Scores:
        """Return what a module says of its class, float32 (samples,) or (samples, steps)."""
        own = replace(self.test, card=model.require_card(), labels=np.zeros_like(self.test.labels))
        return np.asarray(score(model, own, DEVICE).scores[..., 0])


@functools.cache
def modules(network: str, mode: str) -> list[Model]:
    """Return the modules of a network, made once."""
    return Network.of(network).modules(mode)


def composed(network: str, mode: str) -> float:
    """Return the accuracy of all modules together: the surest one decides."""
    of = Network.of(network)
    sure = np.stack([of.sure(model) for model in modules(network, mode)], axis=-1)
    return float((sure.argmax(axis=-1) == of.test.labels).mean())


def jaccard(network: str, mode: str, slip: bool) -> float:
    """Return the mean of the authors' index between the parent and its modules.

    Args:
        network: such as ``clinc lstm-1``.
        mode: such as ``unrolled``.
        slip: of GRU networks a module's output layer counts as one row, that of the number of the step.
    """
    of = Network.of(network)
    whole = RecurrentNetwork.of(of.parent.model.copy(), PAPER)
    parent = [*(cell.weight for cell in whole.cells()), whole.head.weights()]
    found = []
    for model in modules(network, mode):
        output = np.zeros_like(parent[-1])  # the authors' modules have all columns
        output[:, :2] = kernels(model)[-1]
        cells = [Cell.of(node) for node in model.graph.nodes if node.op in Recurrent.types]
        for step, cell in enumerate(cells):
            one_row = slip and network.partition(" ")[2].startswith("gru") and "unrolled" in mode
            found.append(value_jaccard(parent, [cell.weight, output[step : step + 1] if one_row else output]))
    return float(np.mean(found))


def _unavailable(network: str) -> str:
    """Return why a network cannot be rerun; empty where it can."""
    if network.startswith("toxic"):
        return NO_DATA
    if network not in NETWORKS:
        return NO_WEIGHTS
    return "" if bench() else NO_BENCH


def table_2() -> list[Row]:
    """Return accuracy and Jaccard index of every network and mode."""
    found = []
    for network, figures in printed()[PAPER]["2"].items():
        why = _unavailable(network)
        here = None if why else Network.of(network).accuracy
        sibling = "" if network.startswith("clinc") else SIBLING
        found.append(Row(PAPER, "2", f"{network} parent", figures["parent"], here, why or sibling))
        for mode in (mode for mode in MODES if mode in figures):
            accuracy, index = figures[mode]
            here = None if why else composed(network, mode)
            constant = CONSTANT if network.startswith("brown") and mode.startswith("rolled") else ""
            reason = why or constant or sibling or (TIE if round(here or 0, 6) != accuracy else "")
            found.append(Row(PAPER, "2", f"{network} {mode}", accuracy, here, reason))
            here = None if why else jaccard(network, mode, slip=True)
            reason = why or sibling or _reason(network, mode, index, here)
            found.append(Row(PAPER, "2", f"{network} {mode} jaccard", index, here, reason))
    return found


def _reason(network: str, mode: str, index: float, here: float | None) -> str:
    """Return what is to be said of an index of a network of the authors."""
    if not math.isclose(index, here or 0, abs_tol=5e-5):
        return OTHER_INDEX
    whole = jaccard(network, mode, slip=False)
    return SLIP.format(whole) if not math.isclose(whole, index, abs_tol=5e-5) else ""


def _not_rerun(number: str, reason: Callable[[str], str]) -> list[Row]:
    """Return the rows of a table of differences in percentage points, as fractions."""
    figures = printed()[PAPER][number]
    return [
        Row(PAPER, number, name, round(value / 100, 6), None, reason(name)) for name, value in figures.items()
    ]


def _of_reuse(name: str) -> str:
    return NO_DATA if " 1:N " in f" {name} " else RETRAINED


TABLES: Sequence[Table] = (
    Table(PAPER, "2", "accuracy of all modules composed, and the authors' Jaccard index", table_2),
    Table(PAPER, "3", "reuse: composed less retrained, mean", lambda: _not_rerun("3", _of_reuse)),
    Table(
        PAPER, "4", "replacement: change against the weak network, mean", lambda: _not_rerun("4", _of_reuse)
    ),
    Table(PAPER, "5", "translation, BLEU", lambda: _not_rerun("5", lambda _: NO_WEIGHTS)),
)
