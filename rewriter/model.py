"""A model: an ONNX file as a graph to edit, with its card, metadata and fingerprints.

The only module that reads and writes ONNX files. ``onnx-graphsurgeon`` does the graph; what it drops
on import (metadata, doc strings, model version) is carried beside it and written back.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import version_converter

from graft.rewriter.card import Card
from graft.rewriter.errors import GraftError
from graft.rewriter.shapes import Shape, infer_shapes

LOWEST_OPSET = 11
EXTERNAL_DATA_BYTES = 1_500_000_000
CARD_KEY = "graft.card"
ML_DOMAIN = "ai.onnx.ml"


gs.logger.G_LOGGER.severity = gs.logger.G_LOGGER.ERROR
log = logging.getLogger("graft")


@dataclass
class Model:
    """An ONNX model in memory.

    Attributes:
        graph: the graph, free to edit. Every node has a unique name.
        card: what goes in and what comes out; ``None`` where none was found.
        metadata: ``metadata_props`` of the model, foreign keys included.
        header: the remaining fields of the ``ModelProto`` (IR version, producer, doc strings ...).
        file_sha256: hash of the file it came from, or ``""``.
        card_file: name of the file that the card came from, or ``""``.
    """

    graph: gs.Graph
    card: Card | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    header: onnx.ModelProto = field(default_factory=onnx.ModelProto)
    node_metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    file_sha256: str = ""
    card_file: str = ""

    # ---------------------------------------------------------------- reading

    @classmethod
    def load(cls, path: str | Path, card: str | Path | None = None) -> Model:
        """Read ``path`` with its card: ``card``, else the one in its metadata, else the file beside it.

        Raises:
            GraftError: the file is missing, no ONNX model, or of a version that cannot be read; the
                card is unreadable or does not fit the model.
        """
        path = Path(path)
        model = cls.from_proto(_read(path))
        model.file_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        model.card = model._find_card(path, Path(card) if card else None)
        if model.card:
            model.card.check_against(model.inputs(), model.outputs())
        return model

    @classmethod
    def from_proto(cls, proto: onnx.ModelProto, card: Card | None = None) -> Model:
        """Take over ``proto``; opsets below 11 are lifted, unnamed nodes get names, ZipMaps go.

        Constant nodes become initializers: so exporters differ, and no operator class has to know.
        """
        proto = _without_constant_nodes(_without_zip_maps(_lift(proto)))
        header = _header(proto)
        metadata = {entry.key: entry.value for entry in proto.metadata_props}
        _name_nodes(proto.graph)
        node_metadata = {
            node.name: {entry.key: entry.value for entry in node.metadata_props}
            for node in proto.graph.node
            if node.metadata_props
        }
        try:
            graph = gs.import_onnx(proto)
        except UnicodeDecodeError as error:
            raise GraftError(
                "model-invalid", "an attribute of a node holds text that is not UTF-8", "export it again"
            ) from error
        constants = {tensor.name for tensor in graph.tensors().values() if _is_constant(tensor)}
        graph.inputs = [tensor for tensor in graph.inputs if tensor.name not in constants]
        return cls(graph, card, metadata, header, node_metadata)

    def _find_card(self, path: Path, explicit: Path | None) -> Card | None:
        if explicit is None and CARD_KEY in self.metadata:
            return Card.from_json(self.metadata[CARD_KEY])
        beside = path.with_suffix(".yaml")
        if explicit is None and not beside.exists():
            return None
        self.card_file = (explicit or beside).name
        return Card.find(path, explicit)

    def require_card(self, path: str | Path = "MODEL.onnx") -> Card:
        """The card, or a :class:`GraftError` that says how to get one."""
        if self.card is None:
            return Card.find(Path(path), None)
        return self.card

    # ---------------------------------------------------------------- looking

    @property
    def opset(self) -> int:
        """Version of the standard ONNX operator set."""
        return int(self.graph.opset)

    @property
    def ir_version(self) -> int:
        """Version of the file format, never onnx's own default."""
        return int(self.header.ir_version)

    def inputs(self) -> dict[str, tuple[Any, tuple[int | str | None, ...]]]:
        """Name to (numpy dtype, shape with names for free dimensions) of the graph's inputs."""
        return _signature(self.graph.inputs)

    def outputs(self) -> dict[str, tuple[Any, tuple[int | str | None, ...]]]:
        """As :meth:`inputs`, for the outputs."""
        return _signature(self.graph.outputs)

    def shapes(
        self,
        free: int = 2,
        given: Mapping[str, Sequence[int]] | None = None,
        same_shape: Collection[str] = (),
    ) -> dict[str, Shape]:
        """Shape of every tensor (see :func:`graft.rewriter.shapes.infer_shapes`).

        Args:
            free: what a free leading dimension (the batch) of an input counts as.
            given: full shapes of inputs by name, for other free dimensions.
            same_shape: operators (``Name`` or ``domain::Name``) that onnx cannot infer and whose output
                is shaped as their first input.

        Returns:
            Tensor name to shape; ``None`` for a dimension that cannot be told. Constants included.
        """
        proto = self.proto()
        for value in proto.graph.input:
            _fix_shape(value, free, (given or {}).get(value.name))
        named: dict[str, int | None] = {}
        for tensor, value in zip(self.graph.inputs, proto.graph.input, strict=False):
            sizes = [dimension.dim_value or None for dimension in value.type.tensor_type.shape.dim]
            shape = zip(tensor.shape or (), sizes, strict=False)
            named.update({name: size for name, size in shape if isinstance(name, str)})
        for value in proto.graph.output:
            for dimension in value.type.tensor_type.shape.dim:
                dimension.ClearField("dim_param")
        del proto.graph.value_info[:]
        for node in proto.graph.node:
            if (f"{node.domain}::{node.op_type}" if node.domain else node.op_type) in same_shape:
                ends = (node.input[:1], node.output[:1])
                copy = onnx.helper.make_node("Identity", *ends)
                if node.domain == ML_DOMAIN:  # these put out float32, whatever goes in
                    copy = onnx.helper.make_node("Cast", *ends, to=onnx.TensorProto.FLOAT)
                node.CopyFrom(copy)
        found = infer_shapes(proto)
        for tensor in self.graph.outputs:  # a size that inference lost may have the name of an input's
            known, names = found.get(tensor.name, ()), tensor.shape or ()
            if len(known) == len(names) > 0:
                pairs = zip(known, names, strict=True)
                found[tensor.name] = tuple(named.get(str(n)) if size is None else size for size, n in pairs)
        return found

    def graph_sha256(self) -> str:
        """Hash of nodes, names and weights; metadata, doc strings and shape notes do not count."""
        graph = self.proto().graph
        graph.ClearField("value_info")
        graph.ClearField("doc_string")
        for node in graph.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
        for tensor in graph.initializer:  # where a weight is kept is no part of the graph
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
        return hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()

    # ---------------------------------------------------------------- changing

    def copy(self) -> Model:
        """A copy whose graph can be edited freely; weights are shared until they are replaced."""
        return replace(
            self,
            graph=self.graph.copy(),
            metadata=dict(self.metadata),
            node_metadata=dict(self.node_metadata),
        )

    def tidy(self) -> None:
        """Drop what no output needs and sort the nodes topologically."""
        self.graph.cleanup(remove_unused_graph_inputs=False).toposort()

    def refresh_shapes(self) -> None:
        """Infer the shapes inside the graph anew; those of inputs and outputs are kept."""
        ends = {tensor.name for tensor in (*self.graph.inputs, *self.graph.outputs)}
        inner = [t for t in self.graph.tensors().values() if isinstance(t, gs.Variable)]
        inner = [tensor for tensor in inner if tensor.name not in ends]
        for tensor in inner:
            tensor.shape = None
        proto = self.proto()
        del proto.graph.value_info[:]
        with contextlib.suppress(Exception):  # shapes inside are a courtesy to readers of the file
            proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        inferred = {value.name: value.type.tensor_type for value in proto.graph.value_info}
        for tensor in inner:
            if tensor.name in inferred and inferred[tensor.name].HasField("shape"):
                tensor.shape = [
                    d.dim_value if d.HasField("dim_value") else d.dim_param or None
                    for d in inferred[tensor.name].shape.dim
                ]
                tensor.dtype = onnx.helper.tensor_dtype_to_np_dtype(inferred[tensor.name].elem_type)

    # ---------------------------------------------------------------- writing

    def proto(self) -> onnx.ModelProto:
        """The model as a new ``ModelProto``, metadata and card included."""
        self._part_shared_weights()
        proto: onnx.ModelProto = gs.export_onnx(self.graph, do_type_check=False)
        opsets, functions, graph = list(proto.opset_import), list(proto.functions), proto.graph
        result = onnx.ModelProto()
        result.CopyFrom(self.header)
        del result.opset_import[:]
        result.opset_import.extend(opsets)
        result.functions.extend(functions)
        doc = result.graph.doc_string
        result.graph.CopyFrom(graph)
        result.graph.doc_string = doc
        for node in result.graph.node:
            for key, value in self.node_metadata.get(node.name, {}).items():
                node.metadata_props.add(key=key, value=value)
        metadata = dict(self.metadata)
        if self.card is not None:
            metadata[CARD_KEY] = self.card.to_json()
        del result.metadata_props[:]
        for key in sorted(metadata):
            result.metadata_props.add(key=key, value=metadata[key])
        return result

    def piece(
        self, nodes: Sequence[gs.Node], inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> onnx.ModelProto:
        """Some nodes as a model of their own.

        Args:
            nodes: in topological order.
            inputs: name of every tensor that they read and do not make, with an example.
            outputs: names of what is wanted.
        """
        made = {tensor.name: tensor for node in nodes for tensor in node.outputs}
        graph = gs.Graph(
            nodes,
            [gs.Variable(name, array.dtype, [None] * array.ndim) for name, array in inputs.items()],
            [gs.Variable(name, made[name].dtype, made[name].shape) for name in outputs],
            name="piece",
            opset=self.graph.opset,
            import_domains=self.graph.import_domains,
            functions=self.graph.functions,
        )
        proto: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False)
        proto.ir_version = self.ir_version
        return proto

    def _part_shared_weights(self) -> None:
        """Load weights that constants of several names still share as one unread ``TensorProto``.

        The exporter writes the name of a constant into that proto: the last name would win.
        """
        names: dict[int, str] = {}
        for tensor in self.graph.tensors().values():
            shared = getattr(tensor, "_values", None)
            if shared is None or not hasattr(shared, "tensor"):
                continue
            if names.setdefault(id(shared.tensor), tensor.name) != tensor.name:
                tensor.values = tensor.values

    def save(self, path: str | Path, force: bool = False) -> None:
        """Write the model, whole or not at all; weights beyond 1.5 GB go to one file beside it.

        Raises:
            GraftError: ``path`` exists and ``force`` is not set, or cannot be written.
        """
        path = Path(path)
        proto = self.proto()
        large = sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > EXTERNAL_DATA_BYTES
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(writing(path, force))
            if large:
                data = path.with_name(path.name + ".data")
                weights = stack.enter_context(writing(data, force))
                onnx.save(proto, temporary, save_as_external_data=True, location=weights.name)
                for entry in (e for t in proto.graph.initializer for e in t.external_data):
                    entry.value = data.name if entry.key == "location" else entry.value
            temporary.write_bytes(proto.SerializeToString(deterministic=True))


@contextlib.contextmanager
def writing(path: Path, force: bool = False) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends without an error."""
    refuse_overwrite(path, force)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
    except OSError as error:
        raise unwritable(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> GraftError:
    """What to say where ``path`` cannot be written."""
    reason = error.strerror or str(error)
    return GraftError("output-unwritable", f"cannot write {path}: {reason}", "choose another -o")


def refuse_overwrite(path: Path, force: bool) -> None:
    """Raise unless ``path`` is free or ``force`` allows to replace it."""
    if path.is_dir():
        raise GraftError(
            "output-exists", f"{path} is a folder, a file name was expected", "choose another -o"
        )
    if path.exists() and not force:
        raise GraftError("output-exists", f"{path} exists", "choose another -o or add --force")


# -------------------------------------------------------------------- helpers


def _read(path: Path) -> onnx.ModelProto:
    if path.is_dir():
        raise GraftError(
            "model-is-folder",
            f"expected an ONNX file, found the folder {path}",
            "name the .onnx file in it",
        )
    if not path.is_file():
        raise GraftError("model-missing", f"no model at {path}", "check the path")
    if path.stat().st_size == 0:
        raise GraftError("model-unreadable", f"{path} is empty", "export or copy the model again")
    try:
        proto = onnx.load(path)
        if not proto.graph.node or not proto.opset_import:
            raise DecodeError("no graph in it")
        _check_versions(path, proto)
        onnx.checker.check_model(proto)
    except GraftError:
        raise
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
    return proto


def _check_versions(path: Path, proto: onnx.ModelProto) -> None:
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


def _lift(proto: onnx.ModelProto) -> onnx.ModelProto:
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), None)
    if opset is None or opset >= LOWEST_OPSET:
        return proto
    try:
        lifted: onnx.ModelProto = version_converter.convert_version(proto, LOWEST_OPSET)
    except Exception as error:
        raise GraftError(
            "model-version",
            f"the model uses opset {opset}, which could not be lifted to {LOWEST_OPSET}",
            f"export it with opset {LOWEST_OPSET} or newer",
        ) from error
    log.info("lifted the model from opset %d to %d", opset, LOWEST_OPSET)
    lifted.ir_version = max(proto.ir_version, 4)
    return lifted


def _without_zip_maps(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Let an output that is a list of dictionaries be the tensor that it was made of.

    skl2onnx ends a classifier in ZipMap, which gives every sample a dictionary of its probabilities.
    """
    makers = {node.output[0]: node for node in proto.graph.node if node.op_type == "ZipMap"}
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
        classes = max(len(attribute.strings or attribute.ints) for attribute in maker.attribute)
        tensor = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, ["batch", classes])
        value.type.CopyFrom(tensor)
    return result


def _without_constant_nodes(proto: onnx.ModelProto) -> onnx.ModelProto:
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
    """What a Constant node holds; ``None`` for text and sparse tensors."""
    attribute = node.attribute[0]
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


def _header(proto: onnx.ModelProto) -> onnx.ModelProto:
    header = onnx.ModelProto()
    for name in ("ir_version", "producer_name", "producer_version", "domain", "model_version"):
        setattr(header, name, getattr(proto, name))
    header.doc_string = proto.doc_string
    header.graph.doc_string = proto.graph.doc_string
    return header


def _name_nodes(graph: onnx.GraphProto) -> None:
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


def _fix_shape(value: onnx.ValueInfoProto, free: int, given: Sequence[int] | None) -> None:
    dimensions = value.type.tensor_type.shape.dim
    for position, dimension in enumerate(dimensions):
        if given is not None and position < len(given):
            dimension.dim_value = int(given[position])
        elif position == 0 and not dimension.HasField("dim_value"):
            dimension.dim_value = free


def _is_constant(tensor: gs.Tensor) -> bool:
    return isinstance(tensor, gs.Constant)


def _signature(tensors: Sequence[gs.Tensor]) -> dict[str, tuple[Any, tuple[int | str | None, ...]]]:
    return {
        tensor.name: (
            np.dtype(tensor.dtype)
            if tensor.dtype is not None and not isinstance(tensor.dtype, int)
            else None,
            tuple(tensor.shape) if tensor.shape is not None else (),
        )
        for tensor in tensors
    }
