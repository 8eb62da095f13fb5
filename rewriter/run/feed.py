"""How prepared samples go into a model: their types, the axis that they lie on, inputs that are constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.sample_axes import fixed_batch

TYPES = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


@dataclass(frozen=True)
class InputFeed:
    """The inputs of a model.

    Attributes:
        shapes: input name to declared shape.
        types: of inputs whose numbers are converted.
        axes: input name to the axis of its samples; ``None``: the same for all samples.
        constants: input name to the number that fills it.
    """

    shapes: Mapping[str, tuple[int | str | None, ...]]
    types: Mapping[str, type]
    axes: Mapping[str, int | None]
    constants: Mapping[str, float]

    @classmethod
    def of(cls, inputs: Sequence[Any], model: Model | None) -> InputFeed:
        """Return how ``inputs`` of an onnxruntime session are fed; a model with a card says more of them."""
        shapes = {value.name: tuple(value.shape or ()) for value in inputs}
        types = {value.name: TYPES[value.type] for value in inputs if value.type in TYPES}
        axes: dict[str, int | None] = dict.fromkeys(shapes, 0)
        cards = model.card.inputs if model and model.card else ()
        constants = {card.name: card.constant for card in cards if card.constant is not None}
        return cls(shapes, types, axes | (model.sample_axes() if model else {}), constants)

    @property
    def doubtful(self) -> bool:
        """True where the axis of samples has a fixed size, and an axis behind it has none."""
        return any(
            axis == 0 and shape and isinstance(shape[0], int) and not all(isinstance(s, int) for s in shape)
            for shape, axis in ((shape, self.axes.get(name)) for name, shape in self.shapes.items())
        )

    @property
    def batch(self) -> int | None:
        """Number of samples that the model takes at once, where its file fixes it."""
        return fixed_batch(self.shapes, self.axes)

    def feed(self, inputs: Mapping[str, NDArray[Any]], batch: int | None) -> dict[str, NDArray[Any]]:
        """Return prepared samples as the model takes them.

        Args:
            inputs: arrays (N, ...), samples first.
            batch: number of samples that the model takes at once; ``None``: any.

        Returns:
            Arrays of the model's types with samples on its axis, as many as its fixed batch has (shortened,
            or the last one repeated), and inputs that are constant.

        Raises:
            GraftError: ``input-constant`` where the size of a constant is not known.
        """
        found = fit(inputs, batch)
        count = len(next(iter(found.values()))) if found else 1
        for name, array in found.items():
            axis = self.axes.get(name) or 0
            if 0 < axis < array.ndim:
                found[name] = np.ascontiguousarray(np.moveaxis(array, 0, axis))
        for name in self.constants.keys() - found.keys():
            found[name] = self._filled(name, count)
        return self.typed(found)

    def _filled(self, name: str, count: int) -> NDArray[Any]:
        """Return the constant input ``name`` for ``count`` samples."""
        axis, sizes = self.axes.get(name), []
        for place, size in enumerate(self.shapes[name]):
            known = size if isinstance(size, int) else count if place == axis else None
            if known is None:
                raise GraftError(
                    "input-constant",
                    f"input {name} is constant, but the model leaves the size of its axis {place} open",
                    f"say batch_axis: {place} in the card if samples lie there, or store it with the data",
                )
            sizes.append(known)
        return np.full(sizes, self.constants[name], self.types.get(name, np.float32))

    def count(self, feed: Mapping[str, NDArray[Any]]) -> int:
        """Return the number of samples in what :meth:`feed` returned."""
        for name, array in feed.items():
            axis = self.axes.get(name, 0)
            if axis is not None and axis < array.ndim:
                return int(array.shape[axis])
        return 1

    def typed(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return ``inputs`` in the types that the model takes, where these hold the same numbers."""
        return {name: self._typed(name, array) for name, array in inputs.items()}

    def _typed(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """Numbers in the type that the input has; pixels as the nearest whole level."""
        wanted = self.types.get(name)
        if wanted is None or array.dtype == wanted:
            return array
        if array.dtype.kind in "biu" and np.dtype(wanted).kind == "f":
            return array.astype(wanted)
        if array.dtype.kind == "f" and np.dtype(wanted).kind == "f":
            return array.astype(wanted)
        if array.dtype.kind == "f" and wanted is np.uint8:
            return np.asarray(np.clip(np.rint(array), 0, 255), wanted)
        if array.dtype.kind == "f":  # levels of pixels; other numbers are no whole ones
            return (
                array.astype(wanted) if (array == np.rint(array)).all() and _holds(wanted, array) else array
            )
        return array.astype(wanted) if array.dtype.kind in "iu" and _holds(wanted, array) else array


def fit(inputs: Mapping[str, NDArray[Any]], batch: int | None) -> dict[str, NDArray[Any]]:
    """Return ``inputs`` with the number of samples of a fixed ``batch``: shortened, or the last repeated."""
    if batch is None:
        return dict(inputs)
    return {name: array[np.minimum(np.arange(batch), len(array) - 1)] for name, array in inputs.items()}


def _holds(kind: type, whole: NDArray[Any]) -> bool:
    """True where integers are within the range of an integer type."""
    if np.dtype(kind).kind not in "iu":
        return False
    limits = np.iinfo(kind)
    return not whole.size or bool(limits.min <= whole.min() and whole.max() <= limits.max)
