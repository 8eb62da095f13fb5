"""``graft decompose``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import model_validator

from graft.passes.base import Context
from graft.passes.budget_search import BudgetSearch, BudgetSearchReport
from graft.passes.compose import Compose, Modules
from graft.passes.decompose import Decompose, DecomposeReport
from graft.passes.identify import default_method
from graft.passes.join.convert import Convert
from graft.passes.parent import Parent
from graft.passes.select.budget import dead_channels
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.cost import CostModel
from graft.rewriter.measure.evaluation import score
from graft.rewriter.record.folder import INDEX, PARENT, PROFILE, ModuleFolder, slugs
from graft.rewriter.record.profile import Profile
from graft.rewriter.run.equivalence import check
from graft.tools import console as show
from graft.tools import options, parents
from graft.tools.command import Option, takes_options

MAX_DROP = 0.5
"""Percentage points, where no budget is given."""


class ModuleOptions(options.ClassOptions):
    """A trained classifier, and the modules that are cut from it."""

    together: Annotated[
        bool, Option("One module for the set of classes, not one for each.", options.PRUNE)
    ] = False
    other: Annotated[bool, Option("Give the module of a set one more column, (other).", options.PRUNE)] = (
        False
    )
    no_rest: Annotated[bool, Option("Leave out the output 'rest' of the module of a set.", options.PRUNE)] = (
        False
    )


class DecomposeBudget(options.BudgetOptions):
    """Budget of every module: a share, an accuracy, or a plan."""

    max_drop: Annotated[
        options.Points | None,
        Option(
            "Instead of --keep: the smallest module that is at most so many percentage points worse, by "
            "cross-validation on the calibration set. Default: 0.5.",
            options.PRUNE,
        ),
    ] = None
    plan: Annotated[Path | None, Option("Instead of --keep: a plan from 'graft plan'.", options.PRUNE)] = None

    @model_validator(mode="after")
    def _one(self) -> DecomposeBudget:
        if sum(each is not None for each in (self.keep, self.max_drop, self.plan)) > 1:
            raise ValueError("give one of --keep, --max-drop and --plan")
        return self


class DecomposeRun(options.SeededRunOptions):
    """Providers, threads, seed and checks."""

    no_verify: Annotated[bool, Option("Do not compare each module with the masked parent.", options.RUN)] = (
        False
    )


class DecomposeOutput(options.VersionedOutputOptions):
    """Output of ``graft decompose``."""

    output: Annotated[Path, Option("Folder to write.", options.OUTPUT, ("-o", "--output"))]


@takes_options(
    epilog="Example: graft decompose resnet20.onnx --data cifar10.npz --classes cat,dog --together "
    "--keep 0.5 -o pets"
)
def command(
    subject: ModuleOptions,
    budget: DecomposeBudget,
    method: options.CompensateOptions,
    data: options.HeldOutOptions,
    run: DecomposeRun,
    output: DecomposeOutput,
) -> None:
    """Prune MODEL to a smaller module for each class: the part that the class needs.

    Writes a folder: a module CLASS.onnx for each class (or one for the set, with --together), their
    plans, the parent and its profile, and graft.json, which holds what --json prints.
    """
    ModuleFolder(output.output, output.force)  # refuses before the work
    device = run.device()
    parent = parents.load_parent(subject.model, subject.card)
    samples, fingerprint = data.samples(parent.card, run.seed)
    names = options.classes_with_samples(subject.classes, samples) or tuple(samples.counts())
    sets = [names] if subject.together else [(name,) for name in names]
    decompose = Decompose(
        names,
        budget.keep,
        budget.keep_by,
        method.method or default_method(parent.groups, samples=True),
        *(method.compensate, subject.together, subject.other, not subject.no_rest, budget.round_to),
        mirror=method.mirror,
        fixed_plan=_plan(budget.plan, parent) if budget.plan else None,
        verify=not run.no_verify,
    )
    observed = parents.profile_of(parent, names, method.profile, samples, fingerprint, device)
    if not output.as_json:
        show.note(f"parent: top-1 {show.percent(observed.top1)} on the {data.split} samples")
    context = Context(samples=samples, profile=observed, device=device, seed=run.seed)
    job = _Job(parent, context, decompose, Convert(output.opset, output.ir_version))
    reports, searches = _cut(job, budget, sets)
    result = _result(parent, reports, sets, observed)
    for entry, outcome in zip(result["modules"], searches, strict=False):
        entry.update(difference=outcome.difference, difference_standard_error=outcome.standard_error)
    result.update(_on_test(job, reports, names, data))
    result.update(_timed(result["modules"], reports, parent))
    result["providers"] = list(device.open(parent.model).providers)
    with output.target(output.output) as folder:
        written = _write(ModuleFolder(folder, output.force), job, observed, reports, result)
    for entry in written["modules"]:
        show.declined(entry["declined"], ", ".join(entry["classes"]))
    printed = {**written, "output": output.output, **output.dry()}
    show.emit("decompose", printed, output.as_json, lambda: _show(written, output.output))


def _cut(
    job: _Job, budget: DecomposeBudget, sets: Sequence[Sequence[str]]
) -> tuple[list[DecomposeReport], list[BudgetSearchReport]]:
    """Cut a module for each set; with ``--max-drop``, also what its search found."""
    reports, searches = [], []
    with show.progress("pruning", len(sets)) as step:
        for part in sets:
            decompose = replace(job.decompose, classes=part)
            if budget.keep is None and budget.plan is None:
                search = BudgetSearch(MAX_DROP if budget.max_drop is None else budget.max_drop, decompose)
                outcome = search(job.parent, job.context)
                decompose = replace(decompose, keep=outcome.keep)
                searches.append(outcome)
            reports.append(job.cut(decompose))
            step(1)
    return reports, searches


@dataclass(frozen=True)
class _Job:
    """Inputs that all cuts share."""

    parent: Parent
    context: Context
    decompose: Decompose
    convert: Convert

    def cut(self, decompose: Decompose) -> DecomposeReport:
        """Cut a module."""
        report = decompose(self.parent, self.context)
        self.convert(report.model, self.context)
        if decompose.verify:
            check(report.model)
            self.context.device.open(report.model)
        return report


def _plan(path: Path, parent: Parent) -> Plan:
    """Load a plan, which must be for ``parent``."""
    plan = Plan.load(path)
    if plan.parent != parent.sha256:
        raise GraftError(
            "plan-of-another",
            f"the plan {path} was made for another model",
            "plan this one with 'graft plan'",
        )
    plan.mask(parent.groups)  # says what does not fit
    return plan


def _result(
    parent: Parent,
    reports: Sequence[DecomposeReport],
    sets: Sequence[Sequence[str]],
    profile: Profile,
) -> dict[str, Any]:
    dead = dead_channels(parent.groups, profile)
    alive = CostModel(parent.groups).cost(~dead)
    names = slugs(["+".join(part) if len(part) <= 4 else f"{len(part)}-classes" for part in sets])
    modules = []
    for slug, part, report in zip(names, sets, reports, strict=True):
        kept, channels = report.plan.counts()
        modules.append(
            {
                "file": f"{slug}.onnx",
                "plan": f"plans/{slug}.json",
                "classes": list(part),
                "macs": report.cost.macs,
                "parameters": report.cost.parameters,
                "macs_ratio": report.cost.macs / max(1, parent.cost.macs),
                "parameters_ratio": report.cost.parameters / max(1, parent.cost.parameters),
                "channels_kept": kept,
                "channels": channels,
                "law_difference": report.difference,
                "declined": [str(declined) for declined in report.declined],
            }
        )
    return {
        "parent": {
            "file": PARENT.as_posix(),
            "macs": parent.cost.macs,
            "parameters": parent.cost.parameters,
            "dead_channels": int(dead.sum()),
            "parameters_without_dead_ratio": alive.parameters / max(1, parent.cost.parameters),
            "train_top1": profile.top1,
        },
        "modules": modules,
    }


def _timed(
    modules: Sequence[dict[str, Any]], reports: Sequence[DecomposeReport], parent: Parent
) -> dict[str, Any]:
    """What was measured for budgets of latency; the modules' own goes to ``modules``."""
    for entry, report in zip(modules, reports, strict=True):
        if report.timed:
            entry["latency_ms"], entry["latency_ratio"] = report.timed.milliseconds, report.timed.ratio
    tables = [
        {
            "milliseconds": table.milliseconds,
            "batch": table.batch,
            "providers": list(table.providers),
            "nodes": table.rows(),
        }
        for table in parent.latency_tables
    ]
    return {"latency_table": tables[0]} if tables else {}


def _on_test(
    job: _Job, reports: Sequence[DecomposeReport], names: Sequence[str], data: options.HeldOutOptions
) -> dict[str, Any]:
    """Accuracy of the parent, restricted to the classes, and of all modules joined as branches."""
    dataset, split, card = Dataset.load(data.data), data.test_split, job.parent.card
    if split not in dataset.splits and not (split == "test" and "val" in dataset.splits):
        return {}
    part = replace(dataset.split(split), ignore=data.ignore_label)
    samples = Samples.match(part, card, names)
    parent = score(job.parent.model, samples, job.context.device, names)
    top1 = parent.summary()["top1"]
    parents.warn_if_far_below(top1, job.parent.source)
    joined = Compose("branches")(Modules([report.model for report in reports]), Context()).model
    own = Samples.match(part, joined.require_card(), names, names=card.labels)
    composed = score(joined, own, job.context.device, names)
    return {
        "parent_top1": top1,
        "composed_top1": composed.summary()["top1"],
        "test_samples": len(samples),
    }


def _write(
    directory: ModuleFolder,
    job: _Job,
    profile: Profile,
    reports: Sequence[DecomposeReport],
    result: dict[str, Any],
) -> dict[str, Any]:
    """Write the folder; what its ``graft.json`` holds."""
    top1 = result.pop("parent_top1", None)
    if top1 is not None:
        result["parent"]["top1"] = top1
    with directory:
        for entry, report in zip(result["modules"], reports, strict=True):
            report.model.save(directory.file(entry["file"]), force=True)
            directory.file(entry["plan"]).write_text(report.plan.to_json(), encoding="utf-8")
            entry["bytes"] = directory.size(entry["file"])
        job.parent.source.save(directory.file(PARENT), force=True)
        profile.save(directory.file(PROFILE), force=True)
        return directory.index({"schema": "graft/decompose/1", **show.plain(result)})


def _show(result: dict[str, Any], output: Path) -> None:
    rows = [
        [
            show.classes(entry["classes"]),
            f"{entry['channels_kept']} of {entry['channels']}",
            f"{show.count(entry['macs'])} ({show.percent(entry['macs_ratio'], 0)})",
            f"{show.count(entry['parameters'])} ({show.percent(entry['parameters_ratio'], 0)})",
            entry["file"],
        ]
        for entry in result["modules"]
    ]
    ran = ", ".join(result["providers"])
    show.table(
        f"modules in {output}, ran on {ran}", ["classes", "channels", "MACs", "parameters", "file"], rows
    )
    for entry in result["modules"]:
        if "difference" in entry:
            show.note(
                f"{', '.join(entry['classes'])}: {entry['difference']:+.2f} percentage points on training "
                "samples left out by cross-validation (standard error "
                f"{entry['difference_standard_error']:.2f}; smaller ones are noise)"
            )
    dead = result["parent"]["dead_channels"]
    if dead:
        show.note(f"{dead} channels of the parent are zero for every sample: pruned first")
    if "composed_top1" in result:
        show.note(
            f"{result['test_samples']} test samples: parent {show.percent(result['parent'].get('top1'))}, "
            f"all modules joined {show.percent(result['composed_top1'])}"
        )
    show.note(f"next: graft compose {output} -o MODEL.onnx     (files listed in {output / INDEX})")
