"""Check a written model: onnx.checker, an onnxruntime load, and the law on a few samples.

The law: a cut graph computes what the *masked parent* computes, the parent with every weight that
reads a removed channel set to zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.rewriter.arrays import Mask
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.operators import Read, operator_of
from graft.rewriter.operators.base import float_constant
from graft.rewriter.run.equivalence import check
from graft.rewriter.run.session import Device, fit

TOLERANCE = {np.dtype(np.float16): 1e-2}
DEFAULT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class VerifyReport:
    """Largest difference between cut model and masked parent, relative to the outputs' size."""

    difference: float


def mask(model: Model, plan: Plan) -> Model:
    """The masked parent: a copy of ``model`` with every weight that reads a removed channel at zero."""
    masked = model.copy()
    groups = ChannelGroups(masked)
    kept = plan.mask(groups)
    for node in groups.nodes:
        ranks = [len(groups.of(tensor)) for tensor in node.inputs]
        for read in operator_of(node).masks(node, groups):
            if not kept[read.channels].all():
                shape = [-1 if axis == read.axis else 1 for axis in range(ranks[read.index])]
                _mask_input(masked.graph, node, read, kept[read.channels].reshape(shape))
        for parameter in operator_of(node).parameters(node, groups):
            blind = [axis for axis in (parameter.reads, parameter.inside) if axis is not None]
            if not blind:
                continue
            whole = node.inputs[parameter.index]
            values = whole.values
            for along in blind:
                shape = [-1 if axis == along else 1 for axis in range(len(whole.shape))]
                values = values * kept[parameter.axes[along]].reshape(shape).astype(values.dtype)
            node.inputs[parameter.index] = gs.Constant(f"{node.name}/{whole.name}/masked", values)
    masked.tidy()
    return masked


def _mask_input(graph: gs.Graph, node: gs.Node, read: Read, stays: Mask) -> None:
    """Let ``node`` read 0 in place of what does not stay, which need not be finite."""
    whole = node.inputs[read.index]
    name = f"{node.name}/{whole.name}/masked_{read.index}_{read.axis}"
    zero = float_constant(f"{name}/zero", np.zeros(()), like=whole)
    inputs = [gs.Constant(f"{name}/stays", stays), whole, zero]
    node.inputs[read.index] = gs.Variable(name, whole.dtype)
    where = gs.Node("Where", name, inputs=inputs, outputs=[node.inputs[read.index]])
    graph.nodes.insert(graph.nodes.index(node), where)


class Verify:
    """Compare a cut model with its masked parent.

    Args:
        inputs: a few prepared samples, input name to array.
        device: where to run both.
    """

    def __init__(self, inputs: Mapping[str, NDArray[Any]], device: Device) -> None:
        self.inputs = inputs
        self.device = device

    def __call__(self, whole: Model, plan: Plan, cut: Model) -> VerifyReport:
        """Check that ``cut`` is what ``plan`` makes of ``whole``.

        Raises:
            GraftError: the checker or onnxruntime refuses the cut model, or the law does not hold.
        """
        check(cut)
        session = self.device.open(cut)
        inputs = fit(self.inputs, session.batch)
        expected, found = self.device.open(mask(whole, plan)).run(inputs), session.run(inputs)
        worst = 0.0
        for name, reference in expected.items():
            if not np.issubdtype(reference.dtype, np.floating):
                continue
            scale = max(1.0, float(np.abs(reference).max(initial=0)))
            difference = float(np.abs(found[name] - reference).max(initial=0)) / scale
            if not difference <= TOLERANCE.get(reference.dtype, DEFAULT_TOLERANCE):  # nor is NaN
                raise GraftError(
                    "law-broken",
                    f"the cut model differs from the masked parent by {difference:.2g} on output {name}",
                    "please report this model; --no-verify writes it all the same",
                )
            worst = max(worst, difference)
        return VerifyReport(worst)
