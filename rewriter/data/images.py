"""Images: files and arrays brought to the size and colour of a card."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from graft.rewriter.arrays import Array
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.errors import GraftError

FORMATS = ("BMP", "JPEG", "PNG", "WEBP")
"""All that are decoded, whatever a file is called: others run programs, as PostScript does."""


def read_image(
    source: Path | bytes, input_card: InputCard | None = None, name: str = ""
) -> npt.NDArray[np.uint8]:
    """Read an image file, brought to the size and colour of a card.

    Args:
        source: the file, or its content.
        input_card: size, colour, resizing; None leaves the size and gives RGB.
        name: of the image in messages; by default the path.

    Returns:
        uint8 (H, W, 3) in RGB order, or (H, W) where the colour of the card is GRAY.

    Raises:
        GraftError: ``data-image`` (not an image, broken, too large, not 8 bits a channel),
            ``data-shape`` (another size than the card's, without ``resize``), ``data-type`` (the
            card describes no image).
    """
    name = name or str(source if isinstance(source, Path) else "the image")
    if input_card is not None and input_card.kind != "image":
        raise GraftError(
            "data-type",
            f"input '{input_card.name}' is of kind {input_card.kind}, found the image {name}",
            "say kind: image in the card, or give arrays",
        )
    image = _decode(source, name)
    if input_card is not None:
        image = _resize(image, input_card, name)
    gray = input_card is not None and input_card.color == "GRAY"
    return np.asarray(image.convert("L" if gray else "RGB"), np.uint8)


def _decode(source: Path | bytes, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            file = io.BytesIO(source) if isinstance(source, bytes) else source
            with Image.open(file, formats=FORMATS) as opened:
                opened.load()
                image = opened.copy()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise GraftError(
            "data-image",
            f"{name}: expected an image of at most {Image.MAX_IMAGE_PIXELS} pixels, found more",
            "make it smaller",
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # the decoders raise whatever a broken file leads them into
        found = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            found = f"no image, or one that is not of {', '.join(FORMATS)}"
        raise GraftError(
            "data-image",
            f"{name}: expected a readable image, found: {found}",
            "replace or remove the file",
        ) from error
    if image.mode[0] in "IF":
        # Pillow would clip these at 255 without a word.
        raise GraftError(
            "data-image",
            f"{name}: expected 8 bits a channel, found mode {image.mode}",
            "convert it to 8 bits",
        )
    # A palette with transparency has to pass through RGBA.
    return image.convert("RGBA") if image.mode in ("P", "PA") else image


def _resize(image: Image.Image, card: InputCard, name: str) -> Image.Image:
    height, width = card.size or (image.height, image.width)
    if (image.height, image.width) == (height, width):
        return image
    if card.resize is None:
        raise GraftError(
            "data-shape",
            f"{name}: expected an image of {height}x{width}, found {image.height}x{image.width}",
            "resize the images, or say resize: squash or resize: crop in the card",
        )
    # Colours come before sizes: Pillow resizes single bits without interpolation.
    image = image.convert("L" if card.color == "GRAY" else "RGB")
    filter_ = Image.Resampling[card.interpolation.upper()]
    if card.resize == "squash":
        return image.resize((width, height), filter_)
    factor = max(
        round(height / card.crop_fraction) / image.height,
        round(width / card.crop_fraction) / image.width,
    )
    across = max(width, int(image.width * factor + 1e-6))
    down = max(height, int(image.height * factor + 1e-6))
    left, top = round((across - width) / 2), round((down - height) / 2)
    # Resizing only the part that stays gives the same pixels, however long the image is.
    by_x, by_y = image.width / across, image.height / down
    box = (left * by_x, top * by_y, (left + width) * by_x, (top + height) * by_y)
    return image.resize((width, height), filter_, box=box)


def fit_images(array: Array, card: InputCard) -> Array:
    """Bring an array of raw images to the size and colour of a card, as image files are.

    Args:
        array: (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W), 0..255. What fits comes back as it is;
            other images pass through uint8, as they would through a file.
        card: an input of kind image with ``resize``.

    Returns:
        ``array`` itself, or uint8 (N, H, W, 3), or (N, H, W) where the colour of the card is GRAY.
    """
    images = array
    if images.ndim == 4 and images.shape[3] not in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype.kind not in "uif":
        return array  # the card says what is wrong with it
    if images.shape[1:] == (*(card.size or images.shape[1:3]), card.channels):
        return array
    if images.dtype != np.uint8:
        if not np.isfinite(images).all():
            return array
        images = np.clip(np.rint(images), 0, 255).astype(np.uint8)
    mode = "L" if card.color == "GRAY" else "RGB"
    found = (Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in images)
    pieces = [np.asarray(_resize(image, card, "the image").convert(mode), np.uint8) for image in found]
    return np.stack(pieces) if pieces else array


def stack_images(images: Iterator[tuple[npt.NDArray[np.uint8], str]]) -> Array:
    """Stack images of one size, each with its name in messages: uint8 (N, H, W, 3) or (N, H, W).

    Raises:
        GraftError: ``data-shape`` where sizes differ.
    """
    stacked: list[npt.NDArray[np.uint8]] = []
    for image, name in images:
        if stacked and image.shape != stacked[0].shape:
            raise GraftError(
                "data-shape",
                f"{name}: expected an image of {stacked[0].shape}, as those before, found {image.shape}",
                "give a card with a size and resize, or resize the images",
            )
        stacked.append(image)
    return np.stack(stacked) if stacked else np.zeros((0, 0, 0, 3), np.uint8)
