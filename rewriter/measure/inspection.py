"""Inspect a model: which channels can be pruned, which cannot and why, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.measure.cost import CostModel
from graft.rewriter.operators import Pinning, operator_of


def inspection(groups: ChannelGroups, sizes: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return the channel groups of a model and its cost, as JSON takes them.

    Args:
        groups: the analysis of the normalized model.
        sizes: of a module, group name to the number of channels in its parent.

    Returns:
        ``macs``, ``parameters``, ``operators`` (type to number of nodes), ``operators_without_rule``,
        ``unknown_operators``, ``groups``, and the shares of both costs that lie in removable channels. MACs
        are ``None`` where operators that multiply have no rule for it, the unknown ones.
    """
    cost = CostModel(groups)
    whole, parameters = cost.cost(), cost.parameters()
    macs = whole.known_macs
    pinning = {node.op for node in groups.nodes if isinstance(operator_of(node), Pinning)}
    return {
        "macs": macs,
        "parameters": parameters,
        "operators": dict(Counter(node.op for node in groups.nodes).most_common()),
        "operators_without_rule": sorted(pinning),
        "unknown_operators": list(whole.unknown),
        "groups": group_table(groups, cost, sizes or {}),
        "cuttable_parameters_ratio": cost.cuttable_parameters() / max(1, parameters),
        "cuttable_macs_ratio": None if macs is None else cost.cuttable_macs() / max(1, macs),
    }


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


def check_input_shapes(model: Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Check that inputs of ``model`` take these shapes.

    Raises:
        GraftError: ``shape-unfit`` where an input is missing, or has another rank or a fixed size.
    """
    inputs = {name: shape for name, (_, shape) in model.inputs().items()}
    for name, shape in shapes.items():
        known = inputs.get(name)
        if known is None or len(known) != len(shape) or not _fits(known, shape):
            raise GraftError(
                "shape-unfit",
                f"the model has no input {name} that takes the shape {list(shape)}",
                f"its inputs are {', '.join(f'{n} {list(s)}' for n, s in inputs.items())}",
            )


def _fits(known: Sequence[int | str | None], shape: Sequence[int]) -> bool:
    pairs = zip(known, shape, strict=True)
    return all(not isinstance(fixed, int) or fixed == size for fixed, size in pairs)
