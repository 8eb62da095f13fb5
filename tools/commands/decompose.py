"""``graft decompose``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from graft.passes.base import Context
from graft.passes.budget_search import BudgetSearch
from graft.passes.compensate.fold import LADDER
from graft.passes.compose import Compose, Modules
from graft.passes.decompose import Decompose, DecomposeReport
from graft.passes.identify import best
from graft.passes.join.convert import Convert
from graft.passes.parent import Parent
from graft.passes.select.budget import dead_channels
from graft.passes.select.latency_budget import Stopwatch
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.cost import CostModel
from graft.rewriter.measure.evaluation import score
from graft.rewriter.record.folder import INDEX, PARENT, PROFILE, ModuleFolder, slugs
from graft.rewriter.record.profile import Profile
from graft.rewriter.run.equivalence import check
from graft.rewriter.run.session import Device
from graft.tools import console as show
from graft.tools import options, parents
from graft.tools.commands.plan import keep_by_option, method_option

VERIFY_SAMPLES = 8


@click.command(
    epilog="Example: graft decompose resnet20.onnx --data cifar10.npz --classes cat,dog --together "
    "--keep 0.5 -o pets"
)
@click.argument("model", type=click.Path(path_type=Path))
@options.data()
@options.card
@options.classes
@click.option("--together", is_flag=True, help="One module for the set of classes, not one for each.")
@click.option("--other", is_flag=True, help="A set gets one more column, (other).")
@click.option("--no-rest", is_flag=True, help="A set does without the output 'rest'.")
@click.option("--keep", type=options.Share(), help="Share of the cost to keep: 0.5 or 50%.")
@keep_by_option
@options.round_to
@click.option(
    "--max-drop",
    type=click.FloatRange(0),
    help="Instead of --keep: the smallest module that loses at most so many points on held-back "
    "training samples. Default: 0.5.",
)
@method_option
@click.option(
    "--compensate",
    default=LADDER[-1],
    type=click.Choice(LADDER),
    show_default=True,
    help="How kept channels stand in for removed ones.",
)
@click.option(
    "--mirror",
    is_flag=True,
    help="Images count as in a mirror, too, where channels are chosen and layers refitted.",
)
@click.option("--profile", type=click.Path(path_type=Path), help="From 'graft profile'; saves that pass.")
@click.option("--plan", type=click.Path(path_type=Path), help="From 'graft plan': cut along it.")
@options.split
@options.test_split
@options.samples_per_class
@options.ignore_label
@options.seed
@options.versions
@click.option("--no-verify", is_flag=True, help="Do not compare each cut with its masked parent.")
@options.running
@options.writing("The folder to write.")
@options.common
def command(
    model: Path,
    data: Path,
    card: Path | None,
    classes: tuple[str, ...],
    together: bool,
    other: bool,
    no_rest: bool,
    keep: float | None,
    keep_by: str,
    round_to: int | None,
    max_drop: float | None,
    method: str | None,
    compensate: str,
    mirror: bool,
    profile: Path | None,
    plan: Path | None,
    split: str,
    ignore_label: str | None,
    test_split: str,
    samples_per_class: int | None,
    seed: int,
    opset: int | None,
    ir_version: int | None,
    no_verify: bool,
    device: Device,
    output: Path,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Cut the part of MODEL that each class needs out as a smaller ONNX model.

    Writes a folder: a module CLASS.onnx for each class (or one for the set, with --together), their
    plans, the parent and its profile, and graft.json, which says what --json prints.
    """
    if sum(option is not None for option in (keep, max_drop, plan)) > 1:
        raise click.UsageError("give one of --keep, --max-drop and --plan")
    directory = ModuleFolder(output, force)
    parent = parents.load_parent(model, card)
    labels = parent.card
    samples, fingerprint = options.samples_of(
        data, split, labels, None, samples_per_class, seed, ignore=ignore_label
    )
    names = options.classes_with_samples(classes, samples)
    names = names or tuple(samples.counts())
    sets = [names] if together else [(name,) for name in names]
    planned = _plan(plan, parent) if plan else None
    decompose = Decompose(
        keep,
        keep_by,
        method or best(parent.groups, samples=True),
        *(compensate, together, other, not no_rest, seed, round_to),
    )
    decompose = replace(decompose, mirror=mirror, stopwatch=Stopwatch(device))
    if dry_run:
        would = {"output": output, "dry_run": True, "modules": [{"classes": list(each)} for each in sets]}
        note = f"would write {len(sets)} modules to {output}"
        show.emit("decompose", would, as_json, lambda: show.note(note))
        return
    observed = parents.profile_of(parent, names, profile, samples, fingerprint, device)
    if not as_json:
        show.note(f"parent: top-1 {show.percent(observed.top1)} on the {split} samples")
    verify = None if no_verify else (_few(samples), device)
    job = _Job(parent, observed, samples, decompose, verify, device, Convert(opset, ir_version))
    search = None
    if keep is None and plan is None:
        search = BudgetSearch(0.5 if max_drop is None else max_drop, device)
    reports, found = [], []
    with show.progress("cutting", len(sets)) as step:
        for part in sets:
            if search:
                outcome = search(parent, samples, decompose, part)
                job = replace(job, decompose=replace(decompose, keep=outcome.keep))
                found.append(outcome)
            reports.append(job.cut(part, planned))
            step(1)
    result = _result(parent, reports, sets, observed)
    for entry, outcome in zip(result["modules"], found, strict=False):
        entry.update(drop=outcome.drop, drop_standard_error=outcome.standard_error)
    result.update(_on_test(job, reports, names, Dataset.load(data), test_split, ignore_label, device))
    result.update(_timed(result["modules"], reports, decompose.stopwatch))
    result["providers"] = list(device.open(parent.model).providers)
    written = _write(directory, job, reports, result)
    show.emit("decompose", {**written, "output": output}, as_json, lambda: _show(written, output))


@dataclass(frozen=True)
class _Job:
    """What every cut needs."""

    parent: Parent
    profile: Profile
    samples: Samples
    decompose: Decompose
    verify: tuple[dict[str, np.ndarray], Device] | None
    device: Device
    convert: Convert

    def cut(self, classes: Sequence[str], plan: Plan | None) -> DecomposeReport:
        """The module for ``classes``."""
        report = self.decompose(
            self.parent, self.profile, classes, plan, self.verify, self.samples, self.device
        )
        self.convert(report.model, Context())
        if self.verify:
            check(report.model)
            self.device.open(report.model)
        return report


def _plan(path: Path, parent: Parent) -> Plan:
    """The plan at ``path``, which must be for ``parent``."""
    plan = Plan.load(path)
    if plan.parent != parent.sha256:
        raise GraftError(
            "plan-of-another",
            f"the plan {path} was made for another model",
            "plan this one with 'graft plan'",
        )
    plan.mask(parent.groups)  # says what does not fit
    return plan


def _few(samples: Samples) -> dict[str, np.ndarray]:
    return next(samples.take(np.arange(min(VERIFY_SAMPLES, len(samples)))).batches(VERIFY_SAMPLES))[0]


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
                "declined": list(report.compensated.declined),
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
    modules: Sequence[dict[str, Any]], reports: Sequence[DecomposeReport], stopwatch: Stopwatch
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
        for table in stopwatch.tables
    ]
    return {"latency_table": tables[0]} if tables else {}


def _on_test(
    job: _Job,
    reports: Sequence[DecomposeReport],
    names: Sequence[str],
    dataset: Dataset,
    split: str,
    ignore: str | None,
    device: Device,
) -> dict[str, Any]:
    """Accuracy of the parent, restricted to the classes, and of all modules joined as branches."""
    if split not in dataset.splits and not (split == "test" and "val" in dataset.splits):
        return {}
    card = job.parent.card
    data = replace(dataset.split(split), ignore=ignore)
    samples = Samples.match(data, card, names)
    parent = score(job.parent.model, samples, device, names)
    parents.warn_if_far_below(parent.summary()["top1"], job.parent.source)
    joined = Compose("branches")(Modules([report.model for report in reports]), Context()).model
    own = Samples.match(data, joined.require_card(), names, names=card.labels)
    composed = score(joined, own, device, names)
    top1 = parent.summary()["top1"]
    return {
        "parent_top1": top1,
        "composed_top1": composed.summary()["top1"],
        "test_samples": len(samples),
    }


def _write(
    directory: ModuleFolder, job: _Job, reports: Sequence[DecomposeReport], result: dict[str, Any]
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
        job.profile.save(directory.file(PROFILE), force=True)
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
        if "drop" in entry:
            show.note(
                f"{', '.join(entry['classes'])}: lost {entry['drop']:+.2f} points on held-back training "
                f"samples (standard error {entry['drop_standard_error']:.2f}; less cannot be told apart)"
            )
    dead = result["parent"]["dead_channels"]
    if dead:
        show.note(f"{dead} channels of the parent are zero for every sample: the first to fall")
    if "composed_top1" in result:
        show.note(
            f"{result['test_samples']} test samples: parent {show.percent(result['parent'].get('top1'))}, "
            f"all modules joined {show.percent(result['composed_top1'])}"
        )
    show.note(f"next: graft compose {output} -o MODEL.onnx     (files listed in {output / INDEX})")
