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
from graft.rewriter.errors import GraftError, nearest
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.operators import operator_of
from graft.rewriter.plug_ins import plug_ins

METHODS: tuple[Method, ...] = (Relevance(), Ablation(), Contrast(), Activity(), Magnitude(), Random())
PUBLISHED: tuple[Method, ...] = (Rolled(), RolledGates())
"""Methods of papers, named after them."""

ENTRY_POINTS = "graft.methods"
"""Where other distributions name importance methods of their own."""

DEFAULT = Relevance.name
"""The default where there is a profile alone, and for recurrent layers."""
MEASURED = Ablation.name
"""The default where there are samples to run the model on, but for recurrent layers."""


@cache
def methods() -> Mapping[str, Method]:
    """Return all methods by name; one of another distribution takes the place of Graft's of the same name."""
    foreign = plug_ins(ENTRY_POINTS, Method, "name")  # type: ignore[type-abstract]
    return MappingProxyType({method.name: method for method in (*METHODS, *PUBLISHED, *foreign)})


def method_of(method: str | Method) -> Method:
    """Return the method of a name; a method is returned as it is.

    Raises:
        GraftError: there is none of that name.
    """
    if isinstance(method, Method):
        return method
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
