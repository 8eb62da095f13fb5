"""How the input is read comes from type, shape and likelihood."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graft.rewriter.data.dataset import Dataset
from graft.rewriter.errors import GraftError
from tests.rewriter.measure.draft.kit import CHANNELS_FIRST, FLAT, SIDE, Task, classifier, draft, model, node

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALVES = {"mean": (0.5,), "std": (0.5,)}
RAW = (node("Cast", "x", "f", to=1), node("Div", "f v255", "p"), node("Flatten", "p", "flat"))


@pytest.mark.parametrize(
    ("channels", "normalization", "scale"),
    [
        (1, {}, 1 / 255),
        (1, HALVES, 1 / 255),
        (1, {"mean": (0.1307,), "std": (0.3081,)}, 1 / 255),
        (3, IMAGENET, 1 / 255),
    ],
)
def test_the_likeliest_scale_is_taken(
    channels: int, normalization: dict[str, tuple[float, ...]], scale: float
) -> None:
    task = Task(channels)
    before = CHANNELS_FIRST if channels == 3 else FLAT
    proto = classifier(task, ["N", channels, SIDE, SIDE], before, **normalization)
    found = draft(proto, task.split())
    (card,) = found.card.inputs
    assert (card.kind, card.layout, card.size, card.resize) == ("image", "NCHW", (SIDE, SIDE), "squash")
    assert card.scale == pytest.approx(scale)
    assert (card.mean, card.std) == (normalization.get("mean", (0.0,)), normalization.get("std", (1.0,)))
    assert card.color == ("RGB" if channels == 3 else "GRAY")
    own = task.posterior - np.log(
        np.exp(task.posterior - task.posterior.max(1, keepdims=True)).sum(1, keepdims=True)
    )
    own -= task.posterior.max(1, keepdims=True)
    expected = own[np.arange(len(own)), task.labels].mean()
    assert found.log_likelihood == pytest.approx(expected, abs=1e-3)
    assert found.samples == 300
    likelihoods = [each.log_likelihood for each in found.candidates if each.samples == found.samples]
    assert likelihoods == sorted(likelihoods, reverse=True)
    assert len(found.candidates) >= 5


def test_blue_first() -> None:
    task = Task(3)
    turned = Task(3)
    turned.weights = task.weights.reshape(4, SIDE, SIDE, 3)[..., ::-1].reshape(4, -1)
    found = draft(classifier(turned, ["N", 3, SIDE, SIDE], CHANNELS_FIRST), task.split())
    assert found.card.inputs[0].color == "BGR"
    assert found.top1 == pytest.approx((task.posterior.argmax(1) == task.labels).mean())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("with_data", [True, False], ids=["data", "no data"])
@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("dtype", [TensorProto.UINT8, TensorProto.INT32])
def test_bytes_channels_last_are_an_image(channels: int, with_data: bool, free: bool, dtype: int) -> None:
    task = Task(channels)
    before = RAW
    constant = onnx.helper.make_node("Constant", [], ["v255"], value_float=255.0)
    sides = ["H", "W"] if free else [SIDE, SIDE]
    proto = classifier(task, ["N", *sides, channels], (constant, *before), dtype=dtype)
    found = draft(proto, task.split() if with_data else None)
    (card,) = found.card.inputs
    assert (card.kind, card.layout, card.scale, card.mean) == ("image", "NHWC", 1.0, (0.0,))
    if with_data:
        assert card.size == (SIDE, SIDE)
        assert found.top1 == pytest.approx((task.posterior.argmax(1) == task.labels).mean(), abs=0.01)


@pytest.mark.parametrize("with_data", [True, False], ids=["data", "no data"])
def test_gray_images_without_an_axis_of_colours(with_data: bool) -> None:
    task = Task()
    found = draft(classifier(task, ["N", SIDE, SIDE]), task.split() if with_data else None)
    (card,) = found.card.inputs
    assert (card.kind, card.layout, card.color, card.size) == ("image", "NHW", "GRAY", (SIDE, SIDE))
    assert card.scale == pytest.approx(1 / 255)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flat_data", [True, False])
def test_pixels_in_a_row(channels: int, flat_data: bool) -> None:
    task = Task(channels)
    features = SIDE * SIDE * channels
    samples = task.images.reshape(len(task.images), -1) if flat_data else None
    found = draft(classifier(task, ["N", features], (node("Identity", "x", "flat"),)), task.split(samples))
    (card,) = found.card.inputs
    assert (card.kind, card.layout, card.size) == ("image", "flat", (SIDE, SIDE))
    assert card.channels == channels
    assert card.scale == pytest.approx(1 / 255)
    assert found.top1 == pytest.approx((task.posterior.argmax(1) == task.labels).mean())


@pytest.mark.parametrize("shape", [["N", SIDE * SIDE], ["N", SIDE, SIDE], ["N", 1, SIDE, SIDE]])
def test_shares_of_one_that_fit_are_fed_as_they_are(shape: list[object]) -> None:
    task = Task()
    before = FLAT if len(shape) > 2 else (node("Identity", "x", "flat"),)
    samples = (task.images / 255).astype(np.float32).reshape(-1, *shape[1:])
    found = draft(classifier(task, shape, before), task.split(samples))
    assert found.card.inputs[0].kind == "tensor"
    assert found.top1 == pytest.approx((task.posterior.argmax(1) == task.labels).mean())


def test_shares_of_one_for_a_network_of_normalized_pixels() -> None:
    task = Task(3)
    samples = (task.images / 255).astype(np.float32).transpose(0, 3, 1, 2)
    found = draft(classifier(task, ["N", 3, SIDE, SIDE], CHANNELS_FIRST, **IMAGENET), task.split(samples))
    (card,) = found.card.inputs
    assert (card.kind, card.mean, card.std, card.resize) == ("image", *IMAGENET.values(), None)
    assert card.scale == pytest.approx(1)
    assert found.top1 == pytest.approx((task.posterior.argmax(1) == task.labels).mean())


def test_levels_with_fractions_are_pixels() -> None:
    task = Task()
    samples = np.clip(task.images[:, None, ..., 0] + np.float32(0.25), 0, 255)
    (card,) = draft(classifier(task, ["N", 1, SIDE, SIDE]), task.split(samples)).card.inputs
    assert card.scale == pytest.approx(1 / 255)


def test_scaled_numbers_with_channels_last_are_only_turned() -> None:
    task = Task(3)
    samples = (task.images / 127.5 - 1).astype(np.float32)
    proto = classifier(task, ["N", 3, SIDE, SIDE], CHANNELS_FIRST, **HALVES)
    found = draft(proto, task.split(samples))
    (card,) = found.card.inputs
    assert (card.kind, card.layout, card.scale, card.mean, card.resize) == (
        "image",
        "NCHW",
        1.0,
        (0.0,),
        None,
    )
    assert found.top1 == pytest.approx((task.posterior.argmax(1) == task.labels).mean())


@pytest.mark.parametrize("shape", [["N", 1, SIDE, SIDE], ["N", SIDE, SIDE], ["N", 1, "H", "W"]])
def test_bytes_channels_first(shape: list[object]) -> None:
    task = Task()
    constant = onnx.helper.make_node("Constant", [], ["v255"], value_float=255.0)
    proto = classifier(task, shape, (constant, *RAW), dtype=TensorProto.UINT8)
    for part in (task.split(), None):
        (card,) = draft(proto, part).card.inputs
        assert (card.kind, card.layout, card.scale) == ("image", "NHW" if len(shape) == 3 else "NCHW", 1.0)


def test_a_network_that_only_becomes_surer_of_larger_numbers() -> None:
    """A perfect network is as right with 255 times the numbers, and surer: no sign that it takes them."""
    labels = np.arange(200) % 4
    images = np.full((200, SIDE, SIDE), 20, np.uint8)
    images[np.arange(200), labels] = 230
    weights = np.zeros((SIDE * SIDE, 4), np.float32)
    for label in range(4):
        weights[label * SIDE : (label + 1) * SIDE, label] = 0.8
    nodes = [node("Flatten", "x", "flat"), node("MatMul", "flat w", "y")]
    ends = {"x": (TensorProto.FLOAT, ["N", 1, SIDE, SIDE])}, {"y": (TensorProto.FLOAT, ["N", 4])}
    part = Dataset.from_arrays(images, labels).split("train")
    found = draft(model(nodes, {"w": weights}, *ends), part)
    assert found.top1 == 1
    assert found.card.inputs[0].scale == pytest.approx(1 / 255)


def test_sequences_of_numbers_stay_tensors() -> None:
    task = Task()
    proto = classifier(task, ["N", "T", SIDE], FLAT)
    samples = np.random.default_rng(0).normal(size=(len(task.images), SIDE, SIDE)).astype(np.float32)
    assert draft(proto, task.split(samples)).card.inputs[0].kind == "tensor"
    assert draft(classifier(task, ["N", 16, 4], FLAT)).card.inputs[0].kind == "tensor"


def test_squares_that_a_recurrent_operator_reads_are_sequences_without_samples() -> None:
    rng = np.random.default_rng(0)
    held = {
        name: rng.normal(size=size).astype(np.float32)
        for name, size in (("w", (1, 16, 8)), ("r", (1, 16, 4)))
    }
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "w", "r"], ["", "h"], "lstm", hidden_size=4),
        node("Squeeze", "h axes", "y"),
    ]
    ends = {"x": (TensorProto.FLOAT, ["N", 8, 8])}, {"y": (TensorProto.FLOAT, ["N", 4])}
    proto = model(nodes, {**held, "axes": np.array([0])}, *ends)
    assert draft(proto).card.inputs[0].kind == "tensor"


def test_whole_numbers_are_tokens_or_features() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(9, 4)).astype(np.float32)
    nodes = [node("Gather", "t x", "e"), node("ReduceMean", "e", "y", axes=[1], keepdims=0)]
    ends = {"x": (TensorProto.INT64, ["N", 5])}, {"y": (TensorProto.FLOAT, ["N", 4])}
    assert draft(model(nodes, {"t": table}, *ends)).card.inputs[0].kind == "tokens"
    nodes = [node("Cast", "x", "f", to=1), node("MatMul", "f w", "y")]
    features = model(nodes, {"w": rng.normal(size=(5, 4)).astype(np.float32)}, *ends)
    assert draft(features).card.inputs[0].kind == "tensor"


def test_whole_numbers_are_fed_to_inputs_of_floats() -> None:
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(5, 4)).astype(np.float32), rng.integers(-9, 9, (60, 5))
    ends = {"x": (TensorProto.FLOAT, ["N", 5])}, {"y": (TensorProto.FLOAT, ["N", 4])}
    part = Dataset.from_arrays(x, (x @ weights).argmax(1)).split("train")
    assert draft(model([node("MatMul", "x w", "y")], {"w": weights}, *ends), part).top1 == 1


def test_text_is_refused() -> None:
    nodes = [node("StringNormalizer", "x", "s"), node("Shape", "s", "n"), node("Cast", "n", "y", to=1)]
    proto = model(nodes, {}, {"x": (TensorProto.STRING, [1])}, {"y": (TensorProto.FLOAT, [1])})
    with pytest.raises(GraftError, match="takes text"):
        draft(proto)


def test_inputs_that_the_data_lack_are_constant() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(6, 4)).astype(np.float32)
    nodes = [node("Mul", "x attention_mask", "m"), node("Add", "m h0", "s"), node("MatMul", "s w", "y")]
    inputs = {name: (TensorProto.FLOAT, ["N", 6]) for name in ("x", "attention_mask", "h0")}
    proto = model(nodes, {"w": weights}, inputs, {"y": (TensorProto.FLOAT, ["N", 4])})
    x = rng.normal(size=(80, 6)).astype(np.float32)
    found = draft(proto, Dataset.from_arrays(x, (x @ weights).argmax(1)).split("train"))
    assert [each.constant for each in found.card.inputs] == [None, 1.0, 0.0]
    assert found.top1 == 1
