"""What the design promises of modules and composites, sentence by sentence."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graft.rewriter.card.card import Card
from graft.tools.cli import run
from tests import small
from tests.integration import kit
from tests.integration.contract.kit import (
    CARD_OF_Y,
    KEEP,
    OTHER,
    arrays,
    found,
    props,
    put,
    refused,
    versions,
    words,
)
from tests.integration.kit import Graft, Place


@pytest.mark.xfail(
    strict=True,
    reason="Head keeps the whole head of the other classes; nothing fits one row to its logsumexp",
)
def test_one_row_stands_for_the_other_classes(graft: Graft, here: Place) -> None:
    """One row fitted to the parent's logsumexp stands for the others where it is smaller and no worse."""
    net = small.Net(6)
    relu = net.node("Relu", "relu", net.gemm("one", "x", 12, 6))
    rows = np.random.default_rng(0).normal(size=(2, 12))
    net.constant("y.w", rows[[0] + [1] * 99])  # the others' logsumexp is one row and a constant
    net.constant("y.b", np.zeros(100))
    net.node("Gemm", "y", relu, "y.w", "y.b", transB=1)
    proto = put("many", net, y=(100,))
    names = ", ".join(f"c{number}" for number in range(100))
    Path("many.yaml").write_text(CARD_OF_Y.replace(", ".join(kit.LABELS), names))
    x = small.inputs((6,), 400)
    np.savez("many.npz", x_train=x, y_train=np.arange(400) % 100)
    cut = ("decompose", "many.onnx", "--data", "many.npz", "--keep", "1", "--classes", "c0", "-o", "out")
    (module,) = found(graft(*cut, "--json"), "decompose")["modules"]
    scores = kit.run_model(proto, x)["y"]
    expected = np.concatenate([scores[:, :1], small.logsumexp(scores[:, 1:])], axis=1)
    ours = kit.run_model(Path("out/c0.onnx"), x)["y"]
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)
    assert module["parameters"] < 200


def test_other_outputs_are_dropped_first(graft: Graft, here: Place) -> None:
    """Other outputs of the parent (labels, ZipMap, auxiliary heads) are dropped first."""
    parent = onnx.load(here.model)
    parent.graph.node.append(helper.make_node("ArgMax", ["scores"], ["label"], "label", axis=1))
    weight = np.random.default_rng(0).normal(size=(kit.HIDDEN, 50)).astype(np.float32)
    parent.graph.initializer.append(numpy_helper.from_array(weight, "w3"))
    parent.graph.node.append(helper.make_node("MatMul", ["active", "w3"], ["auxiliary"], "auxiliary"))
    ends = (("label", TensorProto.INT64, ["samples", 1]), ("auxiliary", TensorProto.FLOAT, ["samples", 50]))
    parent.graph.output.extend(helper.make_tensor_value_info(*end) for end in ends)
    onnx.checker.check_model(parent)
    onnx.save(parent, here.model)
    before = json.loads((here / "modules/graft.json").read_text())
    result = found(graft(*words("decompose"), "--json"), "decompose")
    assert result["parent"]["macs"] == before["parent"]["macs"]
    assert [module["macs"] for module in result["modules"]] == [m["macs"] for m in before["modules"]]
    for name in kit.LABELS:
        assert [output.name for output in onnx.load(f"out/{name}.onnx").graph.output] == ["scores"]


def test_a_parent_from_scikit_learn(graft: Graft, tmp_path: Path) -> None:
    """``head`` finds the class axis from the card, drops labels and ZipMap, gives probabilities."""
    models = Path(str(import_module("graft.models").__path__[0]))
    line = (
        "decompose",
        models / "digits_sklearn.onnx",
        "--data",
        models / "digits_sample.npz",
        "--keep",
        "1",
    )
    assert graft(*line, "--classes", "six", "-o", tmp_path / "out").code == 0
    (output,) = onnx.load(tmp_path / "out/six.onnx").graph.output
    card = Card.from_json(props(tmp_path / "out/six.onnx")["graft.card"])
    assert (output.name, card.output.name, card.output.kind) == (
        card.output.name,
        output.name,
        "probabilities",
    )
    assert card.labels == ("six", OTHER)
    assert output.type.tensor_type.shape.dim[1].dim_value == 2


@pytest.mark.parametrize("batch", ["N", 3])
def test_inputs_are_those_of_the_parent(batch: int | str, graft: Graft, here: Place) -> None:
    """Input name, type, layout and dynamic dimensions are the parent's where there is one parent."""
    net = small.dense_net()
    put("fixed", net, batch=batch)
    cut = ("decompose", "fixed.onnx", "--data", "dense.npz", *KEEP, "-o")
    assert graft(*cut, "each").code == 0
    assert graft(*cut, "one", "--classes", "ant,dog", "--together").code == 0
    for strategy in ("trunk", "branches"):
        assert graft("compose", "each", "--strategy", strategy, "-o", f"{strategy}.onnx", "--force").code == 0
    parent = onnx.load("fixed.onnx").graph
    for file in ("each/ant.onnx", "one/ant_dog.onnx", "trunk.onnx", "branches.onnx"):
        graph = onnx.load(file).graph
        assert list(graph.input) == list(parent.input)
        assert all(
            output.type.tensor_type.shape.dim[0] == parent.output[0].type.tensor_type.shape.dim[0]
            for output in graph.output
        )


def test_old_parents_are_lifted(graft: Graft, here: Place) -> None:
    """Opsets below 11 are lifted on loading, initializers leave the graph inputs."""
    parent = kit.dense(opset=9, ir_version=3)
    parent.graph.input.extend(
        helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
        for weight in parent.graph.initializer
    )
    onnx.save(parent, here.model)
    assert graft(*words("decompose")).code == 0
    assert graft("compose", "out", "-o", "all.onnx").code == 0
    for file in ("out/ant.onnx", "all.onnx"):
        assert versions(file)[0] == 11
        assert versions(file)[1] < onnx.IR_VERSION
        assert [each.name for each in onnx.load(file).graph.input] == ["x"]


@pytest.mark.parametrize(("opset", "ir_version"), [(13, 7), (17, 8), (18, 9)])
def test_versions_are_those_of_the_parent(opset: int, ir_version: int, graft: Graft, here: Place) -> None:
    """IR version and opset are the parent's; onnx's default is never written."""
    onnx.save(kit.dense(opset=opset, ir_version=ir_version), here.model)
    assert graft(*words("decompose")).code == 0
    for strategy in ("trunk", "branches"):
        assert graft("compose", "out", "--strategy", strategy, "-o", f"{strategy}.onnx", "--force").code == 0
    for file in ("out/ant.onnx", "out/parent/parent.onnx", "trunk.onnx", "branches.onnx"):
        assert versions(file) == (opset, ir_version)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory, whole: Place) -> Path:
    """Modules of two parents of different versions, licences and metadata, and their composite."""
    folder = tmp_path_factory.mktemp("zoo")
    here = kit.place(folder, kit.dense(seed=5, opset=18, ir_version=9))
    parent = onnx.load(here.model)
    helper.set_model_props(parent, {"project": "zoo"})
    onnx.save(parent, here.model)
    here.card.write_text(kit.card(labels="[eel, fox, gnu, hen]") + "name: zoo\nlicense: BSD-2-Clause\n")
    line = ["decompose", str(here.model), "--data", str(here.data), "--classes", "gnu,eel", *KEEP]
    assert run([*line, "-o", str(folder / "modules")]) == 0
    files = [str(whole / "modules/ant.onnx"), str(folder / "modules/eel.onnx")]
    assert run(["compose", *files, "-o", str(folder / "composite.onnx")]) == 0
    return folder


def test_a_composite_has_the_highest_versions_of_its_parents(zoo: Path) -> None:
    """IR version and opset are (a composite: the highest of its parents')."""
    assert versions(zoo / "composite.onnx") == (18, 9)


def test_a_composite_names_all_its_parents(zoo: Path) -> None:
    """``graft.origin`` (licences of parents)."""
    origin = json.loads(props(zoo / "composite.onnx")["graft.origin"])
    told = [(parent["name"], parent["license"]) for parent in origin["parents"]]
    assert told == [("insects", "MIT"), ("zoo", "BSD-2-Clause")]
    assert origin["classes"] == ["ant", "eel"]


def test_a_composite_keeps_the_foreign_keys_of_all_parents(zoo: Path) -> None:
    """Foreign keys are kept."""
    found = props(zoo / "composite.onnx")
    assert (found.get("author"), found.get("project")) == ("somebody", "zoo")


@pytest.mark.parametrize("command", ["decompose", "compose", "branches"])
def test_versions_can_be_pinned(command: str, graft: Graft, here: Place) -> None:
    """``--opset``, ``--ir-version`` pin, and the model computes the same."""
    branches = ["--strategy", "branches"] if command == "branches" else []
    line = [*words("compose" if branches else command, "plain"), *branches]
    pinned = [*line[:-3], *branches] if branches else line[:-2]
    assert graft(*line).code == 0
    pins = ("--opset", "18", "--ir-version", "10")
    assert graft(*[word if word != "plain" else "pinned" for word in line], *pins).code == 0
    assert pinned
    names = [f"/{name}.onnx" for name in kit.LABELS] if command == "decompose" else [""]
    for name in names:
        assert versions(f"plain{name}") == (17, 8)
        assert versions(f"pinned{name}") == (18, 10)
        x = arrays(here)["x_test"]
        ours, theirs = (kit.run_model(Path(f"{folder}{name}"), x)["scores"] for folder in ("pinned", "plain"))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pin", ["--opset", "--ir-version"])
@pytest.mark.parametrize("command", ["decompose", "compose"])
def test_one_version_can_be_pinned(command: str, pin: str, graft: Graft, here: Place) -> None:
    assert graft(*words(command), pin, "18" if pin == "--opset" else "9").code == 0
    file = "out/ant.onnx" if command == "decompose" else "out"
    assert versions(file) == ((18, 8) if pin == "--opset" else (17, 9))


@pytest.mark.parametrize("strategy", ["decompose", "trunk", "branches"])
@pytest.mark.parametrize(
    ("pins", "code"),
    [
        (["--opset", "17"], "convert-failed"),
        (["--opset", "999"], "version-unknown"),
        (["--ir-version", "6"], "version-conflict"),
        (["--ir-version", "999"], "version-conflict"),
        (["--opset", "22", "--ir-version", "9"], "version-conflict"),
        (["--opset", "10"], "usage"),
    ],
)
def test_what_cannot_be_converted_is_refused(
    pins: list[str], code: str, strategy: str, graft: Graft, here: Place
) -> None:
    """What cannot be converted is refused: there is no Gelu before opset 20."""
    net = small.Net(6, opset=20)
    net.gemm("y", net.node("Gelu", "gelu", net.gemm("one", "x", 8, 6)), 4, 8)
    put("gelu", net, ir_version=9)
    cut = ("decompose", "gelu.onnx", "--data", "dense.npz", "--keep", "1", "-o")
    assert graft(*cut, "parts").code == 0
    line = cut if strategy == "decompose" else ("compose", "parts", "--strategy", strategy, "-o")
    before = kit.listing(here.folder)
    refused(graft(*line, "out", *pins, "--json"), code)
    assert kit.listing(here.folder) == before
