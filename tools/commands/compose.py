"""``graft compose``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from graft.passes.base import Context
from graft.passes.compare import comparison_called
from graft.passes.compare import names as comparison_names
from graft.passes.compare.reject import FALSE_POSITIVE_RATE
from graft.passes.compose import STRATEGIES, Compose, ComposeReport
from graft.passes.decompose import Decompose
from graft.passes.join.adopt import adopted, is_whole
from graft.passes.join.merge import INPUTS
from graft.passes.join.naming import TRAIN, Naming, prefixed_names
from graft.passes.join.patch_report import describe, evaluate_composite, held_out
from graft.passes.networks import Modules
from graft.passes.trunk import Source, load_sources, with_refit_samples
from graft.rewriter.card.card import OTHER, Card
from graft.rewriter.data.prefixed import PrefixedData, tested
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.files import Seen, read_whole
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.sizes import check_asked
from graft.rewriter.record.folder import load_classifier, module_files
from graft.rewriter.record.provenance import Asked, origin_of
from graft.rewriter.run.session import Device
from graft.tools import console as show
from graft.tools import languages, options, parents
from graft.tools.command import Argument, Option, Options, one_of, takes_options
from graft.tools.estimates import PASSES_OF_A_FIT, Estimate, Passes
from graft.tools.naming import parse_rename
from graft.tools.saving import save

JOIN = "What to join"
INPUT = "Input"


class ModuleOptions(options.ShapeOptions):
    """Modules, and the way they are joined."""

    modules: Annotated[
        tuple[options.PrefixedPath, ...],
        Argument(
            "MODULES...",
            "Files or folders that 'graft decompose' wrote, or classifiers with a card; PREFIX=MODULE "
            "prefixes classes.",
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
        Field(ge=1, le=options.LARGEST_NUMBER),
        Option(
            "Prune channels in multiples of N. Default: what their operators run fast with.",
            JOIN,
            metavar="N",
        ),
    ] = None
    freeze: Annotated[
        tuple[str, ...],
        Option(
            "Layers that a trunk leaves alone, as --freeze of decompose. Repeatable.", JOIN, metavar="PATTERN"
        ),
    ] = ()
    keep_layer: Annotated[
        tuple[options.LayerShare, ...],
        Option(
            "Shares of layers of a trunk, as --keep-layer of decompose. Repeatable.",
            JOIN,
            metavar="PATTERN=SHARE",
        ),
    ] = ()
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
        one_of(comparison_names),
        Option(
            "Comparison of networks side by side. Default: odds for one parent, else joint with --data, "
            "typicality (softmax for whole classifiers) without.",
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


class ComposeData(options.SampledDataOptions, options.LabelOptions):
    """Samples that scores and trunks are fitted to, and that are measured on."""


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
    data: ComposeData,
    run: ComposeRun,
    output: ComposeOutput,
) -> None:
    """Join MODULES into one classifier: what 'graft decompose' wrote, or any classifiers with a card.

    Modules of one parent are planned anew as one set and share one trunk: together they cost no more
    than the parent. Networks of several parents run side by side on one raw input, with scores that can
    be compared; what is equal in them, such as a frozen backbone, runs and is stored once. With --data the
    scores of several parents come from a joint head, fitted to the training split, and the result is
    measured on the test split. PREFIX=MODULE calls its classes PREFIX:NAME.
    """
    output.claim(output.output)
    seen, (files, prefixes, loaded) = read_whole([each.path for each in join.modules], lambda: _loaded(join))
    shapes = join.shapes()
    _size(loaded, shapes)
    if any(map(languages.speaks, loaded)):
        _refuse(join, compare, entry, prefixes)
        seen.require_unchanged()
        languages.compose(loaded, files, data, run, output, output.output)
        return
    loaded = list(map(adopted, loaded))
    device = run.device()
    compose = _compose(join, compare, entry, data, run, output)
    known = [name for names in prefixed_names(loaded, prefixes) for name in names.values()]
    naming = Naming.of(loaded, prefixes, parse_rename(join.rename, known))
    labeller = _labeller(join, loaded, files, prefixes)
    among = data.among(known, data.ignore_label, data.data)
    sets = parents.open_sets(data.data, run.seed, (TRAIN, data.test_split), labeller, device, among)
    sources = {} if join.strategy == "branches" else load_sources(loaded, files, join.parent, join.profile)
    seen.require_unchanged()
    for source in sources.values():
        check_asked(source.parent.model.sizes_at(shapes), source.profile.sizes)
    sources = with_refit_samples(sources, loaded, prefixes, sets, data.ignore_label)
    training, reason = naming.training(sets, data.ignore_label)
    part = _tested(naming, sets, data, loaded[0].require_card())
    modules = Modules(loaded, sources, naming.modules)
    passes = _estimate(loaded, sources, training, device)
    report = compose(modules, Context(data=training, device=device, seed=run.seed))
    fitted = bool(report.scores) and comparison_called(report.scores).needs_data
    several = len(modules.parents) > 1 and not fitted
    result = {
        "output": output.output,
        **_described(report, device),
        "declined": [*map(str, report.declined), *([reason] if reason and several else [])],
        "modules": [
            {"file": file, "classes": list(origin_of(m).classes)}
            for file, m in zip(files, loaded, strict=True)
        ],
    }
    if part is not None:
        result.update(evaluate_composite(report.model, part, device))
        result.update(parents.sources_of(training, part))
    result.update(save(report.model, output.output, output), **passes.plain())
    show.declined(result["declined"])
    show.emit("compose", result, output.as_json, lambda: _print_report(result))


def _tested(naming: Naming, sets: Sequence[PrefixedData], data: ComposeData, card: Card) -> Split | None:
    """Return the test samples of all classes, called as the composite calls them; ``None`` without any.

    Args:
        naming: of the classes.
        sets: all data.
        data: names the split.
        card: of the first module.
    """
    held = tested(sets, data.test_split)
    if not held:
        return None
    classes = [name for names in naming.modules for name in names.values()]
    return held_out(naming.split(held, data.test_split, data.ignore_label), card, classes, None)


def _refuse(
    join: ModuleOptions, compare: CompareOptions, entry: InputOptions, prefixes: Sequence[str]
) -> None:
    """Raise where an option was given that encoder-decoders have no use for.

    Raises:
        GraftError: ``languages-option``.
    """
    given = {
        "--strategy trunk": join.strategy == "trunk",
        "--keep": join.keep,
        "--round-to": join.round_to,
        "--freeze": join.freeze,
        "--keep-layer": join.keep_layer,
        "--continuous": join.continuous,
        "--rename": join.rename,
        "PREFIX=": any(prefixes),
        "--scores": compare.scores,
        "--other": compare.other,
        "--input raw": entry.kind == "raw",
    }
    languages.refuse(given, "the first word of an answer decides which of them writes it")


def _loaded(join: ModuleOptions) -> tuple[Seen, tuple[list[Path], list[str], list[Model]]]:
    """Load the modules that are named; return what lay there, their files, prefixes, and the models."""
    seen = Seen.of(each.path for each in join.modules)
    named = [(file, each.prefix) for each in join.modules for file in module_files([each.path])]
    files = [file for file, _ in named]
    return seen, (files, [prefix for _, prefix in named], [load_classifier(file) for file in files])


def _estimate(
    loaded: Sequence[Model], sources: Mapping[str, Source], training: Split | None, device: Device
) -> Passes:
    """Say what fitting scores and planning trunks takes."""
    passes = Passes(loaded, training, PASSES_OF_A_FIT, device)
    passes.seconds += _trunks(loaded, sources, device)
    passes.announce(f"{len(loaded)} network{'s' * (len(loaded) > 1)}, {len(training or ())} training samples")
    return passes


def _trunks(loaded: Sequence[Model], sources: Mapping[str, Source], device: Device) -> float:
    """Return the seconds that trunks take which are planned and refitted with samples.

    Args:
        loaded: the modules.
        sources: their parents at hand.
        device: what runs them.
    """
    found = 0.0
    for sha256, source in sources.items():
        own = [origin for origin in map(origin_of, loaded) if origin.parents[0].graph_sha256 == sha256]
        if source.samples is None or not own:
            continue
        asked, classes = Asked.of(own[0]), [name for origin in own for name in origin.classes]
        trunk = Decompose(
            classes, asked.keep, method=asked.method, compensate=asked.compensate, together=len(own) > 1
        )
        estimate = Estimate(source.parent, source.samples, device)
        found += estimate.of(estimate.subject.plan(trunk) + estimate.subject.module(trunk))
    return found


def _labeller(
    join: ModuleOptions, loaded: Sequence[Model], files: Sequence[Path], prefixes: Sequence[str]
) -> Callable[[PrefixedData], Model]:
    """Return what finds the model whose predictions are the labels of data without: the parent of its prefix.

    Args:
        join: names parents and profiles.
        loaded: the modules.
        files: where they lie.
        prefixes: of each module.
    """
    known: dict[str, Source] = {}

    def parent(data: PrefixedData) -> Model:
        """Raise ``data-unlabelled`` where it is not one parent, or it is not at hand."""
        known.update(known or load_sources(loaded, files, join.parent, join.profile))
        pairs = zip(loaded, prefixes, strict=True)
        owners = {
            r.graph_sha256 for m, prefix in pairs if prefix == data.prefix for r in origin_of(m).parents
        }
        whole = {origin_of(m).parents[0].graph_sha256: m for m in loaded if is_whole(m)}
        mine = [
            known[each].parent.model if each in known else whole[each] for each in owners & {*known, *whole}
        ]
        if len(owners) != 1 or not mine:
            found = "their parent is not at hand" if len(owners) == 1 else f"they have {len(owners)} parents"
            raise GraftError(
                "data-unlabelled",
                f"the samples of {data.dataset.name} have no labels: the predictions of the parent of the "
                f"modules would be, and {found}",
                "give labelled data, or name the parent with --parent and --profile, or data of one prefix "
                "as PREFIX=PATH",
            )
        return mine[0]

    return parent


def _size(modules: Sequence[Model], shapes: Mapping[str, Sequence[int]]) -> None:
    """Let costs of ``modules`` be counted at ``shapes``, each at those of its own inputs."""
    for name, shape in shapes.items():
        having = [module for module in modules if name in module.inputs()] or modules
        for module in having:
            module.sizes = {**module.sizes, **module.sizes_at({name: shape})}


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
        freeze=join.freeze,
        keep_layers=join.keep_layer,
    )


def _described(report: ComposeReport, device: Device) -> dict[str, Any]:
    """Describe the composite, for ``--json``."""
    described = describe(report.model, device)
    return {
        "strategy": report.strategy,
        "strategy_reason": report.reason,
        "scores": report.scores,
        "classes": described["classes"],
        "batch": described["batch"],
        "other_macs": report.other[0],
        "other_parameters": report.other[1],
        "input": described["inputs"][0],
        "shared_nodes": report.shared[0],
        "shared_weights": report.shared[1],
        "adapted": [list(steps) for steps in report.adapted],
        "joint": report.joint.plain() if report.joint else None,
        "reject": report.reject.plain() if report.reject else None,
        "parents": described["parents"],
        "macs": described["macs"],
        "parameters": described["parameters"],
        "providers": described["providers"],
    }


def _print_report(result: dict[str, Any]) -> None:
    show.note(
        f"{result['output']}: {len(result['classes'])} classes as {result['strategy']} "
        f"({result['strategy_reason']}), {show.count(result['macs'])} MACs, "
        f"{show.count(result['parameters'])} parameters, ran on {', '.join(result['providers'])}"
    )
    if result["scores"]:
        show.note(f"scores compared by {result['scores']}")
    if result["shared_nodes"] and result["shared_weights"]:
        show.note(
            f"equal in several networks, run and stored once: {result['shared_nodes']} nodes, "
            f"{result['shared_weights']} weights"
        )
    if result["joint"]:
        joint = result["joint"]
        used = "" if joint["used"] else "; it is not better than the scores without data, which are used"
        show.note(
            f"scores fitted to {joint['samples']} training samples: top-1 {show.percent(joint['top1'])} on "
            f"held-out folds, {show.percent(joint['before'])} without{used}"
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
    if result["other_macs"] or result["other_parameters"]:
        show.note(
            f"{OTHER} takes {show.count(result['other_macs'])} of the MACs and "
            f"{show.count(result['other_parameters'])} of the parameters"
        )
    show.print_batch(result["batch"])
    for reason in result["declined"]:
        show.note(f"note: {reason}")
    if len(result["parents"]) > 1:
        for record in result["parents"]:
            name = record["name"] or record["graph_sha256"][:8]
            show.note(f"  of {name} (licence: {record['license'] or 'not stated'})")
    show.data_source(result)
    if "top1" in result:
        predicted = result["test_label_source"] == "predictions"
        measure = "agreement with the parent" if predicted else "top-1"
        show.note(f"{measure} {show.percent(result['top1'])} on {result['samples']} test samples")
        if "auroc" in result:
            show.note(show.rejection(result))
