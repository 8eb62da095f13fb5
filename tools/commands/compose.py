"""``graft compose``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from graft.passes.base import Context
from graft.passes.compare import comparison_called
from graft.passes.compare import names as comparison_names
from graft.passes.compare.reject import FALSE_POSITIVE_RATE
from graft.passes.compose import STRATEGIES, Compose, Modules
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
from graft.tools.naming import Naming

TRAIN = "train"


@click.command(epilog="Example: graft compose modules/cat.onnx modules/dog.onnx -o pets.onnx")
@click.argument("modules", nargs=-1, required=True, type=options.PrefixedPath())
@options.data(required=False, multiple=True)
@click.option(
    "--strategy",
    default="auto",
    type=click.Choice(STRATEGIES),
    show_default=True,
    help="trunk: one network for the modules of a parent; branches: side by side.",
)
@click.option("--keep", type=options.Share(), help="Budget of a trunk. Default: the largest of its modules.")
@options.round_to
@click.option(
    "--other",
    is_flag=True,
    help="One more column, (other): for the parent's other classes in a single trunk, else for "
    "out-of-distribution samples.",
)
@click.option(
    "--false-positive-rate",
    "--false-alarms",
    default=FALSE_POSITIVE_RATE,
    type=options.Share(),
    show_default=True,
    help="Share of in-distribution samples that may be rejected as (other).",
)
@click.option(
    "--scores",
    type=click.Choice(comparison_names()),
    help="How networks side by side are compared. Default: odds for one parent, else joint with --data, "
    "typicality without.",
)
@click.option(
    "--continuous",
    is_flag=True,
    help="Plan trunks anew, with samples of the other networks' classes as unconcerned examples.",
)
@click.option(
    "--rename",
    multiple=True,
    metavar="A=B",
    help="Class A (of the last module that has one) is called B. Repeatable.",
)
@click.option(
    "--input",
    "input_",
    type=click.Choice(INPUTS),
    help="raw: images 0..255, prepared in the graph; parent: as the parents take them. Default: parent "
    "for one parent, else raw.",
)
@click.option(
    "--input-type",
    default="uint8",
    type=click.Choice(("uint8", "float32")),
    show_default=True,
    help="Type of raw images.",
)
@click.option("--parent", multiple=True, type=click.Path(path_type=Path), help="Default: beside the modules.")
@click.option(
    "--profile", multiple=True, type=click.Path(path_type=Path), help="Default: beside the modules."
)
@options.versions
@options.test_split
@options.samples_per_class
@options.ignore_label
@options.seed
@click.option("--no-verify", is_flag=True, help="Do not compare a trunk with its masked parent.")
@options.running
@options.writing("The model to write.")
@options.common
def command(
    modules: tuple[options.Prefixed, ...],
    data: tuple[options.Prefixed, ...],
    strategy: str,
    keep: float | None,
    round_to: int | None,
    other: bool,
    false_positive_rate: float,
    scores: str | None,
    continuous: bool,
    rename: tuple[str, ...],
    input_: str | None,
    input_type: str,
    parent: tuple[Path, ...],
    profile: tuple[Path, ...],
    opset: int | None,
    ir_version: int | None,
    test_split: str,
    samples_per_class: int | None,
    ignore_label: str | None,
    seed: int,
    no_verify: bool,
    device: Device,
    output: Path,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Join MODULES, files or folders that 'graft decompose' wrote, into one classifier.

    Modules of one parent are planned anew as one set and share one trunk: together they cost no more
    than the parent. Networks of several parents run side by side on one raw input, with scores that can
    be compared. With --data the scores of several parents come from a joint head, fitted to the training
    split, and the result is measured on the test split. PREFIX=MODULE calls its classes PREFIX:NAME.
    """
    refuse_overwrite(output, force)
    named = [options.Prefixed(file, each.prefix) for each in modules for file in module_files([each.path])]
    files = [each.path for each in named]
    loaded = [load_module(file) for file in files]
    compose = Compose(
        strategy=strategy,
        keep=keep,
        other=other,
        false_positive_rate=false_positive_rate,
        scores=scores,
        continuous=continuous,
        input=input_,
        dtype=np.uint8 if input_type == "uint8" else np.float32,
        opset=opset,
        ir_version=ir_version,
        round_to=round_to,
        verify=not no_verify,
        samples_per_class=samples_per_class,
    )
    naming = Naming.of(loaded, named, rename)
    sources = {} if strategy == "branches" else _sources(loaded, files, parent, profile)
    owners = [origin_of(module).parents[0].graph_sha256 for module in loaded]
    for sha256, source in sources.items():
        prefixes = {each.prefix for each, owner in zip(named, owners, strict=True) if owner == sha256}
        samples = _training(data, prefixes, source.parent.card, ignore_label, len(set(owners)) == 1)
        sources[sha256] = replace(source, samples=samples)
    common, reason = _common(data, ignore_label, naming)
    context = Context(data=common, device=device, seed=seed)
    report = compose(Modules(loaded, sources, naming.modules), context)
    fitted = bool(report.scores) and comparison_called(report.scores).needs_data
    several = len(set(owners)) > 1 and not fitted
    check(report.model)
    session = device.open(report.model)
    cost = cost_of(report.model)
    origin = origin_of(report.model)
    result: dict[str, Any] = {
        "output": output,
        "strategy": report.strategy,
        "strategy_reason": report.reason,
        "scores": report.scores,
        "classes": list(report.model.require_card().labels),
        "input": report.model.require_card().inputs[0].plain(),
        "adapted": [list(steps) for steps in report.adapted],
        "declined": [*map(str, report.declined), *([reason] if reason and several else [])],
        "joint": report.joint.plain() if report.joint else None,
        "reject": report.reject.plain() if report.reject else None,
        "parents": [record.model_dump(mode="json", exclude={"labels"}) for record in origin.parents],
        "modules": [
            {"file": file, "classes": list(origin_of(m).classes)}
            for file, m in zip(files, loaded, strict=True)
        ],
        "macs": cost.macs,
        "parameters": cost.parameters,
        "providers": list(session.providers),
    }
    if data:
        result.update(_measured(report.model, data, test_split, ignore_label, naming, device))
    if dry_run:
        result["dry_run"] = True
    else:
        report.model.save(output, force)
        result["bytes"] = output.stat().st_size
    show.emit("compose", result, as_json, lambda: _show(result))


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
        used = "" if joint["used"] else "; not better than the scores without data, which stay"
        show.note(
            f"joint head of {joint['samples']} training samples: top-1 {show.percent(joint['top1'])} on "
            f"folds left out, {show.percent(joint['before'])} without it{used}"
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
