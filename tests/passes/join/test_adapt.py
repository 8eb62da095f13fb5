"""Raw images, prepared inside the graph, are what a card's preparation makes of image files."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from graft.passes.base import Context
from graft.passes.join.adapt import Adapt, raw_input
from graft.passes.join.resampling import resampling_matrix
from graft.rewriter.card.card import Card
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.images import fit_images
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.run.session import Device

SIZE = (9, 12)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), np.uint8)


def identity(card: InputCard, opset: int = 18, dtype: int = onnx.TensorProto.FLOAT) -> Model:
    """A model that puts out its input."""
    height, width = card.size or SIZE
    pixels = height * width * card.channels
    shape = {
        "NCHW": ["batch", card.channels, height, width],
        "NHWC": ["batch", height, width, card.channels],
        "NHW": ["batch", height, width],
        "flat": ["batch", pixels],
    }[card.layout]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"], name="same")],
        "identity",
        [onnx.helper.make_tensor_value_info("x", dtype, shape)],
        [onnx.helper.make_tensor_value_info("y", dtype, shape)],
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    output = {"name": "y", "kind": "logits"}
    return Model.from_proto(proto, Card(inputs=(card,), output=output, labels=("a", "b")))


def image(**changes: Any) -> InputCard:
    return InputCard.model_validate({"name": "x", "kind": "image", "size": SIZE, **changes})


def adapted(card: InputCard, raw: InputCard, images: NDArray[Any], opset: int = 18) -> NDArray[Any]:
    model = identity(card, opset)
    Adapt(raw, images.dtype.type)(model, Context())
    onnx.checker.check_model(model.proto(), full_check=True)
    return Device(("cpu",)).open(model).run({"image": images})["y"]


@pytest.mark.parametrize(
    ("layout", "color", "raw_color"),
    [
        *itertools.product(("NCHW", "NHWC", "flat"), ("RGB", "BGR", "GRAY"), ("RGB", "GRAY")),
        *itertools.product(("NHW",), ("GRAY",), ("RGB", "GRAY")),
    ],
)
@pytest.mark.parametrize("size", [SIZE, (5, 7), (18, 20)])
@pytest.mark.parametrize("opset", [11, 13, 18, 21])
def test_it_prepares_as_the_card_does(
    layout: str, color: str, raw_color: str, size: tuple[int, int], opset: int
) -> None:
    many = color != "GRAY"
    mean, std = ([100.0, 90.5, 80.25], [50.0, 60.0, 70.0]) if many else ([99.0], [51.0])
    card = image(layout=layout, color=color, size=size, scale=0.5, mean=mean, std=std, resize="squash")
    raw = raw_input([image(color=raw_color)])
    images = IMAGES if raw_color == "RGB" else IMAGES[..., :1]
    expected = card.prepare(fit_images(images, card))
    found = adapted(card, raw, images, opset)
    assert found.shape == expected.shape
    # A level may be rounded the other way: 0.5 of scale over 50 of std.
    assert np.abs(found - expected).max() <= (0.0 if size == SIZE and raw_color != "RGB" else 0.0101)
    assert np.abs(found - expected).mean() < 3e-3


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(5, 7), (18, 24), (9, 6), (23, 5)])
@pytest.mark.parametrize("opset", [11, 21])
def test_it_resizes_as_image_files_are(interpolation: str, size: tuple[int, int], opset: int) -> None:
    card = image(size=size, interpolation=interpolation, resize="squash", layout="NHWC")
    images = IMAGES // 2 + 64  # away from 0 and 255, where files are clipped after each direction
    found = adapted(card, raw_input([image()]), images, opset)
    difference = np.abs(found - fit_images(images, card).astype(np.float32))
    assert difference.max() <= 1 and difference.mean() < 0.3


def test_the_report_has_the_steps() -> None:
    raw = raw_input([image()])
    report = Adapt(raw)(identity(image(color="BGR", scale=2.0)), Context())
    assert report.steps == ("RGB to BGR", "scale", "layout NCHW") and not report.declined


def test_a_half_is_rounded_up_however_it_is_added_up() -> None:
    """Of three pixels two: shares of sixths, whose sums are rounded."""
    values = np.random.default_rng(1).integers(0, 256, (2000, 3, 3, 1), np.uint8)
    card = image(layout="NHWC", size=(2, 2), resize="squash", color="GRAY")
    matrix = resampling_matrix(3, 2, "bilinear")
    exact = np.floor(np.round(np.einsum("ai,bj,nijc->nabc", matrix, matrix, values), 6) + 0.5)
    raw = raw_input([image(size=(3, 3), color="GRAY")])
    np.testing.assert_array_equal(adapted(card, raw, values), exact)


def test_float_images_and_half_precision() -> None:
    card = image(layout="NHWC", scale=0.5)
    images = IMAGES.astype(np.float32) + 0.25
    np.testing.assert_array_equal(adapted(card, raw_input([card]), images), images * 0.5)
    small = image(layout="NHWC", size=(5, 7), resize="squash")
    rounded = adapted(small, raw_input([card]), IMAGES)
    found = adapted(small, raw_input([card]), IMAGES.astype(np.float32))
    assert 0.4 < np.abs(found - rounded).max() <= 0.5001  # not rounded
    model = identity(card, dtype=onnx.TensorProto.FLOAT16)
    Adapt(raw_input([card]))(model, Context())
    found = Device(("cpu",)).open(model).run({"image": IMAGES})["y"]
    np.testing.assert_array_equal(found, (IMAGES * np.float32(0.5)).astype(np.float16))


def test_the_raw_input_is_the_largest_and_has_colour_where_one_has() -> None:
    small, large = image(color="GRAY", size=(4, 4)), image(size=(8, 9), resize="crop", crop_fraction=0.5)
    raw = raw_input([small, large])
    assert (raw.size, raw.color, raw.layout, raw.resize, raw.crop_fraction) == (
        (8, 9),
        "RGB",
        "NHWC",
        "crop",
        0.5,
    )
    assert (raw.scale, raw.mean, raw.std) == (1.0, (0.0,), (1.0,))
    assert raw_input([small]).color == "GRAY"


def test_tensors_and_tokens_are_refused() -> None:
    model = identity(image(layout="flat"))
    model.card = model.require_card().replace(inputs=(InputCard(name="x", kind="tensor"),))
    with pytest.raises(GraftError, match="one image"):
        Adapt(raw_input([image()]))(model, Context())
