"""Check a written model: onnx.checker, an onnxruntime load, and the law on a few samples.

The law: a cut graph computes what the *masked parent* computes, the parent with every weight that
reads a removed channel set to zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.rewriter.errors import GraftError
from graft.rewriter.groups import ChannelGroups
from graft.rewriter.model import Model
from graft.rewriter.operators import operator_of
from graft.rewriter.plan import Plan
from graft.rewriter.session import Device, fit

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
    for node in masked.graph.nodes:
        for parameter in operator_of(node).parameters(node, groups):
            if parameter.reads is None:
                continue
            whole = node.inputs[parameter.index]
            shape = [1] * len(whole.shape)
            shape[parameter.reads] = -1
            flags = kept[parameter.axes[parameter.reads]].reshape(shape)
            values = whole.values * flags.astype(whole.values.dtype)
            node.inputs[parameter.index] = gs.Constant(f"{node.name}/{whole.name}/masked", values)
    return masked


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


def check(model: Model) -> None:
    """onnx.checker on ``model``.

    Raises:
        GraftError: it refuses the model.
    """
    try:
        onnx.checker.check_model(model.proto(), full_check=True)
    except Exception as error:  # the checker raises several unrelated types
        reason = str(error).strip().splitlines()[0]
        raise GraftError(
            "result-invalid",
            f"onnx.checker refuses the result: {reason[:200]}",
            "please report this model",
        ) from error
