"""Mutations of a model's weights: values, sizes, types, where they lie; and of its metadata."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.mutate_text import WORDS, mutate_json

Mutation = Callable[[random.Random, onnx.ModelProto], None]

HUGE = (2**31, 2**36, 2**40, 2**62, 2**63 - 1)
LOCATIONS = (
    *("data.bin", "missing.bin", "../outside.bin", "/etc/passwd", "/dev/zero", "link.bin", "pipe", ".", ""),
    *(
        "./data.bin",
        "folder/../../outside.bin",
        "data.bin\0x",
        "x" * 400,
        "C:\\windows\\win.ini",
        "model.onnx",
    ),
)


def _tensor(rng: random.Random, model: onnx.ModelProto) -> onnx.TensorProto:
    if not model.graph.initializer:
        model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "one"))
    return rng.choice(model.graph.initializer)


def _array(tensor: onnx.TensorProto) -> np.ndarray | None:  # type: ignore[type-arg]
    try:
        return np.array(numpy_helper.to_array(tensor))
    except Exception:  # an earlier mutation may have broken it
        return None


def _store(tensor: onnx.TensorProto, values: np.ndarray) -> None:  # type: ignore[type-arg]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))


def change_values(rng: random.Random, model: onnx.ModelProto) -> None:
    """Values that are huge, equal, not finite, or those of the neighbour."""
    tensor = _tensor(rng, model)
    values = _array(tensor)
    if values is None or values.size == 0:
        return
    flat = values.reshape(-1)
    at = rng.randrange(flat.size)
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        wanted = rng.choice([0, 1, -1, 2, -2, 5, *HUGE, -(2**62)])
        flat[at] = min(max(wanted, int(limits.min)), int(limits.max))
    elif values.dtype.kind == "f":
        wanted = rng.choice([0.0, 1.0, -1.0, 1e-30, 1e30, np.inf, -np.inf, np.nan])
        how = rng.choice(["one", "one", "all", "swap", "scale"])
        with np.errstate(over="ignore", invalid="ignore"):
            if how == "one":
                flat[at] = wanted
            elif how == "all":
                flat[:] = wanted
            elif how == "swap":
                flat[:] = flat[::-1].copy()
            else:
                flat[:] = flat * values.dtype.type(rng.choice([-1, 10, 0.1]))
    _store(tensor, values)


def change_shape_constant(rng: random.Random, model: onnx.ModelProto) -> None:
    """Sizes, axes and indices that are huge, negative, more or fewer."""
    whole = [t for t in model.graph.initializer if t.data_type in (TensorProto.INT64, TensorProto.INT32)]
    if not whole:
        return change_values(rng, model)
    tensor = rng.choice(whole)
    values = _array(tensor)
    if values is None:
        return None
    flat = values.reshape(-1)
    how = rng.choice(["one", "one", "all", "more", "fewer", "empty", "axes", "float"])
    top = int(np.iinfo(values.dtype).max)
    if how in ("one", "all") and flat.size:
        at = rng.randrange(flat.size) if how == "one" else slice(None)
        flat[at] = min(top, rng.choice([0, -1, 1, 7, 64, *HUGE, -(2**31)]))
    elif how == "more":
        values = np.append(flat, rng.choice([1, -1, min(top, 2**40)])).astype(values.dtype)
    elif how == "axes":
        values = values[None]
    elif how == "float":
        values = values.astype(np.float32)
    else:
        values = flat[:-1] if how == "fewer" else flat[:0]
    _store(tensor, values)
    return None


def change_dims(rng: random.Random, model: onnx.ModelProto) -> None:
    """Dims that do not fit the values."""
    tensor = _tensor(rng, model)
    how = rng.choice(["one", "one", "add", "drop", "none", "reverse", "fit"])
    dims = list(tensor.dims)
    if how == "one" and dims:
        dims[rng.randrange(len(dims))] = rng.choice([0, -1, 1, 2, *HUGE])
    elif how == "add":
        dims.insert(0, rng.choice([1, 1, 2, 0, 2**40]))
    elif how == "drop":
        dims = dims[:-1]
    elif how == "none":
        dims = []
    elif how == "reverse":
        dims = dims[::-1]
    else:
        values = _array(tensor)
        if values is not None and values.ndim:
            axis = rng.randrange(values.ndim)
            _store(
                tensor, np.repeat(values, 2, axis) if rng.random() < 0.5 else np.split(values, [1], axis)[0]
            )
            return
    del tensor.dims[:]
    tensor.dims.extend(dims)


def change_type(rng: random.Random, model: onnx.ModelProto) -> None:
    """Another type of the same bytes, or of converted values."""
    tensor = _tensor(rng, model)
    values = _array(tensor)
    kinds = [np.float16, np.float64, np.int32, np.int64, np.uint8, np.bool_]
    if values is not None and rng.random() < 0.5:
        with np.errstate(all="ignore"):
            _store(tensor, values.astype(rng.choice(kinds)))
    else:
        tensor.data_type = rng.choice([*range(24), 99, -1])


def change_storage(rng: random.Random, model: onnx.ModelProto) -> None:
    """Bytes that are too few or too many, in two fields, of text that is none; a tensor twice or away."""
    tensor = _tensor(rng, model)
    how = rng.choice(["short", "long", "both", "typed", "text", "twice", "away", "sparse", "segment"])
    if how == "short":
        tensor.raw_data = tensor.raw_data[: rng.choice([0, 1, -1, -4])]
    elif how == "long":
        tensor.raw_data += b"\0" * rng.choice([1, 4, 4096])
    elif how == "both":
        tensor.float_data.extend([1.0] * rng.choice([1, 3, 1000]))
    elif how == "typed":
        tensor.ClearField("raw_data")
        rng.choice([tensor.float_data, tensor.int64_data, tensor.double_data]).extend(
            [1] * rng.choice([0, 3])
        )
    elif how == "text":
        tensor.ClearField("raw_data")
        tensor.data_type = TensorProto.STRING
        tensor.string_data.extend([b"\xff\xfe"] * int(np.clip(np.prod(tensor.dims), 0, 9)))
    elif how == "twice":
        model.graph.initializer.append(tensor)
    elif how == "away":
        model.graph.initializer.remove(tensor)
    elif how == "segment":
        tensor.segment.begin, tensor.segment.end = 0, rng.choice([1, 2**40])
    else:
        indices = numpy_helper.from_array(np.array([rng.choice([0, 5, -1, 2**40])]), "")
        values = numpy_helper.from_array(np.ones(1, np.float32), tensor.name)
        dims = [rng.choice([4, 2**36, -1])]
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, dims))


def move_outside(rng: random.Random, model: onnx.ModelProto) -> None:
    """A weight in a file beside the model, or wherever the file says."""
    tensor = _tensor(rng, model)
    if rng.random() < 0.3:
        tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    entries = {
        "location": rng.choice([*LOCATIONS, "data.bin", "data.bin"]),
        "offset": str(rng.choice([0, 0, 0, 4096, -1, 2**40, 2**64, "x", ""])),
        "length": str(rng.choice([size, size, 0, -1, 2**40, 2**64, "1e3", ""])),
        "checksum": "0" * 40,
        "nonsense": "\0",
    }
    for key, value in entries.items():
        if key in ("location",) or rng.random() < 0.7:
            tensor.external_data.add(key=key, value=value)
    if rng.random() < 0.1:
        tensor.external_data.add(key="location", value=rng.choice(LOCATIONS))


def change_metadata(rng: random.Random, model: onnx.ModelProto) -> None:
    """What Graft itself writes into models, changed; foreign keys; documentation."""
    known = {entry.key: entry for entry in model.metadata_props}
    if known and rng.random() < 0.7:
        entry = rng.choice([*known.values()])
        try:
            json.loads(entry.value)
            entry.value = mutate_json(rng, entry.value).decode("utf-8", "replace")
        except ValueError:
            entry.value = rng.choice([*WORDS, entry.value[:-3], entry.value * 2])
        return
    key = rng.choice(["graft.card", "graft.origin", "graft.format", "graft.kind", "graft.metrics", *WORDS])
    model.metadata_props.add(key=key, value=rng.choice([*WORDS, "{}", "[]", "[" * 5000, "graft/model/1"]))
    model.doc_string = rng.choice(WORDS)


MUTATIONS: tuple[Mutation, ...] = (
    *(change_values, change_values, change_values, change_shape_constant, change_shape_constant),
    *(change_dims, change_dims, change_type, change_storage, change_storage, move_outside, change_metadata),
)
