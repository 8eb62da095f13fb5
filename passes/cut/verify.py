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

from graft.passes.base import Context, Declined, Report
from graft.rewriter.arrays import Mask
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.walk import DRAWS
from graft.rewriter.graph.weights import outside
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.plan import Plan
from graft.rewriter.operators import Parameter, Read, operator_of
from graft.rewriter.operators.base import float_constant
from graft.rewriter.run.equivalence import check, random_inputs, run_once
from graft.rewriter.run.feed import fit
from graft.rewriter.run.session import Session

TOLERANCE = {np.dtype(np.float16): 1e-2}
DEFAULT_TOLERANCE = 1e-4
SAMPLES = 8
"""On so many samples both models are compared."""


@dataclass(frozen=True, eq=False)
class Pruned:
    """A cut model beside the uncut one.

    Attributes:
        whole: the uncut model, with its analysis.
        plan: what of ``whole`` is left.
        model: the cut model.
        inputs: prepared samples, input name to array; ``None``: those of the context.
    """

    whole: Analysed
    plan: Plan
    model: Model
    inputs: Mapping[str, NDArray[Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class VerifyReport(Report):
    """Result of the comparison.

    Attributes:
        difference: largest difference between cut model and masked parent, relative to the outputs' size;
            ``None`` where no inputs could be made up.
    """

    difference: float | None


def mask(whole: Analysed, plan: Plan) -> Model:
    """Return the masked parent: a copy of ``whole`` where every weight that reads a removed channel is 0."""
    copy = whole.copy()
    masked, groups = copy.model, copy.groups
    kept = plan.mask(groups)
    large = {tensor.name for tensor in outside(masked.graph)}
    for node in groups.nodes:
        ranks = [len(groups.of(tensor)) for tensor in node.inputs]
        for read in operator_of(node).masks(node, groups):
            if not kept[read.channels].all():
                shape = [-1 if axis == read.axis else 1 for axis in range(ranks[read.index])]
                _mask_input(masked.graph, node, read, kept[read.channels].reshape(shape))
        reads = operator_of(node).reads(node, groups)
        for parameter in operator_of(node).parameters(node, groups):
            consumed = [axis for axis in (parameter.reads, parameter.inside) if axis is not None]
            if not consumed:
                continue
            weight = node.inputs[parameter.index]
            only = _only_read(parameter, reads) if weight.name in large else None
            if only is not None:  # no copy of the weight
                shape = [-1 if axis == only.axis else 1 for axis in range(ranks[only.index])]
                _mask_input(masked.graph, node, only, kept[only.channels].reshape(shape))
                continue
            values = weight.values
            for along in consumed:
                shape = [-1 if axis == along else 1 for axis in range(len(weight.shape))]
                values = values * kept[parameter.axes[along]].reshape(shape).astype(values.dtype)
            node.inputs[parameter.index] = gs.Constant(f"{node.name}/{weight.name}/masked", values)
    masked.tidy()
    return masked


def _only_read(parameter: Parameter, reads: list[Read]) -> Read | None:
    """Return what a weight reads: zero there is as good as zero in the weight."""
    if parameter.reads is None or parameter.inside is not None or len(reads) != 1:
        return None
    read = reads[0]
    same = np.array_equal(read.channels, parameter.axes[parameter.reads])
    return read if same and read.recurrent_weight is None else None


def _mask_input(graph: gs.Graph, node: gs.Node, read: Read, stays: Mask) -> None:
    """Let ``node`` read 0 in place of what does not stay, which need not be finite."""
    whole = node.inputs[read.index]
    name = f"{node.name}/{whole.name}/masked_{read.index}_{read.axis}"
    zero = float_constant(f"{name}/zero", np.zeros(()), like=whole)
    inputs = [gs.Constant(f"{name}/stays", stays), whole, zero]
    node.inputs[read.index] = gs.Variable(name, whole.dtype)
    where = gs.Node("Where", name, inputs=inputs, outputs=[node.inputs[read.index]])
    graph.nodes.insert(graph.nodes.index(node), where)


@dataclass(frozen=True)
class Verify:
    """Compare a cut model with its masked parent, on samples or, without any, on seeded random inputs."""

    def __call__(self, subject: Pruned, context: Context) -> VerifyReport:
        """Check that the cut model is what the plan makes of the whole one.

        Args:
            subject: both models; left as they are.
            context: samples, and the device that runs both.

        Returns:
            How far both are from each other.

        Raises:
            GraftError: the checker or onnxruntime refuses the cut model, or the law does not hold.
        """
        check(subject.model)
        session = context.device.open(subject.model)
        given = subject.inputs if subject.inputs is not None else _inputs(subject.model, session, context)
        if given is None:
            return VerifyReport(difference=None, declined=(Declined("verify", "no inputs could be drawn"),))
        inputs = given if subject.inputs is None else fit(given, session.batch)
        found = session.run(inputs)
        del session  # the masked parent takes as much memory again
        expected = run_once(mask(subject.whole, subject.plan), context.device, inputs)
        worst = 0.0
        for name, reference in expected.items():
            if not np.issubdtype(reference.dtype, np.floating):
                continue
            difference = _difference(found[name], reference)
            if not difference <= TOLERANCE.get(reference.dtype, DEFAULT_TOLERANCE):  # nor is NaN
                raise _broken(subject.model, name, difference)
            worst = max(worst, difference)
        return VerifyReport(difference=worst)


def _broken(model: Model, output: str, difference: float) -> GraftError:
    """Return the error of a cut model that differs: a model that draws at random is no fault of the cut."""
    because, hint = "", "please report this model"
    drawing = next((node.op for node in model.graph.nodes if node.op in DRAWS), None)
    if drawing is not None:
        because, hint = f": {drawing} draws numbers at random", "export the model for inference"
    return GraftError(
        "law-broken",
        f"the cut model differs from the masked parent by {difference:.2g} on output {output}{because}",
        f"{hint}; --no-verify writes it all the same",
    )


def _difference(found: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the largest difference, relative to the largest value; both may be minus infinity at a place."""
    both = np.isneginf(found) & np.isneginf(reference)
    found, reference = (np.where(both, 0, values) for values in (found, reference))
    scale = max(1.0, float(np.abs(reference).max(initial=0)))
    with np.errstate(invalid="ignore"):  # other infinities are no difference that is small enough
        return float(np.abs(found - reference).max(initial=0)) / scale


def _inputs(model: Model, session: Session, context: Context) -> Mapping[str, NDArray[Any]] | None:
    """Return the first samples of the context, or random inputs of the shapes that the model declares."""
    if context.samples is None:
        return random_inputs(model.message().graph)
    few = context.samples.take(np.arange(min(SAMPLES, len(context.samples))))
    return next(session.batches(few, SAMPLES))[0]
