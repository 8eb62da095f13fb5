"""Which parameters of a model cannot be cut, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Channels, Mask
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.operators import operator_of

STREAM = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "ReduceMean")
"""Operators that read the residual stream of a transformer whole; ReduceMean where it is spelled out."""


@dataclass(frozen=True)
class Pinned:
    """Parameters that cannot be cut, by the reason."""

    numbers: Counter[str]
    aside: int
    """Embeddings among these, and what only the residual stream behind a LayerNormalization touches."""


def pins(groups: ChannelGroups) -> Pinned:
    """Count the numbers that lie in no row or column that may be cut, each tensor once."""
    found: dict[str, tuple[int, str, bool]] = {}
    reasons = {c: g.reason for g in groups for c in g.channels[~g.cuttable].tolist()}
    for node in groups.nodes:
        cuts = {p.index: p.axes for p in operator_of(node).parameters(node, groups)}
        for index, tensor in enumerate(node.inputs):
            if isinstance(tensor, gs.Constant) and np.dtype(tensor.dtype).kind in "fV":
                left, whys = _left(tensor, cuts.get(index, {}), groups.cuttable(), reasons)
                aside = (node.op == "Gather" and index == 0) or any(why.startswith(STREAM) for why in whys)
                why = whys[0] if whys else f"{node.op} {node.name}: holds no channels"
                if left <= found.get(tensor.name, (left,))[0]:
                    found[tensor.name] = (left, why, aside)
    numbers: Counter[str] = Counter()
    for left, why, _ in found.values():
        numbers[why] += left
    return Pinned(numbers, sum(left for left, _, aside in found.values() if aside))


def _left(
    tensor: gs.Constant, axes: Mapping[int, Channels], cuttable: Mask, reasons: Mapping[int, str]
) -> tuple[int, list[str]]:
    """Count the numbers of a constant that lie in no row or column that may be cut; say why."""
    sizes, whys = list(tensor.shape), []
    for axis, channels in axes.items():
        fixed = channels[~cuttable[channels]]
        sizes[axis] = len(fixed)
        whys += [reasons[c] for c in fixed[:1].tolist() if c in reasons]
    return int(np.prod(sizes, dtype=np.int64)), whys
