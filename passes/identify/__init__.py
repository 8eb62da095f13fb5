"""Which channels do the classes of a module need: importance methods, by name.

Those of other distributions are found by the entry points of the group ``graft.methods`` (docs/methods.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from graft.passes.identify.ablation import Ablation
from graft.passes.identify.activity import Activity
from graft.passes.identify.contrast import Contrast
from graft.passes.identify.magnitude import Magnitude
from graft.passes.identify.method import ImportanceInputs, Method
from graft.passes.identify.random import Random
from graft.passes.identify.relevance import Relevance
from graft.passes.identify.rolled import Rolled, RolledGates
from graft.passes.published import ENTRY_POINTS, foreign_methods, masks
from graft.rewriter.errors import GraftError, nearest
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.operators import operator_of

METHODS: tuple[Method, ...] = (Relevance(), Ablation(), Contrast(), Activity(), Magnitude(), Random())
PUBLISHED: tuple[Method, ...] = (Rolled(), RolledGates())
"""Methods of papers, named after them."""

DEFAULT = Relevance.name
"""The default where there is a profile alone, and for recurrent layers."""
MEASURED = Ablation.name
"""The default where there are samples to run the model on, but for recurrent layers."""


@cache
def methods() -> Mapping[str, Method]:
    """Return all methods by name; one of another distribution takes the place of Graft's of the same name."""
    foreign = (method for method in foreign_methods() if isinstance(method, Method))
    return MappingProxyType({method.name: method for method in (*METHODS, *PUBLISHED, *foreign)})


def method_of(method: str | Method) -> Method:
    """Return the method of a name; a method is returned as it is.

    Raises:
        GraftError: there is none of that name.
    """
    if isinstance(method, Method):
        return method
    if method in masks() and method not in methods():
        raise GraftError(
            "method-masks",
            f"the method {method} makes masks of the parent: it ranks no channels",
            "use it with 'graft decompose', or choose another method",
        )
    if method not in methods():
        near, hint = nearest(method, methods()), f"choose from {', '.join(methods())}"
        raise GraftError("method-unknown", f"no method is called '{method}'{near}", hint)
    return methods()[method]


def default_method(groups: ChannelGroups, samples: bool) -> str:
    """Return the name of the method to be preferred for a model.

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
    "ENTRY_POINTS",
    "MEASURED",
    "METHODS",
    "PUBLISHED",
    "ImportanceInputs",
    "Method",
    "default_method",
    "method_of",
    "methods",
]
