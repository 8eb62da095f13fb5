"""``graft compose``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from graft.passes.base import Context
from graft.passes.compare import comparison_called
from graft.passes.compare import names as comparison_names
from graft.passes.compare.reject import FALSE_POSITIVE_RATE
from graft.passes.compose import STRATEGIES, Compose, ComposeReport, Modules
from graft.passes.join.merge import INPUTS
from graft.passes.parent import Parent
from graft.passes.trunk import Source
from graft.rewriter.card.card import OTHER, Card
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.files import refuse_overwrite
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.measure.evaluation import score
from graft.rewriter.record.folder import PARENT, PROFILE, load_module, module_files, parents_beside
from graft.rewriter.record.profile import Profile
from graft.rewriter.record.provenance import origin_of
from graft.rewriter.run.equivalence import check
from graft.rewriter.run.session import Device
from graft.tools import console as show
from graft.tools import options
from graft.tools.command import Argument, Option, Options, one_of, takes_options
from graft.tools.naming import Naming

TRAIN = "train"
JOIN = "What to join"
INPUT = "Input"


class ModuleOptions(Options):
    """Modules, and the way they are joined."""

    modules: Annotated[
        tuple[options.PrefixedPath, ...],
        Argument(
            "MODULES...", "Files or folders that 'graft decompose' wrote; PREFIX=MODULE prefixes classes."
        ),
    ]
    rename: Annotated[
        tuple[str, ...],
        Option("Call class A, of the last module that has one, B. Repeatable.", JOIN, metavar="A=B"),
    ] = ()
    strategy: Annotated[
        str,
        one_of(STRATEGIES),
        Option(
            "trunk: one network for all modules of a parent; branches: side by side.",
            JOIN,
            show_default=True,
        ),
    ] = "auto"
    keep: Annotated[
        options.Share | None,
        Option("Share of the cost that a trunk keeps. Default: that of the largest of its modules.", JOIN),
    ] = None
    round_to: Annotated[
        int | None,
        Field(ge=1),
        Option(
            "Prune channels in multiples of N. Default: what their operators run fast with.",
            JOIN,
            metavar="N",
        ),
    ] = None
    continuous: Annotated[
        bool,
        Option("Plan trunks with samples of the classes of other networks as further examples.", JOIN),
    ] = False
    parent: Annotated[
        tuple[Path, ...], Option("Parent of a trunk; repeatable. Default: beside the modules.", JOIN)
    ] = ()
    profile: Annotated[
        tuple[Path, ...], Option("Profile of a parent; repeatable. Default: beside the modules.", JOIN)
    ] = ()


class CompareOptions(Options):
    """Comparison of the scores of different networks."""

    scores: Annotated[
        str | None,
        one_of(comparison_names()),
        Option(
            "Comparison of networks side by side. Default: odds for one parent, else joint with --data, "
            "typicality without.",
            options.SCORES,
        ),
    ] = None
    other: Annotated[
        bool,
        Option(
            "Add the column (other): for the other classes of the parent in a single trunk, else for "
            "out-of-distribution samples.",
            options.SCORES,
        ),
    ] = False
    false_positive_rate: Annotated[
        options.Share,
        Option(
            "Share of in-distribution samples that may be rejected as (other).",
            options.SCORES,
            hidden=("--false-alarms",),
            show_default=True,
        ),
    ] = FALSE_POSITIVE_RATE


class InputOptions(Options):
    """The input of the composite."""

    kind: Annotated[
        str | None,
        one_of(INPUTS),
        Option(
            "raw: images 0..255, prepared in the graph; parent: as the parents take them. Default: parent "
            "for one parent, else raw.",
            INPUT,
            flags=("--input",),
        ),
    ] = Field(default=None, alias="input")
    input_type: Annotated[
        str, one_of(("uint8", "float32")), Option("Type of raw images.", INPUT, show_default=True)
    ] = "uint8"


class ComposeRun(options.SeededRunOptions):
    """Providers, threads, seed and checks."""

    no_verify: Annotated[bool, Option("Do not compare a trunk with its masked parent.", options.RUN)] = False


class ComposeOutput(options.VersionedOutputOptions):
    """Output of ``graft compose``."""

    output: Annotated[Path, Option("Model to write.", options.OUTPUT, ("-o", "--output"))]


@takes_options(epilog="Example: graft compose modules/cat.onnx modules/dog.onnx -o pets.onnx")
def command(
    join: ModuleOptions,
    compare: CompareOptions,
    entry: InputOptions,
    data: options.SampledDataOptions,
    run: ComposeRun,
    output: ComposeOutput,
) -> None:
    """Join MODULES, files or folders that 'graft decompose' wrote, into one classifier.

    Modules of one parent are planned anew as one set and share one trunk: together they cost no more
    than the parent. Networks of several parents run side by side on one raw input, with scores that can
    be compared. With --data the scores of several parents come from a joint head, fitted to the training
    split, and the result is measured on the test split. PREFIX=MODULE calls its classes PREFIX:NAME.
    """
    refuse_overwrite(output.output, output.force)
    named = [
        options.Prefixed(file, each.prefix) for each in join.modules for file in module_files([each.path])
    ]
    files = [each.path for each in named]
    loaded = [load_module(file) for file in files]
    device = run.device()
    compose = _compose(join, compare, entry, data, run, output)
    naming = Naming.of(loaded, named, join.rename)
    sources = {} if join.strategy == "branches" else _sources(loaded, files, join.parent, join.profile)
    owners = [origin_of(module).parents[0].graph_sha256 for module in loaded]
    for sha256, source in sources.items():
        prefixes = {each.prefix for each, owner in zip(named, owners, strict=True) if owner == sha256}
        samples = _training(data.data, prefixes, source.parent.card, data.ignore_label, len(set(owners)) == 1)
        sources[sha256] = replace(source, samples=samples)
    common, reason = _common(data.data, data.ignore_label, naming)
    context = Context(data=common, device=device, seed=run.seed)
    report = compose(Modules(loaded, sources, naming.modules), context)
    fitted = bool(report.scores) and comparison_called(report.scores).needs_data
    several = len(set(owners)) > 1 and not fitted
    check(report.model)
    result = {
        "output": output.output,
        **_described(report),
        "declined": [*map(str, report.declined), *([reason] if reason and several else [])],
        "modules": [
            {"file": file, "classes": list(origin_of(m).classes)}
            for file, m in zip(files, loaded, strict=True)
        ],
        "providers": list(device.open(report.model).providers),
    }
    if data.data:
        result.update(_measured(report.model, data.data, data.test_split, data.ignore_label, naming, device))
    with output.target(output.output) as path:
        report.model.save(path, output.force)
        result.update(bytes=path.stat().st_size, **output.dry())
    show.declined(result["declined"])
    show.emit("compose", result, output.as_json, lambda: _show(result))


def _compose(
    join: ModuleOptions,
    compare: CompareOptions,
    entry: InputOptions,
    data: options.SampledDataOptions,
    run: ComposeRun,
    output: ComposeOutput,
) -> Compose:
    return Compose(
        strategy=join.strategy,
        keep=join.keep,
        other=compare.other,
        false_positive_rate=compare.false_positive_rate,
        scores=compare.scores,
        continuous=join.continuous,
        input=entry.kind,
        dtype=np.uint8 if entry.input_type == "uint8" else np.float32,
        opset=output.opset,
        ir_version=output.ir_version,
        round_to=join.round_to,
        verify=not run.no_verify,
        samples_per_class=data.samples_per_class,
    )


def _described(report: ComposeReport) -> dict[str, Any]:
    """Describe the composite, for ``--json``."""
    card, cost = report.model.require_card(), cost_of(report.model)
    return {
        "strategy": report.strategy,
        "strategy_reason": report.reason,
        "scores": report.scores,
        "classes": list(card.labels),
        "input": card.inputs[0].plain(),
        "adapted": [list(steps) for steps in report.adapted],
        "joint": report.joint.plain() if report.joint else None,
        "reject": report.reject.plain() if report.reject else None,
        "parents": [
            record.model_dump(mode="json", exclude={"labels"}) for record in origin_of(report.model).parents
        ],
        "macs": cost.macs,
        "parameters": cost.parameters,
    }


def _common(data: Sequence[options.Prefixed], ignore: str | None, naming: Naming) -> tuple[Split | None, str]:
    """The training samples of all data sets; or why scores cannot be fitted to them."""
    missing = [each for each in data if TRAIN not in Dataset.load(each.path).splits]
    if missing:
        return None, f"scores are not fitted to data: {missing[0]} has no training split"
    if not data:
        return None, ""
    try:
        part = naming.split(data, TRAIN, ignore)
    except GraftError as error:
        if error.code != "data-names":
            raise
        return None, f"scores are not fitted to data: {error}"
    return (part, "") if part.class_names else (None, "scores are not fitted to data without class names")


def _measured(
    model: Model,
    data: Sequence[options.Prefixed],
    split: str,
    ignore: str | None,
    naming: Naming,
    device: Device,
) -> dict[str, Any]:
    """Accuracy of the composite on the test samples of its classes."""
    card = model.require_card()
    chosen = None if OTHER in card.labels else card.labels
    samples = Samples.match(naming.split(data, split, ignore), card, chosen)
    found = score(model, samples, device).summary()
    keys = ("samples", "top1", "auroc", "fpr_at_95_recall")
    return {key: found[key] for key in keys if key in found}


def _training(
    data: Sequence[options.Prefixed], prefixes: set[str], card: Card, ignore: str | None, alone: bool
) -> Samples | None:
    """Samples to refit a trunk with: the training split of the first data set that is its parent's.

    Its prefix is one of the parent's modules, and it has classes of the parent; numbers without names are
    the parent's where it is ``alone``.
    """
    for each in data:
        dataset = Dataset.load(each.path)
        if TRAIN not in dataset.splits or each.prefix not in prefixes:
            continue
        part = dataset.split(TRAIN)
        if part.class_names is None and not alone:
            continue
        if part.class_names is not None and not set(part.class_names) & set(card.labels):
            continue
        bare = ignore.removeprefix(f"{each.prefix}:") if ignore and each.prefix else ignore
        return Samples.match(replace(part, ignore=bare), card)
    return None


def _sources(
    modules: Sequence[Model], files: Sequence[Path], parent: Sequence[Path], profile: Sequence[Path]
) -> dict[str, Source]:
    """The parents and profiles that were named, or lie beside the modules, if they are theirs."""
    wanted = {record.graph_sha256 for module in modules for record in origin_of(module).parents}
    beside = parents_beside(files)
    profiles = [Profile.load(path) for path in (*profile, *(folder / PROFILE for folder in beside))]
    found: dict[str, Source] = {}
    for path in (*parent, *(folder / PARENT for folder in beside)):
        model = Model.load(path)
        model.card = model.require_card(path)
        sha256 = model.graph_sha256()
        if sha256 not in wanted:
            if path in parent:
                raise GraftError(
                    "parent-of-another", f"{path} is not the parent of these modules", "name their parent"
                )
            continue
        mine = next((each for each in profiles if each.parent == sha256), None)
        if sha256 in found or mine is None:
            continue
        found[sha256] = Source(Parent(model), mine)
    for path, each in zip(profile, profiles, strict=False):
        if each.parent not in wanted:
            raise GraftError(
                "profile-of-another",
                f"the profile {path} was made from another model",
                "name the profile of their parent",
            )
    return found


def _show(result: dict[str, Any]) -> None:
    show.note(
        f"{result['output']}: {len(result['classes'])} classes as {result['strategy']} "
        f"({result['strategy_reason']}), {show.count(result['macs'])} MACs, "
        f"{show.count(result['parameters'])} parameters, ran on {', '.join(result['providers'])}"
    )
    if result["scores"]:
        show.note(f"scores compared by {result['scores']}")
    if result["joint"]:
        joint = result["joint"]
        used = "" if joint["used"] else "; it is not better than the scores without data, which are used"
        show.note(
            f"joint head of {joint['samples']} training samples: top-1 {show.percent(joint['top1'])} on "
            f"held-out folds, {show.percent(joint['before'])} without it{used}"
        )
    if result["reject"]:
        fitted = result["reject"]["samples"]
        source = f"fitted to {fitted} training samples" if fitted else "by statistics that modules carry"
        rate = show.percent(result["reject"]["false_positive_rate"])
        show.note(
            f"{OTHER} takes out-of-distribution samples, {source}; {rate} of the others may be rejected"
        )
    if result["adapted"]:
        entry = result["input"]
        show.note(f"input '{entry['name']}': {entry['color']} images {entry['size']}, 0..255")
    for reason in result["declined"]:
        show.note(f"note: {reason}")
    if len(result["parents"]) > 1:
        for record in result["parents"]:
            name = record["name"] or record["graph_sha256"][:8]
            show.note(f"  of {name} (licence: {record['license'] or 'not stated'})")
    if "top1" in result:
        show.note(f"top-1 {show.percent(result['top1'])} on {result['samples']} test samples")
        if "auroc" in result:
            show.note(show.rejection(result))
