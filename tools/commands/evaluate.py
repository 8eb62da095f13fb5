"""``graft evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from graft.passes.base import Context, Report, all_declined
from graft.passes.compose import Compose
from graft.passes.networks import Modules
from graft.passes.select.profiling import warn_if_far_below, warn_if_few
from graft.rewriter.data.prefixed import PrefixedData, joined_split
from graft.rewriter.errors import GraftError
from graft.rewriter.files import read_whole
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.baseline import Candidate, Evaluation
from graft.rewriter.measure.translation import missing
from graft.rewriter.record.folder import PARENT, load_module, module_files, parents_beside
from graft.rewriter.record.provenance import kind_of, parents_of
from graft.tools import console as show
from graft.tools import options, parents
from graft.tools.cli import CHECK_FAILED, DONE
from graft.tools.command import Argument, Option, takes_options
from graft.tools.estimates import Passes

MEASURE = "What to measure"


class EvaluateOptions(options.ShapeOptions):
    """Classifiers, some of their classes, and a baseline."""

    models: Annotated[
        tuple[Path, ...],
        Argument("MODELS...", "Trained classifiers, ONNX files, or folders that 'graft decompose' wrote."),
    ]
    card: Annotated[
        Path | None, Option("Card of the only model. Default: NAME.yaml beside it.", options.MODEL)
    ] = None
    classes: Annotated[
        tuple[str, ...],
        Option(
            "Names of classes, separated by commas; repeatable; @FILE: one a line. Default: all.",
            MEASURE,
            metavar="A,B|@FILE",
        ),
    ] = ()
    baseline: Annotated[Path | None, Option("Model to measure in the same run, for comparison.", MEASURE)] = (
        None
    )
    baseline_card: Annotated[
        Path | None, Option("Card of the baseline. Default: NAME.yaml beside it.", MEASURE)
    ] = None
    min_top1: Annotated[
        options.ShareOrZero | None, Option("Exit with code 1 where top-1 accuracy is lower.", MEASURE)
    ] = None
    batch: Annotated[
        int,
        Field(ge=1, le=options.LARGEST_NUMBER),
        Option("Batch size for the latency.", MEASURE, metavar="N", show_default=True),
    ] = 32


class EvaluateData(options.LabelOptions):
    """Data sets to measure on."""

    data: Annotated[
        tuple[options.PrefixedPath, ...],
        Option(f"{options.FORMATS} {options.REPEATABLE}", options.DATA),
    ]
    split: Annotated[str, Option("Split to measure on.", options.DATA, metavar="NAME", show_default=True)] = (
        "test"
    )
    samples_per_class: Annotated[
        int | None,
        Field(ge=1, le=options.LARGEST_NUMBER),
        Option("Use at most N samples of each class.", options.DATA, metavar="N"),
    ] = None
    ignore_label: Annotated[
        str | None,
        Option("Ignore labels of this class, such as those of padding.", options.DATA, metavar="CLASS"),
    ] = None


class EvaluateRun(options.SeededRunOptions):
    """Providers, threads and the seed; the threads are fixed, so that latencies of machines compare."""

    threads: Annotated[
        int,
        Field(ge=0),
        Option(
            f"Number of threads. Default: {options.TIMING_THREADS}, so that latencies compare.",
            options.RUN,
            metavar="N",
        ),
    ] = 0


@takes_options(epilog="Example: graft evaluate pets.onnx --data cifar10.npz --baseline resnet20.onnx")
def command(
    subject: EvaluateOptions,
    data: EvaluateData,
    run: EvaluateRun,
    output: options.PrintOptions,
) -> int:
    """Measure accuracy, cost, size and latency of MODELS on labelled samples.

    Restricted to --classes, or to the classes that a model has, the highest of their scores counts. A
    module of one class takes all other samples as (other). A folder that 'graft decompose' wrote is
    measured as all of its modules joined side by side.
    """
    several = len(subject.models) > 1
    if several and subject.card:
        raise GraftError("bad-request", "--card is for one model", "put NAME.yaml beside each NAME.onnx")
    baseline = _candidate(subject.baseline, subject.baseline_card) if subject.baseline else None
    found = [_measured(path, subject, data, run, baseline) for path in subject.models]
    for each in found:
        show.declined(each["declined"])
    printed = dict(found[0])
    if several:
        shared = [key for key in ("label_source", "split", "providers") if key in printed]
        pairs = zip(subject.models, found, strict=True)
        models = [{"model": path, **each} for path, each in pairs]
        printed = {**{key: printed[key] for key in shared}, "models": models}
    show.emit("evaluate", printed, output.as_json, lambda: _show(found, subject.models, subject.baseline))
    code, least = DONE, subject.min_top1
    for path, each in zip(subject.models, found, strict=True):
        if least is not None and each["top1"] < least:
            named = f"{path}: " if several else ""
            show.say(f"{named}top-1 {each['top1']:.4f} is below --min-top1 {least:g}")
            code = CHECK_FAILED
    return code


def _measured(
    path: Path,
    subject: EvaluateOptions,
    data: EvaluateData,
    run: EvaluateRun,
    baseline: tuple[Candidate, Report] | None,
) -> dict[str, Any]:
    """Return the figures of one model, as ``--json`` prints them.

    Args:
        path: the model.
        subject: the classes, and how latency is measured.
        data: the samples.
        run: where models run.
        baseline: measured beside it.

    Raises:
        GraftError: a model or the data cannot be read, or do not fit.
    """
    device = run.timing_device()
    candidate, *reports = _candidate(path, subject.card)
    candidate = replace(candidate, asked=candidate.model.sizes_at(subject.shapes()))
    names = options.class_names(subject.classes, candidate.card)
    other = baseline[0] if baseline else None
    labeller = partial(_labeller, candidate=candidate, baseline=other)
    among = data.among(names or candidate.card.labels, data.ignore_label, data.data)
    sets = parents.open_sets(data.data, run.seed, (data.split,), labeller, device, among)
    part = joined_split(sets, data.split, data.ignore_label)
    evaluation = Evaluation(candidate, other, names)
    samples = evaluation.samples(part, data.samples_per_class, run.seed)
    counts = samples.counts().items()
    if candidate.card.decoder is None:  # words are many, and few of each
        warn_if_few({name: number for name, number in counts if name in evaluation.columns})
    both = [candidate.model, *([other.model] if other else [])]
    passes = Passes(both, samples.split, len(samples) / max(1, len(samples.split)), device)
    passes.announce(f"{len(both)} model{'s' * bool(other)} on {len(samples)} samples")
    result = evaluation.measure(samples, part, device, subject.batch, _progress)
    result["declined"] = list(map(str, all_declined([*reports, *([baseline[1]] if baseline else [])])))
    result.update(part.describe(), **passes.plain())
    if names is None and not part.predicted:
        warn_if_far_below(result["top1"], candidate.model)
    return result


def _candidate(path: Path, card: Path | None) -> tuple[Candidate, Report]:
    """Load the model at ``path``; a folder of modules counts as all of them joined as branches."""
    files, report = module_files([path]), Report()
    if path.is_dir():
        files, loaded = read_whole([path], lambda: _loaded(path))
        modules = Modules(loaded)
        composed = Compose("branches")(modules, Context())
        model, report = composed.model, composed
    else:
        model = Model.load(path, card)
    model.require_card(path)
    return Candidate(model, tuple(files), path.name), report


def _loaded(path: Path) -> tuple[list[Path], list[Model]]:
    """Load the modules of a folder; return their files, too."""
    files = module_files([path])
    return files, [load_module(file) for file in files]


def _labeller(data: PrefixedData, candidate: Candidate, baseline: Candidate | None) -> Model:
    """Return the model whose predictions are the labels of samples without any: the baseline, or the parent.

    Raises:
        GraftError: ``data-unlabelled`` where there is neither.
    """
    if baseline is not None:
        return baseline.model
    kind = kind_of(candidate.model)
    hashes = {record.graph_sha256 for record in parents_of(candidate.model)}
    for folder in parents_beside(candidate.files) if kind else ():
        model = Model.load(folder / PARENT)
        if hashes == {model.graph_sha256()}:
            return model
    raise GraftError(
        "data-unlabelled",
        f"the samples of {data.dataset.name} have no labels"
        + ("" if kind else ", and a model agrees with its own predictions always"),
        "give labelled data, or name the model whose predictions are the labels: --baseline "
        + ("PARENT" if kind else "MODEL"),
    )


def _progress(name: str, samples: int) -> AbstractContextManager[Callable[[int], None]]:
    return show.progress(f"running {name}", samples)


def _show(found: Sequence[dict[str, Any]], models: Sequence[Path], baseline: Path | None) -> None:
    first, names = found[0], _short(models)
    columns = list(zip(names, found, strict=True))
    if baseline:
        of = f", classes of {names[0]}" if len(found) > 1 else ""  # each model is compared on its own
        columns.append((f"{baseline.name}{of}", first["baseline"]))
    every = [each for _, each in columns]
    samples = len({each["samples"] for each in every}) > 1
    top1 = "agrees with the labels" if first["label_source"] == "predictions" else "top-1"
    written = [
        [f"{language}: {name}", *(_figure(each, language, key) for each in every)]
        for language in dict.fromkeys(name for each in every for name in each.get("languages", ()))
        for name, key in (("BLEU", "bleu"), ("chrF", "chrf"), ("exact", "exact"))
    ]
    rows = [
        *([["samples", *(str(each["samples"]) for each in every)]] if samples else []),
        [top1, *(show.percent(each["top1"]) for each in every)],
        ["top-5", *(show.percent(each["top5"]) for each in every)],
        *written,
        ["MACs", *(show.count(each["macs"]) for each in every)],
        ["parameters", *(show.count(each["parameters"]) for each in every)],
        ["file", *(show.file_size(each["bytes"], each["external_bytes"]) for each in every)],
        [
            f"latency, batch {first['latency_ms']['batch']}",
            *(f"{each['latency_ms']['median']:.2f} ms" for each in every),
        ],
    ]
    if all(each["top5"] is None for each in every):
        rows = [row for row in rows if row[0] != "top-5"]
    measured = "" if samples else f"{first['samples']} samples, {len(first['labels'])} classes, "
    show.table(
        f"{measured}ran on {', '.join(first['providers'])}",
        ["", *(name for name, _ in columns)],
        rows,
    )
    show.data_source(first)
    error = missing() if written else None
    if error:
        show.note(f"{error.message}: {error.hint}")
    for name, result in zip(names, found, strict=True):
        _notes(result, f"{name}: " if len(found) > 1 else "", baseline is not None)


def _figure(result: dict[str, Any], language: str, key: str) -> str:
    """Return a figure of what a model writes in a language, or a dash."""
    value = result.get("languages", {}).get(language, {}).get(key)
    if value is None:
        return "-"
    return str(show.percent(value)) if key == "exact" else f"{value:.1f}"


def _short(models: Sequence[Path]) -> list[str]:
    """Return the names of files, or their paths where several have one name."""
    names = [path.name for path in models]
    return names if len(set(names)) == len(names) else list(map(str, models))


def _notes(result: dict[str, Any], start: str, baseline: bool) -> None:
    """Print what the table does not hold of one model."""
    if "auroc" in result and len(result["labels"]) > 2:
        show.note(f"{start}{show.rejection(result)}")
    elif "auroc" in result:
        entry = result["per_class"][result["labels"][0]]
        show.note(
            f"{start}{result['labels'][0]} against the rest: balanced accuracy "
            f"{show.percent(result['balanced_accuracy'])}, precision {entry['precision']:.3f}, "
            f"recall {entry['recall']:.3f}, F1 {entry['f1']:.3f}, AUROC {result['auroc']:.4f}"
        )
    if baseline:
        show.note(
            f"{start}agreement {show.percent(result['agreement'])}, difference "
            f"{100 * result['delta']:+.2f} percentage points "
            f"(standard error {100 * result['delta_standard_error']:.2f})"
        )
