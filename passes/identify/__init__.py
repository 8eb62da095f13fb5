"""Concern identification: methods that say how much a set of classes needs every channel."""

from __future__ import annotations

from graft.passes.identify.ablation import Ablation
from graft.passes.identify.activity import Activity
from graft.passes.identify.base import Method, Question, Scores
from graft.passes.identify.chance import Random
from graft.passes.identify.contrast import Contrast
from graft.passes.identify.magnitude import Magnitude
from graft.passes.identify.relevance import Relevance
from graft.rewriter.errors import GraftError

METHODS: tuple[Method, ...] = (Relevance(), Ablation(), Contrast(), Activity(), Magnitude(), Random())
DEFAULT = "relevance"
"""From a profile alone."""
MEASURED = "ablation"
"""The best, where samples are at hand."""


def method_called(name: str) -> Method:
    """The method that ``--method NAME`` means.

    Raises:
        GraftError: there is none.
    """
    for method in METHODS:
        if method.name == name:
            return method
    known = ", ".join(method.name for method in METHODS)
    raise GraftError("method-unknown", f"no method is called {name}", f"choose from {known}")


__all__ = ["DEFAULT", "MEASURED", "METHODS", "Method", "Question", "Scores", "method_called"]
