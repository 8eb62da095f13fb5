"""The cost of a model: multiply-accumulates, parameters and latency, whole or under a plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.rewriter.arrays import Mask
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.vocabulary import PREPARED
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.measure.latency import LatencyModel, LatencyTable
from graft.rewriter.operators import Work, operator_of
from graft.rewriter.operators.base import Parameter, dtype_of
from graft.rewriter.operators.uncut import Quantization, UncutLayer
from graft.rewriter.operators.unfit import naming


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates for one sample, and values in floating-point constants and quantized weights.

    Axes that the model leaves free count at its ``sizes``: those of the samples, or 1 where none are known.

    Attributes:
        macs: of the operators whose work is known.
        parameters: number of values.
        unknown: types of operators that multiply more than is known.
    """

    macs: int
    parameters: int
    unknown: tuple[str, ...] = ()

    @property
    def known_macs(self) -> int | None:
        """All multiply-accumulates; ``None`` where they are not known."""
        return None if self.unknown else self.macs


class CostModel:
    """The cost of a model under any mask of channels, without cutting it.

    Bringing raw pixels to a parent's size does not count: a parent is given images of its size.

    Args:
        groups: the analysis of the model.
        head: names of nodes whose parameters do not count (their work does).
        table: latencies of nodes, for the unit ``latency``; ``groups`` is its analysis of the model.

    Attributes:
        unknown: types of operators that multiply more than is known.
    """

    def __init__(
        self,
        groups: ChannelGroups,
        head: frozenset[str] = frozenset(),
        table: LatencyTable | None = None,
    ) -> None:
        groups = groups.sized()
        self._groups = groups
        self._latency = LatencyModel(groups, table) if table else None
        self._work: list[Work] = []
        unknown: set[str] = set()
        self._constants: dict[object, tuple[gs.Constant, Parameter | None]] = {}
        for node in groups.nodes:
            if PREPARED in node.name:
                continue
            operator = operator_of(node)
            with naming(node, groups.channel_map.path):
                self._work += operator.work(node, groups)
                unknown |= {node.op} if operator.unknown_work(node, groups) else set()
                if node.name not in head:
                    self._collect(node, {p.index: p for p in operator.parameters(node, groups)})
        self._samples = groups.samples
        self.unknown: tuple[str, ...] = tuple(sorted(unknown))

    def _collect(self, node: gs.Node, cuts: dict[int, Parameter]) -> None:
        """Constants of a node; one that several nodes share counts once unless they slice it differently."""
        for index, tensor in enumerate(node.inputs):
            if isinstance(tensor, gs.Constant) and _is_weight(tensor, node):
                cut = cuts.get(index)
                axes = [(axis, c.tobytes()) for axis, c in cut.axes.items()] if cut else []
                self._constants[(tensor.name, *axes)] = (tensor, cut)

    def macs(self, kept: Mask | None = None) -> int:
        """Return multiply-accumulates for one sample."""
        kept = self._groups.close(self._groups.everything() if kept is None else kept)
        total = sum(
            work.times * float(np.prod([float(kept[channels].sum()) for channels in work.channels]))
            for work in self._work
        )
        return round(total / self._samples)

    def parameters(self, kept: Mask | None = None) -> int:
        """Return the number of values in floating-point constants and quantized weights."""
        kept = self._groups.close(self._groups.everything() if kept is None else kept)
        pieces: dict[object, int] = {}
        for tensor, cut in self._constants.values():
            sizes = list(tensor.shape)
            key: list[object] = [tensor.name]
            for axis, channels in sorted(cut.axes.items()) if cut else ():
                stays = kept[channels]
                sizes[axis] = int(stays.sum())
                if not stays.all():
                    key.append((axis, stays.tobytes()))
            pieces[tuple(key)] = int(np.prod(sizes, dtype=np.int64))
        return sum(pieces.values())

    def latency(self, kept: Mask | None = None) -> float:
        """Return milliseconds for a batch, as the table predicts.

        Raises:
            GraftError: ``latency-unmeasured`` where there is no table.
        """
        return self._timed().milliseconds(kept)

    def _timed(self) -> LatencyModel:
        if self._latency is None:
            raise GraftError("latency-unmeasured", "latency is not measured", "give a LatencyTable")
        return self._latency

    def total(self, unit: str, kept: Mask | None = None) -> float:
        """Return one of the figures.

        Args:
            unit: ``macs``, ``parameters`` or ``latency``.
            kept: bool (channel numbers,); ``None``: all.

        Raises:
            GraftError: ``latency-unmeasured``.
        """
        measure = {"macs": self.macs, "parameters": self.parameters, "latency": self.latency}[unit]
        return float(measure(kept))

    def by_channel(self, unit: str) -> NDArray[np.float64]:
        """Return what pruning each atom alone would save: float64, one for each channel number.

        Args:
            unit: ``macs``, ``parameters`` or ``latency``.

        Raises:
            GraftError: ``latency-unmeasured``.
        """
        if unit == "latency":
            return self._groups.to_atoms(self._timed().by_channel())
        saved = np.zeros(self._groups.count)
        if unit == "macs":
            terms = [(w.times / self._samples, w.channels) for w in self._work]
        else:
            terms = []
            for tensor, cut in self._constants.values():
                lists = tuple(cut.axes.values()) if cut else ()
                sizes = np.prod([len(channels) for channels in lists], dtype=float)
                terms.append((float(np.prod(tensor.shape, dtype=float) / sizes), lists))
        for times, lists in terms:
            whole = times * float(np.prod([len(channels) for channels in lists], dtype=float))
            for channels in lists:
                np.add.at(saved, channels, whole / len(channels))
        return self._groups.to_atoms(saved)

    def cuttable_parameters(self) -> int:
        """Return the number of values in rows or columns that may be pruned."""
        cuttable = self._groups.cuttable()
        found: dict[str, int] = {}
        for tensor, cut in self._constants.values():
            stays = list(tensor.shape)
            for axis, channels in (cut.axes if cut else {}).items():
                stays[axis] = int((~cuttable[channels]).sum())
            going = int(np.prod(tensor.shape, dtype=np.int64) - np.prod(stays, dtype=np.int64))
            found[tensor.name] = max(going, found.get(tensor.name, 0))
        return sum(found.values())

    def cuttable_macs(self) -> int:
        """Return the multiply-accumulates that pruning all removable channels would save."""
        return self.macs() - self.macs(~self._groups.cuttable())

    def parameters_by_group(self) -> dict[str, int]:
        """Return group name to the number of values in constants that are sliced along its channels."""
        constants: dict[str, dict[str, int]] = {group.name: {} for group in self._groups}
        owner = {c: group.name for group in self._groups for c in group.channels.tolist()}
        for tensor, cut in self._constants.values():
            for channels in (cut.axes if cut else {}).values():
                for name in {owner[c] for c in self._groups.behind(channels).tolist() if c in owner}:
                    constants[name][tensor.name] = int(np.prod(tensor.shape, dtype=np.int64))
        return {name: sum(sizes.values()) for name, sizes in constants.items()}

    def cost(self, kept: Mask | None = None) -> Cost:
        """Return multiply-accumulates and parameters."""
        return Cost(self.macs(kept), self.parameters(kept), self.unknown)


def _is_weight(tensor: gs.Constant, node: gs.Node) -> bool:
    """Return whether a constant counts: floating-point numbers, and the weights of quantized layers."""
    quantized = isinstance(operator_of(node), UncutLayer | Quantization) and len(tensor.shape) > 1
    return dtype_of(tensor).kind in "fV" or quantized


def macs_by_node(groups: ChannelGroups) -> NDArray[np.float64]:
    """Return multiply-accumulates for one sample of each node of ``groups.nodes``, uncut."""
    sized = groups.sized()
    found = [
        sum(
            work.times * float(np.prod([len(channels) for channels in work.channels], dtype=float))
            for work in operator_of(node).work(node, sized)
        )
        for node in sized.nodes
    ]
    return np.asarray(found, np.float64) / sized.samples


def cost_of(model: Model) -> Cost:
    """Return the cost of ``model`` as it is."""
    return CostModel(ChannelGroups(model)).cost()
