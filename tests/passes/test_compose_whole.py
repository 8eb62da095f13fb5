"""Ordinary classifiers are joined without decompose; what they have in common runs, and is stored, once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from graft.passes.base import Context
from graft.passes.compare import names
from graft.passes.compose import Compose, ComposeReport
from graft.passes.decompose import Decompose
from graft.passes.join.equal_parts import spared_macs
from graft.passes.networks import Modules
from graft.passes.parent import Parent
from graft.passes.trunk import Source
from graft.rewriter.card.card import Card
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.record.provenance import kind_of, origin_of
from graft.tools.cli import run as run_command
from tests import small
from tests.integration.kit import printed

Array = NDArray[Any]
SIZE = 6
BACKBONE = 64 * 3 * 9 * SIZE * SIZE + 24 * 64 * 9 * SIZE * SIZE
"""Multiply-accumulates of both convolutions of :class:`Tuned`."""


@dataclass(frozen=True)
class Tuned:
    """A classifier with a head of its own on a frozen backbone of two convolutions.

    Attributes:
        labels: one letter a class.
        names: begin of the names of all nodes and tensors.
        explicit: attributes that are defaults are written.
        mean: of the pixels, in the card.
        kind: of the output.
        backbone: seed of the frozen weights.
    """

    labels: str
    names: str = "a/"
    explicit: bool = False
    mean: float = 0.5
    kind: str = "logits"
    backbone: int = 0

    def model(self) -> Model:
        frozen, own = np.random.default_rng(self.backbone), np.random.default_rng(ord(self.labels[0]))
        columns = 1 if self.kind == "binary" else len(self.labels)
        shapes = {"w1": (64, 3, 3, 3), "b1": (64,), "w2": (24, 64, 3, 3), "b2": (24,)}
        values = {k: frozen.normal(size=s) / np.sqrt(np.prod(s[1:])) for k, s in shapes.items()}
        values |= {"hw": own.normal(size=(columns, 24)) * 3, "hb": own.normal(size=columns)}
        said = {"strides": [1, 1], "dilations": [1, 1], "group": 1, "kernel_shape": [3, 3]}
        begin = self.names

        def node(op: str, *tensors: str, **attributes: Any) -> onnx.NodeProto:
            *inputs, output = (begin + each for each in tensors)
            return helper.make_node(op, inputs, [output], name=f"{output}/{op}", **attributes)

        windows = said if self.explicit else {}
        nodes = [
            node("Conv", "x", "w1", "b1", "c1", pads=[1, 1, 1, 1], **windows),
            node("Relu", "c1", "r1"),
            node("Conv", "r1", "w2", "b2", "c2", pads=[1, 1, 1, 1], **windows),
            node("Relu", "c2", "r2"),
            node("GlobalAveragePool", "r2", "p"),
            node("Flatten", "p", "f"),
            node("Gemm", "f", "hw", "hb", "scores", transB=1),
        ]
        last = {"probabilities": "Softmax", "binary": "Sigmoid"}.get(self.kind)
        nodes += [node(last, "scores", "shares")] if last else []
        ends = [
            helper.make_tensor_value_info(begin + name, onnx.TensorProto.FLOAT, shape)
            for name, shape in (
                ("x", ["N", 3, SIZE, SIZE]),
                ("shares" if last else "scores", ["N", columns]),
            )
        ]
        weights = [
            numpy_helper.from_array(value.astype(np.float32), begin + name) for name, value in values.items()
        ]
        graph = helper.make_graph(nodes, "tuned", ends[:1], ends[1:], weights)
        opsets = [helper.make_opsetid("", 17)]
        return Model.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8), self.card())

    def card(self) -> Card:
        image = {"kind": "image", "layout": "NCHW", "color": "RGB", "size": [SIZE, SIZE], "scale": 1 / 255}
        return Card.model_validate(
            {
                "inputs": [{"name": f"{self.names}x", **image, "mean": [self.mean] * 3, "std": [0.5] * 3}],
                "output": {
                    "name": self.names + ("scores" if self.kind == "logits" else "shares"),
                    "kind": self.kind,
                },
                "labels": list(self.labels),
            }
        )

    def shares(self, images: Array) -> Array:
        """What the classifier itself says: probabilities."""
        pixels = ((images / np.float32(255) - self.mean) / 0.5).astype(np.float32).transpose(0, 3, 1, 2)
        session = ort.InferenceSession(
            self.model().proto().SerializeToString(), providers=["CPUExecutionProvider"]
        )
        found = session.run(None, {f"{self.names}x": pixels})[0]
        if self.kind == "binary":
            return np.concatenate([1 - found, found], axis=1)
        return small.softmax(found) if self.kind == "logits" else np.asarray(found)


PETS = Tuned("cdb")
CARS = Tuned("vw", names="b.", explicit=True)


def images(count: int = 30) -> Array:
    return np.random.default_rng(3).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def run(model: Model, given: Array) -> Array:
    session = ort.InferenceSession(model.proto().SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: given})[0])


def data() -> Split:
    return Dataset.from_arrays(images(50), np.arange(50) % 5, class_names=tuple("cdbvw")).split("train")


def count(model: Model, op: str) -> int:
    return sum(node.op == op for node in model.graph.nodes)


def join(*nets: Tuned, **options: Any) -> ComposeReport:
    context = Context(data=data()) if options.pop("data", False) else Context()
    return Compose(**options)(Modules([net.model() for net in nets]), context)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_two_classifiers_are_joined_and_say_what_each_says_alone(kind: str) -> None:
    """Each network's probabilities, side by side: log-softmax of both."""
    nets = (PETS, Tuned("vw", names="b.", explicit=True, kind=kind))
    report = join(*nets, scores="softmax")
    assert report.model.require_card().labels == tuple("cdbvw")
    scores = run(report.model, images())
    shares = np.concatenate([net.shares(images()) for net in nets], axis=1)
    np.testing.assert_allclose(small.softmax(scores), shares / 2, atol=2e-6)
    assert kind_of(report.model) == "composite"
    assert [len(each.labels) for each in origin_of(report.model).parents] == [3, 2]


@pytest.mark.parametrize("scores", names())
def test_an_equal_backbone_runs_once_whatever_the_scores(scores: str) -> None:
    report = join(PETS, CARS, scores=scores, data=True)
    assert count(report.model, "Conv") == 2
    sizes = sorted(t.values.size for t in report.model.graph.tensors().values() if hasattr(t, "values"))
    assert sizes.count(64 * 3 * 9) == sizes.count(24 * 64 * 9) == 1, "stored once, too"
    assert cost_of(report.model).macs < BACKBONE + 20_000
    assert report.shared[1] >= 4


@pytest.mark.parametrize("scores", ["typicality", "joint"])
def test_with_rejection_too(scores: str) -> None:
    report = join(PETS, CARS, scores=scores, other=True, data=True)
    assert count(report.model, "Conv") == 2


@pytest.mark.parametrize("other", [Tuned("vw", mean=0.4), Tuned("vw", backbone=1)])
def test_another_preprocessing_or_backbone_is_no_equal_one(other: Tuned) -> None:
    report = join(PETS, other, scores="softmax")
    assert count(report.model, "Conv") == 4
    shares = np.concatenate([net.shares(images()) for net in (PETS, other)], axis=1)
    np.testing.assert_allclose(small.softmax(run(report.model, images())), shares / 2, atol=2e-6)
    assert spared_macs([Parent(PETS.model()), Parent(other.model())]) == [0, 0]


def test_a_binary_classifier_gets_a_column_for_each_class() -> None:
    binary = Tuned("vw", kind="binary")
    report = join(PETS, binary, scores="softmax")
    shares = np.concatenate([net.shares(images()) for net in (PETS, binary)], axis=1)
    np.testing.assert_allclose(small.softmax(run(report.model, images())), shares / 2, atol=2e-6)
    assert count(report.model, "Conv") == 2


def test_equal_labels_are_a_conflict_until_one_is_renamed() -> None:
    both = [PETS.model(), Tuned("bx").model()]
    with pytest.raises(GraftError, match="--rename A=B") as error:
        Compose()(Modules(both), Context())
    assert error.value.code == "class-twice"
    report = Compose()(Modules(both, rename=[{}, {"b": "bus"}]), Context())
    assert report.model.require_card().labels == ("c", "d", "b", "bus", "x")
    assert (report.strategy, report.scores) == ("branches", "softmax")
    assert not report.declined


def test_what_excludes_no_other_class_is_refused() -> None:
    model = PETS.model()
    model.card = model.require_card().replace(output={"name": "a/scores", "kind": "sigmoid"})
    with pytest.raises(GraftError, match="kind sigmoid"):
        Modules([model])


def at_hand(*nets: Tuned) -> tuple[list[Parent], dict[str, Source]]:
    parents = [Parent(net.model()) for net in nets]
    found = {}
    for net, parent in zip(nets, parents, strict=True):
        labels = np.arange(50) % len(net.labels)
        own = small.samples(np.ascontiguousarray(images(50)), labels, of=parent.card)
        profile = small.profile(parent.model, own, parent.sha256)
        found[parent.sha256] = Source(parent, profile)
    return parents, found


def modules(parents: list[Parent], sources: dict[str, Source]) -> list[Model]:
    return [
        Decompose([name], 1.0)(parent, Context(profile=sources[parent.sha256].profile)).model
        for parent in parents
        for name in parent.card.labels[:2]
    ]


def test_trunks_on_one_backbone_are_not_cut_to_make_room_for_distances() -> None:
    """The backbone that runs once leaves room enough, so the trunks stay equal and are shared."""
    parents, sources = at_hand(PETS, CARS)
    spared = spared_macs(parents)
    assert spared == [BACKBONE // 2, BACKBONE // 2]
    report = Compose(scores="typicality")(Modules(modules(parents, sources), sources), Context())
    assert (report.strategy, count(report.model, "Conv")) == ("trunk", 2)
    assert not any("would cost more" in each.reason for each in report.declined)
    assert cost_of(report.model).macs <= sum(parent.cost.macs for parent in parents)


def test_several_cuts_of_one_class_are_branches() -> None:
    parents, sources = at_hand(PETS)
    context = Context(profile=sources[parents[0].sha256].profile)
    cuts = [
        Decompose([name], keep, method="activity")(parents[0], context).model
        for name, keep in (("c", 0.9), ("c", 0.4), ("d", 0.9))
    ]
    joined = Modules(cuts, sources, rename=[{}, {"c": "small c"}, {}])
    report = Compose()(joined, Context())
    assert report.strategy == "branches"
    assert report.reason.startswith("several cuts of class 'c': parent ")
    assert report.model.require_card().labels == ("c", "small c", "d")
    given = ((images() / np.float32(255) - 0.5) / 0.5).astype(np.float32).transpose(0, 3, 1, 2)
    odds = [run(cut, given) for cut in cuts]
    expected = np.stack([each[:, 0] - each[:, 1] for each in odds], axis=1)
    np.testing.assert_allclose(run(report.model, given), expected, atol=1e-4)
    with pytest.raises(GraftError, match="several cuts of class 'c'"):
        Compose("trunk")(joined, Context())


def test_the_command_names_classifiers_by_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, net in (("pets", PETS), ("cars", CARS)):
        onnx.save(net.model().proto(), f"{name}.onnx")
        Path(f"{name}.yaml").write_text(net.card().to_yaml())
    found = printed(capfd, "compose", "pets.onnx", "cars.onnx", "-o", "all.onnx")
    assert [each["name"] for each in found["parents"]] == ["pets.onnx", "cars.onnx"]
    assert found["strategy_reason"] == "whole classifiers: pets.onnx, cars.onnx"
    assert (found["classes"], found["shared_weights"] >= 4) == (list("cdbvw"), True)
    assert count(Model.load("all.onnx"), "Conv") == 2
    found = printed(capfd, "compose", "pets.onnx", "old=pets.onnx", "-o", "twice.onnx")
    assert found["classes"] == ["c", "d", "b", "old:c", "old:d", "old:b"]


@pytest.mark.parametrize("scores", ["typicality", "joint", "softmax"])
def test_what_other_costs_is_said(scores: str) -> None:
    """The composite with (other) less the one without."""
    with_other = join(PETS, CARS, scores=scores, other=True, data=True)
    without = join(PETS, CARS, scores=scores, data=True)
    costs = [cost_of(each.model) for each in (with_other, without)]
    assert with_other.other[0] == costs[0].macs - costs[1].macs > 0
    assert with_other.other[1] == costs[0].parameters - costs[1].parameters
    assert without.other == (0, 0)


def test_the_rows_of_the_head_for_other_are_counted() -> None:
    parents, sources = at_hand(PETS)
    cuts = modules(parents, sources)
    report = Compose(other=True)(Modules(cuts, sources), Context())
    plain = Compose()(Modules(cuts, sources), Context())
    costs = [cost_of(each.model) for each in (report, plain)]
    assert report.model.require_card().labels == ("c", "d", "(other)")
    assert (
        report.other
        == (24, 25)
        == (
            costs[0].macs - costs[1].macs,
            costs[0].parameters - costs[1].parameters,
        )
    )


def test_a_fixed_batch_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, net in (("pets", PETS), ("cars", CARS)):
        proto = net.model().proto()
        for tensor in (*proto.graph.input, *proto.graph.output):
            tensor.type.tensor_type.shape.dim[0].dim_value = 1
        onnx.save(proto, f"{name}.onnx")
        Path(f"{name}.yaml").write_text(net.card().to_yaml())
    found = printed(capfd, "compose", "pets.onnx", "cars.onnx", "-o", "all.onnx")
    shape = Model.load("all.onnx").graph.inputs[0].shape
    assert found["batch"] == (1 if shape[0] == 1 else None)
    assert run_command(["compose", "pets.onnx", "cars.onnx", "-o", "two.onnx"]) == 0
    said = "takes one sample at a time" in capfd.readouterr().out
    assert said == (shape[0] == 1)
