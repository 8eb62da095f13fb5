"""Concern identification: methods that say how much a set of classes needs every channel."""

from __future__ import annotations

from graft.passes.identify.ablation import Ablation
from graft.passes.identify.activity import Activity
from graft.passes.identify.contrast import Contrast
from graft.passes.identify.magnitude import Magnitude
from graft.passes.identify.method import ImportanceInputs, Method
from graft.passes.identify.random import Random
from graft.passes.identify.relevance import Relevance
from graft.passes.identify.rolled import Rolled
from graft.rewriter.arrays import Scores
from graft.rewriter.errors import GraftError
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.operators import operator_of

METHODS: tuple[Method, ...] = (Relevance(), Ablation(), Contrast(), Activity(), Magnitude(), Random())
PUBLISHED: tuple[Method, ...] = (Rolled(), Rolled(gates=True))
"""Of papers, named after them."""
DEFAULT = "relevance"
"""From a profile alone."""
MEASURED = "ablation"
"""The best, where samples are at hand and no layer is recurrent."""


def method_called(name: str) -> Method:
    """The method that ``--method NAME`` means.

    Raises:
        GraftError: there is none.
    """
    for method in (*METHODS, *PUBLISHED):
        if method.name == name:
            return method
    known = ", ".join(method.name for method in (*METHODS, *PUBLISHED))
    raise GraftError("method-unknown", f"no method is called {name}", f"choose from {known}")


def best(groups: ChannelGroups, samples: bool) -> str:
    """The name of the method to be preferred for a model.

    Units of a recurrent layer tell much the same, step after step: it matters more what those left can say
    of them than what each of them does.

    Args:
        groups: the analysis of the model.
        samples: whether there are any to run it on.
    """
    reads = (read for node in groups.nodes for read in operator_of(node).reads(node, groups))
    recurrent = any(read.recurrent_weight is not None for read in reads)
    return MEASURED if samples and not recurrent else DEFAULT


__all__ = [
    "DEFAULT",
    "MEASURED",
    "METHODS",
    "PUBLISHED",
    "ImportanceInputs",
    "Method",
    "Scores",
    "best",
    "method_called",
]
