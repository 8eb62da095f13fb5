"""How raw samples may become an input: the cards that fit its type and shape, and what samples look like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.card.input_card import InputCard
from graft.rewriter.card.part import shape_text
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.scores import PASSING
from graft.rewriter.measure.draft.preprocessing import Preprocessing
from graft.rewriter.measure.draft.seen import Seen, square

Shape = tuple[Any, ...]
Layout = Literal["NCHW", "NHWC", "NHW", "flat"]

SIDE = 224
"""Height and width of images where nothing says them."""
SMALLEST_SIDE = 8
"""Squares of fewer numbers may be sequences."""
SCALES: tuple[tuple[float, tuple[float, ...], tuple[float, ...]], ...] = (
    (1 / 255, (0.0,), (1.0,)),
    (1 / 255, (0.5,), (0.5,)),
    (1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    (1.0, (0.0,), (1.0,)),
    (1.0, (127.0,), (128.0,)),
    (1.0, (123.675, 116.28, 103.53), (1.0,)),
    (1 / 255, (0.1307,), (0.3081,)),
    (1 / 255**2, (0.0,), (1.0,)),
    (16 / 255, (0.0,), (1.0,)),
)
"""How trainers scale pixels, even twice, or to the 16 levels of scikit-learn's digits: scale, mean, std.

Without samples the first is taken.
"""
RAW = ((1.0, (0.0,), (1.0,)),)


def input_cards(
    tensor: gs.Variable, seen: Seen | None, written: Preprocessing | None, alone: bool = True
) -> list[InputCard]:
    """Return the cards that an input may have, the most usual first.

    Args:
        tensor: an input of the graph.
        seen: its samples; ``None``: there are none.
        written: preprocessing that a file beside the model holds.
        alone: the model has no other input.

    Raises:
        GraftError: ``card-draft`` where it takes text.
    """
    dtype, shape = _dtype(tensor), tuple(tensor.shape or ())
    if dtype is None:
        raise GraftError(
            "card-draft",
            f"input '{tensor.name}' takes text, and Graft feeds numbers",
            "export the model without the part that reads text",
        )
    as_it_is = InputCard(name=tensor.name, kind=_plain_kind(tensor, dtype, shape, seen, alone))
    layouts = list(_layouts(tensor, dtype, seen, as_it_is.kind))
    if not layouts:
        return [as_it_is]
    matches = seen is not None and _matches(shape, seen)
    if seen is not None and matches and not (seen.levels or seen.shares):
        return [as_it_is]
    cards = [card for layout in layouts for card in _images(tensor.name, dtype, shape, layout, seen, written)]
    if not matches or seen is None:
        return cards
    # Numbers that fit as they are may need no preparation, and whole ones need not be pixels: the
    # likelihood decides.
    if not seen.whole:
        return [as_it_is, *cards]
    return cards if len(shape) == 4 else [*cards, as_it_is]


def _dtype(tensor: gs.Variable) -> np.dtype[Any] | None:
    if tensor.dtype is None or isinstance(tensor.dtype, int):
        return np.dtype(np.float32)
    dtype = np.dtype(tensor.dtype)
    return dtype if dtype.kind in "buif" else None


def _plain_kind(
    tensor: gs.Variable, dtype: np.dtype[Any], shape: Shape, seen: Seen | None, alone: bool
) -> Literal["tokens", "tensor"]:
    """Tokens are whole numbers that a table is looked up with; other whole numbers may be features."""
    if dtype.kind not in "iu" or len(shape) > 2 or (seen is not None and seen.dtype.kind not in "iu"):
        return "tensor"
    if alone and not _looks_up(tensor) and any(reader.op in ("Cast", "Scaler") for reader in tensor.outputs):
        return "tensor"
    return "tokens"


def _looks_up(tensor: gs.Tensor) -> bool:
    """Return True where numbers reach the indices of a Gather in any form."""
    for reader in tensor.outputs:
        if reader.op in ("Gather", "GatherND", "OneHot", "EmbedLayerNormalization"):
            return True
        handed_on = reader.op in (*PASSING, "Clip", "Where", "Less", "Add", "Min", "Max") and reader.outputs
        if handed_on and (reader.op == "Less" or _looks_up(reader.outputs[0])):
            return True
    return False


def _recurs(tensor: gs.Tensor) -> bool:
    """Return True where a recurrent operator reads the input in any form."""
    return any(
        reader.op in ("LSTM", "GRU", "RNN", "Scan", "Loop")
        or (reader.op in PASSING and bool(reader.outputs) and _recurs(reader.outputs[0]))
        for reader in tensor.outputs
    )


def _layouts(tensor: gs.Tensor, dtype: np.dtype[Any], seen: Seen | None, kind: str) -> Iterator[Layout]:
    """Yield the orders of axes in which the input may be an image."""
    shape = tuple(tensor.shape or ())
    images = seen is None or seen.size is not None
    if len(shape) == 4 and images:
        known = [place for place in (1, 3) if shape[place] in (1, 3)]
        for place in known or [place for place in (1, 3) if not isinstance(shape[place], int)]:
            yield "NCHW" if place == 1 else "NHWC"
    elif len(shape) == 4 and seen is not None and len(seen.shape) == 1 and seen.levels:
        if shape[1] in (1, 3):
            yield "NCHW"
        elif shape[3] in (1, 3):
            yield "NHWC"
    elif len(shape) == 3 and kind == "tensor" and _is_gray(dtype, shape, seen):
        if seen is not None or not _recurs(tensor):
            yield "NHW"
    elif (len(shape) == 2 and kind == "tensor" and seen is not None and _is_flat(shape, seen)) or (
        len(shape) == 2 and dtype == np.uint8 and isinstance(shape[1], int) and square(shape[1])
    ):
        yield "flat"


def _is_gray(dtype: np.dtype[Any], shape: Shape, seen: Seen | None) -> bool:
    """Return True where (N, H, W) is an image without an axis of colours, and no sequence."""
    height, width = shape[1:]
    if seen is None:
        squares = isinstance(height, int) and height == width and height >= SMALLEST_SIDE
        return squares or dtype == np.uint8
    if len(seen.shape) == 1:
        found = square(seen.shape[0])
        return seen.levels and found is not None and found[1] == 1 and height == width == found[0]
    return seen.levels and seen.size is not None


def _is_flat(shape: Shape, seen: Seen) -> bool:
    """Return True where (N, F) can be the pixels of the samples in a row."""
    if not seen.levels:
        return False
    if len(seen.shape) == 1:
        return square(seen.shape[0]) is not None
    if seen.size is None:
        return False
    numbers, pixels = shape[1], seen.size[0] * seen.size[1]
    return not isinstance(numbers, int) or square(numbers) is not None or numbers in (pixels, 3 * pixels)


def _matches(shape: Shape, seen: Seen) -> bool:
    """Return True where samples have the shape of the input already."""
    inner = shape[1:]
    if seen.varied or len(inner) != len(seen.shape):
        return False
    return all(not isinstance(a, int) or a == b for a, b in zip(inner, seen.shape, strict=True))


def _images(
    name: str,
    dtype: np.dtype[Any],
    shape: Shape,
    layout: Layout,
    seen: Seen | None,
    written: Preprocessing | None,
) -> list[InputCard]:
    """Return cards of images in one layout, one for each way to scale pixels and order of colours."""
    channels = _channels(shape, layout, seen)
    size = _size(shape, layout, channels, seen, written)
    ways: list[dict[str, Any]] = []
    if written is not None and dtype.kind == "f":
        ways.append(_written_way(written, channels))
    scales: Sequence[tuple[float, tuple[float, ...], tuple[float, ...]]] = (
        SCALES if dtype.kind == "f" else RAW
    )
    for scale, mean, std in scales:
        if channels == 3 or len(mean) == len(std) == 1:
            for color in ("GRAY",) if channels == 1 else ("RGB", "BGR"):
                turned = (
                    {"mean": mean[::-1], "std": std[::-1]} if color == "BGR" else {"mean": mean, "std": std}
                )
                ways.append({"scale": scale, "color": color, **turned})
    factor = _levels(seen)
    if seen is not None and not (seen.levels or seen.shares):
        ways = [way for way in ways if (way["scale"], way["mean"], way["std"]) == RAW[0]]
    elif factor != 1:
        whole = [] if factor == 255 else [way for way in ways if way["scale"] >= 1]
        ways = [*({**way, "scale": way["scale"] * factor} for way in ways), *whole]
    # An image that is resized passes through 0..255.
    resize = {"resize": "squash"} if seen is None or (factor == 1 and seen.low >= 0) else {}
    cards = [
        InputCard(name=name, kind="image", layout=layout, size=size, **{**resize, **way}) for way in ways
    ]
    return list({card.model_dump_json(): card for card in reversed(cards)}.values())[::-1]


def _levels(seen: Seen | None) -> float:
    """Return what the levels 0..255 are divided by in the samples."""
    if seen is None or not (seen.shares or seen.high > 255):
        return 1
    return 255 if seen.shares else 255 / 65535


def _written_way(written: Preprocessing, channels: int) -> dict[str, Any]:
    keys = dict(written.keys)
    if channels == 1:
        keys = {**keys, "mean": keys["mean"][:1], "std": keys["std"][:1], "color": "GRAY"}
    else:
        keys["color"] = "BGR" if written.bgr else "RGB"
    return keys


def _channels(shape: Shape, layout: Layout, seen: Seen | None) -> int:
    if layout == "NHW":
        return 1
    if layout == "flat":
        numbers = shape[1] if isinstance(shape[1], int) else None
        if seen is not None and seen.size is not None and not seen.varied and numbers is not None:
            fits = [c for c in (seen.channels or 1, 1, 3) if seen.size[0] * seen.size[1] * c == numbers]
            if fits:
                return fits[0]
        if numbers is None and seen is not None:
            return seen.channels or (square(seen.shape[0]) or (0, 1))[1]
        return (square(numbers or 0) or (0, 1))[1]
    declared = shape[1] if layout == "NCHW" else shape[3]
    if declared in (1, 3):
        return int(declared)
    return (seen.channels if seen is not None else None) or 3


def _size(
    shape: Shape, layout: Layout, channels: int, seen: Seen | None, written: Preprocessing | None
) -> tuple[int, int]:
    known = None if seen is None or seen.varied else seen.size
    if layout == "flat":
        numbers = shape[1] if isinstance(shape[1], int) else None
        if known is not None and numbers in (None, known[0] * known[1] * channels):
            return known
        side = (
            square(numbers or (seen.shape[0] if seen is not None and len(seen.shape) == 1 else 0))
            or (SIDE, 1)
        )[0]
        return side, side
    sides = shape[2:4] if layout == "NCHW" else shape[1:3]
    usual = (written.size if written is not None else None) or known or (SIDE, SIDE)
    height, width = (
        side if isinstance(side, int) else other for side, other in zip(sides, usual, strict=True)
    )
    if height > 65535 or width > 65535 or height < 1 or width < 1:
        raise GraftError(
            "card-draft", f"an image of {shape_text(sides)} is too large", "write the card by hand"
        )
    return int(height), int(width)
