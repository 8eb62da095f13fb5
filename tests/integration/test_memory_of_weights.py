"""Peak memory of commands over the size of the weights, each in a process of its own."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

INPUTS, WIDTH, LAYERS, CLASSES = 16, 2048, 6, 3
RUN = """
import re, sys
from graft.tools.cli import run
code = run(sys.argv[1:])
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]  # ru_maxrss has the caller's
print(code, peak, file=sys.stderr)
"""


def _dense(path, width):
    """Write a dense network with its card and data; return its bytes."""
    random = np.random.default_rng(0)
    shapes = [(INPUTS, width), *[(width, width)] * LAYERS, (width, CLASSES)]
    nodes, tensors, last = [], [], "x"
    for number, shape in enumerate(shapes):
        weight = random.standard_normal(shape, np.float32) * np.float32((2 / shape[0]) ** 0.5)
        tensors.append(numpy_helper.from_array(weight, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{number}"], [f"a{number}"], f"layer{number}"))
        last = f"a{number}"
        if number < LAYERS + 1:
            nodes.append(helper.make_node("Relu", [last], [f"r{number}"], f"relu{number}"))
            last = f"r{number}"
    ends = [
        [helper.make_tensor_value_info(name, 1, ["n", size])]
        for name, size in (("x", INPUTS), (last, CLASSES))
    ]
    graph = helper.make_graph(nodes, "dense", *ends, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    path.with_suffix(".yaml").write_text(
        "graft: 1\ninput: {name: x, kind: tensor}\n"
        f"output: {{name: {last}, kind: logits}}\nlabels: [a, b, c]\n"
    )
    x = random.standard_normal((60, INPUTS), np.float32)
    np.savez(path.with_suffix(".npz"), x=x, y=np.arange(60) % CLASSES)
    return path.stat().st_size


def _peak(*arguments):
    words = [sys.executable, "-c", RUN, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True)
    code, kilobytes = done.stderr.splitlines()[-1].split()
    assert code == "0", done.stderr
    return int(kilobytes) << 10


def _commands(path, folder):
    yield 2.5, ["inspect", path, "--json"]
    options = ["--classes", "a", "--keep", "0.5", "--method", "magnitude", "--compensate", "none"]
    data = path.with_suffix(".npz")
    yield 4, ["decompose", path, "--data", data, *options, "-o", folder]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other C libraries keep what is freed")
def test_weights_are_held_a_few_times_only(tmp_path):
    small, large = tmp_path / "small.onnx", tmp_path / "large.onnx"
    _dense(small, 32)
    weights = _dense(large, WIDTH)
    pairs = zip(_commands(small, tmp_path / "s"), _commands(large, tmp_path / "l"), strict=True)
    for (most, base), (_, command) in pairs:
        ratio = (_peak(*command) - _peak(*base)) / weights
        assert ratio <= most, command[0]
