"""What a model may take when it is run: time for loops, memory, and none of onnxruntime's own lines."""

import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from graft.passes.base import Context
from graft.passes.normalize.simplify import Normalize
from graft.rewriter import Device, Model
from graft.rewriter.errors import GraftError
from graft.rewriter.run import equivalence, folding, loop_limit
from graft.rewriter.run.bounds import Bounds
from graft.rewriter.run.constants import evaluate
from graft.rewriter.run.loop_turns import turns_in
from graft.rewriter.run.session import MOST_THREADS

CPU = Device(("cpu",), threads=1)
ONES = np.ones((2, 4), np.float32)


def _model(nodes, constants, outputs=("y",)):
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 4])],
        [helper.make_tensor_value_info(name, 1, ["n", 4]) for name in outputs],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _loop(turns, inner=None):
    """Return x + the number of turns; ``inner``: of a loop inside."""
    body = [helper.make_node("Identity", ["go"], ["goes"])]
    if inner is None:
        body.append(helper.make_node("Add", ["v", "one"], ["w"]))
    else:
        again = helper.make_graph(
            [
                helper.make_node("Identity", ["go2"], ["goes2"]),
                helper.make_node("Add", ["v2", "one"], ["w2"]),
            ],
            "inner",
            [helper.make_tensor_value_info(n, t, []) for n, t in (("i2", 7), ("go2", 9), ("v2", 1))],
            [helper.make_tensor_value_info(n, t, []) for n, t in (("goes2", 9), ("w2", 1))],
        )
        body.append(helper.make_node("Loop", ["inner", "yes", "v"], ["w"], body=again))
    graph = helper.make_graph(
        body,
        "body",
        [helper.make_tensor_value_info(n, t, []) for n, t in (("i", 7), ("go", 9), ("v", 1))],
        [helper.make_tensor_value_info(n, t, []) for n, t in (("goes", 9), ("w", 1))],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["first"], keepdims=0),
        helper.make_node("Loop", ["turns", "yes", "first"], ["last"], "loop", body=graph),
        helper.make_node("Add", ["x", "last"], ["y"]),
    ]
    constants = {"turns": np.int64(turns), "yes": True, "one": np.float32(1), "inner": np.int64(inner or 0)}
    return _model(nodes, constants)


def _grown(size, from_input=False):
    """Return x + the largest of so many ones."""
    source = "part" if from_input else "one"
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["part"], keepdims=1),
        helper.make_node("Expand", [source, "size"], ["big"], "grow"),
        helper.make_node("ReduceMax", ["big"], ["most"], keepdims=0),
        helper.make_node("Add", ["x", "most"], ["y"]),
    ]
    return _model(nodes, {"one": np.ones((1, 1), np.float32), "size": np.array([size, 1], np.int64)})


@pytest.fixture(autouse=True)
def _no_earlier_runs(monkeypatch):
    """Forget the loops that other tests waited for."""
    monkeypatch.setattr(loop_limit, "WAITS", loop_limit._Waits())


@pytest.mark.parametrize("inner", [None, 2**62])
def test_a_loop_without_end_is_ended(monkeypatch, inner):
    monkeypatch.setattr(loop_limit.LoopLimit, "allowed", 0.3)
    monkeypatch.setattr(loop_limit, "PATIENCE", 0.3)
    monkeypatch.setattr(loop_limit, "TURNS", 100)
    session = CPU.open(_loop(2**62 if inner is None else 1, inner))
    start = time.monotonic()
    for _ in range(2):  # the second time it is known
        with pytest.raises(GraftError, match="Loop loop had not ended after more than 100 turns") as caught:
            session.run({"x": ONES})
    assert caught.value.code == "run-endless"
    assert time.monotonic() - start < 30


def test_a_loop_that_is_slow_is_not_refused(monkeypatch):
    monkeypatch.setattr(loop_limit, "_turn", lambda *_: 1.0)  # as on a machine that takes a second for a turn
    session = CPU.open(_loop(20_000))
    session._loops.allowed = 1e-3
    np.testing.assert_array_equal(session.run({"x": ONES})["y"], np.full((2, 4), 20_002, np.float32))


def test_a_turn_is_timed():
    slow = loop_limit._turn(_loop(2**62), {"x": ONES})
    assert 0 <= slow < 1e-2
    assert loop_limit._shortened(_loop(2**62, 2**62), 3) != _loop(2**62, 2**62)
    found = CPU.open(loop_limit._shortened(_loop(2**62, 2**62), 3)).run({"x": ONES})
    np.testing.assert_array_equal(found["y"], np.full((2, 4), 11, np.float32))


def test_turns_of_loops_within_loops_are_counted():
    assert turns_in(_loop(1), 5) == 5
    assert turns_in(_loop(1, 1), 5) == 5 + 5 * 5
    proto = _loop(1, 1)
    nodes = [helper.make_node("f", ["a"], ["b"], domain="local"), helper.make_node("g", ["b"], ["c"])]
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    proto.functions.append(helper.make_function("local", "f", ["x"], ["y"], proto.graph.node[:], opset))
    proto.graph.node.extend(nodes)
    assert turns_in(proto, 3) == 2 * (3 + 9)


def test_an_endless_loop_within_a_loop_is_refused_as_soon_as_one_alone():
    start = time.monotonic()
    with pytest.raises(GraftError, match="after more than 50,000 turns"):
        CPU.open(_loop(2**40, 2**62)).run({"x": ONES})
    assert time.monotonic() - start < 60  # 2 to 8 on a machine that does nothing else


def test_what_was_waited_in_vain_is_not_waited_again(monkeypatch):
    for waited in (0.5, loop_limit.LEAST):
        with pytest.raises(GraftError, match=f"had not ended after {waited} s"):
            CPU.open(_loop(2**62), Bounds(seconds=0.5, plain=True)).run({"x": ONES})
    limits = []
    monkeypatch.setattr(loop_limit, "run_stoppable", lambda *given: limits.append(given[3]) or [ONES])
    for _ in range(2):
        CPU.open(_loop(3)).run({"x": ONES})
    left = loop_limit.PATIENCE - 0.5 - loop_limit.LEAST
    assert limits == [left, loop_limit.PATIENCE]  # whole again, since a run ended


def test_a_model_that_was_refused_is_refused_at_once(monkeypatch):
    monkeypatch.setattr(loop_limit.LoopLimit, "allowed", 0.1)
    monkeypatch.setattr(loop_limit, "TURNS", 100)
    with pytest.raises(GraftError, match="more than 100 turns"):
        CPU.open(_loop(2**62)).run({"x": ONES})
    monkeypatch.setattr(loop_limit.LoopLimit, "allowed", 1e9)
    with pytest.raises(GraftError, match="more than 100 turns"):
        CPU.open(_loop(2**62)).run({"x": ONES})
    found = CPU.open(_loop(20)).run({"x": ONES})  # another number of turns is another model
    np.testing.assert_array_equal(found["y"], np.full((2, 4), 22, np.float32))


def test_a_graph_with_an_endless_loop_is_not_compared(monkeypatch, caplog):
    monkeypatch.setattr(equivalence, "SECONDS", 0.2)
    model = Model.from_proto(_loop(2**62))
    Normalize()(model, Context())
    assert [node.op for node in model.graph.nodes] == ["ReduceMax", "Loop", "Add"]
    assert "not compared with the original: Loop loop had not ended" in caplog.text


def test_a_loop_of_constants_is_not_folded(monkeypatch, capfd):
    monkeypatch.setattr(folding, "SECONDS", 0.2)
    monkeypatch.setattr(equivalence, "SECONDS", 0.2)
    proto = _loop(2**62)
    proto.graph.node[0].input[0] = "one"
    Normalize()(Model.from_proto(proto), Context())
    assert not capfd.readouterr().err.replace("graft", "")


@pytest.mark.parametrize("size", [2**29, 2**45, 2**62])
def test_constants_larger_than_their_file_are_neither_folded_nor_run(size):
    model = Model.from_proto(_grown(size))
    Normalize()(model, Context())
    assert "Expand" in {node.op for node in model.graph.nodes}
    with pytest.raises(GraftError) as caught:
        CPU.open(model)
    assert caught.value.code == "constants-large"


def test_what_onnxruntime_says_stays_off_standard_error(tmp_path):
    model = _grown(2**28 + 1)  # onnxruntime warns of constants above 1 GiB
    for value in (*model.graph.input, *model.graph.output):  # a batch of 2 may have twice as many values
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, tmp_path / "m.onnx")
    program = "from graft.tools.cli import main; main()"
    command = [sys.executable, "-c", program, "inspect", str(tmp_path / "m.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Expand 1" in done.stdout


def test_constants_of_ordinary_size_are_folded():
    model = Model.from_proto(_grown(1000))
    Normalize()(model, Context())
    assert [node.op for node in model.graph.nodes] == ["Add"]
    np.testing.assert_array_equal(CPU.open(model).run({"x": ONES})["y"], np.full((2, 4), 2, np.float32))


def test_values_that_do_not_fit_are_named_with_their_size():
    with pytest.raises(GraftError, match="not enough memory: 4,398 GB needed for Expand grow") as caught:
        CPU.open(_grown(2**40, from_input=True)).run({"x": ONES})
    assert caught.value.code == "memory"
    with pytest.raises(GraftError, match="not enough memory: 0.3 GB needed"):
        CPU.open(_grown(2**26, from_input=True), Bounds(100 << 20)).run({"x": ONES})
    found = CPU.open(_grown(2**20, from_input=True), Bounds(100 << 20)).run({"x": ONES})
    np.testing.assert_array_equal(found["y"], np.full((2, 4), 2, np.float32))


def test_a_single_node_of_constants_is_bounded():
    graph = Model.from_proto(_grown(2**40)).graph
    with pytest.raises(GraftError, match="not enough memory"):
        evaluate(graph.nodes[1], [np.ones((1, 1), np.float32), np.array([2**40, 1])], 17)


def test_more_threads_than_help_are_refused():
    with pytest.raises(GraftError, match=f"expected 0 to {MOST_THREADS} threads, found 99999"):
        Device(threads=99_999)


ENDLESS = """
import sys, numpy, onnx
from graft.rewriter import Device, interrupts
from graft.rewriter.run import loop_limit
interrupts.listen()
loop_limit.LoopLimit.allowed = 120
session = Device(("cpu",)).open(onnx.load(sys.argv[1]))
print("runs", flush=True)
session.run({"x": numpy.ones((2, 4), numpy.float32)})
"""
COMPUTING = """
import numpy
from graft.rewriter import interrupts
interrupts.listen()
table = numpy.random.default_rng(0).normal(size=(4000, 4000))
print("runs", flush=True)
try:
    numpy.linalg.svd(table)
finally:
    print("never")
"""


@pytest.mark.usefixtures("heard")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize(("program", "code"), [(ENDLESS, -signal.SIGINT), (COMPUTING, 130)])
def test_ctrl_c_answers_while_a_library_computes(program, code, tmp_path):
    onnx.save(_loop(2**62), tmp_path / "m.onnx")
    command = [sys.executable, "-c", program, str(tmp_path / "m.onnx")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "runs\n"
        time.sleep(0.2)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert time.monotonic() - start < 30
    assert process.returncode == code
    assert "never" not in out


def test_a_graph_of_thousands_of_outputs_is_opened_in_seconds():
    names = [f"y{at}" for at in range(5000)]
    nodes = [
        helper.make_node("Add", [before, "one"], [name])
        for before, name in zip(["x", *names[:-1]], names, strict=True)
    ]
    model = _model(nodes, {"one": np.float32(1)}, names)
    begun = time.process_time()
    found = CPU.open(model).run({"x": ONES})
    assert time.process_time() - begun < 5
    assert [found[name][0, 0] for name in names] == [at + 2 for at in range(5000)]
