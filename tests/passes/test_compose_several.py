"""Composites of several parents: one input, comparable scores, and no more work than the parents do."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from graft.passes.base import Context
from graft.passes.compose import Compose, ComposeReport
from graft.passes.decompose import Decompose
from graft.passes.networks import Modules
from graft.passes.parent import Parent
from graft.passes.trunk import Source
from graft.rewriter.card.card import OTHER, Card
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.record.mahalanobis import KEY, Mahalanobis
from graft.rewriter.record.provenance import FORMAT, FORMAT_KEY, ORIGIN_KEY, kind_of, origin_of
from tests import small

Array = NDArray[Any]
SIZE = (6, 6)
FEATURES = 12
"""Last features of :func:`photo`: what comparing distances costs is their square."""


# -------------------------------------------------------------------- parents


def constants(random: np.random.Generator, **shapes: tuple[int, ...]) -> list[onnx.TensorProto]:
    return [
        numpy_helper.from_array(
            (random.normal(size=shape) / np.sqrt(max(1, int(np.prod(shape[1:]))))).astype(np.float32), name
        )
        for name, shape in shapes.items()
    ]


@dataclass(frozen=True)
class Photo:
    """Conv Relu pool Gemm Relu Gemm, for images in any layout, and its card.

    Attributes:
        labels: one letter a class.
        opset: of the file.
        kind: of the output.
        layout: of the input.
        color: of the input.
        size: height and width.
        seed: of the weights.
        ends: names of input and output.
        inner: the tensor that the Conv makes.
        dtype: of everything but shapes.
        batch: fixed, or free.
        name: in the card.
        scale: of the pixels.
        mean: of the pixels.
    """

    labels: str
    opset: int = 17
    kind: str = "logits"
    layout: str = "NCHW"
    color: str = "RGB"
    size: tuple[int, int] = SIZE
    seed: int = 0
    ends: tuple[str, str] = ("x", "y")
    inner: str = "h"
    dtype: int = onnx.TensorProto.FLOAT
    batch: object = "N"
    name: str | None = None
    scale: float = 1 / 64
    mean: float = 1.5

    @property
    def channels(self) -> int:
        return 1 if self.color == "GRAY" else 3

    def proto(self) -> onnx.ModelProto:
        (height, width), channels = self.size, self.channels
        shapes = {
            "NCHW": [self.batch, channels, height, width],
            "NHWC": [self.batch, height, width, channels],
            "flat": [self.batch, height * width * channels],
        }
        weights = self._weights()
        graph = helper.make_graph(
            self._nodes(),
            "photo",
            [helper.make_tensor_value_info(self.ends[0], self.dtype, shapes[self.layout])],
            [helper.make_tensor_value_info(self.ends[1], self.dtype, [self.batch, len(self.labels)])],
            weights,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(proto, full_check=True)
        return proto

    def _weights(self) -> list[onnx.TensorProto]:
        classes, (height, width) = len(self.labels), self.size
        weights = constants(
            np.random.default_rng(self.seed),
            w=(6, self.channels, 3, 3),
            b=(6,),
            w1=(FEATURES, 6),
            b1=(FEATURES,),
            w2=(classes, FEATURES),
            b2=(classes,),
        )
        for tensor in weights[-2:]:  # classes that differ
            values = numpy_helper.to_array(tensor) * np.float32(1.5)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        if self.dtype != onnx.TensorProto.FLOAT:
            to = helper.tensor_dtype_to_np_dtype(self.dtype)
            for tensor in weights:
                values = numpy_helper.to_array(tensor).astype(to)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        if self.layout == "flat":
            rows = np.array([-1, height, width, self.channels])
            weights.append(numpy_helper.from_array(rows, "rows"))
        return weights

    def _nodes(self) -> list[onnx.NodeProto]:
        image, y = self.ends
        nodes = []
        if self.layout == "flat":
            nodes.append(helper.make_node("Reshape", [image, "rows"], ["pixels"], "reshape"))
            image = "pixels"
        if self.layout != "NCHW":
            nodes.append(helper.make_node("Transpose", [image], ["first"], "transpose", perm=[0, 3, 1, 2]))
            image = "first"
        last = y if self.kind == "logits" else "z"
        nodes += [
            helper.make_node("Conv", [image, "w", "b"], [self.inner], "conv"),
            helper.make_node("Relu", [self.inner], ["r"], "relu"),
            helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
            helper.make_node("Flatten", ["p"], ["f"], "flatten"),
            helper.make_node("Gemm", ["f", "w1", "b1"], ["g"], "dense", transB=1),
            helper.make_node("Relu", ["g"], ["last"], "relu2"),
            helper.make_node("Gemm", ["last", "w2", "b2"], [last], "classify", transB=1),
        ]
        if self.kind == "probabilities":
            nodes.append(helper.make_node("Softmax", ["z"], [y], "softmax", axis=-1))
        return nodes

    def card(self) -> Card:
        return Card.model_validate(
            {
                "name": self.name,
                "input": {
                    "name": self.ends[0],
                    "kind": "image",
                    "layout": self.layout,
                    "color": self.color,
                    "size": list(self.size),
                    "scale": self.scale,
                    "mean": [self.mean],
                    "resize": "squash",
                    "interpolation": "nearest",
                },
                "output": {"name": self.ends[1], "kind": self.kind},
                "labels": list(self.labels),
            }
        )


def profiled(model: Model, raw: Array) -> Source:
    """``model`` with a profile from ``raw`` samples, which are dealt out to the classes in turn."""
    card = model.require_card()
    data = Dataset.from_arrays(raw, np.arange(len(raw)) % len(card.labels), class_names=card.labels)
    parent = Parent(model)
    samples = Samples.match(data.split("train"), card)
    return Source(parent, small.profile(parent.model, samples, parent.sha256))


def pixels(count: int, size: tuple[int, int] = SIZE, channels: int = 3, seed: int = 3) -> Array:
    """Images of different brightness and tint."""
    random = np.random.default_rng(seed)
    base = random.integers(0, 256, (count, 1, 1, channels)) + random.integers(
        -90, 90, (count, *size, channels)
    )
    return np.clip(base, 0, 255).astype(np.uint8)


@functools.cache
def photo(labels: str, **changes: Any) -> Source:
    """A parent at hand; never changed, so one for all tests."""
    made = Photo(labels, **changes)
    return profiled(Model.from_proto(made.proto(), made.card()), pixels(48, made.size, made.channels))


def cut(of: Source, classes: str, keep: float = 1.0, **options: Any) -> Model:
    return Decompose(list(classes), keep=keep, **options)(of.parent, small.context(of.profile)).model


def sources(*parents: Source) -> dict[str, Source]:
    return {of.parent.sha256: of for of in parents}


# -------------------------------------------------------------------- references


def run(model: Model | onnx.ModelProto, feed: dict[str, Array], *more: str) -> dict[str, Array]:
    """All outputs, and tensors inside, by onnxruntime."""
    proto = model.proto() if isinstance(model, Model) else model
    for name in more:
        proto.graph.output.append(helper.make_empty_tensor_value_info(name))
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def prepared(images: Array, card: Card) -> Array:
    """What ``card`` makes of raw images (N, H, W, C), written out."""
    wanted = card.inputs[0]
    values = images.astype(np.float64)
    if wanted.color == "GRAY" and values.shape[3] == 3:
        values = np.floor(values @ [[0.299], [0.587], [0.114]] + 0.5)
    elif wanted.color != "GRAY" and values.shape[3] == 1:
        values = np.repeat(values, 3, axis=3)
    elif wanted.color == "BGR":
        values = values[..., ::-1]
    height, width = wanted.size or SIZE
    if values.shape[1] == 2 * height:  # the nearest pixel is the second of two, as Pillow has it
        values = values[:, 1::2, 1::2]
    elif 2 * values.shape[1] == height:
        values = values.repeat(2, axis=1).repeat(2, axis=2)
    assert values.shape[1:3] == (height, width)
    values = (values * wanted.scale - np.array(wanted.mean)) / np.array(wanted.std)
    if wanted.layout == "NCHW":
        values = values.transpose(0, 3, 1, 2)
    return (
        values.reshape(len(values), -1).astype(np.float32)
        if wanted.layout == "flat"
        else values.astype(np.float32)
    )


def score(module: Model, x: Array, kind: str) -> dict[str, Array]:
    """Class to its score, from what the module itself puts out."""
    card = module.require_card()
    known = Mahalanobis.of(module)
    inside = (known.tensor,) if known and kind == "typicality" else ()
    found = run(module, {card.inputs[0].name: x}, *inside)
    logits = found[card.output.name].astype(np.float64)
    if card.output.kind == "probabilities":
        logits = np.log(logits)
        if "rest" in found:  # the columns are shares among the classes, the rest a share of all
            logits = logits + np.log(-np.expm1(found["rest"].astype(np.float64)))
    if "rest" in found:
        logits = np.concatenate([logits, found["rest"]], axis=1)
    scores: dict[str, Array] = {}
    distances = known.distances(found[known.tensor]) if known and inside else None
    for column, name in enumerate(card.labels):
        if name == OTHER:
            continue
        own, others = logits[:, [column]], np.delete(logits, column, axis=1)
        result = own
        if kind == "odds":
            result = own - small.logsumexp(others)
        elif kind != "logits":
            result = own - small.logsumexp(logits)
        if distances is not None and known:
            result = result - 0.25 * distances[:, [known.classes.index(name)]]
        scores[name] = result
    return scores


def wanted_scores(modules: Sequence[Model], images: Array, kind: str, raw: bool = True) -> Array:
    """Columns of the composite, classes in the order of the modules' own."""
    scores: dict[str, Array] = {}
    for module in modules:
        scores |= score(module, prepared(images, module.require_card()) if raw else images, kind)
    names = [name for module in modules for name in origin_of(module).classes]
    columns = np.concatenate([scores[name] for name in names], axis=1)
    outputs = {module.require_card().output.kind for module in modules}
    return small.softmax(columns) if outputs == {"probabilities"} else columns


def checked(report: ComposeReport, images: Array, input_name: str = "image") -> Array:
    """What a composite puts out: a valid file, the same whatever the batch."""
    model = report.model
    onnx.checker.check_model(model.proto(), full_check=True)
    card = model.require_card()
    card.check_against(model.inputs(), model.outputs())
    assert list(model.inputs()) == [input_name] and list(model.outputs()) == [card.output.name]
    assert kind_of(model) == "composite" and KEY not in model.metadata
    found = run(model, {input_name: images})[card.output.name]
    assert found.shape == (len(images), len(card.labels))
    alone = np.concatenate([run(model, {input_name: image[None]})[card.output.name] for image in images[:5]])
    np.testing.assert_allclose(found[:5], alone, rtol=1e-4, atol=1e-4)
    assert np.ptp(found, axis=0).min() > 1e-4, "the columns vary"
    return found


def frozen(modules: Sequence[Model]) -> list[bytes]:
    return [module.proto().SerializeToString(deterministic=True) for module in modules]


# -------------------------------------------------------------------- numbers


UNLIKE = [
    # kinds, opsets, layouts, colours, sizes
    (("logits", "logits"), (13, 18), ("NCHW", "NHWC"), ("RGB", "RGB"), (SIZE, SIZE)),
    (("logits", "probabilities"), (17, 13), ("NHWC", "flat"), ("GRAY", "RGB"), (SIZE, SIZE)),
    (("probabilities", "logits"), (18, 17), ("flat", "NCHW"), ("BGR", "GRAY"), (SIZE, SIZE)),
    (("probabilities", "probabilities"), (17, 18), ("NCHW", "NCHW"), ("RGB", "BGR"), ((12, 12), SIZE)),
    (("logits", "logits"), (11, 11), ("flat", "flat"), ("GRAY", "GRAY"), (SIZE, SIZE)),
    (("logits", "probabilities"), (11, 21), ("NHWC", "NHWC"), ("GRAY", "RGB"), (SIZE, (12, 12))),
]


@pytest.mark.parametrize("scores", [None, "softmax", "odds", "logits"])
@pytest.mark.parametrize(("kinds", "opsets", "layouts", "colors", "sizes"), UNLIKE)
def test_branches_of_unlike_parents(
    kinds: tuple[str, str],
    opsets: tuple[int, int],
    layouts: tuple[str, str],
    colors: tuple[str, str],
    sizes: tuple[tuple[int, int], ...],
    scores: str | None,
) -> None:
    parents = [
        photo(labels, kind=kind, opset=opset, layout=layout, color=color, size=size, seed=seed)
        for seed, (labels, kind, opset, layout, color, size) in enumerate(
            zip(("abcd", "pqrs"), kinds, opsets, layouts, colors, sizes, strict=True)
        )
    ]
    modules = [cut(parents[0], "c", 0.9), cut(parents[1], "sp", together=True), cut(parents[0], "a")]
    report = Compose("branches", scores=scores)(Modules(modules), Context())
    gray = set(colors) == {"GRAY"}
    images = pixels(64, max(sizes), 1 if gray else 3, seed=9)
    found = checked(report, images)
    assert report.model.require_card().labels == ("c", "s", "p", "a")
    assert (report.strategy, report.scores, report.declined) == ("branches", scores or "typicality", ())
    wanted = wanted_scores(modules, images, scores or "typicality")
    close = np.isclose(found, wanted, rtol=1e-3, atol=2e-3 if sizes[0] == sizes[1] else 1e-2)
    assert close.all(), np.abs(found - wanted).max()
    shrinks = sizes[0] != sizes[1]
    assert report.model.opset == max(*opsets, 18 if shrinks else 0)
    raw = report.model.require_card().inputs[0]
    assert (raw.layout, raw.color, raw.size) == ("NHWC", "GRAY" if gray else "RGB", max(sizes))
    assert (raw.scale, raw.mean, raw.std) == (1.0, (0.0,), (1.0,))
    dtype, shape = report.model.inputs()["image"]
    assert dtype == np.uint8 and isinstance(shape[0], str) and shape[1:] == (*max(sizes), raw.channels)


def test_three_parents_of_which_two_are_at_hand() -> None:
    one, two = photo("abc", seed=1, opset=13, name="one"), photo("pqr", seed=2, opset=18, layout="flat")
    three = photo("xyz", seed=3, kind="probabilities", layout="NHWC", color="GRAY", name="three")
    modules = [cut(one, "b", 0.8), cut(three, "z"), cut(two, "p"), cut(one, "a", 0.7), cut(three, "x")]
    report = Compose()(Modules(modules, sources(one, two)), Context())
    images = pixels(64, seed=5)
    found = checked(report, images)
    assert report.model.require_card().labels == ("b", "z", "p", "a", "x")
    assert (report.strategy, report.reason) == ("mixed", "not at hand: three")
    # by hand: one trunk for the classes of the first, planned for the largest budget
    first = Decompose(["b", "a"], keep=0.8, together=True)(one.parent, small.context(one.profile)).model
    macs = two.parent.cost.macs
    second = Decompose(["p"], keep=1 - FEATURES**2 / macs, together=True)(
        two.parent, small.context(two.profile)
    ).model
    scores: dict[str, Array] = {}
    for module in (first, second, modules[1], modules[4]):
        scores |= score(module, prepared(images, module.require_card()), "typicality")
    wanted = np.concatenate([scores[name] for name in "bzpax"], axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=2e-3)
    assert origin_of(report.model).parents == (one.parent.record, three.parent.record, two.parent.record)


def test_float_images_are_taken_where_asked_for() -> None:
    modules = [cut(photo("abc"), "a"), cut(photo("pqr", seed=1, layout="NHWC"), "q")]
    report = Compose("branches", dtype=np.float32)(Modules(modules), Context())
    images = pixels(16).astype(np.float32) + np.float32(0.25)
    assert report.model.inputs()["image"][0] == np.float32
    np.testing.assert_allclose(
        checked(report, images), wanted_scores(modules, images, "typicality"), rtol=1e-3, atol=2e-3
    )


def test_one_label_a_time_step() -> None:
    def steps(labels: str, seed: int) -> Source:
        net = small.Net(5, 3, seed=seed)
        relu = net.node("Relu", "relu", net.node("MatMul", "one", "x", net.weight("w1", 3, 6)))
        net.node("MatMul", "y", relu, net.weight("w2", 6, len(labels)))
        model = Model.from_proto(net.proto(y=[5, len(labels)]), small.card(labels, steps=True))
        data = Dataset.from_arrays(
            small.inputs([5, 3]), np.arange(200).reshape(40, 5) % len(labels), class_names=tuple(labels)
        )
        parent = Parent(model)
        samples = Samples.match(data.split("train"), model.require_card())
        return Source(parent, small.profile(parent.model, samples, parent.sha256))

    one, two = steps("abc", 0), steps("pq", 1)
    modules = [cut(one, "ca", together=True), cut(two, "q")]
    report = Compose("branches")(Modules(modules), Context())
    x = small.inputs([5, 3], 9, seed=4)
    found = run(report.model, {"x": x})["y"]
    whole = [run(of.parent.source, {"x": x})["y"].astype(np.float64) for of in (one, two)]
    shares = [logits - small.logsumexp(logits) for logits in whole]
    wanted = np.concatenate([shares[0][..., [2, 0]], shares[1][..., [1]]], axis=-1)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    assert len(report.declined) == 2 and all("last features" in each.reason for each in report.declined)
    assert report.model.require_card().output.steps
    assert report.model.outputs()["y"][1] == ("N", 5, 3)


# -------------------------------------------------------------------- strategies


def test_the_strategies_and_their_reasons() -> None:
    one, two = photo("abc", seed=1, name="one"), photo("pqr", seed=2, opset=18)
    modules = [cut(one, "a"), cut(two, "p"), cut(one, "b"), cut(two, "r")]

    def told(strategy: str, *at_hand: Source) -> tuple[str, str]:
        report = Compose(strategy)(Modules(modules, sources(*at_hand)), Context())
        assert origin_of(report.model).options["strategy"] == report.strategy
        return report.strategy, report.reason

    assert told("auto", one, two) == ("trunk", "one network for each of 2 parents")
    assert told("auto", two) == ("mixed", "not at hand: one")
    unnamed = f"parent {two.parent.sha256[:8]}"
    assert told("auto", one) == ("mixed", f"not at hand: {unnamed}")
    assert told("auto") == ("branches", f"not at hand: one, {unnamed}")
    assert told("branches", one, two) == ("branches", "asked for")
    assert told("trunk", one, two) == ("trunk", "asked for")
    for missing in ((one,), (two,), ()):
        with pytest.raises(GraftError) as caught:
            Compose("trunk")(Modules(modules, sources(*missing)), Context())
        assert caught.value.code == "parent-missing"
        names = {"one", unnamed} - {"one" if of is one else unnamed for of in missing}
        assert all(name in caught.value.message for name in names)


def test_branches_run_every_module_and_trunks_one_network_a_parent() -> None:
    one, two = photo("abc", seed=1), photo("pqr", seed=2)
    modules = [cut(one, "a", 0.9), cut(two, "p", 0.6), cut(one, "b", 0.6), cut(two, "r", 0.9)]

    def convolutions(report: ComposeReport) -> int:
        return sum(node.op == "Conv" for node in report.model.graph.nodes)

    assert convolutions(Compose("auto")(Modules(modules, sources(one, two)), Context())) == 2
    assert convolutions(Compose("auto")(Modules(modules, sources(one)), Context())) == 3
    assert convolutions(Compose("branches")(Modules(modules, sources(one, two)), Context())) == 4


def test_what_goes_with_one_parent_only() -> None:
    one, two = photo("abc", seed=1), photo("pqr", seed=2)
    modules = [cut(one, "a"), cut(two, "p"), cut(two, "q")]
    with pytest.raises(GraftError) as caught:
        Compose("branches", keep=0.5)(Modules(modules, sources(one, two)), Context())
    assert caught.value.code == "trunk-only"
    again = Compose("branches")(Modules(modules), Context()).model
    with pytest.raises(GraftError) as caught:
        Compose()(Modules([again, cut(one, "b")]), Context())
    assert caught.value.code == "composite-of-several"


def test_a_composite_of_one_parent_can_be_joined_with_another() -> None:
    one, two = photo("abc", seed=1), photo("pqr", seed=2, layout="flat")
    first = Compose("branches")(Modules([cut(one, "c"), cut(one, "a")]), Context()).model
    module = cut(two, "p")
    report = Compose("branches", scores="softmax")(Modules([first, module]), Context())
    images = pixels(32, seed=8)
    found = checked(report, images)
    assert report.model.require_card().labels == ("c", "a", "p")
    np.testing.assert_allclose(found, wanted_scores([first, module], images, "softmax"), rtol=1e-3, atol=2e-3)


PARENTS = (
    photo("abcd", seed=1),
    photo("pqr", seed=2, opset=18, kind="probabilities", layout="NHWC"),
    photo("xyz", seed=3, opset=13, layout="flat", color="GRAY"),
)


@functools.cache
def piece(number: int, classes: str, keep: float, together: bool, unit: str = "macs") -> Model:
    return cut(PARENTS[number], classes, keep, together=together, unit=unit)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_a_composite_costs_no_more_than_its_parents(data: st.DataObject) -> None:
    """However many modules there are of a parent."""
    modules: list[Model] = []
    used = []
    for number, of in enumerate(PARENTS):
        classes = data.draw(st.lists(st.sampled_from(of.parent.record.labels), unique=True))
        keep = data.draw(st.sampled_from([0.6, 1.0]))
        pairs = data.draw(st.booleans())
        groups = ["".join(classes)] if pairs and len(classes) > 1 else classes
        modules += [piece(number, group, keep, len(group) > 1) for group in groups]
        used += [of] * bool(classes)
    if len(used) < 2:
        return
    modules = data.draw(st.permutations(modules))
    keep = data.draw(st.sampled_from([None, 0.7]))
    scores = data.draw(st.sampled_from(["typicality", "softmax"]))
    report = Compose(keep=keep, scores=scores)(Modules(modules, sources(*PARENTS)), Context())
    assert report.strategy == "trunk"
    macs = cost_of(report.model).macs
    assert macs <= sum(of.parent.cost.macs for of in used)
    if keep is not None:
        assert macs <= sum(keep * of.parent.cost.macs + FEATURES**2 for of in used)
    assert sum(node.op == "Conv" for node in report.model.graph.nodes) == len(used)
    wanted = tuple(name for module in modules for name in origin_of(module).classes)
    assert report.model.require_card().labels == wanted
    images = pixels(8, seed=1)
    checked(report, images)


def test_more_modules_of_a_parent_cost_no_more() -> None:
    """Without a share of the budget to fill, only rows of the head come on top."""
    one, two = PARENTS[:2]
    macs = []
    for classes in ("a", "ab", "abc"):
        modules = [piece(0, name, 0.6, False) for name in classes] + [piece(1, "p", 0.6, False)]
        macs.append(cost_of(Compose("trunk")(Modules(modules, sources(one, two)), Context()).model).macs)
        branches = cost_of(Compose("branches")(Modules(modules), Context()).model).macs
        assert len(classes) == 1 or macs[-1] < branches
    limit = 0.6 * (one.parent.cost.macs + two.parent.cost.macs) + 2 * FEATURES**2
    assert max(macs) <= limit and min(macs) > 0.6 * limit


# -------------------------------------------------------------------- one file


@pytest.mark.parametrize("strategy", ["branches", "trunk"])
def test_same_bytes_twice_and_modules_are_left_alone(strategy: str) -> None:
    one, two = photo("abc", seed=1, opset=13), photo("pqr", seed=2, opset=18, layout="NHWC", size=(12, 12))
    modules = [cut(one, "a"), cut(two, "p"), cut(one, "b")]
    before, hashes = frozen(modules), [module.graph_sha256() for module in modules]
    parents = [of.parent.model.graph_sha256() for of in (one, two)]
    written = [
        Compose(strategy)(Modules(modules, sources(one, two)), Context())
        .model.proto()
        .SerializeToString(deterministic=True)
        for _ in range(2)
    ]
    assert written[0] == written[1]
    assert frozen(modules) == before
    assert [module.graph_sha256() for module in modules] == hashes
    assert [module.ir_version for module in modules] == [8, 8, 8]
    assert [module.opset for module in modules] == [13, 18, 13]
    assert [of.parent.model.graph_sha256() for of in (one, two)] == parents
    fresh = [Model.from_proto(module.proto(), module.require_card()) for module in modules]
    again = Compose(strategy)(Modules(fresh, sources(one, two)), Context()).model
    assert again.proto().SerializeToString(deterministic=True) == written[0]


def test_equal_weights_of_different_parents_are_stored_once() -> None:
    """Two heads on one backbone."""
    one, two = photo("abc", seed=1), photo("pqr", seed=1, kind="probabilities")
    assert one.parent.sha256 != two.parent.sha256
    modules = [cut(one, "ab", together=True), cut(two, "q")]
    report = Compose("branches", scores="softmax")(Modules(modules), Context())
    images = pixels(16)
    np.testing.assert_allclose(
        checked(report, images), wanted_scores(modules, images, "softmax"), rtol=1e-3, atol=1e-3
    )
    stored = [t for t in report.model.proto().graph.initializer if list(t.dims) == [6, 3, 3, 3]]
    assert len(stored) == 1
    assert sum(node.op == "Conv" for node in report.model.graph.nodes) == 1, "nor is it run twice"


def test_versions_are_the_highest_of_the_parts_or_as_asked_for() -> None:
    modules = [cut(photo("abc", seed=1, opset=13), "a"), cut(photo("pqr", seed=2, opset=17), "p")]
    modules[0].header.ir_version = 9
    report = Compose("branches")(Modules(modules), Context())
    assert (report.model.opset, report.model.ir_version) == (17, 9)
    images = pixels(8)
    wanted = checked(report, images)
    report = Compose("branches", opset=18, ir_version=10)(Modules(modules), Context())
    assert (report.model.opset, report.model.ir_version) == (18, 10)
    np.testing.assert_allclose(checked(report, images), wanted, rtol=1e-3, atol=1e-3)
    with pytest.raises(GraftError) as caught:
        Compose("branches", opset=17, ir_version=3)(Modules(modules), Context())
    assert caught.value.code == "version-conflict"


# -------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "ends", [(("x", "y"), ("x", "y")), (("y", "x"), ("x", "y")), (("x", "image"), ("image", "y"))]
)
@pytest.mark.parametrize("strategy", ["branches", "trunk"])
def test_names_that_meet(ends: tuple[tuple[str, str], tuple[str, str]], strategy: str) -> None:
    one = photo("abc", seed=1, ends=ends[0])
    two = photo("pqr", seed=2, ends=ends[1], layout="NHWC")
    modules = [cut(one, "b"), cut(two, "r")]
    report = Compose(strategy, scores="softmax", keep=None)(Modules(modules, sources(one, two)), Context())
    images = pixels(16)
    name = "raw_image" if "image" in (ends[0][1], ends[1][1]) else "image"
    found = checked(report, images, name)
    names = [node.name for node in report.model.graph.nodes]
    assert len(names) == len(set(names))
    if strategy == "branches":
        wanted = wanted_scores(modules, images, "softmax")
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


def test_outputs_called_as_both_names_of_the_raw_input() -> None:
    one, two = photo("abc", seed=1, ends=("x", "raw_image")), photo("pqr", seed=2, ends=("x", "image"))
    report = Compose("branches", scores="softmax")(Modules([cut(one, "b"), cut(two, "r")]), Context())
    assert not set(report.model.inputs()) & set(report.model.outputs())
    onnx.checker.check_model(report.model.proto(), full_check=True)


@pytest.mark.parametrize("several", [False, True])
def test_a_tensor_inside_is_called_as_the_raw_input(several: bool) -> None:
    one, two = photo("abc", seed=1, inner="image"), photo("pqr", seed=2)
    modules = [cut(one, "b"), cut(two, "r")] if several else [cut(one, "b"), cut(one, "a")]
    report = Compose("branches", scores="softmax", input="raw")(Modules(modules), Context())
    images = pixels(16)
    wanted = wanted_scores(modules, images, "softmax")
    np.testing.assert_allclose(checked(report, images, "raw_image"), wanted, rtol=1e-3, atol=1e-3)


def test_a_trunk_alone_with_a_tensor_inside_called_as_the_raw_input() -> None:
    one = photo("abc", seed=1, inner="image")
    module = cut(one, "ba", together=True)
    report = Compose("trunk", input="raw", keep=1.0)(Modules([module], sources(one)), Context())
    images = pixels(16)
    card = one.parent.source.require_card()
    wanted = run(one.parent.source, {"x": prepared(images, card)})["y"][:, [1, 0]]
    np.testing.assert_allclose(checked(report, images, "raw_image"), wanted, rtol=1e-3, atol=1e-3)


def test_raw_composites_of_one_parent_can_be_joined_again() -> None:
    one, two = photo("abc", seed=1), photo("pqr", seed=2, layout="flat")
    parts = [cut(one, "b"), cut(one, "a")]
    first = Compose("branches", input="raw", scores="softmax")(Modules(parts), Context()).model
    module = cut(two, "q")
    report = Compose("branches", scores="softmax")(Modules([first, module]), Context())
    images = pixels(16)
    found = checked(report, images)
    both = run(first, {"image": images})["y"].astype(np.float64)
    shares = both - small.logsumexp(both)
    alone = score(module, prepared(images, module.require_card()), "softmax")["q"]
    np.testing.assert_allclose(found, np.concatenate([shares, alone], axis=1), rtol=1e-3, atol=1e-3)


# -------------------------------------------------------------------- the parents' own input


def test_the_parents_own_input_makes_a_drop_in() -> None:
    one, two = photo("abc", seed=1, opset=13), photo("pqr", seed=2, opset=18)
    modules = [cut(one, "ab", together=True), cut(two, "q"), cut(one, "c")]
    report = Compose("branches", input="parent")(Modules(modules), Context())
    parent = one.parent.source
    assert report.model.inputs() == parent.inputs()
    assert report.model.require_card().inputs == parent.require_card().inputs
    assert report.model.inputs()["x"] == (np.float32, ("N", 3, *SIZE))
    assert report.model.outputs()["y"] == (np.float32, ("N", 4))
    assert report.adapted == ()
    images = pixels(64)
    x = prepared(images, parent.require_card())
    wanted = wanted_scores(modules, x, "typicality", raw=False)
    np.testing.assert_allclose(checked(report, x, "x"), wanted, rtol=1e-3, atol=2e-3)


def test_inputs_of_other_names_are_the_same_input() -> None:
    one, two = photo("abc", seed=1), photo("pqr", seed=2, ends=("pixels", "scores"))
    modules = [cut(one, "a"), cut(two, "q")]
    report = Compose("branches", input="parent")(Modules(modules), Context())
    x = prepared(pixels(16), one.parent.source.require_card())
    wanted = wanted_scores(modules, x, "typicality", raw=False)
    np.testing.assert_allclose(checked(report, x, "x"), wanted, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(
    "changes", [{"layout": "NHWC"}, {"size": (12, 12)}, {"color": "GRAY"}, {"scale": 1.0}, {"batch": 4}]
)
def test_different_inputs_are_no_drop_in(changes: dict[str, Any]) -> None:
    modules = [cut(photo("abc", seed=1), "a"), cut(photo("pqr", seed=2, **changes), "q")]
    assert refused(modules, input="parent") == ("inputs-differ", "use --input raw")


def test_tensors_are_joined_where_they_agree() -> None:
    one, two = dense("abcd", 0), dense("pqrs", 1)
    modules = [cut(one, "b"), cut(two, "sp", together=True)]
    report = Compose("branches")(Modules(modules), Context())
    x = small.inputs([6], 64, seed=3)
    found = checked(report, x, "x")
    np.testing.assert_allclose(
        found, wanted_scores(modules, x, "typicality", raw=False), rtol=1e-3, atol=1e-3
    )
    assert refused(modules, input="raw")[0] == "input-kind"


def twin(seed: int, labels: str, graph: tuple[str, str], cards: tuple[str, str]) -> Source:
    """y = W1 first + W2 second: inputs of one shape, in one order in the graph and another in the card."""
    random = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Gemm", ["first", "v", "c"], ["h1"], "one", transB=1),
        helper.make_node("Gemm", ["second", "w", "d"], ["h2"], "two", transB=1),
        helper.make_node("Concat", ["h1", "h2"], ["h"], "concat", axis=1),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "u", "e"], ["y"], "classify", transB=1),
    ]
    weights = constants(random, v=(8, 6), c=(8,), w=(8, 6), d=(8,), u=(len(labels), 16), e=(len(labels),))
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 6]) for name in graph]
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", len(labels)])
    proto = helper.make_model(
        helper.make_graph(nodes, "twin", ends, [result], weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    inputs = [{"name": name, "kind": "tensor"} for name in cards]
    card = Card.model_validate(
        {"inputs": inputs, "output": {"name": "y", "kind": "logits"}, "labels": list(labels)}
    )
    model = Model.from_proto(proto, card)
    parent = Parent(model)
    raw = {name: small.inputs([6], 40, seed=number) for number, name in enumerate(graph)}
    data = Dataset.from_arrays(raw, np.arange(40) % len(labels), class_names=tuple(labels))
    samples = Samples.match(data.split("train"), card)
    return Source(parent, small.profile(parent.model, samples, parent.sha256))


@pytest.mark.parametrize(
    "graph",
    [
        ("first", "second"),
        ("second", "first"),
    ],
)
def test_several_inputs_go_by_their_order_in_the_card(graph: tuple[str, str]) -> None:
    cards = ("first", "second")
    one, two = twin(0, "abc", cards, cards), twin(1, "pqr", graph, cards)
    modules = [cut(one, "a"), cut(two, "q")]
    report = Compose("branches", scores="softmax")(Modules(modules), Context())
    feed = {name: small.inputs([6], 9, seed=5 + number) for number, name in enumerate(cards)}
    found = run(report.model, feed)["y"]
    wanted = []
    for of, column in ((one, 0), (two, 1)):
        logits = run(of.parent.source, feed)["y"].astype(np.float64)
        wanted.append((logits - small.logsumexp(logits))[:, [column]])
    np.testing.assert_allclose(found, np.concatenate(wanted, axis=1), rtol=1e-3, atol=1e-4)


# -------------------------------------------------------------------- what does not fit


@functools.cache
def dense(labels: str, seed: int, kind: str = "tensor", vocabulary: str | None = None) -> Source:
    """A parent of tensors, or of tokens."""
    net = small.Net(6, seed=seed)
    x = net.node("Cast", "cast", "x", to=1) if kind == "tokens" else "x"
    net.gemm("y", net.node("Relu", "relu", net.gemm("dense", x, 16, 6)), len(labels), 16)
    proto = net.proto(y=[len(labels)])
    card = small.card(labels)
    if kind == "tokens":
        proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
        card = card.replace(inputs=({"name": "x", "kind": "tokens", "vocabulary": vocabulary},))
    raw = small.inputs([6])
    return profiled(Model.from_proto(proto, card), (raw * 3).astype(np.int64) if kind == "tokens" else raw)


def refused(modules: Sequence[Model], **options: Any) -> tuple[str, str]:
    """Code and hint; the message is one line that names classes."""
    before = frozen(modules)
    with pytest.raises(GraftError) as caught:
        Compose(**options)(Modules(modules), Context())
    assert caught.value.message and caught.value.hint and "\n" not in str(caught.value)
    assert frozen(modules) == before
    return caught.value.code, caught.value.hint


def test_the_same_class_of_two_parents_is_refused() -> None:
    modules = [cut(photo("abc", seed=1, name="one"), "b"), cut(photo("bcd", seed=2), "b")]
    assert refused(modules)[0] == "class-twice"
    with pytest.raises(GraftError, match=r"'b': one of one, one of parent [0-9a-f]{8}"):
        Compose()(Modules(modules), Context())


def test_images_tensors_and_tokens_do_not_mix() -> None:
    image, tensor = cut(photo("abc", seed=1), "b"), cut(dense("pqrs", 0), "q")
    tokens = cut(dense("xyz", 1, "tokens", "words"), "z")
    for pair in ((image, tensor), (tensor, tokens), (tokens, image)):
        for strategy in ("auto", "branches"):
            assert refused(pair, strategy=strategy)[0] == "inputs-differ"


def test_vocabularies_have_to_be_known_and_the_same() -> None:
    def tokens(labels: str, vocabulary: str | None) -> Model:
        return cut(dense(labels, ord(labels[0]), "tokens", vocabulary), labels[1])

    words = tokens("abc", "words")
    assert refused([words, tokens("pqr", "pieces")])[0] == "vocabularies-differ"
    assert refused([words, tokens("pqr", None)])[0] == "vocabularies-differ"
    assert refused([tokens("abc", None), tokens("pqr", None)])[0] == "vocabularies-differ"
    modules = [words, tokens("pqr", "words")]
    report = Compose("branches")(Modules(modules), Context())
    ids = np.random.default_rng(0).integers(-5, 5, (32, 6))
    found = checked(report, ids, "x")
    np.testing.assert_allclose(
        found, wanted_scores(modules, ids, "typicality", raw=False), rtol=1e-3, atol=1e-3
    )
    assert report.model.require_card().inputs[0].vocabulary == "words"


def test_tokens_of_one_parent_need_no_vocabulary() -> None:
    of = dense("abc", 0, "tokens")
    report = Compose("branches")(Modules([cut(of, "a"), cut(of, "b")]), Context())
    assert report.model.require_card().labels == ("a", "b")


def test_labels_a_step_and_labels_a_sample_do_not_mix() -> None:
    one, two = cut(dense("abcd", 0), "a"), cut(dense("pqrs", 1), "q")
    card = two.require_card()
    two.card = card.replace(output={"name": "y", "kind": "logits", "steps": True})
    assert refused([one, two])[0] == "outputs-differ"


def test_modules_of_a_newer_graft_and_broken_ones() -> None:
    one, two = cut(photo("abc", seed=1), "b"), cut(photo("pqr", seed=2), "q")
    two.metadata[FORMAT_KEY] = str(FORMAT + 1)
    assert refused([one, two])[0] == "module-format"
    two.metadata[FORMAT_KEY] = str(FORMAT)
    whole = two.metadata[ORIGIN_KEY]
    for broken in ("", "{", "[]", json.dumps({**json.loads(whole), "parents": []})):
        two.metadata[ORIGIN_KEY] = broken
        assert refused([one, two])[0] == "module-broken"
    two.metadata[ORIGIN_KEY] = json.dumps({**json.loads(whole), "classes": ["frog"]})
    assert refused([one, two])[0] == "module-broken"
    two.metadata[FORMAT_KEY] = "1" * 5000
    assert refused([one, two])[0] == "module-format"
    two.metadata[FORMAT_KEY] = str(FORMAT)
    two.metadata[ORIGIN_KEY] = whole
    two.metadata[KEY] = "{}"
    assert refused([one, two])[0] == "module-broken"
    del two.metadata[KEY]
    report = Compose("branches")(Modules([one, two]), Context())
    assert len(report.declined) == 1 and "statistics" in report.declined[0].reason


@pytest.mark.parametrize(
    "changes", [{"keep": "many"}, {"method": None}, {"method": 3}, {"round_to": "z"}, {"seed": []}]
)
def test_options_that_make_no_sense(changes: dict[str, Any]) -> None:
    of = photo("abc", seed=1)
    modules = [cut(of, "b"), cut(of, "a")]
    for module in modules:
        content = json.loads(module.metadata[ORIGIN_KEY])
        options = {k: v for k, v in {**content["options"], **changes}.items() if v is not None}
        module.metadata[ORIGIN_KEY] = json.dumps({**content, "options": options})
    with pytest.raises(GraftError) as caught:
        Compose()(Modules(modules, sources(of)), Context())
    assert caught.value.code == "module-broken"


def test_unknown_choices() -> None:
    for name in ("strategy", "scores", "input"):
        with pytest.raises(GraftError) as caught:
            Compose(**{name: "magic"})
        assert caught.value.code == f"{name}-unknown"


# -------------------------------------------------------------------- types and small parents


@pytest.mark.parametrize("first", [True, False])
def test_parents_of_different_precision(first: bool) -> None:
    one, two = photo("abc", seed=1), photo("pqr", seed=2, dtype=onnx.TensorProto.FLOAT16)
    modules = [cut(one, "a"), cut(two, "q")]
    modules = modules if first else modules[::-1]
    report = Compose("branches", scores="softmax")(Modules(modules), Context())
    onnx.checker.check_model(report.model.proto(), full_check=True)
    images = pixels(9)
    shares = {}
    for of, name, to in ((one, "a", np.float32), (two, "q", np.float16)):
        x = prepared(images, of.parent.source.require_card()).astype(to)
        logits = run(of.parent.source, {"x": x})["y"].astype(np.float64)
        column = of.parent.record.labels.index(name)
        shares[name] = (logits - small.logsumexp(logits))[:, column]
    found = run(report.model, {"image": images})["y"]
    names = report.model.require_card().labels
    np.testing.assert_allclose(found, np.stack([shares[name] for name in names], 1), rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize("scores", ["softmax", "typicality"])
def test_parents_that_cost_less_than_comparing_their_features(scores: str) -> None:
    """A trunk of such a parent leaves them out, says so, and costs no more than the parent."""

    def tiny(labels: str, seed: int) -> Source:
        net = small.Net(2, seed=seed)
        net.gemm("y", net.node("Relu", "relu", net.gemm("dense", "x", 8, 2)), len(labels), 8)
        return profiled(small.model(net, labels=labels), small.inputs([2]))

    one, two = tiny("ab", 0), tiny("pq", 1)
    modules = [cut(one, "a"), cut(one, "b"), cut(two, "p"), cut(two, "q")]
    report = Compose(scores=scores)(Modules(modules, sources(one, two)), Context())
    assert report.model.require_card().labels == ("a", "b", "p", "q")
    assert report.strategy == "trunk"
    assert cost_of(report.model).macs <= one.parent.cost.macs + two.parent.cost.macs
    assert any("more than the whole parent" in each.reason for each in report.declined) == (
        scores == "typicality"
    )


@pytest.mark.parametrize("turned", [False, True])
def test_a_parent_of_a_fixed_batch_fixes_that_of_the_composite(turned: bool) -> None:
    free, fixed = photo("abc", seed=1), photo("pqr", seed=2, batch=1)
    modules = [cut(free, "a"), cut(fixed, "q")]
    report = Compose("branches", scores="softmax")(Modules(modules[::-1] if turned else modules), Context())
    (entry,) = report.model.inputs().values()
    assert entry[1][0] == 1
    assert report.model.outputs()["y"][1] == (1, 2)
    onnx.checker.check_model(report.model.proto(), full_check=True)
    assert run(report.model, {"image": pixels(1)})["y"].shape == (1, 2)


def test_parents_of_different_fixed_batches_are_refused() -> None:
    modules = [cut(photo("abc", seed=1, batch=1), "a"), cut(photo("pqr", seed=2, batch=3), "q")]
    assert refused(modules)[0] == "batches-differ"


def test_a_composite_with_other_can_be_joined_again() -> None:
    one, two = photo("abc", seed=1), photo("pqr", seed=2)
    first = Compose("trunk", other=True)(
        Modules([cut(one, "a"), cut(one, "c")], sources(one)), Context()
    ).model
    assert first.require_card().labels == ("a", "c", "(other)")
    report = Compose(scores="softmax")(Modules([first, cut(two, "q")]), Context())
    assert report.model.require_card().labels == ("a", "c", "q")
    found = checked(report, pixels(16))
    x = prepared(pixels(16), one.parent.source.require_card())
    logits = run(one.parent.source, {"x": x})["y"].astype(np.float64)
    wanted = (logits - small.logsumexp(logits))[:, [0, 2]]
    np.testing.assert_allclose(found[:, :2], wanted, rtol=1e-3, atol=1e-3)


def test_a_budget_is_refused_where_nothing_is_planned() -> None:
    modules = [cut(photo("abc", seed=1), "a"), cut(photo("pqr", seed=2), "q")]
    assert refused(modules, keep=0.5)[0] == "trunk-only"
    report = Compose()(Modules(modules), Context())
    assert report.strategy == "branches"
    assert "not at hand" in report.reason


def test_one_module_of_one_class_as_a_trunk_keeps_other() -> None:
    of = photo("abc", seed=1)
    report = Compose("trunk")(Modules([cut(of, "b")], sources(of)), Context())
    assert report.model.require_card().labels == ("b", "(other)")


def test_trunks_are_cut_for_distances_only_where_there_are_any() -> None:
    """Scores that need no distances leave the whole budget to the trunks."""
    one, two = photo("abc", seed=1), photo("pqr", seed=2)
    modules = [cut(one, "abc", together=True), cut(two, "pqr", together=True)]
    report = Compose("trunk", scores="softmax")(Modules(modules, sources(one, two)), Context())
    x = prepared(pixels(16), one.parent.source.require_card())
    whole = [run(of.parent.source, {"x": x})["y"] for of in (one, two)]
    wanted = np.concatenate([logits - small.logsumexp(logits) for logits in whole], axis=1)
    found = checked(report, pixels(16))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


def test_budgets_by_parameters_keep_the_work_below_the_parents() -> None:
    one, two = PARENTS[:2]
    modules = [piece(0, name, 1.0, False, "parameters") for name in "ab"]
    modules += [piece(1, name, 1.0, False, "parameters") for name in "pq"]
    report = Compose()(Modules(modules, sources(one, two)), Context())
    assert report.strategy == "trunk"
    assert cost_of(report.model).macs <= one.parent.cost.macs + two.parent.cost.macs


@pytest.mark.parametrize(
    "classes",
    [
        "ab",
        "abc",
    ],
)
def test_scores_with_trailing_axes_of_size_one(classes: str) -> None:
    """The parent puts out (N, K, 1, 1); a module of all its classes leaves its output as it is."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "v", "d"], ["k"], "classify"),
        helper.make_node("GlobalAveragePool", ["k"], ["y"], "pool"),
    ]
    graph = helper.make_graph(
        nodes,
        "maps",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, *SIZE])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3, 1, 1])],
        constants(random, w=(6, 3, 3, 3), b=(6,), v=(3, 6, 1, 1), d=(3,)),
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    one = profiled(Model.from_proto(proto, Photo("abc").card()), pixels(48))
    two = photo("pqr", seed=2)
    modules = [cut(one, classes, together=True), cut(two, "q")]
    report = Compose("branches", scores="softmax")(Modules(modules), Context())
    images = pixels(9)
    found = checked(report, images)
    x = prepared(images, one.parent.source.require_card())
    logits = run(one.parent.source, {"x": x})["y"][:, :, 0, 0].astype(np.float64)
    alone = score(modules[1], x, "softmax")["q"]
    wanted = np.concatenate([(logits - small.logsumexp(logits))[:, : len(classes)], alone], axis=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


def test_operators_of_other_domains_can_be_joined() -> None:
    """onnxruntime's own operators say nothing of an IR version."""

    def contributed(labels: str, seed: int) -> Source:
        net = small.Net(6, seed=seed)
        net.gemm("dense", "x", 16, 6)
        net.node("Gelu", "gelu", "dense", domain="com.microsoft")
        net.gemm("y", "gelu", len(labels), 16)
        net.opset = 17
        kind = onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            net.nodes,
            "gelu",
            [helper.make_tensor_value_info("x", kind, ["N", 6])],
            [helper.make_tensor_value_info("y", kind, ["N", len(labels)])],
            list(net.constants.values()),
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        return profiled(Model.from_proto(proto, small.card(labels)), small.inputs([6]))

    modules = [cut(contributed("abcd", 0), "a"), cut(contributed("pqrs", 1), "q")]
    report = Compose("branches", scores="softmax")(Modules(modules), Context())
    x = small.inputs([6], 9)
    wanted = wanted_scores(modules, x, "softmax", raw=False)
    np.testing.assert_allclose(run(report.model, {"x": x})["y"], wanted, rtol=1e-3, atol=1e-3)
