"""One cut for every time step, in plain nodes: it computes what the layer with masked states does."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.passes.base import Context
from graft.passes.mask import Mask
from graft.passes.parent import Parent
from graft.passes.published.icse23_cell import Cell
from graft.passes.published.icse23_network import RecurrentNetwork
from graft.passes.published.unrolled import UnrolledCut, _give
from graft.passes.published.unrolled_layer import UnrolledLayer
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from tests import small
from tests.passes.published.test_icse23 import CASES, INPUTS, STEPS, UNITS, labelled, recurrent


def masked(model: Model, kept: list[np.ndarray]) -> Model:
    """The layers, a copy a step, with states and cells multiplied by zeros and ones after every step."""
    found = model.copy()
    network = RecurrentNetwork.of(found, "m")
    nodes = list(network.nodes)
    for node, masks in zip(nodes, kept, strict=True):
        prefix = node.name
        network.unroll(node, [Cell.of(node) for _ in range(STEPS)])
        for step, mask in enumerate(masks):
            (copy,) = (each for each in found.graph.nodes if each.name == f"{prefix}/step/{step}")
            for output in copy.outputs:
                behind = gs.Variable(f"{output.name}/masked", np.dtype(np.float32))
                for reader in list(output.outputs):
                    reader.inputs = [behind if each is output else each for each in reader.inputs]
                factor = gs.Constant(f"{output.name}/mask", mask.astype(np.float32))
                found.graph.nodes.append(gs.Node("Mul", f"{output.name}/mul", {}, [output, factor], [behind]))
        found.tidy()
    return found


def cut(model: Model, kept: list[np.ndarray]) -> Model:
    """The same in plain nodes, without what is not kept."""
    found = model.copy()
    network = RecurrentNetwork.of(found, "m")
    for node, masks in zip(network.nodes, kept, strict=True):
        build = Builder(found.graph, found.opset, f"{node.name}/step")
        _give(network, node, build, UnrolledLayer(node, build, "m").write(list(masks)), UNITS)
    return found


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("op", "more"), CASES)
@given(seed=st.integers(0, 10_000), share=st.floats(0.1, 1.0), opset=st.sampled_from([13, 17, 21]))
@settings(max_examples=2, deadline=None)
def test_the_cut_equals_the_masked_layer(
    op: str, more: dict[str, Any], layers: int, many: bool, seed: int, share: float, opset: int
) -> None:
    draw = np.random.default_rng(seed)
    model = recurrent(op, layers, many, opset, **more)
    kept = []
    for _ in range(layers):
        masks = draw.random((STEPS, UNITS)) < share
        masks[:, draw.integers(UNITS)] = True
        kept.append(masks)
    found = cut(model, kept)
    assert not any(node.op == op for node in found.graph.nodes)
    x = small.inputs([STEPS, INPUTS], 6, seed)
    expected = small.run(masked(model, kept), x)["y"]
    np.testing.assert_allclose(small.run(found, x)["y"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("functions", [["HardSigmoid", "Tanh", "Tanh"], ["Sigmoid", "Relu", "Tanh"]])
def test_other_activations_are_written_with_their_parameters(functions: list[str]) -> None:
    more = {"activations": functions}
    if "HardSigmoid" in functions:
        more |= {"activation_alpha": [0.3], "activation_beta": [0.4]}
    model = recurrent("LSTM", **more)
    kept = [np.ones((STEPS, UNITS), bool)]
    x = small.inputs([STEPS, INPUTS], 6)
    np.testing.assert_allclose(
        small.run(cut(model, kept), x)["y"], small.run(model, x)["y"], rtol=1e-4, atol=1e-5
    )


def test_modules_keep_a_share_of_the_units_at_every_step() -> None:
    model = recurrent("GRU")
    of, context = Parent(model), Context(samples=labelled(model), device=small.CPU)
    whole, half = (Mask("b", UnrolledCut(concerned=40, keep=keep))(of, context) for keep in (1.0, 0.5))
    assert whole.removed == 0 and half.removed == STEPS * UNITS / 2
    assert half.cost.parameters < whole.cost.parameters and whole.cost.parameters > 3 * of.cost.parameters
    x = small.inputs([STEPS, INPUTS], 20)
    logits = small.run(model, x)["y"]
    pair = np.stack([logits[:, 1], np.delete(logits, 1, axis=1).mean(axis=1)], axis=1)
    np.testing.assert_allclose(small.run(whole.model, x)["y"], pair, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_written_out_is_said() -> None:
    model = recurrent("LSTM", activations=["Softsign", "Tanh", "Tanh"])
    of, context = Parent(model), Context(samples=labelled(model), device=small.CPU)
    with pytest.raises(GraftError, match="does not write out LSTM layer0: it has softsign"):
        Mask("b", UnrolledCut())(of, context)
