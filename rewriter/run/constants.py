"""The value of a node that reads constants only."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_graphsurgeon as gs
from onnx.reference import ReferenceEvaluator

from graft.rewriter.arrays import Array
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.weights import exported
from graft.rewriter.run.bounds import Bounds
from graft.rewriter.run.computed_constants import foldable_bytes
from graft.rewriter.run.session import Device

IR_VERSION = 8
"""Old enough for any onnxruntime, new enough for any operator."""
SECONDS = 2.0
"""A loop of constants may take so long."""


def evaluate(
    node: gs.Node,
    values: Sequence[Array | None],
    opset: int,
    domains: Sequence[onnx.OperatorSetIdProto] | None = None,
) -> list[Array]:
    """Return the outputs of ``node``, as onnxruntime computes them.

    What it lacks, such as convolutions in bfloat16, is left to the reference implementation of ONNX. That one
    does not come first: its BatchNormalization of opset 9 to 13 normalizes by the batch, as in training.

    Args:
        node: stays as it is.
        values: of its inputs; ``None`` for one that is left out.
        opset: of the standard domain.
        domains: operator sets of all domains, where the node is of another one.

    Raises:
        GraftError: neither can run it, or it takes too much.
    """
    inputs = [
        gs.Variable.empty() if value is None else gs.Constant(f"input_{index}", value)
        for index, value in enumerate(values)
    ]
    outputs = [gs.Variable(f"output_{index}") for index in range(len(node.outputs))]
    alone = gs.Node(node.op, "alone", dict(node.attrs), inputs, outputs, domain=node.domain)
    graph = gs.Graph([alone], outputs=outputs, opset=opset, import_domains=domains)
    proto = exported(graph)
    proto.ir_version = IR_VERSION
    names = [output.name for output in outputs]
    try:
        bounds = Bounds(foldable_bytes(proto), SECONDS, plain=True)
        found = Device(("cpu",)).open(proto, bounds).run({}, names)
        return [found[name] for name in names]
    except GraftError as error:
        if error.code in ("memory", "run-endless"):
            raise
        try:
            return list(ReferenceEvaluator(proto).run(names, {}))
        except Exception:  # the reference fails in many ways on what it does not know
            raise error from None
