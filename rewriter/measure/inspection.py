"""Inspect a model: which channels can be pruned, which cannot and why, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import onnx_graphsurgeon as gs

from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.measure.cost import CostModel
from graft.rewriter.operators import Pinning, operator_of


def inspection(groups: ChannelGroups, sizes: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return the channel groups of a model and its cost, as JSON takes them.

    Args:
        groups: the analysis of the normalized model.
        sizes: of a module, group name to the number of channels in its parent.

    Returns:
        ``macs``, ``macs_at_1_for`` (axes of inputs of unknown size), ``parameters``, ``operators`` (type to
        number of nodes), ``operators_without_rule``, ``unknown_operators``, ``groups``, and the shares of
        both costs that lie in removable channels. MACs
        are ``None`` where operators that multiply have no rule for it, the unknown ones.
    """
    cost = CostModel(groups)
    whole, parameters = cost.cost(), cost.parameters()
    macs = whole.known_macs
    pinning = {node.op for node in groups.nodes if isinstance(operator_of(node), Pinning)}
    return {
        "macs": macs,
        "macs_at_1_for": free_axes(groups),
        "parameters": parameters,
        "operators": dict(Counter(node.op for node in groups.nodes).most_common()),
        "operators_without_rule": sorted(pinning),
        "unknown_operators": list(whole.unknown),
        "groups": group_table(groups, cost, sizes or {}),
        "cuttable_parameters_ratio": cost.cuttable_parameters() / max(1, parameters),
        "cuttable_macs_ratio": None if macs is None else cost.cuttable_macs() / max(1, macs),
    }


def free_axes(groups: ChannelGroups) -> list[str]:
    """Return the axes of inputs whose sizes are not known, and count as 1: ``x axis 2``."""
    sized = groups.sized()
    made = {tensor.name for node in sized.nodes for tensor in node.outputs}
    read = dict.fromkeys(t.name for node in sized.nodes for t in node.inputs if isinstance(t, gs.Variable))
    return [
        f"{name} axis {axis}"
        for name in read
        if name and name not in made
        for axis, size in enumerate(sized.shapes.get(name) or ())
        if size is None
    ]


def group_table(groups: ChannelGroups, cost: CostModel, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return a row for each channel group.

    Args:
        groups: the analysis of the model.
        cost: of the model.
        sizes: group name to the number of channels in the parent, where that differs.
    """
    parameters = cost.parameters_by_group()
    return [
        {
            "name": group.name,
            "size": sizes.get(group.name, group.size),
            "kept": group.size,
            "cuttable": int(group.cuttable.sum()),
            "parameters": parameters[group.name],
            "reason": group.reason or None,
        }
        for group in groups
    ]
