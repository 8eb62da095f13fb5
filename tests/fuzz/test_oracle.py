"""The oracle of the fuzzer: right cuts of all bases pass, wrong ones do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from graft.tools.cli import run
from tests.fuzz import bases, oracle, running
from tests.fuzz.bases import RUN
from tests.fuzz.checks import check_of
from tests.fuzz.embedded import UnknownError, embedded, zeros_around
from tests.fuzz.mutant import OUT, Mutant

FLOAT = helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
CUT = (
    *("decompose", "model.onnx", "--data", "data.npz", *RUN, "--keep", "0.6", "--compensate", "none"),
    *("--method", "contrast"),
)


def decomposed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> Mutant:
    """A base, cut in ``folder``, as the unchanged mutant that it is."""
    bases.write(bases.base(name), folder / "work")
    monkeypatch.chdir(folder / "work")
    two = ",".join(bases.labels(name)[:3:2])
    mutant = Mutant(0, "model", name, (*CUT, "--classes", two, *more, "-o", OUT))
    assert run(mutant.arguments) == 0
    return mutant


CUTTABLE = [name for name in bases.names() if name not in ("detector", "mobilenet")]


@pytest.mark.parametrize("name", CUTTABLE)
def test_every_base_is_cut_right(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = decomposed(name, tmp_path, monkeypatch)
    assert oracle.check_modules(mutant, "") == "2 with the masked parent"


def test_weights_that_were_folded_cannot_be_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = decomposed("mobilenet", tmp_path, monkeypatch)
    with pytest.raises(UnknownError):
        oracle.check_modules(mutant, "")


@pytest.mark.parametrize("more", [["--together"], ["--together", "--no-rest"]])
def test_modules_of_several_classes(more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = decomposed("residual_stream", tmp_path, monkeypatch, *more)
    assert oracle.check_modules(mutant, "") == "1 with the masked parent"


@pytest.mark.parametrize("name", ["residual_stream", "dense_convolutions"])
def test_a_weight_that_reads_the_wrong_channels_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant = decomposed(name, tmp_path, monkeypatch, "--together")
    path = next(Path(OUT).glob("*.onnx"))
    module = onnx.load(path)
    whole = {each.name: each.dims for each in onnx.load("model.onnx").graph.initializer}
    tensor = next(
        each
        for each in module.graph.initializer
        if len(each.dims) == 4 and 1 < each.dims[1] < whole.get(each.name, [0, 0])[1]
    )
    shifted = np.roll(numpy_helper.to_array(tensor), 1, axis=1)
    tensor.CopyFrom(numpy_helper.from_array(shifted, tensor.name))
    onnx.save(module, path)
    with pytest.raises(running.WrongError):
        oracle.check_modules(mutant, "")


def test_a_module_without_pruning_is_compared_with_the_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant = decomposed("softmax_end", tmp_path, monkeypatch, "--keep", "1.0")
    assert oracle.check_modules(mutant, "") == "2 with the parent"
    path = Path("model.yaml")
    path.write_text(path.read_text().replace("ant, bee", "bee, ant"))
    with pytest.raises(running.WrongError):
        oracle.check_modules(mutant, "")


def test_scores_that_are_a_tensor_inside_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bases.base("gemms")
    whole.model.graph.output[0].name = whole.model.graph.input[0].name
    bases.write(whole, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    two = ",".join(bases.labels("gemms")[:2])
    mutant = Mutant(0, "model", "gemms", (*CUT, "--keep", "1.0", "--classes", two, "-o", OUT))
    assert run(mutant.arguments) == 0
    assert oracle.check_modules(mutant, "") == "2 with the parent"
    path = next(Path(OUT).glob("*.onnx"))
    module = onnx.load(path)
    module.graph.output[0].name = "other"
    onnx.save(module, path)
    with pytest.raises(running.WrongError):
        oracle.check_modules(mutant, "")


def test_zeros_take_the_place_of_what_is_gone() -> None:
    whole = np.arange(12, dtype=np.float32).reshape(3, 4) + 1
    part = whole[np.ix_([0, 2], [1, 3])]
    assert zeros_around(part, whole).tolist() == [[0, 2, 0, 4], [0, 0, 0, 0], [0, 10, 0, 12]]
    with pytest.raises(UnknownError):
        zeros_around(part + 1, whole)
    with pytest.raises(UnknownError):
        zeros_around(np.ones((2, 2), np.float32), np.ones((3, 4), np.float32))


def test_what_is_none_of_the_parents_cannot_be_compared() -> None:
    with pytest.raises(UnknownError):
        embedded(bases.base("gemms").model, bases.base("pictures").model)


JOINED = (
    ("add", "model.onnx", "--with", "modules/ant.onnx", "--rename", "ant=new"),
    ("replace", "model.onnx", "--class", "cow", "--with", "modules/bee.onnx", "--rename", "bee=new"),
    ("compose", "modules/ant.onnx", "modules/bee.onnx", "--strategy", "branches"),
)


@pytest.mark.parametrize("name", ["softmax_end", "pictures"])
def test_newcomers_and_branches_are_compared(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bases.write(bases.base(name), tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    assert run([*CUT, "--classes", ",".join(bases.labels(name)[:2]), "-o", "modules"]) == 0
    for line in JOINED:
        mutant = Mutant(0, "model", name, (*line, *RUN, "-o", OUT))
        assert run(mutant.arguments) == 0
        check = check_of(mutant)
        assert check is not None
        assert check(mutant, "").endswith(("the parent and the module", "the modules"))
        _swap(Path("modules"))
        with pytest.raises(running.WrongError):
            check(mutant, "")
        _swap(Path("modules"))
        Path(OUT).unlink()


def _swap(folder: Path) -> None:
    """Exchange two modules."""
    for source, target in (("ant", "kept"), ("bee", "ant"), ("kept", "bee")):
        (folder / f"{source}.onnx").rename(folder / f"{target}.onnx")


def test_columns_of_a_zipmap_are_in_the_order_of_its_labels() -> None:
    node = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[3, -7, 5])
    entry = helper.make_tensor_value_info("x", 1, ["n", 3])
    output = helper.make_value_info(
        "y", helper.make_sequence_type_proto(helper.make_map_type_proto(7, FLOAT))
    )
    graph = helper.make_graph([node], "g", [entry], [output])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    values = np.array([[1, 2, 3]], np.float32)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    assert running.run(model, {"x": values})["y"].tolist() == values.tolist()


def test_restricted_scores() -> None:
    logits = np.log([[0.1, 0.2, 0.7]])
    assert np.exp(oracle.restricted(logits, [1], True, "logits")) == pytest.approx(np.array([[0.2, 0.8]]))
    assert oracle.restricted(np.exp(logits), [2, 0], False, "probabilities") == pytest.approx(
        np.array([[0.875, 0.125]])
    )


def test_a_head_whose_output_was_renamed_is_reduced_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is cut of it may matter: behind some operators a channel of zeros is not zero."""
    decomposed("residual_stream", tmp_path, monkeypatch)
    parent = onnx.load("model.onnx")
    (head,) = (node for node in parent.graph.node if parent.graph.output[0].name in node.output)
    modules = [onnx.load(path) for path in sorted(Path(OUT).glob("*.onnx"))]
    assert all(head.output[0] not in node.output for node in modules[0].graph.node if node.name == head.name)
    for module in modules:
        found = embedded(parent, module)
        (masked,) = (node for node in found.graph.node if node.name == head.name)
        assert masked.input[1].startswith("embedded/")


def test_data_of_another_type_and_larger_batches_are_no_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graft turns data into the model's type; a batch that is larger than the samples cannot be compared."""
    decomposed("residual_stream", tmp_path, monkeypatch)
    model = onnx.load("model.onnx")
    card = oracle.card_of_model()
    inputs = oracle.inputs_of(card)
    halves = {name: values.astype(np.float16).astype(np.float64) for name, values in inputs.items()}
    same = {name: values.astype(np.float32) for name, values in halves.items()}
    for one, two in zip(running.run(model, halves).values(), running.run(model, same).values(), strict=True):
        np.testing.assert_array_equal(one, two)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 64
    with pytest.raises(UnknownError, match="takes 64 samples at once"):
        running.run(model, inputs)


@pytest.mark.parametrize("broken", ["model.onnx", "modules/ant.onnx"])
@pytest.mark.parametrize("more", [(), ("--data", "data.npz")])
def test_what_was_made_of_models_that_do_not_run_cannot_be_compared(
    broken: str, more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result of them does not run either: that says nothing about Graft."""
    bases.write(bases.base("gemms"), tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    assert run([*CUT, "--classes", "ant,bee", "-o", "modules"]) == 0
    mutant = Mutant(0, "model", "gemms", (*JOINED[0], *more, *RUN, "-o", OUT))
    assert run(mutant.arguments) == 0
    check = check_of(mutant)
    assert check is not None
    _break(Path(OUT))
    with pytest.raises(running.WrongError, match="Invalid bias"):
        check(mutant, "")
    _break(Path(broken))
    with pytest.raises(UnknownError, match="Invalid bias"):
        check(mutant, "")


def _break(path: Path) -> None:
    """Give the first Gemm a bias that onnxruntime refuses when it runs."""
    model = onnx.load(path)
    node = next(each for each in model.graph.node if each.op_type == "Gemm")
    bias = numpy_helper.from_array(np.zeros(64, np.float32), "bias_of_a_wrong_size")
    del node.input[2:]
    node.input.append(bias.name)
    model.graph.initializer.append(bias)
    onnx.save(model, path)
