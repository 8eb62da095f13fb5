"""``graft decompose``."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from graft.passes.base import Context, all_declined
from graft.passes.budget_search import check_samples
from graft.passes.cut.vocabulary import ALL, VOCABULARIES
from graft.passes.decompose import Decompose
from graft.passes.identify import DEFAULT, MEASURED, methods
from graft.passes.join.convert import Convert
from graft.passes.languages import Languages
from graft.passes.mask import Mask
from graft.passes.modularize import Modularize
from graft.passes.parent import Parent
from graft.passes.published import MaskMethod, masks
from graft.passes.published.icse22 import PLACES, PROPAGATIONS
from graft.passes.published.unrolled import MODES, ROLLED, UNROLLED, UnrolledCut
from graft.passes.select.observe import ObserveReport
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import TEST
from graft.rewriter.errors import GraftError
from graft.rewriter.files.swap import INDEX
from graft.rewriter.record.folder import ModuleFolder
from graft.rewriter.run.session import Device
from graft.tools import console as show
from graft.tools import options, parents
from graft.tools.command import Option, one_of, takes_options
from graft.tools.estimates import Estimate, decomposing, plans

log = logging.getLogger("graft")

MASK_OPTIONS = ("variant", "propagation", "concerned", "map")
"""Options of published methods, which are fields of some of them."""
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
    vocabulary: Annotated[
        str,
        one_of(VOCABULARIES),
        Option(
            "Of a model that reads tokens: keep all words, or those used in the calibration set, and one for "
            "all others.",
            options.PRUNE,
            show_default=True,
        ),
    ] = "all"
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
        if self.plan is not None and self.layers:
            raise ValueError("--plan says what is kept: leave --freeze and --keep-layer out, or plan anew")
        return self


class DecomposeMethod(options.CompensateOptions):
    """Importance of channels and compensation, or a published method that makes masks."""

    method: Annotated[
        str | None,
        one_of(lambda: tuple(dict.fromkeys((*methods(), *masks())))),
        Option(
            "Importance of channels, or a published method whose modules are masks of MODEL. Default: "
            f"{MEASURED}, {DEFAULT} for recurrent models.",
            options.METHOD,
        ),
    ] = None
    mode: Annotated[
        str,
        one_of(MODES),
        Option(
            "Of a recurrent network: one cut for all time steps, or one for each, of a share --keep of the "
            "units; that is larger and slower.",
            options.METHOD,
            show_default=True,
        ),
    ] = ROLLED
    variant: Annotated[
        str | None,
        one_of(lambda: tuple(dict.fromkeys(each for of in masks().values() for each in of.variants))),
        Option(
            "Of a published method: as the authors' code does it, as the paper prints it, or as its text "
            "means it. Default: code where there is any.",
            options.METHOD,
        ),
    ] = None
    propagation: Annotated[
        str | None,
        one_of(PROPAGATIONS),
        Option(
            "Of icse22: examples pass through the network, or through its layers without activations. "
            "Default: network.",
            options.METHOD,
        ),
    ] = None
    map: Annotated[
        str | None,
        one_of(PLACES),
        Option(
            "Of icse22: maps of positions are of convolutions, or of activations. Default: conv.",
            options.METHOD,
        ),
    ] = None
    concerned: Annotated[
        int | None,
        Field(ge=1, le=options.LARGEST_NUMBER),
        Option(
            "Of a published method: use at most N samples of the class. Default: as published.",
            options.METHOD,
            metavar="N",
        ),
    ] = None
    cut: Annotated[
        bool,
        Option(
            "Of a published method: remove the channels that its zeros leave without a part.", options.METHOD
        ),
    ] = False

    @model_validator(mode="after")
    def _of_masks(self) -> DecomposeMethod:
        given = [flag for flag in (*MASK_OPTIONS, "cut") if getattr(self, flag)]
        if given and self.method not in masks():
            raise ValueError(f"--{given[0]} is for the methods {', '.join(masks())}")
        return self

    @property
    def mask(self) -> MaskMethod | None:
        """The published method with its options; ``None`` for importance of channels."""
        found = masks().get(self.method or "")
        return found and found.with_options(**{name: getattr(self, name) for name in MASK_OPTIONS})


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
    method: DecomposeMethod,
    data: options.HeldOutOptions,
    run: DecomposeRun,
    output: DecomposeOutput,
) -> None:
    """Prune MODEL to a smaller module for each class: the part that the class needs.

    Writes a folder: a module CLASS.onnx for each class (or one for the set, with --together), their
    plans, the parent and its profile, and graft.json, which holds what --json prints.
    """
    output.claim(output.output, ModuleFolder)
    device = run.device()
    parent = Parent.load(subject.model, subject.card, subject.shapes())
    budget.layers.of(parent)  # says before the work what matches nothing
    dataset = parents.open_data(parent, data, subject.classes, device, run.seed)
    samples, fingerprint = data.samples(dataset, parent.card, run.seed)
    names = options.classes_with_samples(subject.classes, samples) or _all_classes(samples)
    sets = [names] if subject.together else [(name,) for name in names]
    decompose = _decompose(names, parent, (subject, budget, method), verify=not run.no_verify)
    estimate = Estimate(parent, samples, device)
    decoder = parent.card.decoder is not None
    mask, max_drop = _mask(subject, budget, method, decoder), None
    if mask is None:
        if budget.keep is None and budget.plan is None:
            check_samples(samples)
        decompose, max_drop, sources = _chosen(decompose, len(sets), budget, method, estimate)
    else:
        sources = {"method": mask.name, "method_reason": "asked for", "method_options": mask.options()}
    held_out = data.held_out(dataset, parent.card, names)
    observed = _profiled(parent, names, method, samples, fingerprint, device)
    if not output.as_json and not samples.split.predicted:
        show.early(f"parent: top-1 {show.percent(observed.profile.top1)} on the {data.split} samples")
    context = Context(samples, held_out, profile=observed.profile, device=device, seed=run.seed)
    with show.progress("pruning", len(sets), estimate.left()) as step:
        convert = Convert(output.opset, output.ir_version)
        made = Mask("", mask, method.cut, verify=not run.no_verify) if mask else None
        if decoder:
            report = Languages(tuple(sets), decompose, max_drop, convert, step)(parent, context)
        else:
            report = Modularize(tuple(sets), decompose, max_drop, convert, made, step)(parent, context)
    report = replace(report, declined=all_declined([observed, report]))
    report = replace(report, sources=report.sources | sources)
    with output.target(output.output) as folder:
        written = report.save(ModuleFolder(folder, output.force))
    _show_declined(written)
    printed = {**written, "output": output.output, **estimate.plain(), **output.dry()}
    show.emit(
        "decompose",
        printed,
        output.as_json,
        lambda: _show(written, None if output.dry_run else output.output, data, run.seed, decoder),
    )


def _all_classes(samples: Samples) -> tuple[str, ...]:
    """Return the classes that have samples, or all languages of a decoder."""
    decoder = samples.card.decoder
    return tuple(samples.counts()) if decoder is None else decoder.languages


def _profiled(
    parent: Parent,
    names: tuple[str, ...],
    method: DecomposeMethod,
    samples: Samples,
    data: str,
    device: Device,
) -> ObserveReport:
    """Return the profile of the parent; of a decoder one row for all words: modules have their own.

    Args:
        parent: the parent.
        names: classes of the modules.
        method: may name a profile.
        samples: the calibration set.
        data: its fingerprint.
        device: what runs the parent.

    Raises:
        GraftError: the profile that was named cannot be used.
    """
    if parent.card.decoder is None:
        return parents.profile_of(parent, names, method.profile, samples, data, device)
    if method.profile is not None:
        raise GraftError(
            "profile-decoder",
            "--profile is not for encoder-decoders: each language is profiled on its own",
            "leave it out",
        )
    return parents.observe(parent, samples.speaking(names), data, device, ())


def _decompose(
    names: tuple[str, ...],
    parent: Parent,
    chosen: tuple[ModuleOptions, DecomposeBudget, options.CompensateOptions],
    verify: bool,
) -> Decompose:
    """Return the pass that cuts the modules, with what the options say."""
    subject, budget, method = chosen
    return Decompose(
        names,
        budget.keep,
        budget.keep_by,
        method.method,
        *(method.compensate, subject.together, subject.other, not subject.no_rest, budget.round_to),
        mirror=method.mirror,
        fixed_plan=parent.load_plan(budget.plan) if budget.plan else None,
        verify=verify,
        freeze=budget.freeze,
        keep_layers=budget.keep_layer,
        vocabulary=subject.vocabulary,
    )


def _chosen(
    decompose: Decompose, sets: int, budget: DecomposeBudget, method: DecomposeMethod, estimate: Estimate
) -> tuple[Decompose, float | None, dict[str, Any]]:
    """Return the pass with budget and method, and say what it will take; else as :func:`_budgeted`.

    Args:
        decompose: the pass, with what was asked for.
        sets: number of modules.
        budget: what was asked for.
        method: what was asked for.
        estimate: of the parent.
    """
    decompose, max_drop, sources = _budgeted(decompose, budget, estimate, method.plan_time)
    search = max_drop is not None
    number = 0 if budget.plan else plans(sets, search)
    choice = estimate.choose(method.method, number, method.plan_time)
    decompose = replace(decompose, method=choice.method)
    estimate.announce(*decomposing(estimate, decompose, sets, search, bool(method.profile)))
    return decompose, max_drop, sources | (choice.plain() if number else {})


def _mask(
    subject: ModuleOptions, budget: DecomposeBudget, method: DecomposeMethod, decoder: bool
) -> MaskMethod | None:
    """Return the published method whose modules are masks, with its options; ``None``: none was asked for.

    One that ranks channels as well does so where there is a budget.

    Raises:
        GraftError: an option was given that masks of the parent have no use for.
    """
    mask, keep = method.mask, budget.keep
    if decoder and (mask is not None or method.mode == UNROLLED):
        raise GraftError(
            "method-masks",
            "published methods and --mode unrolled do not know encoder-decoders",
            "leave --method and --mode out",
        )
    limits = (keep, budget.max_drop, budget.plan)
    if method.mode == UNROLLED:
        if mask is not None:
            raise GraftError(
                "method-masks", f"--mode unrolled and the method {mask.name} exclude each other", "choose one"
            )
        mask, keep = UnrolledCut(keep=UnrolledCut.keep if keep is None else keep), None
    if mask is None or (mask.name in methods() and any(each is not None for each in limits)):
        return None
    given = {
        "--together": subject.together,
        "--other": subject.other,
        "--vocabulary": subject.vocabulary != ALL,
        "--keep": keep is not None,
        "--max-drop": budget.max_drop is not None,
        "--plan": budget.plan is not None,
        "--freeze or --keep-layer": bool(budget.layers),
        "--round-to": budget.round_to is not None,
        "--mirror": method.mirror,
    }
    flag = next((flag for flag, there in given.items() if there), None)
    if flag is not None:
        raise GraftError(
            "method-masks",
            f"the method {mask.name} makes a mask of the parent for each class: {flag} does not apply",
            "leave it out; --cut removes the channels that zeros leave without a part",
        )
    if method.mode == UNROLLED:
        log.warning(
            "a copy of the recurrent layers a step: modules are larger and slower than with --mode rolled"
        )
    return mask


def _budgeted(
    decompose: Decompose, budget: DecomposeBudget, estimate: Estimate, limit: float | None
) -> tuple[Decompose, float | None, dict[str, str]]:
    """Return the pass with its budget, the points that a search allows, and what ``graft.json`` says of it.

    Args:
        decompose: the pass, with the budget that was asked for.
        budget: what was asked for.
        estimate: of the parent.
        limit: seconds that a search by default may take.
    """
    if budget.keep is not None or budget.plan is not None or budget.max_drop is not None:
        return decompose, budget.max_drop, {}
    keep, reason = estimate.budget(decompose, MAX_DROP, limit)
    if keep is None:
        return decompose, MAX_DROP, {}
    return replace(decompose, keep=keep), None, {"budget_reason": reason}


def _show_declined(written: dict[str, Any]) -> None:
    """Log what was declined: of each module, then the rest."""
    for entry in written["modules"]:
        show.declined(entry["declined"], ", ".join(entry["classes"]))
    told = {reason for entry in written["modules"] for reason in entry["declined"]}
    show.declined([reason for reason in written["declined"] if reason not in told])


def _next(
    result: dict[str, Any], output: Path, data: options.HeldOutOptions, seed: int, decoder: bool
) -> Iterator[tuple[list[object], str]]:
    """Return commands that give what was announced, and say what that is."""
    samples: list[object] = ["--data", data.data, *(["--seed", seed] if seed else [])]
    if data.ignore_label is not None:
        samples.append(f"--ignore-label={data.ignore_label}")
    if data.labels_among != "all":
        samples.append(f"--labels-among={data.labels_among}")
    split = [] if data.test_split == TEST else [data.test_split]
    if len(result["modules"]) > 1:
        alone, one = (output.with_name(f"{output.name}{end}.onnx") for end in ("_branches", ""))
        masked = any("zero_weights_ratio" in entry for entry in result["modules"])
        compose = ["graft", "compose", output, *([f"--scores={_scores(result)}"] if masked else [])]
        if decoder:
            yield [*compose, *samples, "-o", one], "one model of all languages"
            return
        yield (
            [*compose, "--strategy", "branches", "-o", alone],
            "the modules side by side, as they were measured",
        )
        if not masked:
            yield (
                [*compose, *samples, *(f"--test-split={name}" for name in split), "-o", one],
                "one network again for all of them",
            )
        return
    if "test_samples" in result:
        module = output / result["modules"][0]["file"]
        measured = ["graft", "evaluate", module, *samples, *(f"--split={name}" for name in split)]
        yield measured, "the figures above, and the latency"


def _scores(result: dict[str, Any]) -> str:
    """Return how modules are compared that a published method made."""
    of = masks().get(result["method"])
    return of.scores if of else UnrolledCut.scores


def _show(
    result: dict[str, Any], output: Path | None, data: options.HeldOutOptions, seed: int, decoder: bool
) -> None:
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
    where = f" in {output}" if output else ""
    show.table(f"modules{where}, ran on {ran}", ["classes", "channels", "MACs", "parameters", "file"], rows)
    for entry in result["modules"]:
        if "difference" in entry:
            what = " of balanced accuracy" if entry["one_class"] else ""
            show.note(
                f"{', '.join(entry['classes'])}: {entry['difference']:+.2f} percentage points{what} on "
                "training samples left out by cross-validation (standard error "
                f"{entry['difference_standard_error']:.2f}; smaller ones are noise)"
            )
    masked = [entry for entry in result["modules"] if "zero_weights_ratio" in entry]
    if masked:
        zeros = [entry["zero_weights_ratio"] for entry in masked]
        left = [entry["parameters_ratio"] or 1.0 for entry in masked]
        show.note(
            f"zeros among the weights: {show.percent(min(zeros))} to {show.percent(max(zeros))} of a module; "
            f"parameters: {show.percent(min(left))} to {show.percent(max(left))} of the parent's"
        )
    for words in result["modules"][0].get("vocabulary", ()):
        show.note(f"{words['kept']} of {words['before']} words of {words['name']} are left")
    show.print_layers(result)
    dead = result["parent"]["dead_channels"]
    if dead and not masked:
        show.note(f"{dead} channels of the parent are zero for every sample: pruned first")
    classes = [name for entry in result["modules"] for name in entry["classes"]]
    show.data_source(result, len(classes))
    _show_against_rest(result)
    if "composed_top1" in result and len(classes) > 1:
        joined = show.percent(result["composed_top1"])
        what = "pruned model" if len(result["modules"]) == 1 else "all modules joined"
        if result["test_label_source"] == "predictions":
            told = f"{what} decide{'s' if what == 'pruned model' else ''} as the parent on {joined}"
        else:
            told = f"parent {show.percent(result['parent'].get('top1'))}, {what} {joined}"
        show.note(f"{result['test_samples']} test samples: {told}")
    if output:
        show.note(f"files listed in {output / INDEX}")
        for words, what in _next(result, output, data, seed, decoder):
            show.note(f"{what}:")
            show.note(f"next: {shlex.join(map(str, words))}")


def _show_against_rest(result: dict[str, Any]) -> None:
    """Print figures of modules of one class, beside the parent; warn of one that never says its class."""
    entries = [entry for entry in result["modules"] if "balanced_accuracy" in entry]
    keys = ("precision", "recall", "f1", "balanced_accuracy")
    rows = [
        [
            entry["classes"][0],
            *(f"{show.percent(entry[key])} ({show.percent(entry['parent'][key])})" for key in keys),
        ]
        for entry in entries
    ]
    if rows:
        show.table(
            f"each class against the rest on {entries[0]['samples']} test samples (in brackets: the parent)",
            ["class", "precision", "recall", "F1", "balanced accuracy"],
            rows,
        )
    for entry in entries:
        if not entry["said"]:
            name, parent = entry["classes"][0], entry["parent"]["said"]
            who = f"the module of '{name}' never says" if parent else "the parent itself never says"
            what = "keep more" if parent else "neither does its module"
            log.warning("%s '%s' on the test samples: %s", who, name, what)
