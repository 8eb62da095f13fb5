"""A model: an ONNX file as a graph to edit, with its card, metadata and fingerprints.

The only module that reads and writes ONNX files. ``onnx-graphsurgeon`` does the graph; what it drops
on import (metadata, doc strings, model version) is carried beside it and written back.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.rewriter.card.card import Card
from graft.rewriter.errors import GraftError
from graft.rewriter.files import read_whole, settled, writing
from graft.rewriter.graph.foreign import write_standard
from graft.rewriter.graph.forms import standardize
from graft.rewriter.graph.importing import (
    ML_DOMAIN,
    header_of,
    lift_opset,
    name_nodes,
    read_proto,
    without_constant_nodes,
    without_zip_maps,
    zip_map_labels,
)
from graft.rewriter.graph.light import file_sha256, graph_pieces, model_pieces
from graft.rewriter.graph.order import sort_nodes
from graft.rewriter.graph.sample_axes import named, sample_axes
from graft.rewriter.graph.scores import refuse_class_numbers
from graft.rewriter.graph.set_aside import page_out
from graft.rewriter.graph.shapes import Shape, infer_shapes, without_weights
from graft.rewriter.graph.sizes import SIZES_KEY, Sizes, fitting, sizes_at, sizes_from_json, sizes_to_json
from graft.rewriter.graph.weights import arrays, attach, exported, in_own_file, put_in, raw
from graft.rewriter.graph.weights_file import weights_beside
from graft.rewriter.memory import collected_rarely

CARD_KEY = "graft.card"
"""Of the metadata: where a model carries its card."""

Shapes = Mapping[str, Shape]

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
        node_metadata: ``metadata_props`` of nodes by their names.
        file_sha256: hash of the file it came from, or ``""``.
        path: of the file that it came from, as it was named, or ``""``.
        file_name: name of the file that it came from, or ``""``.
        card_file: name of the file that the card came from, or ``""``.
        one_by_one: a node inside takes one sample at a time, though the inputs leave the batch open.
        mapped: the classes of outputs that a ZipMap made, in the order of the columns.
        sizes: of free axes of inputs, at which costs are counted.
    """

    graph: gs.Graph
    card: Card | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    header: onnx.ModelProto = field(default_factory=onnx.ModelProto)
    node_metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    file_sha256: str = ""
    path: str = ""
    file_name: str = ""
    card_file: str = ""
    one_by_one: bool = False
    mapped: dict[str, tuple[str | int, ...]] = field(default_factory=dict)
    sizes: Sizes = field(default_factory=dict)

    # ---------------------------------------------------------------- reading

    @classmethod
    def load(cls, path: str | Path, card: str | Path | None = None, with_card: bool = True) -> Model:
        """Read a model with its card.

        Args:
            path: an ONNX file.
            card: file of the card; else the one in the metadata of the model, else the one beside it.
            with_card: False leaves the model without a card, whatever lies beside it.

        Raises:
            GraftError: the file is missing, no ONNX model, or of a version that cannot be read; the
                card is unreadable or does not fit the model.
        """
        path = Path(path)
        beside = Path(card) if card else None

        def read() -> Model:
            settled(path)
            settled(path.parent)
            try:
                return cls._read(path, beside, with_card)
            except GraftError as error:
                if not error.code.startswith("model-") or str(path) in error.message:
                    raise
                raise GraftError(error.code, f"{path}: {error.message}", error.hint) from error

        return read_whole([path], read)

    @classmethod
    def _read(cls, path: Path, card: Path | None, with_card: bool) -> Model:
        """Read a model with its card; parameters as those of :meth:`load`."""
        proto, held = read_proto(path)
        model = cls.from_proto(proto)
        del held  # the graph has them now
        model.path, model.file_name = str(path), path.name
        model.file_sha256 = file_sha256(path)
        model.card = model._find_card(path, card) if with_card else None
        if model.card:
            model.expose(model.card.output.name)
            refuse_class_numbers(model.graph, model.card.output.name)
            model.card.check_against(model.inputs(), model.outputs())
        return model

    @classmethod
    def from_proto(cls, proto: onnx.ModelProto, card: Card | None = None) -> Model:
        """Take over ``proto``; opsets below 11 are lifted, unnamed nodes get names, ZipMaps go.

        Constant nodes become initializers: so exporters differ, and no operator class has to know.

        Raises:
            GraftError: the opset cannot be lifted, or an attribute holds text that is not UTF-8.
        """
        standardize(proto)
        mapped = zip_map_labels(proto)
        proto = without_constant_nodes(without_zip_maps(lift_opset(proto)))
        header = header_of(proto)
        metadata = {entry.key: entry.value for entry in proto.metadata_props}
        name_nodes(proto.graph)
        node_metadata = {
            node.name: {entry.key: entry.value for entry in node.metadata_props}
            for node in proto.graph.node
            if node.metadata_props
        }
        try:
            with collected_rarely(len(proto.graph.node)):
                graph = gs.import_onnx(proto)
            attach(graph)
        except UnicodeDecodeError as error:
            raise GraftError(
                "model-invalid", "an attribute of a node holds text that is not UTF-8", "export it again"
            ) from error
        constants = {name for name, tensor in graph.tensors().items() if isinstance(tensor, gs.Constant)}
        graph.inputs = [tensor for tensor in graph.inputs if tensor.name not in constants]
        sizes = sizes_from_json(metadata.pop(SIZES_KEY, "{}"))
        return cls(graph, card, metadata, header, node_metadata, mapped=mapped, sizes=sizes)

    def _find_card(self, path: Path, explicit: Path | None) -> Card | None:
        if explicit is None and CARD_KEY in self.metadata:
            return Card.from_json(self.metadata[CARD_KEY])
        beside = path.with_suffix(".yaml")
        if explicit is None and not beside.exists():
            return None
        self.card_file = (explicit or beside).name
        return Card.find(path, explicit)

    def require_card(self, path: str | Path = "MODEL.onnx") -> Card:
        """Return the card.

        Args:
            path: where the model came from; the message names it.

        Raises:
            GraftError: the model has no card; the hint says how to get one.
        """
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
        """Return name to (numpy dtype, shape with names for free dimensions) of the graph's inputs."""
        return _signature(self.graph.inputs)

    def outputs(self) -> dict[str, tuple[Any, tuple[int | str | None, ...]]]:
        """Return the same as :meth:`inputs`, for the outputs."""
        return _signature(self.graph.outputs)

    def sample_axes(self) -> dict[str, int | None]:
        """Return the axis of every input along which samples lie; ``None`` for a constant."""
        inputs, outputs = (
            {name: shape for name, (_, shape) in ends.items()} for ends in (self.inputs(), self.outputs())
        )
        return sample_axes(inputs, outputs, self.card)

    def sizes_at(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int | None, ...]]:
        """Return the sizes of free axes that full ``shapes`` of inputs say.

        Raises:
            GraftError: ``shape-unfit`` where an input is missing, or has another rank or a fixed size.
        """
        inputs = {name: shape for name, (_, shape) in self.inputs().items()}
        return sizes_at(inputs, self.sample_axes(), shapes)

    def fitting_sizes(self) -> dict[str, tuple[int | None, ...]]:
        """Return :attr:`sizes` of the inputs that still take them, and still leave axes free."""
        inputs = {name: shape for name, (_, shape) in self.inputs().items()}
        return fitting(self.sizes, inputs, self.sample_axes()) if self.sizes else {}

    def shapes(
        self,
        free: int = 2,
        given: Shapes | None = None,
        same_shape: Collection[str] = (),
    ) -> dict[str, Shape]:
        """Return the shape of every tensor (see :func:`graft.rewriter.graph.shapes.infer_shapes`).

        Args:
            free: what a free dimension of the batch counts as.
            given: full shapes of inputs by name, for other free dimensions.
            same_shape: operators (``Name`` or ``domain::Name``) that onnx cannot infer and whose output
                is shaped as their first input.

        Returns:
            Tensor name to shape; ``None`` for a dimension that is not known. Constants included.
        """
        return self.shapes_by_batch(same_shape)(free, given)

    def shapes_by_batch(
        self, same_shape: Collection[str] = ()
    ) -> Callable[[int, Shapes | None], dict[str, Shape]]:
        """Return the function from batch size and given shapes to those of all tensors, as the graph is now.

        For several batch sizes it is faster than :meth:`shapes`, whose arguments both take.
        """
        plain = without_weights(self._exported())
        for value in plain.graph.output:
            for dimension in value.type.tensor_type.shape.dim:
                dimension.ClearField("dim_param")
        del plain.graph.value_info[:]
        for node in plain.graph.node:
            if (f"{node.domain}::{node.op_type}" if node.domain else node.op_type) in same_shape:
                _pass_shape(node)
            write_standard(node)
        ends = [[(t.name, tuple(t.shape or ())) for t in e] for e in (self.graph.inputs, self.graph.outputs)]

        axes = self.sample_axes()

        def shapes_for(free: int, given: Shapes | None = None) -> dict[str, Shape]:
            proto = onnx.ModelProto()
            proto.CopyFrom(plain)
            for value in proto.graph.input:
                _fix_shape(value, free, (given or {}).get(value.name), axes.get(value.name, 0))
            known_names: dict[str, int | None] = {}
            for (_, shape), value in zip(ends[0], proto.graph.input, strict=False):
                sizes = [dimension.dim_value or None for dimension in value.type.tensor_type.shape.dim]
                pairs = zip(shape, sizes, strict=False)
                for name, size in pairs:  # one name of several sizes tells none
                    if isinstance(name, str) and named(name):
                        known_names[name] = size if known_names.get(name, size) == size else None
            found = infer_shapes(proto)
            for tensor, names in ends[1]:  # a size that inference lost may have the name of an input's
                known = found.get(tensor, ())
                if len(known) == len(names) > 0:
                    pairs = zip(known, names, strict=True)
                    found[tensor] = tuple(
                        known_names.get(str(n)) if size is None else size for size, n in pairs
                    )
            return found

        return shapes_for

    def graph_sha256(self) -> str:
        """Return the hash of nodes, names and weights; metadata, doc strings and shape notes do not count."""
        proto = self.message()
        graph, beside, large = proto.graph, in_own_file(proto), arrays(proto)
        graph.ClearField("value_info")
        graph.ClearField("doc_string")
        for node in graph.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
        for tensor in graph.initializer:  # where a weight is kept is no part of the graph
            if tensor.name in beside or tensor.name not in large:
                tensor.ClearField("data_location")
                tensor.ClearField("external_data")
        found = hashlib.sha256()
        for piece in graph_pieces(graph, beside):
            found.update(piece)
        for name in sorted(beside & set(large)):
            found.update(name.encode())
            found.update(raw(large[name][0]))
        return found.hexdigest()

    # ---------------------------------------------------------------- changing

    def copy(self) -> Model:
        """Return a copy whose graph can be edited freely; weights are shared until they are replaced."""
        return replace(
            self,
            graph=self.graph.copy(),
            metadata=dict(self.metadata),
            node_metadata=dict(self.node_metadata),
        )

    def tidy(self) -> None:
        """Drop what no output needs and sort the nodes topologically."""
        sort_nodes(self.graph.cleanup(remove_unused_graph_inputs=False))

    def expose(self, name: str) -> None:
        """Make the inner tensor ``name`` an output, unless it is one: a card may name it as the scores."""
        tensor = self.graph.tensors().get(name)
        if not isinstance(tensor, gs.Variable) or not tensor.inputs:
            return
        if any(tensor is output for output in self.graph.outputs):
            return
        if tensor.dtype is None or tensor.shape is None:
            self.refresh_shapes()
        if tensor.dtype is not None:
            self.graph.outputs.append(tensor)

    def refresh_shapes(self) -> None:
        """Infer the shapes inside the graph anew; those of inputs and outputs are kept."""
        ends = {tensor.name for tensor in (*self.graph.inputs, *self.graph.outputs)}
        inner = [t for t in self.graph.tensors().values() if isinstance(t, gs.Variable)]
        inner = [tensor for tensor in inner if tensor.name not in ends]
        for tensor in inner:
            tensor.shape = None
        proto = self.message()
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
        """Return the model as a new ``ModelProto``, metadata and card included.

        It refers to weights beyond 1.5 GB (:mod:`graft.rewriter.graph.weights`): :meth:`save` writes such a
        model, and :class:`graft.rewriter.run.session.Session` runs it.
        """
        proto = self.message()
        inside = arrays(proto).keys() - in_own_file(proto)
        return put_in(proto, inside) if inside else proto

    def message(self) -> onnx.ModelProto:
        """Return the same as :meth:`proto`, which refers to weights beyond 32 MB."""
        proto = self._exported()
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
        sizes = self.fitting_sizes()
        if sizes:
            metadata[SIZES_KEY] = sizes_to_json(sizes)
        del result.metadata_props[:]
        for key in sorted(metadata):
            result.metadata_props.add(key=key, value=metadata[key])
        return result

    def _exported(self) -> onnx.ModelProto:
        """Return graph, opsets and functions, without metadata."""
        self._part_shared_weights()
        proto = exported(self.graph)
        proto.ir_version = self.ir_version
        return proto

    def piece(
        self, nodes: Sequence[gs.Node], inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> onnx.ModelProto:
        """Return some nodes as a model of their own.

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
        proto = exported(graph)
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
        proto = self.message()
        path = Path(path)
        page_out()
        with (
            weights_beside(proto, path, force),
            writing(path, force) as temporary,
            temporary.open("wb") as file,
        ):
            file.writelines(model_pieces(proto))


# -------------------------------------------------------------------- helpers


def _fix_shape(value: onnx.ValueInfoProto, free: int, given: Shape | None, samples: int | None) -> None:
    """Write ``given`` into the shape of an input, or ``free`` where its axis of samples is free."""
    dimensions = value.type.tensor_type.shape.dim
    for position, dimension in enumerate(dimensions):
        size = given[position] if given is not None and position < len(given) else None
        if size is not None:
            dimension.dim_value = size
        elif position == samples and not dimension.HasField("dim_value"):
            dimension.dim_value = free


def _pass_shape(node: onnx.NodeProto) -> None:
    """Put a node that onnx infers shapes for in place of one whose output is shaped as its first input."""
    ends = (node.input[:1], node.output[:1])
    plain = onnx.helper.make_node("Identity", *ends)
    if node.domain == ML_DOMAIN:  # these put out float32, whatever goes in
        plain = onnx.helper.make_node("Cast", *ends, to=onnx.TensorProto.FLOAT)
    node.CopyFrom(plain)


def _signature(tensors: Sequence[gs.Tensor]) -> dict[str, tuple[Any, tuple[int | str | None, ...]]]:
    return {
        tensor.name: (
            np.dtype(tensor.dtype) if isinstance(tensor.dtype, np.dtype | type) else None,
            tuple(tensor.shape) if tensor.shape is not None else (),
        )
        for tensor in tensors
    }
