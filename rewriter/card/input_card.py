"""The card of one input: the preparation of raw samples."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from graft.rewriter.arrays import Array
from graft.rewriter.card.part import CardPart, Length, Name, Number, Shape, invalid, not_boolean, shape_text
from graft.rewriter.errors import GraftError

Axis = Annotated[int, BeforeValidator(not_boolean), Field(ge=0, le=7)]
OF_ALL_KINDS = ("vocabulary", "unknown", "batch_axis", "constant")
"""Keys that images do not have alone."""
LARGEST_STEP = 0.1
"""What one level of a pixel changes in the input of a model for pixels 0..255, at most."""
LARGEST_PIXEL = float(2**32)
"""More is no pixel of any camera; its squares would be beyond float32 after the first layers."""
LARGEST_SHARE = 2.0
"""Pixels that are shares of 1 are lower."""


class InputCard(CardPart):
    """One input of a model: value = (raw * scale - mean) / std, where raw is 0..255 for images.

    ``mean`` and ``std`` hold one number, or one for each colour channel in the order of ``color``.
    ``resize`` says how image files of another size are brought to it: ``squash`` to the size, or
    ``crop`` (the short side becomes size / crop_fraction, then the centre is cut out).
    ``layout`` flat is one row of H * W * C numbers, pixel after pixel; NHW has no axis of colours.
    ``batch_axis`` is the axis of the samples in the model's input; data keep samples first.
    ``constant`` is a number that fills an input which is not in the data, at its declared size.
    ``kind`` tensor and tokens are fed as they are, so they take no other keys than their name; tokens
    also ``vocabulary``, a name for the meaning of the numbers: modules that share an input share it, and
    ``unknown``, the number of the word that is taken for all that the vocabulary lacks.
    """

    _place: ClassVar[str] = "input"

    name: Name
    kind: Literal["image", "tensor", "tokens"]
    layout: Literal["NCHW", "NHWC", "NHW", "flat"] = "NCHW"
    color: Literal["RGB", "BGR", "GRAY"] = "RGB"
    size: tuple[Length, Length] | None = None
    scale: Number = 1.0
    mean: tuple[Number, ...] = (0.0,)
    std: tuple[Number, ...] = (1.0,)
    resize: Literal["squash", "crop"] | None = None
    crop_fraction: Annotated[Number, Field(gt=0, le=1)] = 0.875
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    vocabulary: Name | None = None
    unknown: Annotated[int, BeforeValidator(not_boolean), Field(ge=0, lt=2**31)] | None = None
    batch_axis: Axis | None = None
    constant: Number | None = None

    @property
    def channels(self) -> int:
        """Number of colour channels of an image."""
        return 1 if self.color == "GRAY" else 3

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.vocabulary is not None and self.kind != "tokens":
            raise invalid(f"input '{self.name}' has a vocabulary, but no tokens", "remove it")
        if self.unknown is not None and self.kind != "tokens":
            raise invalid(f"input '{self.name}' has an unknown word, but no tokens", "remove it")
        if self.kind != "image":
            self._check_has_no_image_keys()
            return self
        if self.size is None:
            raise invalid(f"input '{self.name}' is an image without a size", "add size: [HEIGHT, WIDTH]")
        if self.layout == "NHW" and self.color != "GRAY":
            raise invalid(
                f"layout NHW of input '{self.name}' has no axis of colours, but its color is {self.color}",
                "say color: GRAY, or layout: NHWC",
            )
        for key in ("mean", "std"):
            found = len(getattr(self, key))
            if found not in (1, self.channels):
                raise invalid(
                    f"key '{key}' of input '{self.name}': expected 1 or {self.channels} numbers"
                    f" for {self.color}, found {found}",
                    "give one number, or one for each colour channel",
                )
        if 0 in self.std:
            raise invalid(
                f"key 'std' of input '{self.name}' holds 0, and values are divided by it",
                "use 1 where nothing is to be divided",
            )
        return self

    def _check_has_no_image_keys(self) -> None:
        for key, field in type(self).model_fields.items():
            if key in OF_ALL_KINDS or field.is_required():
                continue
            if getattr(self, key) != field.default:
                raise invalid(
                    f"key '{key}' of input '{self.name}' is for images, but its kind is"
                    f" {self.kind}, which is fed as it is",
                    f"remove {key}, or say kind: image",
                )

    def doubt(self, lowest: float, highest: float) -> str | None:
        """Return what seems wrong with the range of the raw samples, or ``None``.

        Args:
            lowest: of all numbers of an image input, over all samples.
            highest: likewise.
        """
        if self.kind != "image":
            return None
        steps = self.scale / min(abs(each) for each in self.std)
        if 0 < highest <= 1 and steps < LARGEST_STEP:
            return (
                f"the pixels are from {lowest:g} to {highest:g}, but the card of input '{self.name}' expects"
                " 0..255: multiply the data by 255, or correct scale and mean in the card"
            )
        of_shares = max(map(abs, (*self.mean, *self.std))) <= 1 and (self.mean, self.std) != ((0.0,), (1.0,))
        if highest > LARGEST_SHARE and self.scale >= 1 and of_shares:
            return (
                f"the pixels go up to {highest:g}, but mean and std in the card of input '{self.name}' are"
                " those of pixels 0..1: is its scale 1/255 = 0.00392?"
            )
        return None

    def prepare(self, raw: Array) -> Array:
        """Turn a raw batch into this input.

        Args:
            raw: images (N, H, W), (N, H, W, 1) or (N, H, W, 3) in RGB order, uint8 or float
                0..255, or channels first where nothing else fits, or rows (N, H * W * C) of pixel
                after pixel; tensors (N, ...) of numbers; tokens (N, ...) of integers.

        Returns:
            float32 (N, C, H, W), (N, H, W, C), (N, H, W) or (N, H * W * C) for images; the array itself for
            tensors (float64 becomes float32) and tokens (int32 and int64 stay, other integers become
            int64).

        Raises:
            GraftError: ``data-type``, ``data-shape``, ``data-nan`` or ``data-range``.
        """
        array = np.asarray(raw)
        self._check_numbers(array)
        if self.kind == "image":
            return self._prepare_image(array)
        if self.kind == "tokens":
            return array if array.dtype in (np.int32, np.int64) else array.astype(np.int64)
        wide = array.dtype.kind == "f" and array.dtype.itemsize > 4
        return array.astype(np.float32) if wide else array

    def _check_numbers(self, array: Array) -> None:
        kinds = {"image": "uif", "tensor": "buif", "tokens": "ui"}[self.kind]
        if array.dtype.kind not in kinds:
            wanted = "integers" if self.kind == "tokens" else "numbers"
            raise GraftError(
                "data-type",
                f"input '{self.name}' is of kind {self.kind}: expected {wanted}, found {array.dtype}",
                "convert the data, or change the kind in the card",
            )
        if array.ndim == 0:
            raise GraftError(
                "data-shape",
                f"input '{self.name}': expected a batch of samples, found a single number",
                "the first axis counts the samples",
            )
        if array.dtype.kind == "f":
            self._check_finite(array)
        if array.size and (array.dtype.itemsize > 4 or array.dtype.kind == "f"):
            self._check_range(array)

    def _check_range(self, array: Array) -> None:
        if self.kind == "image":
            most, what = LARGEST_PIXEL, "pixels are 0..255"
        elif array.dtype.kind == "f":
            most, what = float(np.finfo(np.float32).max), "models take float32"
        elif self.kind == "tokens":
            most, what = 2**63 - 1, "models take int64"
        else:
            return
        plain = float if array.dtype.kind == "f" else int
        low, high = plain(array.min()), plain(array.max())
        if not (-most - 1 <= low and high <= most):
            found = high if high > most else low
            raise GraftError(
                "data-range",
                f"input '{self.name}' is of kind {self.kind}: {what}, found {found:.3g}",
                "scale the data",
            )

    def _check_finite(self, array: Array) -> None:
        broken = ~np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        if broken.any():
            raise GraftError(
                "data-nan",
                f"input '{self.name}': {int(broken.sum())} of {len(array)} samples hold NaN or"
                f" infinity, the first is number {int(broken.argmax())} of the batch",
                "repair or remove these samples",
            )

    def _prepare_image(self, array: Array) -> Array:
        values = self._channels_last(array).astype(np.float32)
        if self.color == "BGR":
            values = values[..., ::-1].copy()
        values *= np.float32(self.scale)
        values -= np.asarray(self.mean, np.float32)
        values /= np.asarray(self.std, np.float32)
        if self.layout == "flat":
            return values.reshape(len(values), -1)
        if self.layout == "NHW":
            return values[..., 0]
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2) if self.layout == "NCHW" else values)

    def _channels_last(self, array: Array) -> Array:
        readings = []
        pixels = (*(self.size or (1, 1)), self.channels)
        if array.ndim == 2 and array.shape[1] == np.prod(pixels):
            readings.append(array.reshape(-1, *pixels))
        if array.ndim == 3:
            readings.append(array[..., None])
        if array.ndim == 4 and array.shape[3] in (1, 3):
            readings.append(array)
        if array.ndim == 4 and array.shape[1] in (1, 3):
            readings.append(array.transpose(0, 2, 3, 1))
        fitting = [reading for reading in readings if reading.shape[1:3] == self.size] or readings
        if not fitting:
            raise GraftError(
                "data-shape",
                f"input '{self.name}': expected images (N, H, W), (N, H, W, 1) or (N, H, W, 3),"
                f" found {array.shape}",
                "bring the data to one of these shapes",
            )
        images = fitting[0]
        height, width = self.size or images.shape[1:3]
        if images.shape[1:3] != (height, width):
            raise GraftError(
                "data-shape",
                f"input '{self.name}': expected images of {height}x{width},"
                f" found {images.shape[1]}x{images.shape[2]}",
                "resize the data, or correct size in the card",
            )
        if images.shape[3] != self.channels:
            raise GraftError(
                "data-shape",
                f"input '{self.name}': expected {_colors(self.channels)} for color {self.color},"
                f" found {_colors(images.shape[3])}",
                "convert the data, or correct color in the card",
            )
        return images

    def check_shape(self, shape: Shape | None) -> None:
        """Check this input against the model's shape; unknown dimensions fit anything.

        Args:
            shape: of the input; ``None`` is a shape of unknown rank.

        Raises:
            GraftError: ``card-input`` where rank, size or channels differ.
        """
        if shape is None or self.kind != "image" or self.size is None:
            return
        by_layout = {
            "NCHW": (self.channels, *self.size),
            "NHWC": (*self.size, self.channels),
            "NHW": self.size if self.channels == 1 else (*self.size, self.channels),
            "flat": (self.size[0] * self.size[1] * self.channels,),
        }
        fits = {
            layout: len(shape) == 1 + len(sizes)
            and all(_same(known, wanted) for known, wanted in zip(shape[1:], sizes, strict=True))
            for layout, sizes in by_layout.items()
        }
        if fits[self.layout]:
            return
        hint = "correct layout, color or size in the card"
        if any(fits.values()):
            hint = f"layout: {next(layout for layout in fits if fits[layout])} would fit"
        elif len(shape) != 1 + len(by_layout[self.layout]):
            hint = "say kind: tensor in the card and prepare the data in that shape"
        raise GraftError(
            "card-input",
            f"input '{self.name}': the card gives {self.layout}"
            f" {shape_text(('N', *by_layout[self.layout]))}, the model takes {shape_text(shape)}",
            hint,
        )

    def plain(self) -> dict[str, Any]:
        """Return this input as the card file writes it, without keys that do not apply."""
        keys = ["name", "kind"]
        if self.kind == "image":
            keys += ["layout", "color", "size", "scale", "mean", "std"]
        if self.resize is not None:
            keys += ["resize", "interpolation"]
        if self.resize == "crop":
            keys += ["crop_fraction"]
        keys += [key for key in OF_ALL_KINDS if getattr(self, key) is not None]
        return self.model_dump(mode="json", include=set(keys))


def _same(known: int | str | None, wanted: int) -> bool:
    return not isinstance(known, int) or known == wanted


def _colors(channels: int) -> str:
    return "1 colour channel (gray)" if channels == 1 else f"{channels} colour channels"
