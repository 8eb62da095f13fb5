"""Preprocessing that configurations of trainers hold: those of Hugging Face and timm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the filters that cards know."""
WHOLE_SIZE = 384
"""From this size on, ConvNeXt's processor squashes the image and cuts nothing off."""


@dataclass(frozen=True)
class Preprocessing:
    """How a trainer's configuration says images become inputs: the keys of an image in a card.

    Attributes:
        keys: scale, mean, std, resize, crop_fraction, interpolation, as far as it says.
        size: height and width, or ``None``.
        bgr: the colours are turned round.
        source: name of the file.

    Raises:
        ValueError: a number is one that no card can have.
    """

    keys: Mapping[str, Any]
    size: tuple[int, int] | None
    bgr: bool
    source: str

    def __post_init__(self) -> None:
        numbers = (self.keys["scale"], *self.keys["mean"], *self.keys["std"])
        if not all(map(math.isfinite, numbers)):
            raise ValueError("a number of scale, mean or std is not finite")
        if self.keys["scale"] == 0 or 0 in self.keys["std"]:
            raise ValueError("scale or std is 0")
        if {len(self.keys["mean"]), len(self.keys["std"])} - {1, 3}:
            raise ValueError("mean or std has neither one number nor three")


def hugging_face(processor: Mapping[str, Any]) -> Preprocessing | None:
    """Return what the ``preprocessor_config.json`` of an image processor says; ``None`` for others.

    Raises:
        ValueError or TypeError: a value is not of the kind that its key has.
    """
    if not processor or not {"image_mean", "image_std", "do_rescale", "do_normalize", "size"} & set(
        processor
    ):
        return None
    if "feature_size" in processor or "sampling_rate" in processor:
        return None  # of sounds
    keys: dict[str, Any] = {"scale": 1.0}
    if processor.get("do_rescale", True):
        keys["scale"] = float(processor.get("rescale_factor", 1 / 255))
    mean, std = _numbers(processor.get("image_mean")), _numbers(processor.get("image_std"))
    normalizes = processor.get("do_normalize", mean is not None)
    keys["mean"], keys["std"] = (mean or (0.0,), std or (1.0,)) if normalizes else ((0.0,), (1.0,))
    if processor.get("rescale_offset"):
        keys["mean"] = tuple(each + 1 for each in keys["mean"])
    resample = processor.get("resample")
    if resample in FILTERS:
        keys["interpolation"] = FILTERS[resample]
    size, edge = _size(processor.get("size"))
    crop, _ = _size(processor.get("crop_size"))
    if processor.get("do_center_crop") and crop:
        whole = edge or (min(size) if size else crop[0])
        keys |= _cropped(crop[0] / whole)
        size = crop
    elif processor.get("crop_pct") and edge and edge < WHOLE_SIZE:
        keys |= _cropped(float(processor["crop_pct"]))
        size = (edge, edge)
    else:
        keys["resize"] = "squash"
        size = size or ((edge, edge) if edge else None)
    bgr = bool(processor.get("do_flip_channel_order"))
    return Preprocessing(keys, size, bgr, "preprocessor_config.json")


def timm(config: Mapping[str, Any]) -> Preprocessing | None:
    """Return what timm's ``config.json`` says of its images; ``None`` where it is no such file.

    Raises:
        ValueError or TypeError: a value is not of the kind that its key has.
    """
    own = config.get("pretrained_cfg", config.get("default_cfg", config))
    mean = _numbers(own.get("mean")) if isinstance(own, Mapping) else None
    std = _numbers(own.get("std")) if isinstance(own, Mapping) else None
    if mean is None or std is None:
        return None
    keys: dict[str, Any] = {"scale": 1 / 255, "mean": mean, "std": std, "resize": "squash"}
    if own.get("interpolation") in FILTERS.values():
        keys["interpolation"] = own["interpolation"]
    if own.get("crop_pct") and own.get("crop_mode", "center") == "center":
        keys |= _cropped(float(own["crop_pct"]))
    shape = own.get("input_size")
    size = (int(shape[1]), int(shape[2])) if isinstance(shape, Sequence) and len(shape) == 3 else None
    return Preprocessing(keys, size, False, "config.json")


def _cropped(fraction: float) -> dict[str, Any]:
    return {"resize": "crop", "crop_fraction": min(1.0, fraction)} if fraction > 0 else {"resize": "squash"}


def _size(value: Any) -> tuple[tuple[int, int] | None, int | None]:
    """Return height and width, or the length of the shorter edge."""
    if isinstance(value, int) and value > 0:
        return (value, value), None
    if isinstance(value, Mapping):
        if {"height", "width"} <= set(value):
            return (int(value["height"]), int(value["width"])), None
        if isinstance(value.get("shortest_edge"), int):
            return None, int(value["shortest_edge"])
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(each, int) for each in value):
        return (int(value[0]), int(value[1])), None
    return None, None


def _numbers(value: Any) -> tuple[float, ...] | None:
    values = value if isinstance(value, list | tuple) else [value]
    fine = bool(values) and all(
        isinstance(each, int | float) and not isinstance(each, bool) for each in values
    )
    return tuple(float(each) for each in values) if fine else None
