"""Read ONNX files, and bring what exporters write differently to one form."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import version_converter

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.bounds import check_sizes
from graft.rewriter.graph.forms import standardize
from graft.rewriter.graph.light import load_light
from graft.rewriter.graph.sound import check_sound
from graft.rewriter.graph.weights import external_bytes, read_external, with_references, without_references
from graft.rewriter.memory import lacking, require
from graft.rewriter.regular_files import found_at

LOWEST_OPSET = 11
"""Older models are lifted to this operator set."""
MOST_BYTES = 2**31 - 1
"""Protobuf reads no larger message."""
ROOM = 1.1
"""Memory that reading takes, over the bytes that are read."""
ML_DOMAIN = "ai.onnx.ml"
log = logging.getLogger("graft")


def read_proto(path: Path) -> tuple[onnx.ModelProto, list[NDArray[Any]]]:
    """Read an ONNX file.

    Returns:
        The model, and weights that it refers to (see :mod:`graft.rewriter.graph.weights`), to be held until a
        graph holds them.

    Raises:
        GraftError: the file is missing, no valid ONNX model, or of a version that cannot be read.
    """
    _check_file(path)
    needed = ROOM * path.stat().st_size
    try:
        require(needed, str(path))
        proto, held = load_light(path)
        if not proto.graph.node or not proto.opset_import:
            raise DecodeError("no graph in it")
        _check_versions(path, proto)
        check_sound(proto, path.parent)
        needed = ROOM * external_bytes(proto)
        require(needed, f"the weights of {path}")
        held += read_external(proto, path.parent)
        standardize(proto)
        _shape_outputs(proto)
        onnx.checker.check_model(without_references(proto))
        check_sizes(proto)
    except GraftError:
        raise
    except MemoryError as error:
        raise lacking(error, needed, str(path)) from error
    except DecodeError as error:
        raise GraftError(
            "model-unreadable",
            f"{path} is no ONNX model, or is cut off",
            "export or copy the model again",
        ) from error
    except Exception as error:  # checker and external-data errors have no common type
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise GraftError(
            "model-invalid", f"{path} is not a valid ONNX model: {reason[:200]}", "export it again"
        ) from error
    return proto, held


def _check_file(path: Path) -> None:
    """Refuse what is no file, is empty, or is larger than a file of its format can be."""
    found = found_at(path)
    if found == "a folder":
        raise GraftError(
            "model-is-folder",
            f"expected an ONNX file, found the folder {path}",
            "name the .onnx file in it",
        )
    if found == "nothing":
        raise GraftError("model-missing", f"no model at {path}", "check the path")
    if found:
        raise GraftError(
            "model-missing", f"expected an ONNX file at {path}, found {found}", "copy the model to a file"
        )
    size = path.stat().st_size
    if size == 0:
        raise GraftError("model-unreadable", f"{path} is empty", "export or copy the model again")
    if size > MOST_BYTES:
        raise GraftError(
            "model-unreadable",
            f"{path} has {size} bytes, more than the 2 GB of an ONNX file",
            "export it with its weights in a file of their own (external data)",
        )


def _shape_outputs(proto: onnx.ModelProto) -> None:
    """Infer the shapes of outputs that lack one, which onnxruntime does not need, but onnx.checker."""
    lacking = {
        value.name: value.type.tensor_type
        for value in proto.graph.output
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape")
    }
    if lacking:
        inferred = onnx.shape_inference.infer_shapes(proto)
        for value in inferred.graph.output:
            if value.name in lacking:
                lacking[value.name].CopyFrom(value.type.tensor_type)


def _check_versions(path: Path, proto: onnx.ModelProto) -> None:
    """Refuse a model that is newer than the installed onnx."""
    newest = onnx.defs.onnx_opset_version()
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > newest:
            raise GraftError(
                "model-version",
                f"{path} uses opset {entry.version}, the installed onnx knows up to {newest}",
                "update onnx or export with a lower opset",
            )
    if proto.ir_version > onnx.IR_VERSION:
        raise GraftError(
            "model-version",
            f"{path} has IR version {proto.ir_version}, the installed onnx knows up to {onnx.IR_VERSION}",
            "update onnx or export again",
        )


def lift_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with at least :data:`LOWEST_OPSET`.

    Raises:
        GraftError: it cannot be converted.
    """
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), None)
    if opset is None or opset >= LOWEST_OPSET:
        return proto
    try:
        lifted = converted(proto, LOWEST_OPSET)
    except Exception as error:
        raise GraftError(
            "model-version",
            f"the model uses opset {opset}, which could not be lifted to {LOWEST_OPSET}",
            f"export it with opset {LOWEST_OPSET} or newer",
        ) from error
    log.info("lifted the model from opset %d to %d", opset, LOWEST_OPSET)
    lifted.ir_version = max(proto.ir_version, 4)
    return lifted


def converted(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return the model at another opset, as onnx's converter makes it, which raises errors of its own."""
    found: onnx.ModelProto = version_converter.convert_version(without_references(proto), opset)
    return with_references(found, proto)


def without_zip_maps(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Let an output that is a list of dictionaries be the tensor that it was made of.

    skl2onnx ends a classifier in ZipMap, which gives every sample a dictionary of its probabilities.
    """
    makers = {node.output[0]: node for node in proto.graph.node if is_zip_map(node)}
    mapped = [value for value in proto.graph.output if value.name in makers]
    if not mapped:
        return proto
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    for value in (value for value in graph.output if value.name in makers):
        maker = makers[value.name]
        graph.node.remove(maker)
        for node in graph.node:
            node.input[:] = [value.name if name == maker.input[0] else name for name in node.input]
            node.output[:] = [value.name if name == maker.input[0] else name for name in node.output]
        classes = max((len(each.strings or each.ints) for each in maker.attribute), default=0)
        if not classes:
            raise GraftError(
                "model-invalid", f"node '{maker.name}' (ZipMap) names no classes", "export the model again"
            )
        tensor = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, ["batch", classes])
        value.type.CopyFrom(tensor)
    return result


def is_zip_map(node: onnx.NodeProto) -> bool:
    """Return whether a node makes dictionaries of probabilities; onnx's checker has seen its ends."""
    return node.op_type == "ZipMap" and node.domain == ML_DOMAIN


def zip_map_labels(proto: onnx.ModelProto) -> dict[str, tuple[str | int, ...]]:
    """Return the classes that every ZipMap names, in the order of the columns, by the name of its output."""
    found: dict[str, tuple[str | int, ...]] = {}
    for node in proto.graph.node:
        for attribute in node.attribute if is_zip_map(node) else ():
            values = [value.decode("utf-8", "replace") for value in attribute.strings] or attribute.ints
            found[node.output[0]] = tuple(values)
    return found


def without_constant_nodes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Let initializers hold what Constant nodes of the main graph hold, outputs of the graph aside."""
    ends = {value.name for value in proto.graph.output}
    found = {
        node.output[0]: tensor
        for node in proto.graph.node
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and node.output[0] not in ends
        if (tensor := _constant(node)) is not None
    }
    if not found:
        return proto
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    nodes = [node for node in proto.graph.node if not (node.output and node.output[0] in found)]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(found.values())
    return result


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return what a Constant node holds; ``None`` for text and sparse tensors."""
    attribute = next((each for each in node.attribute if each.name.startswith(("value", "sparse"))), None)
    if attribute is None:
        raise GraftError(
            "model-invalid", f"node '{node.name}' (Constant) holds no value", "export the model again"
        )
    result = onnx.TensorProto()
    if attribute.name == "value":
        result.CopyFrom(attribute.t)
    elif attribute.name in ("value_int", "value_ints"):
        values = np.array(onnx.helper.get_attribute_value(attribute), np.int64)
        result.CopyFrom(onnx.numpy_helper.from_array(values))
    elif attribute.name in ("value_float", "value_floats"):
        values = np.array(onnx.helper.get_attribute_value(attribute), np.float32)
        result.CopyFrom(onnx.numpy_helper.from_array(values))
    else:
        return None
    result.name = node.output[0]
    return result


def header_of(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with the fields of ``proto`` that are neither graph nor metadata."""
    header = onnx.ModelProto()
    for name in ("ir_version", "producer_name", "producer_version", "domain", "model_version"):
        setattr(header, name, getattr(proto, name))
    header.doc_string = proto.doc_string
    header.graph.doc_string = proto.graph.doc_string
    return header


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give unnamed and doubly named nodes a name of operator and position: the same for the same file."""
    taken = Counter(node.name for node in graph.node)
    for position, node in enumerate(graph.node):
        if not node.name or taken[node.name] > 1:
            base = node.name or node.op_type
            taken[node.name] -= 1
            node.name = f"{base}_{position}"
            while taken[node.name]:
                node.name += "_"
            taken[node.name] += 1
