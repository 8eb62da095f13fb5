"""A classifier that is ready to be cut: normalized, analysed, measured."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from graft.passes.base import Context
from graft.passes.normalize.free_batch import FreeBatch, fix_batch
from graft.passes.normalize.simplify import Normalize
from graft.passes.normalize.start_states import write_start_states
from graft.rewriter.card.card import Card
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.sample_axes import fixed_batch
from graft.rewriter.graph.set_aside import set_aside
from graft.rewriter.graph.sizes import Sizes, check_asked
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.outputs import keep_output
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.cost import Cost, CostModel
from graft.rewriter.measure.latency import BATCH, LatencyTable
from graft.rewriter.record.provenance import ParentRecord, parent_record
from graft.rewriter.run.session import Device

Found = TypeVar("Found")
REMEMBERED = 64
"""Results that a parent remembers for each set of samples."""


class Parent:
    """A parent that is ready to be cut: normalized, analysed, measured.

    Many modules of one parent share all of this.

    Args:
        model: a classifier with a card; left as it is.
        asked: sizes of free axes at which costs are counted, and which samples must have; empty: those of
            the samples.

    Attributes:
        source: the model as it came.
        record: its hashes, labels and licence, as modules record them.
        sha256: its graph hash, which plans and profiles carry.
        analysed: the normalized model with its analysis.
        declined: why the model was not normalized, if it was not; why its batch stays fixed.
        batch: number of samples that the model takes at once, where that was fixed and is free here.
        cost: what the normalized model costs.
    """

    def __init__(self, model: Model, asked: Sizes = MappingProxyType({})) -> None:
        self.source = model
        self.record: ParentRecord = parent_record(model)
        self.sha256 = self.record.graph_sha256
        normalized = model.copy()
        keep_output(normalized, model.require_card().output.name)
        self.declined = Normalize()(normalized, Context()).declined
        self._asked = asked
        normalized.sizes = asked or normalized.sizes
        self.batch: int | None = None
        self.analysed = self._with_free_batch(Analysed.of(normalized))
        self.cost: Cost = CostModel(self.groups).cost()
        self._memory: WeakKeyDictionary[Samples, dict[Hashable, Any]] = WeakKeyDictionary()
        self._tables: dict[tuple[object, ...], LatencyTable] = {}

    @classmethod
    def load(
        cls, path: Path, card: Path | None = None, shapes: Mapping[str, Sequence[int]] = MappingProxyType({})
    ) -> Parent:
        """Read a parent.

        Args:
            path: the ONNX file.
            card: its card; ``None``: in its metadata or beside it.
            shapes: full shapes of inputs with free axes, at which costs are counted.

        Raises:
            GraftError: the file cannot be read, there is no card, or an input does not take its shape.
        """
        model = Model.load(path, card)
        model.card = model.require_card(path)
        parent = cls(model, model.sizes_at(shapes))
        set_aside(model.graph, parent.model.graph)
        return parent

    def _with_free_batch(self, analysed: Analysed) -> Analysed:
        """Return the analysis of the model with a free batch where the fixed one hides channels.

        Elsewhere it stays fixed: what is written does not change where nothing is gained.
        """
        unseen = len(analysed.groups.unseen())
        if not unseen:
            return analysed
        model = analysed.model.copy()
        inputs = {name: shape for name, (_, shape) in model.inputs().items()}
        size = fixed_batch(inputs, model.sample_axes())
        report = FreeBatch()(model, Context())
        self.declined = (*self.declined, *report.declined)
        freed = Analysed.of(model) if report.changed else analysed
        if len(freed.groups.unseen()) == unseen:
            return analysed
        self.batch = size
        return freed

    def declare(self, model: Model) -> None:
        """Let ``model``, cut out of this one, declare the batch that the parent's file does.

        Recurrent layers of a free batch get states to start with.
        """
        if self.batch is not None:
            fix_batch(model, self.batch)
        write_start_states(model)

    def count_at(self, sizes: Sizes) -> None:
        """Count costs at the ``sizes`` of samples from now on; empty: they say nothing.

        Raises:
            GraftError: ``shape-unfit`` where others were asked for.
        """
        check_asked(self._asked, sizes)
        if not sizes or sizes == self.model.sizes:
            return
        self.model.sizes = sizes
        self.analysed = Analysed(self.model, self.groups.at(sizes))
        self.cost = CostModel(self.groups).cost()
        self._tables.clear()

    def load_plan(self, path: Path) -> Plan:
        """Read a plan, which must be for this parent.

        Raises:
            GraftError: ``plan-of-another``, or the plan cannot be read or does not fit.
        """
        plan = Plan.load(path)
        if plan.parent != self.sha256:
            raise GraftError(
                "plan-of-another",
                f"the plan {path} was made for another model",
                "plan this one with 'graft plan'",
            )
        plan.mask(self.groups)  # says what does not fit
        return plan

    @property
    def card(self) -> Card:
        """Meaning of input and output."""
        return self.source.require_card()

    @property
    def model(self) -> Model:
        """The normalized model."""
        return self.analysed.model

    @property
    def groups(self) -> ChannelGroups:
        """The analysis of the normalized model."""
        return self.analysed.groups

    def once(self, samples: Samples, key: Hashable, make: Callable[[], Found]) -> Found:
        """Return what ``make`` makes of ``samples``; many modules and budgets share the latest results.

        Args:
            samples: this very object, not one of equal content; what was made is forgotten with it.
            key: names what is made, with everything else that it depends on.
            make: called the first time.
        """
        known = self._memory.setdefault(samples, {})
        found: Found = known.pop(key) if key in known else make()
        known[key] = found  # the last one used is the last one forgotten
        while len(known) > REMEMBERED:
            del known[next(iter(known))]
        return found

    def latency_table(self, device: Device) -> LatencyTable:
        """Return the latency of the nodes of the model on ``device``, measured once."""
        key = (device.wanted, device.strict)
        if key not in self._tables:
            self._tables[key] = LatencyTable(self.model, device, self.batch or BATCH)
        return self._tables[key]

    @property
    def latency_tables(self) -> tuple[LatencyTable, ...]:
        """Latency of the nodes, on each device where it was measured."""
        return tuple(self._tables.values())
