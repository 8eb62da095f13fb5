"""How scores of different networks become comparable: the registry of comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from graft.passes.compare.calibrate import Calibrated
from graft.passes.compare.joint_head import Joint
from graft.passes.compare.score import (
    Columns,
    Comparison,
    Logits,
    Odds,
    Pair,
    Situation,
    Softmax,
    Typicality,
    Vote,
    VoteAmong,
)
from graft.rewriter.errors import GraftError, nearest
from graft.rewriter.plug_ins import plug_ins

COMPARISONS: tuple[Comparison, ...] = (
    *(Joint(), Calibrated()),
    *(Typicality(), Softmax(), Odds(), Logits(), Vote(), VoteAmong()),
)
"""In the order of preference: the first one that is the default for a situation is taken."""

ENTRY_POINTS = "graft.comparisons"
"""Where other distributions name comparisons of their own (see docs/comparisons.md)."""


@cache
def comparisons() -> Mapping[str, Comparison]:
    """Return all comparisons by name; one of another distribution takes the place of ours of that name."""
    foreign = plug_ins(ENTRY_POINTS, Comparison, "name")
    return MappingProxyType({each.name: each for each in (*COMPARISONS, *foreign)})


def names(patches: bool = False) -> tuple[str, ...]:
    """Return the names of all comparisons; with ``patches`` of those that can replace or add a class."""
    return tuple(name for name, each in comparisons().items() if each.patches or not patches)


def comparison_called(scores: str | Comparison, patches: bool = False) -> Comparison:
    """Return the comparison with a name; an object is taken as it is.

    Args:
        scores: name or object.
        patches: it has to be one that can replace or add a class.

    Raises:
        GraftError: there is none, or it cannot patch.
    """
    found = comparisons().get(scores) if isinstance(scores, str) else scores
    if found is None or (patches and not found.patches):
        name, choices = scores if isinstance(scores, str) else scores.name, ", ".join(names(patches))
        near = nearest(name, names(patches)) if found is None else ""
        raise GraftError("scores-unknown", f"no scores '{name}'{near}", f"choose from {choices}")
    return found


def default_comparison(situation: Situation) -> Comparison:
    """Return the comparison that is used unless another one is named."""
    known = (*comparisons().values(), *COMPARISONS)
    return next(each for each in known if each.default_for(situation))


__all__ = [
    "COMPARISONS",
    "ENTRY_POINTS",
    "Columns",
    "Comparison",
    "Pair",
    "Situation",
    "comparison_called",
    "comparisons",
    "default_comparison",
    "names",
]
