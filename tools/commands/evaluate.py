"""``graft evaluate``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from graft.passes.base import Context
from graft.passes.compose import Compose, Modules
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.baseline import Candidate, Evaluation
from graft.rewriter.record.folder import load_module, module_files
from graft.rewriter.run.session import Device
from graft.tools import console as show
from graft.tools import options, parents
from graft.tools.exits import CHECK_FAILED, DONE

THREADS = 2
"""Of onnxruntime, where ``--threads`` does not say: latencies of different machines compare."""


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
    device = replace(device, threads=device.threads or THREADS)
    part = options.split_of(data, split, ignore_label)
    candidate = _candidate(model, card)
    names = options.class_names(classes, candidate.card)
    other = _candidate(baseline, baseline_card) if baseline else None
    evaluation = Evaluation(candidate, other, names)
    samples = evaluation.samples(part, samples_per_class, seed)
    counts = samples.counts().items()
    parents.warn_if_few({name: number for name, number in counts if name in evaluation.columns})
    result = evaluation.measure(samples, part, device, batch, _progress)
    if names is None:
        parents.warn_if_far_below(result["top1"], candidate.model)
    show.emit("evaluate", result, as_json, lambda: _show(result, model, baseline))
    if min_top1 is not None and result["top1"] < min_top1:
        click.echo(f"graft: top-1 {result['top1']:.4f} is below --min-top1 {min_top1:g}", err=True)
        return CHECK_FAILED
    return DONE


def _candidate(path: Path, card: Path | None) -> Candidate:
    """The model at ``path``; a DIR of modules counts as all of them joined as branches."""
    files = module_files([path])
    if path.is_dir():
        modules = Modules([load_module(file) for file in files])
        model = Compose("branches")(modules, Context()).model
    else:
        model = Model.load(path, card)
    model.require_card(path)
    return Candidate(model, tuple(files), path.name)


def _progress(name: str, samples: int) -> AbstractContextManager[Callable[[int], None]]:
    return show.progress(f"running {name}", samples)


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
