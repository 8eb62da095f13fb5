"""Join modules into one classifier: a trunk for each parent that is at hand, branches side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from graft.passes.compare.calibrate import Calibrate
from graft.passes.compare.joint_head import READ, JointHead, JointReport
from graft.passes.compare.reject import (
    FALSE_ALARMS,
    Reject,
    RejectReport,
    rejection_features,
    stored_distances,
)
from graft.passes.compare.reject import READ as FAR
from graft.passes.compare.score import (
    CALIBRATED,
    JOINT,
    LOGITS,
    ODDS,
    SCORES,
    TYPICALITY,
    VOTE,
    WITH_DATA,
    Score,
    elect,
)
from graft.passes.compensate.fold import LADDER
from graft.passes.decompose import Decompose
from graft.passes.identify import DEFAULT, MEASURED
from graft.passes.join.compatibility import (
    check_classes,
    check_kinds,
    class_summary,
    display_name,
    parents_macs,
)
from graft.passes.join.merge import INPUTS, Merge, bring_together, input_of
from graft.passes.select.continuous import Continuous
from graft.passes.select.latency_budget import Stopwatch
from graft.passes.trunk import Source, _score_macs
from graft.rewriter.card.card import OTHER, Card
from graft.rewriter.data.dataset import Split
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.record.mahalanobis import KEY, Typicality
from graft.rewriter.record.provenance import Asked, Origin, ParentRecord, origin_of, stamp, terms, versions
from graft.rewriter.run.equivalence import random_inputs
from graft.rewriter.run.session import Device

STRATEGIES = ("auto", "trunk", "branches")


@dataclass(frozen=True)
class ComposeReport:
    """What was joined, and how.

    Attributes:
        model: the composite, with its card.
        strategy: ``trunk`` where every parent has one network, ``branches`` where every module runs as
            it is, ``mixed``.
        reason: why.
        scores: how classes of different networks are compared; ``""`` where there is one network.
        adapted: for each network what is done to the raw input.
        declined: what could not be done as asked, and why.
        joint: how good the joint head is, where one was fitted.
        reject: what the column ``(other)`` rejects, where it is for what is far from all classes.
    """

    model: Model
    strategy: str
    reason: str
    scores: str = ""
    adapted: tuple[tuple[str, ...], ...] = ()
    declined: tuple[str, ...] = ()
    joint: JointReport | None = None
    reject: RejectReport | None = None


@dataclass(frozen=True)
class _Seeing:
    """What tells that a sample is far from all classes.

    Attributes:
        data: features that distances are fitted to; otherwise distances that modules carry.
    """

    data: bool

    def read(self, merged: Merge, parts: Sequence[_Part]) -> list[gs.Tensor]:
        """Columns for :class:`graft.passes.compare.reject.Reject`."""
        if not self.data:
            return stored_distances(merged.branches, [part.classes for part in parts], merged.build)
        first = parts[0].card.inputs[0]
        image = first if first.kind == "image" and first.size else None
        return rejection_features(merged.branches, image, merged.inputs[0], merged.build)


@dataclass
class _Part:
    """One network of the composite: a trunk, or a module as it is.

    Attributes:
        model: the network.
        trunk: whether it is all that runs of a parent that is at hand.
        members: numbers of the modules that it is for.
        most: multiply-accumulates of the parent that a trunk must not exceed.
        declined: what could not be done as for the modules, and why.
    """

    model: Model
    trunk: bool
    members: Sequence[int]
    most: int | None = None
    declined: tuple[str, ...] = ()

    @property
    def card(self) -> Card:
        return self.model.require_card()

    def rename(self, names: Mapping[str, str]) -> None:
        """Call classes otherwise."""
        if not names:
            return
        labels = tuple(names.get(name, name) for name in self.card.labels)
        self.model.card = self.card.replace(labels=labels)
        known = Typicality.of(self.model)
        if known:
            replace(known, classes=tuple(names.get(name, name) for name in known.classes)).attach(self.model)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(name for name in self.card.labels if name != OTHER)


@dataclass(frozen=True)
class Compose:
    """Join modules of one or several parents.

    * trunk: modules of one parent are planned anew as one set of classes, with the method and
      compensation of the first and the largest budget among them: one network, one head, which never
      costs more than the parent;
    * branches: every module runs beside the others.

    Networks that stand side by side get comparable scores (:class:`graft.passes.compare.score.Score`), one
    input (:class:`graft.passes.join.adapt.Adapt`), one opset, and share what is equal among them.

    Attributes:
        strategy: ``auto`` takes a trunk for each parent that is at hand, branches for the rest.
        keep: budget of the trunks; ``None``: the largest among the modules of the parent.
        other: a column ``(other)``: in a single trunk for the other classes of its parent; where it has no
            others, and for several networks, for what is far from all classes
            (:class:`graft.passes.compare.reject.Reject`).
        false_alarms: share of samples of known classes that may be taken for far.
        scores: how networks are compared; ``None``: by ``odds`` where all are of one parent, else by
            ``joint`` with data and by ``typicality`` without.
        continuous: trunks are planned anew with samples of the other networks' classes as unconcerned
            examples (:class:`graft.passes.select.continuous.Continuous`).
        input: ``parent``: the input of the parents, which has to be the same; ``raw``: images as they
            are, adapted inside the graph; ``None``: ``parent`` for modules of one parent, ``raw`` for
            images of several.
        dtype: type of raw images: uint8 or float32.
        opset: operator set to write; ``None``: the highest among the parts.
        ir_version: as ``opset``.
        round_to: see :class:`graft.passes.select.budget.Budget`.
        verify: where to check the law on trunks, with random inputs; ``None``: no check.
        device: where trunks are refitted and a joint head is fitted; ``None``: the best there is.
        samples_per_class: a joint head is fitted to at most so many.
        seed: draws them.
    """

    strategy: str = "auto"
    keep: float | None = None
    other: bool = False
    false_alarms: float = FALSE_ALARMS
    scores: str | None = None
    continuous: bool = False
    input: str | None = None
    dtype: type[np.generic] = np.uint8
    opset: int | None = None
    ir_version: int | None = None
    round_to: int | None = None
    verify: Device | None = None
    device: Device | None = None
    samples_per_class: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.false_alarms < 1:
            raise GraftError(
                "false-alarms",
                f"{self.false_alarms:g} of the known samples cannot be taken for far",
                "name a share above 0 and below 1",
            )
        for name, value, choices in (
            ("strategy", self.strategy, STRATEGIES),
            ("scores", self.scores, (*SCORES, None)),
            ("input", self.input, (*INPUTS, None)),
        ):
            if value not in choices:
                known = ", ".join(choice for choice in choices if choice)
                raise GraftError(f"{name}-unknown", f"no {name} {value}", f"choose from {known}")

    def __call__(
        self,
        modules: Sequence[Model],
        sources: Mapping[str, Source],
        data: Split | None = None,
        rename: Sequence[Mapping[str, str]] = (),
    ) -> ComposeReport:
        """Join ``modules``.

        Args:
            modules: models that ``decompose`` wrote; the classes of the result come in their order.
            sources: graph hash of a parent to what a trunk needs of it.
            data: samples of all classes, as they are renamed, for a joint head.
            rename: for each module, what its classes are called in the result.

        Raises:
            GraftError: nothing to join, a class twice, modules that do not fit together, a trunk was
                asked for and its parent is not at hand, or a joint head and there is no data.
        """
        origins = [origin_of(module) for module in modules]
        rename = rename or [{}] * len(modules)
        check_classes(modules, origins, rename)
        parents = {origin.parents[0].graph_sha256: origin.parents[0] for origin in origins}
        self._check_kinds(modules, origins)
        raw = input_of(modules, self.input, len(parents) > 1)
        if self.continuous:
            sources = self._continued(origins, sources, data, rename)
        parts, reason = self._parts(modules, origins, sources)
        for part in parts:
            part.rename({old: new for number in part.members for old, new in rename[number].items()})
        networks = [part.model for part in parts]
        if raw:
            raw = input_of(networks, "raw", True)
        reports = bring_together(networks, raw, self.dtype, self.opset, self.ir_version)
        declined = [reason for part in parts for reason in part.declined]
        declined += [reason for report in reports for reason in report.declined]
        classes = [
            names.get(name, name)
            for origin, names in zip(origins, rename, strict=True)
            for name in origin.classes
        ]
        scores, joint, reject = "", None, None
        if len(parts) == 1 and self.scores:
            declined.append(f"there is one network: nothing is compared by {self.scores}")
        rejects = self.other and not (len(parts) == 1 and OTHER in parts[0].card.labels)
        if len(parts) == 1 and not rejects:
            model = parts[0].model
            model.metadata.pop(KEY, None)
        else:
            scores = "" if len(parts) == 1 else self._scores(parts, len(parents), data)
            if scores in (TYPICALITY, *WITH_DATA) and (data or not rejects):
                declined += _without_costly_distances(parts)
            seeing = self._seeing(parts, data) if rejects else None
            model, left_out = _join(parts, classes, Score(scores or LOGITS), seeing)
            declined += left_out
            if scores in WITH_DATA and data:
                owners = {name: number for number, part in enumerate(parts) for name in part.classes}
                joint = self._fit(model, scores, data, modules, [owners[name] for name in classes])
            if rejects:
                samples = self._samples(model, data) if data else None
                room = parents_macs(modules) - cost_of(model).macs
                reject = Reject(self.device or Device(), self.false_alarms, room, self.seed)(model, samples)
        strategy = "mixed"
        if len({part.trunk for part in parts}) == 1:
            strategy = "trunk" if parts[0].trunk else "branches"
        alone = origin_of(parts[0].model) if len(parts) == 1 else None
        renamed = {
            names.get(name, name): origin.renamed.get(name, name)
            for origin, names in zip(origins, rename, strict=True)
            for name in origin.classes
        }
        options: dict[str, object] = {"strategy": strategy, "scores": scores}
        self._stamp(model, origins, tuple(parents.values()), options, alone, renamed)
        adapted = tuple(report.steps for report in reports)
        return ComposeReport(model, strategy, reason, scores, adapted, tuple(declined), joint, reject)

    def _seeing(self, parts: Sequence[_Part], data: Split | None) -> _Seeing:
        """What tells that a sample is far from all classes."""
        if parts[0].card.output.steps:
            raise GraftError(
                "other-steps",
                "--other of several networks is for one label a sample, and these give one a time step",
                "leave it out",
            )
        return _Seeing(data is not None)

    def _samples(self, model: Model, data: Split) -> Samples:
        return Samples.match(data, model.require_card(), per_class=self.samples_per_class, seed=self.seed)

    def _scores(self, parts: Sequence[_Part], parents: int, data: Split | None) -> str:
        """How networks side by side are compared."""
        steps = parts[0].card.output.steps
        several = JOINT if data and not steps else TYPICALITY
        scores = self.scores or (ODDS if parents == 1 else several)
        if scores in WITH_DATA and (data is None or steps):
            raise GraftError(
                "scores-data",
                f"the scores {scores} are fitted to samples with one label each"
                + (", and the modules give one a time step" if steps else ""),
                "choose other scores" if steps else "name data with a training split, or choose other scores",
            )
        return scores

    def _fit(
        self, model: Model, scores: str, data: Split, modules: Sequence[Model], branches: Sequence[int]
    ) -> JointReport:
        """Scores fitted to samples; a joint head may take what the modules lack of their parents' MACs."""
        samples, device = self._samples(model, data), self.device or Device()
        if scores == CALIBRATED:
            return Calibrate(device, branches, self.seed)(model, samples)
        room = parents_macs(modules) - cost_of(model).macs
        return JointHead(device, max(0, room), self.seed)(model, samples)

    # ------------------------------------------------------------ what runs

    def _parts(
        self, modules: Sequence[Model], origins: Sequence[Origin], sources: Mapping[str, Source]
    ) -> tuple[list[_Part], str]:
        """The networks of the composite, in the order of the parents, and why these."""
        members: dict[str, list[int]] = {}
        for number, origin in enumerate(origins):
            patched = f" (patched, {number})" if origin.options.get("patches") else ""
            members.setdefault(f"{origin.parents[0].graph_sha256}{patched}", []).append(number)
        parts: list[_Part] = []
        without: list[str] = []
        for parent, numbers in members.items():
            mine = [modules[number] for number in numbers]
            source = None if self.strategy == "branches" else sources.get(parent)
            name = display_name(origins[numbers[0]].parents[0], parent)
            if origins[numbers[0]].options.get("patches"):
                name = f"{name} as it was patched"
            if source is None:
                without.append(name)
                parts += [_Part(modules[number].copy(), False, [number]) for number in numbers]
                continue
            most = source.parent.cost.macs
            as_it_is = len(mine) == 1 and len(members) > 1 and self.strategy == "auto" and self.keep is None
            if as_it_is and not self.continuous and _macs_with_distances(mine[0]) <= most:
                parts.append(_Part(mine[0].copy(), True, numbers, most))
            else:
                own = [origins[number] for number in numbers]
                trunk, declined = self._trunk(own, source, len(members) > 1)
                parts.append(_Part(trunk, True, numbers, most, declined))
                parts[-1].rename({old: new for origin in own for new, old in origin.renamed.items()})
        self._check_possible(without, parts)
        if self.strategy != "auto":
            return parts, "asked for"
        if len(members) == 1:
            return parts, "the parent is not at hand" if without else "all modules are of one parent"
        if without:
            return parts, f"not at hand: {', '.join(without)}"
        return parts, f"one network for each of {len(members)} parents"

    def _continued(
        self,
        origins: Sequence[Origin],
        sources: Mapping[str, Source],
        data: Split | None,
        rename: Sequence[Mapping[str, str]],
    ) -> dict[str, Source]:
        """The parents at hand, with profiles that know of the other networks' classes."""
        parents = {origin.parents[0].graph_sha256 for origin in origins}
        if not parents <= sources.keys() or data is None or len(parents) < 2 or self.strategy == "branches":
            raise GraftError(
                "continuous-data",
                "continuous learning takes several parents, all at hand, and data of all classes",
                "name --parent, --profile and --data, and no --strategy branches; or leave it out",
            )
        found = {}
        for sha256, source in sources.items():
            others = {
                names.get(name, name)
                for origin, names in zip(origins, rename, strict=True)
                if origin.parents[0].graph_sha256 != sha256
                for name in origin.classes
            }
            learn = Continuous(self.device or Device())
            profile = learn(source.parent, source.profile, data, others)
            found[sha256] = replace(source, profile=profile)
        return found

    def _check_possible(self, without: Sequence[str], parts: Sequence[_Part]) -> None:
        if without and self.strategy == "trunk":
            raise GraftError(
                "parent-missing",
                f"a trunk needs the parent and its profile, and those of {', '.join(without)} are not "
                "beside the modules",
                "name them with --parent and --profile, or use --strategy branches",
            )
        if self.keep is not None and all(not part.trunk for part in parts):
            raise GraftError(
                "trunk-only",
                "--keep is for a trunk, and the modules are joined as branches",
                "make the parent available with --parent and --profile, or leave it out",
            )

    def _trunk(
        self, origins: Sequence[Origin], source: Source, beside: bool
    ) -> tuple[Model, tuple[str, ...]]:
        """One network for the classes of ``origins``, and what could not be done as for them.

        ``beside`` others it also says what is left over.
        """
        classes = [origin.renamed.get(name, name) for origin in origins for name in origin.classes]
        asked = [Asked.of(origin) for origin in origins]
        budgets = [each.keep for each in asked]
        keep = self.keep
        if keep is None and None not in budgets:
            keep = max(budget for budget in budgets if budget is not None)
        most = 1.0 - (self._comparing(source) if beside else 0.0)
        by_macs = asked[0].unit == "macs"
        method, compensate = asked[0].method, asked[0].compensate
        declined: list[str] = []
        if source.data is None:
            name = display_name(origins[0].parents[0], source.parent.sha256)
            if method == MEASURED:
                method = DEFAULT
                declined.append(f"the trunk of {name} is planned by {DEFAULT}: {MEASURED} takes --data")
            if compensate == LADDER[-1]:
                compensate = LADDER[-2]
                declined.append(f"the trunk of {name} is compensated by {compensate}: refit takes --data")
        decompose = Decompose(
            keep=min(keep or 1.0, most) if beside and by_macs else keep,
            unit=asked[0].unit,
            method=method,
            compensate=compensate,
            together=beside or len(classes) > 1,
            other=self.other and not beside and len(classes) < len(source.parent.record.labels),
            rest=beside,
            seed=asked[0].seed,
            round_to=asked[0].round_to if self.round_to is None else self.round_to,
            mirror=asked[0].mirror,
            stopwatch=Stopwatch(self.verify),
        )
        samples = random_inputs(source.parent.model.proto().graph) if self.verify else None
        verify = (samples, self.verify) if samples is not None and self.verify else None
        given: dict[str, Any] = {"verify": verify, "data": source.data, "device": self.device}
        report = decompose(source.parent, source.profile, classes, **given)
        if report.cost.macs > most * source.parent.cost.macs:  # planned by another unit
            decompose = replace(decompose, keep=most, unit="macs")
            report = decompose(source.parent, source.profile, classes, **given)
        return report.model, tuple(declined)

    def _comparing(self, source: Source) -> float:
        """What comparing scores adds to a trunk, as a share of the parent's multiply-accumulates.

        0 where nothing is added, and where so small a parent could not give it up.
        """
        if (self.scores or "typicality") != "typicality":
            return 0.0
        share = _score_macs(source) / max(1, source.parent.cost.macs)
        return share if share < 1 else 0.0

    # ------------------------------------------------------------ what goes in

    @staticmethod
    def _check_kinds(modules: Sequence[Model], origins: Sequence[Origin]) -> None:
        """Raise unless samples for one module can be samples for all."""
        first = modules[0].require_card()
        for module, origin in zip(modules[1:], origins[1:], strict=True):
            check_kinds(first, module.require_card(), same_parent=origin.parents == origins[0].parents)

    def _stamp(
        self,
        model: Model,
        origins: Sequence[Origin],
        parents: tuple[ParentRecord, ...],
        options: dict[str, object],
        alone: Origin | None,
        renamed: Mapping[str, str],
    ) -> None:
        """Card and origin of the composite; a single network was planned as ``alone`` says."""
        card = model.require_card()
        model.card = card.replace(name=None if len(parents) > 1 else card.name, **terms(parents))
        asked = {name: getattr(self, name) for name in ("keep", "other", "round_to")}
        record = Origin(
            parents=parents,
            classes=tuple(name for name in model.card.labels if name != OTHER),
            options={**(alone.options if alone else asked), **options},
            plan=alone.plan if alone else {},
            sizes=alone.sizes if alone else {},
            renamed={new: old for new, old in renamed.items() if new != old},
            profile_sha256=origins[0].profile_sha256,
            versions=versions(),
        )
        stamp(model, "composite", record)


# ------------------------------------------------------------------------------- joining


def _join(
    parts: Sequence[_Part], classes: Sequence[str], score: Score, seeing: _Seeing | None = None
) -> tuple[Model, list[str]]:
    """All parts in one graph on one input, with comparable columns in the order of ``classes``.

    For scores that are fitted it gets a second output, what these read, and one for ``seeing`` what is far.
    """
    merged = Merge([part.model for part in parts], score.kind == JOINT or seeing is not None)
    build = merged.build
    columns: list[gs.Tensor] = []
    reads: list[gs.Tensor] = []
    votes: list[gs.Tensor] = []
    dtypes: list[np.dtype[Any]] = []
    names: list[str] = []
    declined: list[str] = []
    for part, branch in zip(parts, merged.branches, strict=True):
        found, reason = score(branch, part.classes)
        columns.append(found)
        if score.kind == JOINT:
            reads.append(branch.reads())
        elif score.kind == VOTE:
            votes.append(branch.votes(part.classes))
        dtypes.append(np.dtype(branch.dtype))
        names += part.classes
        declined += [reason] if reason else []
    dtype = np.result_type(*dtypes)
    for number, found in enumerate(columns):
        if dtypes[number] != dtype:
            to = int(onnx.helper.np_dtype_to_tensor_dtype(dtype))
            columns[number] = build.node("Cast", f"typed_{number}", [found], to=to)
            if votes:
                votes[number] = build.node("Cast", f"typed_votes_{number}", [votes[number]], to=to)
    output: gs.Variable = build.node("Concat", "columns", columns, axis=-1)
    if votes:
        output = elect(build, output, build.node("Concat", "votes", votes, axis=-1), dtype)
    if names != list(classes):
        output = build.pick(output, [names.index(name) for name in classes], "order")
    if score.kind == CALIBRATED:
        reads.append(output)
    kind = "probabilities" if all(part.card.output.kind == "probabilities" for part in parts) else "logits"
    further = {READ: reads} if reads else {}
    if seeing:
        further[FAR] = seeing.read(merged, parts)
    return merged.finish(output, classes, kind, dtype, further), declined


def _macs_with_distances(module: Model) -> int:
    """Multiply-accumulates of a module and of comparing its scores by typicality."""
    typicality = Typicality.of(module)
    return cost_of(module).macs + (typicality.directions.size if typicality else 0)


def _without_costly_distances(parts: Sequence[_Part]) -> list[str]:
    """Let networks that would cost more than their parent do without typicality; which, and why."""
    declined = []
    for part in parts:
        known = part.most is not None and KEY in part.model.metadata
        if known and _macs_with_distances(part.model) > (part.most or 0):
            del part.model.metadata[KEY]
            name = class_summary(part.card)
            declined.append(f"{name}: compared by softmax: typicality would cost more than the whole parent")
    return declined
