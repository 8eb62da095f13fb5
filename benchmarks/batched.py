"""Measure whether layers of branches are faster together: one wide layer, a grouped convolution, a stack.

    python -m benchmarks.batched [--json batched.json]

For layers of the sizes of ResNet-20 and of dense networks, for 2 and 10 branches, it times k layers side
by side against one node that does the same: of branches that read the same tensor one layer with all
outputs, of branches that read tensors of their own a grouped convolution over all channels, or a batch of
matrices.
Whole composites of dense networks are timed with and without layers of one input put together. Prints time
together over time apart; below 1 together is faster.
"""  # fmt: skip

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from benchmarks.common import DENSE, Run, compose, start
from graft.rewriter.graph.model import Model

BATCH = 32
RUNS, BLOCKS = 20, 6
BRANCHES = (2, 10)
KEEP = 0.6
CONVOLUTIONS = ((16, 32), (32, 16), (64, 8))
"""Channels, and height and width."""
MATRICES = ((784, 49), (49, 49), (512, 512))
"""Columns that are read, and that are made."""
Graph = tuple[list[onnx.NodeProto], dict[str, np.ndarray]]


def session(graph: Graph, shape: list[int], threads: int) -> ort.InferenceSession:
    """Open a graph.

    Args:
        graph: nodes and constants, from ``x`` to ``y``.
        shape: of ``x``.
        threads: of onnxruntime.
    """
    nodes, constants = graph
    made = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return _open(model.SerializeToString(), threads)


def _open(model: bytes, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def ratio(together: Graph, apart: Graph, shape: list[int], threads: int) -> float:
    """Median time together over time apart; they take turns.

    Args:
        together: one node for all branches.
        apart: a node for each.
        shape: of the input.
        threads: of onnxruntime.
    """
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return _turns([session(graph, shape, threads) for graph in (together, apart)], {"x": x})


def _turns(sessions: list[ort.InferenceSession], feed: dict[str, np.ndarray]) -> float:
    """Median time of the first over that of the second, which must do the same."""
    one, two = (each.run(None, feed)[0] for each in sessions)
    np.testing.assert_allclose(one, two, rtol=1e-2, atol=1e-2)
    times: list[list[float]] = [[], []]
    for _ in range(BLOCKS):
        for each, found in zip(sessions, times, strict=True):
            for _ in range(RUNS):
                start = time.perf_counter()
                each.run(None, feed)
                found.append(time.perf_counter() - start)
    return float(np.median(times[0]) / np.median(times[1]))


def convolutions(count: int, channels: int, shared: bool) -> tuple[Graph, Graph]:
    """3 x 3 convolutions of branches, of one input or each of its own channels.

    Args:
        count: of branches.
        channels: that each reads and makes.
        shared: all read one tensor.
    """
    draw = np.random.default_rng(1)
    weights = draw.normal(size=(count, channels, channels, 3, 3))
    common = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    names = [f"x{n}" for n in range(count)]
    apart = [] if shared else [helper.make_node("Split", ["x"], names, axis=1)]
    apart += [
        helper.make_node("Conv", ["x" if shared else names[n], f"w{n}"], [f"y{n}"], **common)
        for n in range(count)
    ]
    apart.append(helper.make_node("Concat", [f"y{n}" for n in range(count)], ["y"], axis=1))
    group = 1 if shared else count
    together = [helper.make_node("Conv", ["x", "w"], ["y"], group=group, **common)]
    return (together, {"w": weights.reshape(-1, channels, 3, 3)}), (
        apart,
        {f"w{n}": weights[n] for n in range(count)},
    )


def matrices(count: int, into: int, out: int, shared: bool) -> tuple[Graph, Graph]:
    """Dense layers of branches, of one input or each of its own.

    Args:
        count: of branches.
        into: columns that each reads.
        out: columns that each makes.
        shared: all read one tensor.
    """
    weights = np.random.default_rng(1).normal(size=(count, into, out))
    if shared:
        apart = [helper.make_node("MatMul", ["x", f"w{n}"], [f"y{n}"]) for n in range(count)]
        apart.append(helper.make_node("Concat", [f"y{n}" for n in range(count)], ["y"], axis=1))
        wide = weights.transpose(1, 0, 2).reshape(into, -1)
        return ([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": wide}), (
            apart,
            {f"w{n}": weights[n] for n in range(count)},
        )
    names = [f"x{n}" for n in range(count)]
    apart = [helper.make_node("Split", ["x"], names, axis=0)]
    apart += [helper.make_node("MatMul", [names[n], f"w{n}"], [f"y{n}"]) for n in range(count)]
    apart.append(helper.make_node("Concat", [f"y{n}" for n in range(count)], ["y"], axis=0))
    return ([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weights}), (
        apart,
        {f"w{n}": weights[n] for n in range(count)},
    )


def stacked(model: Model) -> Model:
    """A copy with dense layers that read the same tensor as one, whose output is split."""
    result = model.copy()
    same: dict[str, list[gs.Node]] = {}
    for node in result.graph.nodes:
        if node.op == "MatMul" and isinstance(node.inputs[1], gs.Constant):
            same.setdefault(node.inputs[0].name, []).append(node)
    for number, nodes in enumerate(each for each in same.values() if len(each) > 1):
        weights = [node.inputs[1].values for node in nodes]
        wide, made = gs.Variable(f"wide{number}", np.float32), [node.outputs[0] for node in nodes]
        sizes = gs.Constant(f"sizes{number}", np.array([each.shape[1] for each in weights]))
        weight = gs.Constant(f"weight{number}", np.concatenate(weights, axis=1))
        for node in nodes:
            node.outputs = []
        result.graph.nodes += [
            gs.Node("MatMul", wide.name, {}, [nodes[0].inputs[0], weight], [wide]),
            gs.Node("Split", sizes.name, {"axis": -1}, [wide, sizes], made),
        ]
    result.tidy()
    return result


def composites(run: Run) -> None:
    """Branches of dense networks, whole files."""
    modules = [[report.model for report in run.bench(name).modules(keep=KEEP)] for name in DENSE]
    run.output.section("Composites of dense networks: layers of one input together, over apart")
    run.output.header("branches", "threads", *[f"batch {size}" for size in (1, BATCH)])
    chosen = {
        "3 and Sneaker": [modules[0][3], modules[1][7]],
        "ten digits": modules[0],
        "twenty": [each for found in modules for each in found],
    }
    for (title, found), threads in product(run.some(chosen.items()), (1, 2)):
        apart = compose(found, strategy="branches", scores="typicality").model
        models = [each.proto().SerializeToString() for each in (stacked(apart), apart)]
        name, size = apart.graph.inputs[0].name, list(apart.graph.inputs[0].shape[1:])
        cells = []
        for batch in (1, BATCH):
            x = np.random.default_rng(0).integers(0, 256, (batch, *size)).astype(apart.graph.inputs[0].dtype)
            cells.append(_two(_turns([_open(each, threads) for each in models], {name: x})))
        run.output.row(title, threads, *cells)


def layers(run: Run) -> None:
    """Single layers."""
    for threads in (1, 2):
        run.output.section(f"Time together over time apart, batch {BATCH}, {threads} threads")
        run.output.header("layer", "branches read", *[f"{count} branches" for count in BRANCHES])
        for (channels, size), shared in run.some(product(CONVOLUTIONS, (True, False))):
            found = [
                ratio(
                    *convolutions(count, channels, shared),
                    [BATCH, channels * (1 if shared else count), size, size],
                    threads,
                )
                for count in BRANCHES
            ]
            title = f"Conv 3x3, {channels} channels, {size} x {size}"
            run.output.row(title, _reads(shared), *map(_two, found))
        for (into, out), shared in run.some(product(MATRICES, (True, False))):
            found = [
                ratio(
                    *matrices(count, into, out, shared),
                    [BATCH, into] if shared else [count, BATCH, into],
                    threads,
                )
                for count in BRANCHES
            ]
            run.output.row(f"MatMul {into} to {out}", _reads(shared), *map(_two, found))


def _reads(shared: bool) -> str:
    return "one tensor" if shared else "their own"


_two: Callable[[float], str] = "{:.2f}".format
SECTIONS = {each.__name__: each for each in (composites, layers)}

if __name__ == "__main__":
    start(__doc__, SECTIONS)
