"""Running models: what is asked for, what really runs, and what fails."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from graft.rewriter.errors import GraftError
from graft.rewriter.run.session import SHORT_NAMES, Device
from tests import small
from tests.small import CPU, Net

ABSENT = next(n for n, full in SHORT_NAMES.items() if full not in ort.get_available_providers())


def test_outputs_by_name() -> None:
    net = small.conv_net()
    net.node("Sigmoid", "extra", "relu1")
    session = CPU.open(net.proto(y=[4], extra=[6, 4, 3]))
    x = small.inputs([2, 6, 5], 3)
    assert session.outputs == ["y", "extra"]
    assert session.providers == ("cpu",)
    found = session.run({"x": x})
    assert list(found) == ["y", "extra"]
    assert list(session.run({"x": x}, ["extra"])) == ["extra"]
    relu = small.activations(net, x, "relu1")["relu1"]
    np.testing.assert_allclose(found["extra"], 1 / (1 + np.exp(-relu)), rtol=1e-5)


def test_models_and_protos_run_alike() -> None:
    net, x = small.dense_net(), small.inputs([6], 3)
    one, two = (CPU.open(m).run({"x": x})["y"] for m in (small.model(net), net.proto(y=[4])))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("kind", [np.int32, np.int16, np.uint8])
def test_whole_numbers_come_in_the_type_of_the_input(kind: type[np.integer]) -> None:
    net = Net(5)
    net.node("Cast", "y", "x", to=1)
    proto = net.proto(y=[5])
    proto.graph.input[0].type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    session = CPU.open(proto)
    x = np.arange(10).reshape(2, 5)
    np.testing.assert_array_equal(session.run({"x": x})["y"], x)
    with pytest.raises(GraftError) as caught:  # nothing is cut off without a word
        session.run({"x": x + 2**40})
    assert caught.value.code == "run-failed"


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(GraftError) as caught:
        Device(("cpu", "abacus"))
    assert caught.value.code == "provider-unknown"
    assert "abacus" in caught.value.message
    assert "cuda" in caught.value.hint


def test_a_missing_provider_falls_back_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "graft"):
        session = Device((ABSENT, "cpu")).open(small.dense_net().proto(y=[4]))
    assert session.providers == ("cpu",)
    assert f"{ABSENT} was asked for, cpu runs" in caplog.text
    assert session.run({"x": small.inputs([6], 2)})["y"].shape == (2, 4)


def test_what_is_there_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "graft"):
        Device(("cpu",), strict=True).open(small.dense_net().proto(y=[4]))
    assert not caplog.text


@pytest.mark.parametrize("providers", [(ABSENT,), (ABSENT, "cpu")])
def test_strict_fails_instead(providers: tuple[str, ...]) -> None:
    with pytest.raises(GraftError) as caught:
        Device(providers, strict=True).open(small.dense_net().proto(y=[4]))
    assert caught.value.code == "provider-missing"


def test_a_model_that_cannot_run_is_told() -> None:
    proto = small.dense_net().proto(y=[4])
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "Magic", "foreign"
    proto.opset_import.add(domain="foreign", version=1)
    with pytest.raises(GraftError) as caught:
        CPU.open(proto)
    assert caught.value.code == "model-not-runnable"
    assert "Magic" in caught.value.message


def test_a_batch_that_does_not_fit_is_told() -> None:
    session = CPU.open(small.dense_net().proto(y=[4]))
    for inputs in ({"x": np.zeros((2, 7), np.float32)}, {"z": np.zeros((2, 6), np.float32)}, {}):
        with pytest.raises(GraftError) as caught:
            session.run(inputs)
        assert caught.value.code == "run-failed"


def test_a_failure_inside_the_model_is_told() -> None:
    net = Net(6)
    net.node("Gather", "y", net.weight("w", 3, 4), net.node("Cast", "index", "x", to=7))
    session = CPU.open(net.proto(y=[6, 4]))
    with pytest.raises(GraftError) as caught:
        session.run({"x": np.full((1, 6), 5, np.float32)})
    assert caught.value.code == "run-failed"


def test_without_a_wish_the_cpu_is_among_those_that_run() -> None:
    device = Device()
    assert device.wanted[-1] == "cpu"
    assert "cpu" in device.open(small.dense_net().proto(y=[4])).providers


def test_strict_is_about_the_first_provider() -> None:
    session = Device(("cpu", ABSENT), strict=True).open(small.dense_net().proto(y=[4]))
    assert session.providers == ("cpu",)


ARENA = """
import gc, re
import numpy as np
import onnx
from onnx import helper
from graft.rewriter.run.session import Device

def taken():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) >> 10

ends = [helper.make_tensor_value_info(name, 1, ["n", 1 << 20]) for name in "xy"]
nodes = [helper.make_node("Exp", ["x"], ["a"]), helper.make_node("Softmax", ["a"], ["y"])]
graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
x = np.zeros((64, 1 << 20), np.float32)
session = Device(("cpu",), threads=1).open(proto)
before = taken()
total = float(session.run({"x": x})["y"].sum())
del session
gc.collect()
print(round(total), taken() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems count in other units")
def test_values_of_a_session_go_with_it() -> None:
    done = subprocess.run([sys.executable, "-c", ARENA], capture_output=True, text=True, timeout=120)
    total, megabytes = map(int, done.stdout.split())
    assert total == 64
    assert megabytes < 200  # the run takes 512 MB
