"""``graft evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from graft.passes.base import Context
from graft.passes.compose import Compose, Modules
from graft.rewriter.card.card import OTHER
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure import metrics
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.measure.evaluation import Scored, counted, latencies, score
from graft.rewriter.record.folder import load_module, module_files
from graft.rewriter.record.provenance import numbering
from graft.rewriter.run.session import Device, Session, fit
from graft.tools import console as show
from graft.tools import options, parents
from graft.tools.exits import CHECK_FAILED, DONE


@click.command(epilog="Example: graft evaluate pets.onnx --data cifar10.npz --baseline resnet20.onnx")
@click.argument("model", type=click.Path(path_type=Path))
@options.data(multiple=True)
@options.card
@options.classes
@click.option("--baseline", type=click.Path(path_type=Path), help="Measured in the same run, beside MODEL.")
@click.option("--baseline-card", type=click.Path(path_type=Path), help="The baseline's card.")
@click.option("--min-top1", type=options.Share(zero=True), help="Exit code 1 where the accuracy is lower.")
@click.option("--batch", default=32, show_default=True, type=click.IntRange(1), help="For the latency.")
@click.option("--split", default="test", show_default=True, help="Split to measure on.")
@options.samples_per_class
@options.ignore_label
@options.seed
@options.running
@options.common
def command(
    model: Path,
    data: tuple[options.Prefixed, ...],
    card: Path | None,
    classes: tuple[str, ...],
    baseline: Path | None,
    baseline_card: Path | None,
    min_top1: float | None,
    batch: int,
    split: str,
    ignore_label: str | None,
    samples_per_class: int | None,
    seed: int,
    device: Device,
    as_json: bool,
) -> int:
    """Accuracy, cost, size and latency of MODEL on labelled samples.

    Restricted to --classes, or to the classes that MODEL has, the highest of their scores counts. A
    module of one class takes all other samples as (other). A folder that 'graft decompose' wrote is
    measured as all of its modules joined side by side.
    """
    if device.threads == 0:
        device.threads = 2
    part = options.split_of(data, split, ignore_label)
    candidate = _Candidate(model, card)
    names = options.class_names(classes, candidate.card)
    columns = names or candidate.card.labels
    other = _Candidate(baseline, baseline_card) if baseline else None
    lacking = set(columns) - {*other.card.labels, OTHER} if other else ()
    if lacking:
        raise GraftError(
            "baseline-class",
            f"the baseline has no class '{min(lacking)}'",
            "choose another baseline, or --classes that both have",
        )
    samples = candidate.samples(part, columns, names is not None, samples_per_class, seed)
    if len(columns) < 2:
        raise GraftError(
            "one-class",
            f"with the class '{columns[0]}' alone every answer is right",
            "name two classes or more, or a module with (other)",
        )
    parents.warn_if_few({name: number for name, number in samples.counts().items() if name in columns})
    result, scored = candidate.measure(samples, columns, device)
    if names is None:
        parents.warn_if_far_below(result["top1"], candidate.model)
    timed = [candidate.timed(samples, batch, device)]
    if other:
        same = other.samples(part, columns, OTHER not in columns)
        same = same.take(np.isin(same.indices, samples.indices))
        beside, reference = other.measure(same, columns, device)
        timed.append(other.timed(same, batch, device))
        difference, error = metrics.paired_difference(scored.correct.ravel(), reference.correct.ravel())
        result["agreement"] = metrics.agreement(scored.predictions.ravel(), reference.predictions.ravel())
        result["delta"], result["delta_standard_error"] = difference, error
        result["baseline"] = beside
    times = latencies(timed, device.threads)
    result["latency_ms"] = times[0]
    if other:
        result["baseline"]["latency_ms"] = times[1]
    show.emit("evaluate", result, as_json, lambda: _show(result, model, baseline))
    if min_top1 is not None and result["top1"] < min_top1:
        click.echo(f"graft: top-1 {result['top1']:.4f} is below --min-top1 {min_top1:g}", err=True)
        return CHECK_FAILED
    return DONE


class _Candidate:
    """A model to be measured; a DIR of modules stands for all of them joined as branches."""

    def __init__(self, path: Path, card: Path | None) -> None:
        self.path = path
        self.files = module_files([path])
        if path.is_dir():
            modules = Modules([load_module(file) for file in self.files])
            self.model = Compose("branches")(modules, Context()).model
        else:
            self.model = Model.load(path, card)
        self.card = self.model.require_card(path)

    def measure(
        self, samples: Samples, columns: Sequence[str], device: Device
    ) -> tuple[dict[str, Any], Scored]:
        """Accuracy, cost and size, and the scores behind them, one column for each of ``columns``."""
        with show.progress(f"running {self.path.name}", len(samples)) as step:
            whole = score(self.model, samples, device, progress=step)
        scored = _restrict(whole, columns, self.card.output.kind)
        cost = cost_of(self.model)
        result = {
            **scored.summary(),
            "left_out": samples.left_out,
            "macs": cost.macs,
            "parameters": cost.parameters,
            "bytes": sum(file.stat().st_size for file in self.files),
            "providers": list(scored.providers),
            "labels": list(columns),
        }
        return result, scored

    def timed(self, samples: Samples, batch: int, device: Device) -> tuple[Session, dict[str, NDArray[Any]]]:
        """A session and the batch that it is timed on."""
        inputs = next(samples.take(np.arange(min(batch, len(samples)))).batches(batch))[0]
        session = device.open(self.model)
        return session, fit(inputs, session.batch)

    def samples(
        self,
        part: Split,
        columns: Sequence[str],
        restricted: bool,
        per_class: int | None = None,
        seed: int = 0,
    ) -> Samples:
        """The samples of ``columns``, or all that the model has classes for."""
        names = numbering(self.model)
        chosen = [name for name in columns if name != OTHER] if restricted else None
        return Samples.match(part, self.card, chosen, per_class, seed, names)


def _restrict(whole: Scored, columns: Sequence[str], kind: str) -> Scored:
    """The scores of ``columns``; ``(other)`` is what a model without it says of all other classes."""
    if tuple(columns) == whole.names:
        return whole
    places = [whole.names.index(name) for name in columns if name in whole.names]
    scores = whole.scores[..., places]
    where = np.full(len(whole.names), len(columns) - 1 if OTHER in columns else -1)
    where[places] = np.arange(len(places))
    if OTHER in columns and OTHER not in whole.names:
        rest = np.delete(whole.scores, places, axis=-1)
        top = rest.max(axis=-1, keepdims=True)
        added = top + np.log(np.exp(rest - top).sum(axis=-1, keepdims=True))
        rest = rest.sum(axis=-1, keepdims=True) if kind == "probabilities" else added
        scores = np.concatenate([scores, rest], axis=-1)
    scores, labels = counted(scores, where[whole.labels])
    return replace(whole, scores=scores, labels=labels, names=tuple(columns))


def _show(result: dict[str, Any], model: Path, baseline: Path | None) -> None:
    columns = [(model.name, result)]
    if baseline:
        columns.append((baseline.name, result["baseline"]))
    rows = [
        ["top-1", *(show.percent(found["top1"]) for _, found in columns)],
        ["top-5", *(show.percent(found["top5"]) for _, found in columns)],
        ["MACs", *(show.count(found["macs"]) for _, found in columns)],
        ["parameters", *(show.count(found["parameters"]) for _, found in columns)],
        ["file", *(f"{found['bytes'] / 1e3:.0f} kB" for _, found in columns)],
        [
            f"latency, batch {result['latency_ms']['batch']}",
            *(f"{found['latency_ms']['median']:.2f} ms" for _, found in columns),
        ],
    ]
    show.table(
        f"{result['samples']} samples, {len(result['labels'])} classes, "
        f"ran on {', '.join(result['providers'])}",
        ["", *(name for name, _ in columns)],
        rows,
    )
    if "auroc" in result and len(result["labels"]) > 2:
        show.note(show.rejection(result))
    elif "auroc" in result:
        entry = result["per_class"][result["labels"][0]]
        show.note(
            f"{result['labels'][0]}: precision {entry['precision']:.3f}, recall {entry['recall']:.3f}, "
            f"F1 {entry['f1']:.3f}, AUROC {result['auroc']:.4f}"
        )
    if baseline:
        show.note(
            f"agreement {show.percent(result['agreement'])}, difference "
            f"{100 * result['delta']:+.2f} points (standard error {100 * result['delta_standard_error']:.2f})"
        )
