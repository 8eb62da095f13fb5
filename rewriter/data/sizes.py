"""Sizes of samples as a model takes them."""

from __future__ import annotations

from collections.abc import Mapping

from graft.rewriter.arrays import Array
from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.sizes import free_axes, sizes_at


def sizes_of(model: Model, samples: Samples) -> dict[str, tuple[int | None, ...]]:
    """Return the sizes of the free axes of a model's inputs; where samples differ, of the first sample.

    Args:
        model: takes the samples.
        samples: matched to its card.

    Raises:
        GraftError: whatever reading raises; ``shape-unfit`` where a sample does not fit the model.
    """
    inputs = {name: shape for name, (_, shape) in model.inputs().items()}
    axes = model.sample_axes()
    if not any(free_axes(shape, axes[name]) for name, shape in inputs.items()):
        return {}
    prepared, _ = next(samples.take([0]).batches(1))
    return sizes_at(inputs, axes, _shapes(prepared, axes, inputs))


def _shapes(
    prepared: Mapping[str, Array], axes: Mapping[str, int | None], inputs: Mapping[str, object]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of prepared samples with the axis of the samples where the model has it."""
    found = {}
    for name, array in prepared.items():
        batch, *rest = array.shape
        axis = axes.get(name) or 0
        if name in inputs:
            found[name] = (*rest[:axis], batch, *rest[axis:])
    return found
