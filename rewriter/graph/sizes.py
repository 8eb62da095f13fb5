"""Sizes of inputs at which costs are counted, where a model leaves axes beside the batch free."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from graft.rewriter.card.part import Shape, shape_text
from graft.rewriter.errors import GraftError

Sizes = Mapping[str, tuple[int | None, ...]]
"""Input name to its shape; ``None`` on the axis of the samples. Inputs without free axes are left out."""
SIZES_KEY = "graft.sizes"
"""Of the metadata: where a module carries the sizes that its costs are counted at."""

Inputs = Mapping[str, Shape]
SampleAxes = Mapping[str, int | None]


def free_axes(shape: Shape, samples: int | None) -> list[int]:
    """Return the axes of free size beside that of the ``samples``."""
    return [axis for axis, size in enumerate(shape) if axis != samples and not isinstance(size, int)]


def sizes_at(
    inputs: Inputs, axes: SampleAxes, shapes: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int | None, ...]]:
    """Return what ``shapes`` say of free axes.

    Args:
        inputs: name to declared shape.
        axes: their sample axes.
        shapes: full shapes of inputs; of others nothing is said.

    Raises:
        GraftError: ``shape-unfit`` where an input is missing, or has another rank or a fixed size.
    """
    found: dict[str, tuple[int | None, ...]] = {}
    for name, shape in shapes.items():
        known = inputs.get(name)
        if known is None or len(known) != len(shape) or not _fits(known, shape, axes.get(name)):
            raise GraftError(
                "shape-unfit",
                f"the model has no input {name} that takes the shape {list(shape)}",
                f"its inputs are {', '.join(f'{n} {shape_text(s)}' for n, s in inputs.items())}",
            )
        if free_axes(known, axes.get(name)):
            found[name] = tuple(None if axis == axes.get(name) else size for axis, size in enumerate(shape))
    return found


def _fits(known: Shape, shape: Sequence[int], samples: int | None) -> bool:
    pairs = enumerate(zip(known, shape, strict=True))
    return all(
        axis == samples or not isinstance(fixed, int) or fixed == size for axis, (fixed, size) in pairs
    )


def fitting(sizes: Sizes, inputs: Inputs, axes: SampleAxes) -> dict[str, tuple[int | None, ...]]:
    """Return the sizes of inputs that take them and have free axes.

    Args:
        sizes: of inputs, some of which may be gone or changed.
        inputs: name to declared shape.
        axes: their sample axes.
    """
    return {
        name: size
        for name, size in sizes.items()
        if name in inputs
        and len(inputs[name]) == len(size)
        and free_axes(inputs[name], axes.get(name))
        and all(
            n is None or not isinstance(d, int) or d == n for d, n in zip(inputs[name], size, strict=True)
        )
    }


def check_asked(asked: Sizes, found: Sizes) -> None:
    """Check that samples have the sizes that were asked for.

    Args:
        asked: of ``--input-shape``.
        found: of the samples.

    Raises:
        GraftError: ``shape-unfit``.
    """
    for name, shape in asked.items():
        if name in found and found[name] != shape:
            raise GraftError(
                "shape-unfit",
                f"--input-shape says {shape_text(shape)} for {name},"
                f" the samples have {shape_text(found[name])}",
                "leave it out, or give the shape of the samples",
            )


def sizes_to_json(sizes: Sizes) -> str:
    """Return sizes as a module carries them: equal sizes give equal text."""
    return json.dumps({name: list(shape) for name, shape in sizes.items()}, sort_keys=True)


def sizes_from_json(text: str) -> dict[str, tuple[int | None, ...]]:
    """Return the sizes that :func:`sizes_to_json` wrote; none where they cannot be read."""
    try:
        found = json.loads(text)
        return {
            str(name): tuple(None if n is None else int(n) for n in shape) for name, shape in found.items()
        }
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
