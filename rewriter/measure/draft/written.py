"""What the files beside a model, and its metadata, say of labels and preprocessing."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LABEL_KEYS = (
    "names",
    "labels",
    "classes",
    "class_names",
    "id2label",
    "label_names",
    "categories",
    "character",
)
"""Keys of the metadata that hold class names; ultralytics writes ``names``, PaddleOCR ``character``."""
LABEL_FILES = ("labels.txt", "classes.txt", "class_names.txt")
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the filters that cards know."""
LONGEST_TEXT = 1 << 22
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
    """

    keys: Mapping[str, Any]
    size: tuple[int, int] | None
    bgr: bool
    source: str


@dataclass(frozen=True)
class Written:
    """Labels and preprocessing that are written down, each with its source.

    Attributes:
        labels: (source, names in the order of the columns), the most trustworthy first.
        preprocessing: of images, or ``None``.
        task: what the model is for, as its metadata says; ``""`` where they do not.
    """

    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    preprocessing: Preprocessing | None = None
    task: str = ""
    notes: list[str] = field(default_factory=list, compare=False)


def read_written(metadata: Mapping[str, str], path: Path | None) -> Written:
    """Read what is written down of a model.

    Args:
        metadata: of the model.
        path: its file, beside which configurations of Hugging Face and timm may lie; ``None``: none.
    """
    labels = []
    folded = {key.casefold(): value for key, value in metadata.items()}
    for key in LABEL_KEYS:
        names = parse_names(folded.get(key, ""))
        if names:
            labels.append((f"the model's metadata ({key})", names))
    preprocessing = None
    for folder in _folders(path):
        config = _json(folder / "config.json")
        processor = _json(folder / "preprocessor_config.json") or _json(folder / "processor_config.json")
        inner = processor.get("image_processor")
        processor = inner if isinstance(inner, Mapping) else processor
        names = _config_names(config)
        if names:
            labels.append((str(folder / "config.json"), names))
        preprocessing = preprocessing or hugging_face(processor) or timm(config)
        for name in LABEL_FILES:
            listed = _lines(folder / name)
            if listed:
                labels.append((str(folder / name), listed))
    return Written(tuple(labels), preprocessing, folded.get("task", "").strip().casefold())


def parse_names(text: str) -> tuple[str, ...]:
    """Return class names from JSON, a Python literal, lines, or words between commas; () for other text.

    >>> parse_names("{0: 'cat', 1: 'dog'}")
    ('cat', 'dog')
    """
    if not text.strip() or len(text) > LONGEST_TEXT:
        return ()
    for parse in (json.loads, ast.literal_eval):
        try:
            found = _names(parse(text.strip()))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if found:
            return found
    if text.strip()[0] in "{[(" and "\n" not in text.strip():
        return ()
    separator = "\n" if "\n" in text.strip() else ","
    listed = tuple(each.strip() for each in text.strip("\r\n").split(separator))
    return listed if len(listed) > 1 else ()


def _names(value: Any) -> tuple[str, ...]:
    """Return names from a list, or from a dictionary by number (or from names to numbers)."""
    if isinstance(value, Mapping):
        if value and all(isinstance(each, int) for each in value.values()):
            value = {number: name for name, number in value.items()}
        numbered = {int(key): name for key, name in value.items()}
        if sorted(numbered) != list(range(len(numbered))):
            return ()
        value = [numbered[number] for number in range(len(numbered))]
    if not isinstance(value, list | tuple) or not all(isinstance(each, str | int) for each in value):
        return ()
    return tuple(str(each) for each in value)


def _config_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    inner = config.get("pretrained_cfg")
    places = (config, inner if isinstance(inner, Mapping) else {})
    for key in ("id2label", "label_names", "label2id"):
        for place in places:
            try:
                found = _names(place.get(key))
            except (ValueError, TypeError):
                found = ()
            if found and not all(name == f"LABEL_{number}" for number, name in enumerate(found)):
                return found
    return ()


def hugging_face(processor: Mapping[str, Any]) -> Preprocessing | None:
    """Return what the ``preprocessor_config.json`` of an image processor says; ``None`` for others."""
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
    """Return what timm's ``config.json`` says of its images; ``None`` where it is no such file."""
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


def _folders(path: Path | None) -> list[Path]:
    """Return where configurations may lie: beside the model, and above a folder ``onnx`` as of optimum."""
    if path is None:
        return []
    folder = path.resolve().parent
    return [folder, *([folder.parent] if folder.name == "onnx" else [])]


def _json(path: Path) -> Mapping[str, Any]:
    text = _text(path)
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _lines(path: Path) -> tuple[str, ...]:
    return tuple(line.strip().split("\t")[0] for line in _text(path).splitlines() if line.strip())


def _text(path: Path) -> str:
    try:
        if not path.is_file() or path.stat().st_size > LONGEST_TEXT:
            return ""
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return ""
