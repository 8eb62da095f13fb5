"""Weights of large files stay arrays: the same bytes, hashes and results, in little more memory."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from graft.passes.base import Context
from graft.passes.normalize.simplify import Normalize
from graft.rewriter import Model
from graft.rewriter.graph import light, weights
from graft.rewriter.graph.weights import arrays
from tests import small
from tests.small import CPU, Net

X = small.inputs((2, 6, 6), 5)


def _net():
    net = Net(2, 6, 6)
    values = [net.constant(f"bn.{key}", np.linspace(0.5, 1.5, 32) + at) for at, key in enumerate("sbmv")]
    net.node("BatchNormalization", "bn", net.conv("conv", "x", 32, 2), *values)
    net.node("Flatten", "flat", net.node("GlobalAveragePool", "pool", net.node("Relu", "relu", "bn")))
    matrix = net.node("Transpose", "turned", net.weight("w", 48, 32), perm=[1, 0])
    net.gemm("y", net.node("Relu", "last", net.node("MatMul", "dense", "flat", matrix)), 4, 48)
    return net.proto(y=[4])


@pytest.fixture
def low(monkeypatch):
    """Let small weights be large ones."""
    for module in (weights, light):
        monkeypatch.setattr(module, "LARGE", 1000)
        monkeypatch.setattr(module, "PIECE", 256)


def test_files_are_read_and_written_as_before(tmp_path, request):
    path, again = tmp_path / "m.onnx", tmp_path / "again.onnx"
    onnx.save(_net(), path)
    whole = Model.load(path)
    expected = (whole.graph_sha256(), whole.proto().SerializeToString(deterministic=True))
    request.getfixturevalue("low")
    found = Model.load(path)
    assert {"conv.w", "w"} <= arrays(found.message()).keys()
    assert (found.graph_sha256(), found.proto().SerializeToString(deterministic=True)) == expected
    assert not arrays(found.proto())
    found.save(again)
    assert again.read_bytes() == expected[1]
    np.testing.assert_array_equal(CPU.open(found).run({"x": X})["y"], small.run(_net(), X)["y"])


def test_large_graphs_are_normalized_as_small_ones(tmp_path, request):
    path = tmp_path / "m.onnx"
    onnx.save(_net(), path)
    results = []
    for is_low in (False, True):
        if is_low:
            request.getfixturevalue("low")
        model = Model.load(path)
        assert not Normalize()(model, Context()).declined
        results.append(model)
    first, second = results
    assert [n.op for n in first.graph.nodes] == [n.op for n in second.graph.nodes]
    assert "BatchNormalization" not in {n.op for n in second.graph.nodes}
    for one, other in zip(first.graph.nodes, second.graph.nodes, strict=True):
        assert (one.name, [t.name for t in one.inputs]) == (other.name, [t.name for t in other.inputs])
        for left, right in zip(one.inputs, other.inputs, strict=True):
            if hasattr(left, "values"):
                np.testing.assert_array_equal(left.values, right.values)


@pytest.mark.usefixtures("low")
@pytest.mark.parametrize("cut", [3, 400, 2000])
def test_a_file_that_is_cut_off_is_left_to_protobuf(tmp_path, cut):
    path = tmp_path / "m.onnx"
    path.write_bytes(_net().SerializeToString()[:-cut])
    with pytest.raises(Exception, match="no ONNX model, or is cut off|not a valid ONNX model"):
        Model.load(path)


PEAK = """
import resource, sys
from graft.tools.cli import run
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
code = run(["inspect", sys.argv[1], "--json"])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count in other units")
def test_inspect_takes_little_more_memory_than_the_weights(tmp_path):
    random = np.random.default_rng(0)
    shapes = [(64, 4000), (4000, 4000), (4000, 3)]
    tensors = [numpy_helper.from_array(random.random(s, np.float32), f"w{i}") for i, s in enumerate(shapes)]
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["a"]), helper.make_node("MatMul", ["a", "w1"], ["b"])]
    nodes += [helper.make_node("Relu", ["b"], ["c"]), helper.make_node("MatMul", ["c", "w2"], ["y"])]
    ends = [helper.make_tensor_value_info(name, 1, ["n", size]) for name, size in (("x", 64), ("y", 3))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    done = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, timeout=120)
    code, kilobytes = done.stderr.split()
    assert code == "0"
    libraries = 90 << 20  # that the command imports
    assert (int(kilobytes) << 10) - libraries < 2.5 * path.stat().st_size
