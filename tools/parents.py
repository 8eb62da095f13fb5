"""Parents as commands need them: loaded, and profiled with a progress bar."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from graft.passes.base import Context
from graft.passes.parent import Parent
from graft.passes.select.observe import ObserveReport
from graft.passes.select.profiling import profiled, rows_for, stored_profile
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.prefixed import PrefixedData
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.pseudo_labels import with_predictions
from graft.rewriter.run.session import Device
from graft.tools import console as show
from graft.tools.options import CalibrationOptions, Prefixed, class_names

log = logging.getLogger("graft")


def open_data(
    parent: Parent, data: CalibrationOptions, given: Sequence[str], device: Device, seed: int
) -> Dataset:
    """Open a data set for a parent, whose predictions are the labels of samples that have none.

    Args:
        parent: the parent.
        data: where it lies; without a path, which is an error.
        given: what ``--classes`` says.
        device: what runs the parent.
        seed: draws splits where the data has none.

    Raises:
        GraftError: there is no such data, it cannot be read, or a class is unknown.
    """
    if data.data is None:
        raise GraftError("data-missing", "there are no samples", "name some: --data DATA")
    dataset, labels = Dataset.load(data.data, seed), parent.card.labels
    among = data.among(class_names(given, parent.card) or labels, data.ignore_label)
    return labelled_by(dataset, parent.model, device, among)


def labelled_by(
    dataset: Dataset, model: Model, device: Device, among: Sequence[str] | None = None
) -> Dataset:
    """Return a data set whose samples without labels have the predictions of ``model``.

    Args:
        dataset: the data.
        model: with a card.
        device: what runs it.
        among: the only classes that these samples are of; others than the model's do not count; ``None``:
            all.
    """
    known = None if among is None else [name for name in among if name in model.require_card().labels]
    return with_predictions(dataset, model, device, lambda count: show.progress("labelling", count), known)


def open_sets(
    data: Sequence[Prefixed],
    seed: int,
    splits: Sequence[str],
    model: Callable[[PrefixedData], Model],
    device: Device,
    among: Sequence[str] | None = None,
) -> list[PrefixedData]:
    """Open data sets; those that have samples without labels get the predictions of a model.

    Args:
        data: where they lie.
        seed: draws splits where the data has none.
        splits: names of the splits that are used; those that a data set lacks do not count.
        model: returns the model whose predictions are the labels of a data set; asked if some are needed.
        device: what runs it.
        among: the only classes, with their prefixes, that samples without labels are of; ``None``: all.
    """
    found = []
    for each in [one.load(seed) for one in data]:
        own = [each.dataset.split(name) for name in splits if each.dataset.has(name)]
        if any(not split.labelled for split in own):
            labeller = model(each)
            own_names = among and [n for n in labeller.require_card().labels if each.name(n) in among]
            each = replace(each, dataset=labelled_by(each.dataset, labeller, device, own_names))
        found.append(each)
    return found


def sources_of(train: Split | None, test: Split | None) -> dict[str, Any]:
    """Return where the labels of both splits are from, and how they were drawn, for ``--json``.

    Args:
        train: samples that scores are fitted to; ``None``: none.
        test: samples that are measured on; ``None``: none.
    """
    first = train if train is not None else test
    found = {} if first is None else first.describe()
    return found if test is None else found | test.describe_held_out()


def observe(
    parent: Parent, samples: Samples, data: str, device: Device, rows: Sequence[str] | None = None
) -> ObserveReport:
    """Profile ``parent``, with a progress bar.

    Args:
        parent: the parent.
        samples: the calibration set.
        data: its fingerprint.
        device: what runs it.
        rows: classes to profile on their own, all others together; ``None``: every class.
    """
    with show.progress("profiling", len(samples)) as step:
        return profiled(parent, Context(samples=samples, device=device), data, rows, step)


def profile_of(
    parent: Parent,
    classes: Sequence[str],
    path: Path | None,
    samples: Samples,
    data: str,
    device: Device,
) -> ObserveReport:
    """Read the profile at ``path``, which must have a row for each of ``classes``, or make one.

    Args:
        parent: the parent.
        classes: the classes of the modules.
        path: the file; ``None``: make one.
        samples: the calibration set.
        data: its fingerprint.
        device: what runs it.

    Raises:
        GraftError: the profile is of another model, lacks a class, or cannot be read.
    """
    if path:
        profile, split = stored_profile(path, parent, classes), samples.split
        other = profile.label_classes != split.label_classes
        if other and split.predicted and profile.label_source != "data":
            log.warning(
                "labels of the profile %s were predicted among other classes than those of the samples: "
                "profile again with the same --classes and --labels-among",
                path,
            )
        return ObserveReport(profile=profile)
    return observe(parent, samples, data, device, rows_for(parent, classes))
