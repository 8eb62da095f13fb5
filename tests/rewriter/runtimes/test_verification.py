"""Runtimes in processes of their own, on small graphs; the runtimes here are made up."""

from __future__ import annotations

import sys
import textwrap
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graft.passes.base import Context
from graft.passes.decompose import Decompose
from graft.passes.parent import Parent
from graft.rewriter.card.card import Card
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.runtimes import runtime, runtimes
from graft.rewriter.runtimes.against import change
from graft.rewriter.runtimes.base import Runtime
from graft.rewriter.runtimes.differences import Outputs
from graft.rewriter.runtimes.ort import OnnxRuntime
from graft.rewriter.runtimes.reference import Reference
from graft.rewriter.runtimes.trial import Trial
from graft.rewriter.runtimes.verification import Subject, Verdict, Verification
from tests import small

MADE_UP = """
    import os, subprocess, sys, time
    from pathlib import Path
    from graft.rewriter.runtimes.base import SilentError
    from graft.rewriter.runtimes.ort import OnnxRuntime


    class Changed(OnnxRuntime):
        name = "made-up"

        def open(self, model, threads):
            run = super().open(model, threads)
            return lambda inputs: [self.change(value) for value in run(inputs)]


    class Off(Changed):
        def change(self, value):
            return value + 0.5


    class Turned(Changed):
        def change(self, value):
            return -value


    class NotANumber(Changed):
        def change(self, value):
            return value * float("nan")


    class Fewer(Changed):
        def change(self, value):
            return value[:, :2]


    class Ends(OnnxRuntime):
        def open(self, model, threads):
            sys.stderr.write("thread main panicked at Reshape")
            sys.stderr.flush()
            os.abort()


    class Hangs(OnnxRuntime):
        def open(self, model, threads):
            time.sleep(600)


    class Prints(OnnxRuntime):
        def open(self, model, threads):
            print("Error: no such operator", flush=True)
            raise SilentError("nothing was written")


    class OnlyOne(OnnxRuntime):
        def open(self, model, threads):
            run = super().open(model, threads)

            def checked(inputs):
                if len(inputs["x"]) > 1:
                    raise ValueError("a batch of 1 is expected")
                return run(inputs)

            return checked


    class Absent(OnnxRuntime):
        name, module, install = "absent", "no_such_module_anywhere", "no-such-package"


    class NotWide(OnnxRuntime):
        def open(self, model, threads):
            if "parent" in Path(model).name:
                raise ValueError("unknown operator")
            return super().open(model, threads)


    class Worse(OnnxRuntime):
        def open(self, model, threads):
            run, by = super().open(model, threads), 0.01 if "parent" in Path(model).name else 5.0
            return lambda inputs: [value + by for value in run(inputs)]


    class Leaves(OnnxRuntime):
        def open(self, model, threads):
            other = subprocess.Popen(["sleep", "600"])
            (Path(model).parent / "other").write_text(str(other.pid))
            time.sleep(600)
"""


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Runtime]:
    """Runtimes that are wrong in some way."""
    (tmp_path / "made_up_runtimes.py").write_text(textwrap.dedent(MADE_UP))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "made_up_runtimes", raising=False)
    module = import_module("made_up_runtimes")
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type)]
    return {kind.__name__: kind() for kind in kinds if issubclass(kind, OnnxRuntime)}


def verification(*asked: Runtime, limit: float = 60.0) -> Verification:
    return Verification(asked, batch=4, threads=1, limit=limit)


def subject(tmp_path: Path, model: Model | None = None, name: str = "model") -> tuple[Subject, Trial]:
    model = model or small.model(small.dense_net())
    path = tmp_path / f"{name}.onnx"
    model.save(path)
    loaded = Model.load(path)
    loaded.card = loaded.card or model.card
    trial = Trial.drawn(loaded, 6)
    return verification().subject(path, loaded, trial), trial


def verdict(tmp_path: Path, of: Runtime, limit: float = 60.0) -> Verdict:
    (found,) = verification(of, limit=limit).measure(subject(tmp_path)[0])
    return found


def test_runtimes_that_are_right(tmp_path: Path) -> None:
    found = verification(OnnxRuntime(), Reference()).measure(subject(tmp_path)[0])
    for each in found:
        assert each.error is None and each.difference is not None
        assert each.difference.largest < 1e-5 and each.difference.changed == 0
        assert each.holds(1e-3)
    assert (found[0].ratio, found[1].ratio) == (1.0, None)
    assert found[0].plain()["latency_ms"] > 0


def test_differences_are_relative_to_the_scale(tmp_path: Path, made_up: dict[str, Runtime]) -> None:
    own, _ = subject(tmp_path)
    (found,) = verification(made_up["Off"]).measure(own)
    scale = max(1.0, min(float(np.abs(batch[0]).max()) for batch in own.expected.outputs))
    assert found.difference is not None and found.difference.changed == 0
    assert found.difference.largest == pytest.approx(0.5 / scale, rel=1e-5)
    assert not found.holds(1e-3) and found.holds(1.0)


def test_decisions_that_change_are_counted(tmp_path: Path, made_up: dict[str, Runtime]) -> None:
    found = verdict(tmp_path, made_up["Turned"])
    assert found.difference is not None and found.difference.changed == 6 + 3  # six at once, three alone


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NotANumber", "nan where"),
        ("Fewer", "output y has shape [4, 2], in onnxruntime [4, 4]"),
        ("Ends", "it ended the process by SIGABRT: thread main panicked at Reshape"),
        ("Prints", "nothing was written: Error: no such operator"),
        ("OnlyOne", "ValueError: a batch of 1 is expected"),
    ],
)
def test_what_goes_wrong_is_said(name: str, said: str, tmp_path: Path, made_up: dict[str, Runtime]) -> None:
    found = verdict(tmp_path, made_up[name])
    assert said in (found.error or "")
    assert not found.holds(1.0) and found.seconds is None


def test_a_runtime_that_does_not_come_back_is_ended(tmp_path: Path, made_up: dict[str, Runtime]) -> None:
    own, _ = subject(tmp_path)
    (found,) = verification(made_up["Hangs"], limit=1.5).measure(own)
    assert found.error == "it did not end within 1.5 s"


@pytest.mark.skipif(sys.platform == "win32", reason="processes have no groups")
def test_processes_of_a_runtime_end_with_it(tmp_path: Path, made_up: dict[str, Runtime]) -> None:
    own, _ = subject(tmp_path)
    (found,) = verification(made_up["Leaves"], limit=2.0).measure(own)
    assert found.error == "it did not end within 2 s"
    pid = int((tmp_path / "other").read_text())
    for _ in range(50):  # it is ended at once, and counted as there until it is waited for
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or ") Z" in state.read_text():
            break
        time.sleep(0.1)
    else:
        pytest.fail("it goes on")


def test_what_is_not_installed_is_named(tmp_path: Path, made_up: dict[str, Runtime]) -> None:
    found = verdict(tmp_path, made_up["Absent"])
    assert found.error == "not installed: pip install 'no-such-package'"
    assert found.holds(0.0) and not found.plain()["installed"]


def test_what_the_parent_cannot_do_is_not_held_against_a_module(
    tmp_path: Path, made_up: dict[str, Runtime]
) -> None:
    parent, _ = subject(tmp_path, name="parent")
    own, _ = subject(tmp_path)
    (found,) = verification(made_up["NotWide"]).measure(own, parent)
    assert found.parent_error == "ValueError: unknown operator" and found.error is None
    (found,) = verification(made_up["Off"]).measure(own, parent)
    assert "it is off by" in (found.parent_error or "") and found.holds(1e-3)
    (found,) = verification(made_up["Off"]).measure(own)
    assert not found.holds(1e-3)


def test_a_module_that_is_further_off_than_its_parent_is_wrong(
    tmp_path: Path, made_up: dict[str, Runtime]
) -> None:
    parent, _ = subject(tmp_path, name="parent")
    own, _ = subject(tmp_path)
    (found,) = verification(made_up["Worse"]).measure(own, parent)
    assert found.parent_off is not None and found.difference is not None
    assert found.difference.largest == pytest.approx(500 * found.parent_off, rel=1e-3)
    assert not found.holds(1e-3) and found.holds(5.0)


def test_a_batch_that_the_graph_fixes_is_run_one_by_one(tmp_path: Path) -> None:
    w = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    target = numpy_helper.from_array(np.array([1, 4]), "target")
    nodes = [
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4])] for name in ("x", "y")]
    proto = helper.make_model(
        helper.make_graph(nodes, "fixed", *ends, [w, target]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(proto, tmp_path / "fixed.onnx")
    model = Model.load(tmp_path / "fixed.onnx")
    own = verification().subject(tmp_path / "fixed.onnx", model, Trial.drawn(model, 6))
    assert [len(batch["x"]) for batch in own.batches] == [1] * 6
    (found,) = verification(OnnxRuntime()).measure(own)
    assert found.error is None


def test_tokens_are_drawn_from_the_table_that_they_look_up() -> None:
    table = numpy_helper.from_array(np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32), "table")
    nodes = [
        helper.make_node("Cast", ["words"], ["numbers"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "numbers"], ["rows"]),
        helper.make_node("ReduceMean", ["rows"], ["y"], axes=[1], keepdims=0),
    ]
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "words",
            [helper.make_tensor_value_info("words", TensorProto.INT32, ["N", "T"])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
            [table],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    (words,) = Trial.drawn(Model.from_proto(proto), 50).raw.values()
    assert words.dtype == np.int32 and words.shape == (50, 8)
    assert words.max() == 19 and words.min() == 0


def test_pixels_are_drawn_and_prepared_by_the_card() -> None:
    model = small.model(small.conv_net())
    assert model.card is not None
    size = [int(n) for n in model.inputs()["x"][1][2:]]  # type: ignore[arg-type]
    image = {
        "name": "x",
        "kind": "image",
        "color": "RGB",
        "size": size,
        "scale": 1 / 255,
        "mean": [0.5],
        "std": [2.0],
    }
    channels = model.inputs()["x"][1][1]
    image["color"] = "RGB" if channels == 3 else "GRAY"
    model.card = Card.model_validate(
        {"input": image, "output": {"name": "y", "kind": "logits"}, "labels": list("abcd")}
    )
    trial = Trial.drawn(model, 5)
    (raw,) = trial.raw.values()
    assert raw.dtype == np.uint8 and raw.shape[:3] == (5, *size)
    first = trial.batches(model, 4)[0]["x"]
    expected = (raw[:4].astype(np.float32) / 255 - 0.5) / 2
    expected = expected.transpose(0, 3, 1, 2) if channels == 3 else expected[:, None]
    np.testing.assert_allclose(first, expected, rtol=1e-5, atol=1e-6)


def test_a_module_against_its_parent(tmp_path: Path) -> None:
    """Nothing is pruned: what differs is the head alone, which is exact."""
    whole = small.model(small.dense_net())
    parent, trial = subject(tmp_path, whole, "parent")
    x = np.random.default_rng(0).normal(size=(80, *small.dense_net().shape)).astype(np.float32)
    data = small.samples(x, of=whole.card)
    context = Context(samples=data, profile=small.profile(whole, data), device=small.CPU)
    for classes, together in ((["b"], False), (["c", "a"], True)):
        ready = Parent(whole.copy())
        module = Decompose(classes, keep=1.0, together=together)(ready, context).model
        path = tmp_path / f"{len(classes)}.onnx"
        own = verification().subject(path, _saved(module, path), trial)
        found = change(own, parent, len(trial))
        assert found.compared == "logits" and found.samples == 6
        assert found.classes == (("b", "(other)") if not together else ("c", "a"))
        assert found.difference.largest < 1e-5 and found.difference.changed == 0


def _saved(model: Model, path: Path) -> Model:
    model.save(path)
    return Model.load(path)


def test_models_without_a_common_class_are_refused(tmp_path: Path) -> None:
    one, trial = subject(tmp_path)
    other, _ = subject(tmp_path, small.model(small.dense_net(), labels=("w", "x", "y", "z")), "other")
    with pytest.raises(GraftError, match="no class in common: a, b, c and w, x, y"):
        change(one, other, len(trial))


def test_one_class_in_common_is_compared_by_logits_alone(tmp_path: Path) -> None:
    one, trial = subject(tmp_path)
    shared = small.model(small.dense_net(), labels=("a", "x", "y", "z"))
    assert change(one, subject(tmp_path, shared, "other")[0], len(trial)).compared == "logits"
    assert shared.card is not None
    shared.card = shared.card.model_copy(
        update={"output": shared.card.output.model_copy(update={"kind": "probabilities"})}
    )
    found = change(one, subject(tmp_path, shared, "shares")[0], len(trial))
    assert (found.compared, found.classes, found.difference) == ("nothing", ("a",), None)
    assert found.plain()["max_difference"] is None


def test_a_parent_may_call_its_input_otherwise(tmp_path: Path) -> None:
    own, trial = subject(tmp_path)
    proto = onnx.load(tmp_path / "model.onnx")
    proto.graph.input[0].name = "pixels"
    for node in proto.graph.node:
        node.input[:] = ["pixels" if name == "x" else name for name in node.input]
    model = Model.from_proto(proto)
    first = trial.batches(model, 4)[0]
    np.testing.assert_array_equal(first["pixels"], own.batches[0]["x"])


def test_names_of_runtimes() -> None:
    assert list(runtimes())[:5] == ["onnxruntime", "reference", "openvino", "tract", "mnn"]
    with pytest.raises(GraftError, match="no runtime 'opnvino'; did you mean 'openvino'"):
        runtime("opnvino")


def test_outputs_without_a_card() -> None:
    labels, scores = np.array([1, 0]), np.array([[0.2, 0.8], [0.9, 0.1]], np.float32)
    found = Outputs(("label", "p")).compare([labels, scores], [np.array([1, 1]), scores])
    assert (found.changed, found.largest) == (1, 0.0)
    minus = np.array([[-np.inf, 1.0]])
    assert Outputs(("p",)).compare([minus], [minus]).largest == 0
