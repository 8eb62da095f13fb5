"""Put a parent's preprocessing into the graph, so that different parents take the same raw input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Context, Report
from graft.passes.join.resampling import nearest_pixels, resampling_matrix
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.vocabulary import PREPARED

RAW = "image"
PREFIX, RESAMPLED = PREPARED.rsplit("/", 1)
LUMA = (0.299, 0.587, 0.114)
"""Gray from RGB as image files are read (ITU-R BT.601)."""
HALF = 0.5001
"""Added before rounding down: runtimes add up in any order, and a half is rounded up in all of them."""


def raw_input(cards: Sequence[InputCard], name: str = RAW) -> InputCard:
    """Return raw images that all of ``cards`` can be made of: pixels 0..255, rows of pixels, unscaled.

    The largest size among them, and colour where one of them has colour. Images of other sizes are
    brought to it as the card of that size says.
    """
    largest = max(cards, key=lambda card: np.prod(card.size or (0, 0)))
    return InputCard(
        name=name,
        kind="image",
        layout="NHWC",
        color="GRAY" if all(card.color == "GRAY" for card in cards) else "RGB",
        size=largest.size,
        resize=largest.resize or "squash",
        crop_fraction=largest.crop_fraction,
        interpolation=largest.interpolation,
    )


@dataclass(frozen=True, kw_only=True)
class AdaptReport(Report):
    """The way of an image from raw to the input of a model; ``changed`` counts the nodes that were added.

    Attributes:
        steps: applied to the raw input, in order.
    """

    steps: tuple[str, ...]


@dataclass(frozen=True)
class Adapt:
    """Let a model of one image input take raw images.

    The graph gets, as far as the card asks for it: colour, size, layout, and
    ``(raw * scale - mean) / std``. Colour and size are brought about as they are for image files, and whole
    levels are rounded to whole ones like these. Floating-point images stay so: beside a half, runtimes round
    them differently.

    Attributes:
        raw: the images that will come, in layout NHWC.
        dtype: their type in the graph.
    """

    raw: InputCard
    dtype: type[np.generic] = np.uint8

    def __call__(self, model: Model, context: Context) -> AdaptReport:
        """Change the input of ``model``, and its card.

        Args:
            model: changed in place.
            context: nothing of it is used.

        Raises:
            GraftError: ``input-kind`` for models that take no single image.
        """
        del context
        card, before = model.require_card(), len(model.graph.nodes)
        if len(card.inputs) != 1 or card.inputs[0].kind != "image":
            raise GraftError(
                "input-kind",
                "raw input is for models that take one image",
                "use --input parent",
            )
        target = card.inputs[0]
        old = next(tensor for tensor in model.graph.inputs if tensor.name == target.name)
        batch = (old.shape or [None])[0]
        if batch is None or isinstance(batch, str):
            batch = "batch"
        old.name = f"graft/adapted/{target.name}"
        shape = [batch, *(self.raw.size or ()), self.raw.channels]
        raw = gs.Variable(self.raw.name, np.dtype(self.dtype), shape)
        path = _Path(Builder(model.graph, model.opset, PREFIX), raw, self.raw)
        path.color(target)
        path.size(target)
        path.values(target)
        path.layout(target)
        path.finish(old)
        model.graph.inputs = [raw]
        model.card = card.replace(inputs=(self.raw,))
        added = len(model.graph.nodes) - before
        model.tidy()
        return AdaptReport(changed=added, steps=tuple(path.steps))


class _Path:
    """One image tensor on its way from raw to a parent's input; layout NHWC until the end."""

    def __init__(self, build: Builder, raw: gs.Tensor, card: InputCard) -> None:
        self.build = build
        self.card = card
        self.whole = np.dtype(raw.dtype).kind in "iu"
        self.tensor = build.cast(raw, np.float32, "float")
        self.steps: list[str] = []

    def color(self, target: InputCard) -> None:
        """Turn RGB into gray or BGR, gray into three equal channels."""
        build = self.build
        if target.color == self.card.color:
            return
        self.steps.append(f"{self.card.color} to {target.color}")
        if target.color == "GRAY":
            weights = build.constant("luma", np.array(LUMA, np.float32) * 3)
            weighted = build.node("Mul", "weighted", [self.tensor, weights])
            self.tensor = self._rounded(build.reduce("ReduceMean", weighted, [3], "gray", keep=True), "gray")
        elif self.card.color == "GRAY":
            self.tensor = build.node("Concat", "colors", [self.tensor] * 3, axis=3)
        else:
            turned = build.constant("turned", np.array([2, 1, 0]))
            self.tensor = build.node("Gather", "bgr", [self.tensor, turned], axis=3)

    def size(self, target: InputCard) -> None:
        """Resize to the parent's height and width."""
        if target.size is None or self.card.size is None or target.size == self.card.size:
            return
        self.steps.append(f"{_text(self.card.size)} to {_text(target.size)}")
        if target.interpolation == "nearest":
            for axis, sizes in enumerate(zip(self.card.size, target.size, strict=True), 1):
                self._pick(axis, *sizes)
            return
        build = self.build
        image = build.node("Transpose", "channels_first", [self.tensor], perm=[0, 3, 1, 2])
        (height, width), (rows, columns) = self.card.size, target.size
        if columns != width:
            across = resampling_matrix(width, columns, target.interpolation).T.astype(np.float32)
            image = build.node(
                "MatMul",
                f"{RESAMPLED}_across",
                [image, build.constant("columns", np.ascontiguousarray(across))],
            )
        if rows != height:
            down = resampling_matrix(height, rows, target.interpolation).astype(np.float32)
            image = build.node("MatMul", f"{RESAMPLED}_down", [build.constant("rows", down), image])
        image = build.node("Transpose", "channels_last", [image], perm=[0, 2, 3, 1])
        self.tensor = self._rounded(image, "pixels")

    def _pick(self, axis: int, size: int, wanted: int) -> None:
        """Take the nearest pixels along an axis."""
        if size != wanted:
            places = self.build.constant(f"nearest_{axis}", nearest_pixels(size, wanted))
            self.tensor = self.build.node("Gather", f"picked_{axis}", [self.tensor, places], axis=axis)

    def values(self, target: InputCard) -> None:
        """Apply ``(raw * scale - mean) / std``; steps that change nothing are left out."""
        for op, name, numbers, neutral in (
            ("Mul", "scale", (target.scale,), 1.0),
            ("Sub", "mean", target.mean, 0.0),
            ("Div", "std", target.std, 1.0),
        ):
            if any(number != neutral for number in numbers):
                constant = self.build.constant(name, np.array(numbers, np.float32))
                self.tensor = self.build.node(op, f"{name}d", [self.tensor, constant])
                self.steps.append(name)

    def layout(self, target: InputCard) -> None:
        """Bring the axes into the parent's order."""
        if target.layout == "NCHW":
            self.tensor = self.build.node("Transpose", "nchw", [self.tensor], perm=[0, 3, 1, 2])
        elif target.layout == "flat":
            rows = self.build.constant("row", np.array([0, -1]))
            self.tensor = self.build.node("Reshape", "flat", [self.tensor, rows])
        elif target.layout == "NHW":
            rows = self.build.constant("no_colors", np.array([0, 0, 0]))
            self.tensor = self.build.node("Reshape", "nhw", [self.tensor, rows])
        if target.layout != self.card.layout:
            self.steps.append(f"layout {target.layout}")

    def finish(self, old: gs.Variable) -> None:
        """Hand the result to the readers of the parent's input, in its type."""
        self.tensor = self.build.cast(self.tensor, old.dtype, "typed", np.float32)
        for reader in list(old.outputs):
            reader.inputs = [self.tensor if tensor is old else tensor for tensor in reader.inputs]

    def _rounded(self, tensor: gs.Tensor, name: str) -> gs.Tensor:
        """Round to whole levels, as in an image file, where the images have such; limit them."""
        build = self.build
        half, low, high = (
            build.constant(f"{name}/{each}", np.array(value, np.float32))
            for each, value in (("half", HALF), ("low", 0), ("high", 255))
        )
        if self.whole:
            tensor = build.node("Floor", f"{name}/floor", [build.node("Add", f"{name}/add", [tensor, half])])
        return build.node("Clip", f"{name}/levels", [tensor, low, high])


def _text(size: tuple[int, int] | None) -> str:
    return "?" if size is None else f"{size[0]}x{size[1]}"
