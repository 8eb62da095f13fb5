"""Say why nothing of a model can be pruned, and what a budget cannot count."""

from __future__ import annotations

from collections.abc import Iterable

from graft.passes.base import Declined
from graft.rewriter.errors import GraftError
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.measure.cost import CostModel
from graft.rewriter.operators import Pinning, operator_of

MOST = 2
"""So many reasons are named, and so many nodes of each."""


def nothing_to_cut(groups: ChannelGroups) -> str:
    """Return why no channel of a model can be pruned; ``""`` where some can."""
    if groups.cuttable().any():
        return ""
    pins, foreign = {group.reason for group in groups}, _without_rule(groups)
    reasons = [f"pinned by {in_short(pins)}"] if pins else []
    if foreign and not any(pin.startswith(f"{name} ") for name in foreign for pin in pins):
        reasons.append(f"no rule for {', '.join(foreign)}")
    return f"nothing can be cut: {'; '.join(reasons) or 'there is no layer between input and output'}"


def in_short(pins: Iterable[str]) -> str:
    """Return reasons of groups, those of one wording together: ``Conv a, Conv b and 3 more: why``."""
    nodes: dict[str, list[str]] = {}
    for pin in sorted(pins):
        node, _, reason = pin.partition(": ")
        nodes.setdefault(reason, []).append(node)
    told = [
        ", ".join(names[:MOST])
        + (f" and {len(names) - MOST} more" if len(names) > MOST else "")
        + (f": {reason}" if reason else "")
        for reason, names in nodes.items()
    ]
    return "; ".join(told[:MOST])


def require_cuttable(groups: ChannelGroups) -> None:
    """Refuse a model without a channel to prune that has operators without a rule.

    Raises:
        GraftError: ``nothing-to-cut``.
    """
    reason = nothing_to_cut(groups)
    if reason and _without_rule(groups):
        raise GraftError("nothing-to-cut", reason, "use the model as it is, or --keep 1 for uncut modules")


def uncounted(cost: CostModel, unit: str) -> tuple[Declined, ...]:
    """Return that a budget in ``unit`` leaves out operators whose work is not known."""
    if unit != "macs" or not cost.unknown:
        return ()
    names = ", ".join(cost.unknown)
    return (Declined(names, "its MACs are not known: the budget counts all other operators"),)


def _without_rule(groups: ChannelGroups) -> list[str]:
    """Return the types of operators that no rule is there for."""
    return sorted({node.op for node in groups.nodes if isinstance(operator_of(node), Pinning)})
