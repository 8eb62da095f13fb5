"""Networks run by onnxruntime, for comparisons: what they were given, and what Graft wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from tests.fuzz.embedded import UnknownError

Array = np.ndarray[Any, np.dtype[Any]]


KINDS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
"""Types of inputs that data of another type are turned into, as Graft does."""


class WrongError(Exception):
    """A result is not what it has to be."""


def run(model: onnx.ModelProto | Path, inputs: dict[str, Array]) -> dict[str, Array]:
    """Outputs of a model that was given, by name.

    Raises:
        UnknownError: onnxruntime refuses it.
    """
    return _run(model, inputs, UnknownError)


def run_result(path: Path, inputs: dict[str, Array]) -> dict[str, Array]:
    """Outputs of a model that Graft wrote, by name.

    Raises:
        WrongError: onnxruntime refuses it, though it ran what it was made of.
    """
    return _run(path, inputs, WrongError)


def columns_of(path: Path, inputs: dict[str, Array], name: str) -> Array:
    """Scores of a model that Graft wrote, as float64.

    Raises:
        WrongError: it has no output of that name, or onnxruntime refuses it.
    """
    found = run_result(path, inputs)
    if name not in found:
        raise WrongError(f"{path.name} has no output {name}")
    return found[name].astype(np.float64)


def scores_in(model: onnx.ModelProto | Path, inputs: dict[str, Array], name: str) -> Array:
    """Scores of a model that was given: an output, or a tensor inside, which a card may name, too.

    Raises:
        UnknownError: onnxruntime refuses it.
        WrongError: there is no such tensor, though the command went on without.
    """
    model = onnx.load(model) if isinstance(model, Path) else model
    if all(output.name != name for output in model.graph.output):
        if all(name not in node.output for node in model.graph.node):
            raise WrongError(f"the parent has no tensor {name}, which the card names")
        model = onnx.ModelProto.FromString(model.SerializeToString())
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    return run(model, inputs)[name]


def _run(
    model: onnx.ModelProto | Path, inputs: dict[str, Array], refused: type[Exception]
) -> dict[str, Array]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    with _runtime(refused):
        session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    wanted = {}
    for entry in session.get_inputs():
        if entry.name not in inputs:
            raise refused(f"it takes {entry.name}, of which there are no samples")
        fixed = entry.shape[0] if entry.shape and isinstance(entry.shape[0], int) else None
        wanted[entry.name] = _fitting(inputs[entry.name], fixed, entry.type)
    keys = _keys(onnx.load(model) if isinstance(model, Path) else model)
    with _runtime(refused):
        found = session.run(names, wanted)
    return {name: _as_array(values, keys.get(name)) for name, values in zip(names, found, strict=True)}


def _fitting(values: Array, fixed: int | None, kind: str) -> Array:
    """As many samples as a model takes, of its type.

    Raises:
        UnknownError: it takes more at once than there are.
    """
    if fixed is not None and fixed > len(values):
        raise UnknownError(f"the model takes {fixed} samples at once")
    return values[:fixed].astype(KINDS.get(kind, values.dtype))


@contextmanager
def _runtime(refused: type[Exception]) -> Iterator[None]:
    """Raise what onnxruntime raises as ``refused``; its errors have no common type."""
    try:
        yield
    except Exception as error:
        raise refused(f"onnxruntime: {' '.join(str(error).split())}") from error


def _keys(model: onnx.ModelProto) -> dict[str, list[Any]]:
    """What each ZipMap calls its columns, in their order: onnxruntime sorts them."""
    found = {}
    for node in model.graph.node:
        if node.op_type == "ZipMap":
            for attribute in node.attribute:
                values = onnx.helper.get_attribute_value(attribute)
                found[node.output[0]] = [v.decode() if isinstance(v, bytes) else v for v in values]
    return found


def _as_array(values: Any, keys: Sequence[Any] | None) -> Array:
    """An output; a ZipMap's, one dictionary a sample, as the array that it was made of.

    Raises:
        UnknownError: two columns are called the same.
    """
    if keys is None or not isinstance(values, list):
        return np.asarray(values)
    if len({*keys}) < len(keys):
        raise UnknownError("columns of a ZipMap that are called the same")
    return np.array([[each[key] for key in keys] for each in values])
