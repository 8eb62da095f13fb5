"""Join modules into one classifier: a shared trunk where they come from one parent, else branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.decompose import Decompose, Parent
from graft.passes.head import REST, TINY, logits_behind
from graft.passes.normalize import random_inputs
from graft.rewriter.builder import Builder
from graft.rewriter.card import Card
from graft.rewriter.errors import GraftError
from graft.rewriter.model import Model
from graft.rewriter.origin import Origin, origin_of, stamp, versions
from graft.rewriter.profile import OTHER, Profile
from graft.rewriter.session import Device

STRATEGIES = ("auto", "trunk", "branches")


@dataclass(frozen=True)
class Source:
    """A parent at hand, with its profile: what a trunk is planned from."""

    parent: Parent
    profile: Profile


@dataclass(frozen=True)
class ComposeReport:
    """What was joined, and how.

    Attributes:
        model: the composite, with its card.
        strategy: ``trunk`` or ``branches``.
        reason: why.
    """

    model: Model
    strategy: str
    reason: str


class Compose:
    """Join modules.

    * trunk: modules of one parent are planned anew as one set of classes, with the method and
      compensation of the first and the largest budget among them: one network, one head;
    * branches: every module runs beside the others on the same input. A class's score is its log-odds
      in its module (logit minus the logsumexp of everything else), which modules of one parent share a
      scale for.

    Args:
        strategy: ``auto`` takes a trunk where the parent is at hand, branches otherwise.
        keep: budget of a trunk; ``None``: the largest among the modules.
        other: a trunk gets the column ``(other)``.
        verify: where to check the law on a trunk, with random inputs; ``None``: no check.
    """

    def __init__(
        self,
        strategy: str = "auto",
        keep: float | None = None,
        other: bool = False,
        verify: Device | None = None,
    ) -> None:
        if strategy not in STRATEGIES:
            raise GraftError(
                "strategy-unknown",
                f"no strategy {strategy}",
                f"choose from {', '.join(STRATEGIES)}",
            )
        self.strategy = strategy
        self.keep = keep
        self.other = other
        self.verify = verify

    def __call__(self, modules: Sequence[Model], sources: Mapping[str, Source]) -> ComposeReport:
        """Join ``modules``.

        Args:
            modules: models that ``decompose`` wrote.
            sources: graph hash of a parent to what a trunk needs of it.

        Raises:
            GraftError: nothing to join, a class twice, modules that do not fit together, or a trunk
                was asked for and its parent is not at hand.
        """
        origins = [origin_of(module) for module in modules]
        _check_fit(modules, origins)
        parents = {record.graph_sha256: record for origin in origins for record in origin.parents}
        source = sources.get(next(iter(parents))) if len(parents) == 1 else None
        if self.strategy == "trunk" and source is None:
            raise GraftError(
                "parent-missing",
                "a trunk needs the parent and its profile, which are not beside the modules",
                "name them with --parent and --profile, or use --strategy branches",
            )
        if source is None or self.strategy == "branches":
            alone = "the parent is not at hand" if len(parents) == 1 else "modules of several parents"
            reason = "asked for" if self.strategy == "branches" else alone
            model = self._branches(modules)
            options: dict[str, object] = {"strategy": "branches"}
        else:
            reason = "asked for" if self.strategy == "trunk" else "all modules are of one parent"
            model, options = self._trunk(origins, source)
        strategy = str(options["strategy"])
        classes = tuple(model.require_card().labels)
        record = Origin(
            parents=tuple(parents.values()),
            classes=classes,
            options=options,
            profile_sha256=origins[0].profile_sha256,
            versions=versions(),
        )
        stamp(model, "composite", record)
        return ComposeReport(model, strategy, reason)

    def _trunk(self, origins: Sequence[Origin], source: Source) -> tuple[Model, dict[str, object]]:
        classes = [name for origin in origins for name in origin.classes]
        options = origins[0].options
        budgets = [origin.options.get("keep") for origin in origins]
        keep = self.keep
        if keep is None and None not in budgets:
            keep = max(float(budget) for budget in budgets if budget is not None)
        decompose = Decompose(
            keep=keep,
            unit=options.get("unit", "macs"),
            method=options["method"],
            compensate=options["compensate"],
            together=True,
            other=self.other,
            rest=False,
            seed=options.get("seed", 0),
        )
        samples = random_inputs(source.parent.model.proto().graph) if self.verify else None
        verify = (samples, self.verify) if samples is not None and self.verify else None
        model = decompose(source.parent, source.profile, classes, verify=verify).model
        return model, {**decompose.options(), "strategy": "trunk"}

    def _branches(self, modules: Sequence[Model]) -> Model:
        """Every module's graph under a prefix of its own, on one input."""
        if self.other or self.keep is not None:
            raise GraftError(
                "trunk-only",
                "--other and --keep are for a trunk, and the modules are joined as branches",
                "make the parent available with --parent and --profile, or leave them out",
            )
        first = modules[0]
        card = first.require_card()
        result = first.copy()
        graph = gs.Graph(inputs=list(result.graph.inputs), opset=first.opset, name="composite")
        graph.import_domains = result.graph.import_domains
        columns: list[gs.Tensor] = []
        classes: list[str] = []
        for number, module in enumerate(modules):
            branch = _Branch(module.copy(), f"m{number}", graph)
            names = [name for name in module.require_card().labels if name != OTHER]
            columns += [branch.log_odds(name) for name in names]
            classes += names
        _finish(graph, columns, card, first)
        result.graph = graph
        result.node_metadata = {}
        result.card = card.replace(labels=tuple(classes), display_names=None, expect=None)
        result.tidy()
        result.refresh_shapes()
        return result


class _Branch:
    """One module inside a composite.

    Args:
        module: a copy that may be changed.
        prefix: for the names of its nodes and tensors.
        graph: the composite's, which takes the nodes.
    """

    def __init__(self, module: Model, prefix: str, graph: gs.Graph) -> None:
        self.card = module.require_card()
        self.build = Builder(graph, module.opset, f"{prefix}/graft")
        inputs = {old.name: new for old, new in zip(module.graph.inputs, graph.inputs, strict=True)}
        outputs = {tensor.name: tensor for tensor in module.graph.outputs}
        for node in module.graph.nodes:
            node.name = f"{prefix}/{node.name}"
            node.inputs = [inputs.get(t.name, t) if t.name else t for t in node.inputs]
        graph.nodes.extend(module.graph.nodes)
        for tensor in module.graph.tensors().values():
            if tensor.name not in inputs:
                tensor.name = f"{prefix}/{tensor.name}"
        self.dtype = outputs[self.card.output.name].dtype
        self._scores = self._logits(outputs[self.card.output.name], outputs.get(REST))
        self._columns = len(self.card.labels) + (REST in outputs)

    def _logits(self, scores: gs.Tensor, rest: gs.Tensor | None) -> gs.Tensor:
        """Logits of all columns, the rest as the last.

        The rest of probabilities is the logarithm of a share of all classes, their columns are shares
        among the module's own.
        """
        build = self.build
        if self.card.output.kind == "probabilities":
            logits = logits_behind(scores, len(scores.shape or ()) - 1, build)
            scores = build.node("LogSoftmax", "log_shares", [logits], axis=-1)
            if rest is not None:
                ones, tiny = (
                    build.constant(name, np.array(value, self.dtype))
                    for name, value in (("one", 1), ("tiny", TINY))
                )
                share = build.node("Sub", "share", [ones, build.node("Exp", "rest_share", [rest])])
                mass = build.node("Log", "mass", [build.node("Max", "mass_above_zero", [share, tiny])])
                scores = build.node("Add", "absolute", [scores, mass])
        return scores if rest is None else build.node("Concat", "with_rest", [scores, rest], axis=-1)

    def log_odds(self, name: str) -> gs.Tensor:
        """The column of ``name``: its logit minus the logsumexp of all else that the module knows."""
        index = self.card.class_index(name)
        own = self.build.pick(self._scores, [index], f"{name}/own")
        others = [column for column in range(self._columns) if column != index]
        if not others:
            return own
        rest = self.build.pick(self._scores, others, f"{name}/others")
        if len(others) > 1:
            rest = self.build.logsumexp(rest, f"{name}/rest")
        return self.build.node("Sub", f"{name}/log_odds", [own, rest])


def _finish(graph: gs.Graph, columns: list[gs.Tensor], card: Card, first: Model) -> None:
    """Join the columns into the output, of the kind of the modules."""
    like = next(t for t in first.graph.outputs if t.name == card.output.name)
    name, shape = card.output.name, [*list(like.shape or [None, None])[:-1], len(columns)]
    build = Builder(graph, first.opset, "graft")
    output = build.node("Concat", "columns", columns, axis=-1)
    if card.output.kind == "probabilities":
        output = build.node("Softmax", "softmax", [output], axis=-1)
    output.name, output.dtype, output.shape = name, like.dtype, shape
    graph.outputs = [output]


def _check_fit(modules: Sequence[Model], origins: Sequence[Origin]) -> None:
    if not modules:
        raise GraftError("nothing-to-join", "no modules were named", "name modules or a DIR of them")
    seen: set[str] = set()
    for origin in origins:
        for name in origin.classes:
            if name in seen:
                raise GraftError(
                    "class-twice", f"two modules are for class '{name}'", "leave one of them out"
                )
            seen.add(name)
    first = modules[0].require_card()
    for module in modules[1:]:
        card = module.require_card()
        if (card.inputs, card.output) != (first.inputs, first.output) or (module.opset != modules[0].opset):
            raise GraftError(
                "modules-differ",
                f"the modules of {', '.join(first.labels[:1])} and {', '.join(card.labels[:1])} take "
                "different inputs, or put out scores of different kinds",
                "join modules whose cards and opsets agree",
            )
