"""Measure the choices that docs/research/new_class.md lists: other ways to fit the column of a new class.

    python -m benchmarks.new_class_ways --json new_class_ways.json

As in :mod:`benchmarks.new_class` each class of each network is left out, and added again from 5 or 20 images.
All figures are of training images that the column was not fitted to: no test image chooses anything. A way
replaces one part of the method while it is measured.
"""  # fmt: skip

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from unittest import mock

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from benchmarks.common import RESNET, Run, mean_over, start
from benchmarks.new_class import BUNDLED, trials
from graft.passes.discriminant import calibration, linear, others
from graft.passes.discriminant.evidence import Evidence
from graft.passes.discriminant.linear import Column
from graft.passes.discriminant.others import HEAD, SAMPLES
from graft.rewriter.arrays import Table
from graft.rewriter.data.folds import class_weights

COUNTS = (5, 20)
DRAWS = 1
NETWORKS = (RESNET, BUNDLED, "dense_mnist_4")
Patch = Callable[[], AbstractContextManager[object]]
Centers = Callable[[Table, Table], tuple[Table, float]]


@dataclass(frozen=True)
class Way:
    """Another way to fit the column.

    Attributes:
        name: as printed.
        mode: what represents the old classes.
        patch: replaces a part of the method.
    """

    name: str
    mode: str
    patch: Patch = nullcontext


def _constant(module: object, name: str, value: object) -> Patch:
    return functools.partial(mock.patch.object, module, name, value)


def _shrinkage(value: float) -> Patch:
    return functools.partial(mock.patch, "benchmarks.new_class.SHRINKAGES", (value,))


def _logistic(penalty: float) -> Patch:
    """Fit the column by logistic regression beside the other logits, features in standard units."""

    def fit(evidence: Evidence, *_: object) -> Column:
        scale = evidence.features.std(axis=0) + 1e-6
        rows = np.concatenate([evidence.features / scale, np.ones((len(evidence.labels), 1))], axis=1)
        own, rest = evidence.labels == evidence.new, logsumexp(evidence.logits, axis=1)
        weights = class_weights(evidence.labels)
        signs = np.where(own, 1.0, -1.0)

        def loss(found: Table) -> tuple[float, Table]:
            margins = signs * (rows @ found - rest)
            slope = -rows.T @ (weights * signs * expit(-margins))
            slope[:-1] += 2 * penalty * found[:-1]
            total = float(weights @ np.logaddexp(0, -margins)) + penalty * float(found[:-1] @ found[:-1])
            return total, slope

        found = minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B").x
        return Column(found[:-1] / scale, -float(found[-1]), penalty, 0.0, None, 0.0)

    return functools.partial(mock.patch, "benchmarks.new_class.fit_column", fit)


def _strict(strictness: float, centers: Centers | None = None) -> Patch:
    """Let centres be those of ``centers``, and the threshold always be as strict as ``strictness``."""
    known = others._implied_centers

    def implied(weights: Table, new: Table) -> tuple[Table, float]:
        return (centers or known)(weights, new)[0], strictness

    return _constant(others, "_implied_centers", implied)


def _around_mean(guess: Callable[[Table, Table], Table]) -> Centers:
    """Return centres in the direction of rows, seen from a mean that ``guess`` returns."""

    def implied(weights: Table, new: Table) -> tuple[Table, float]:
        rows, center = weights - weights.mean(axis=0), new.mean(axis=0)
        mean = guess(rows, center)
        radius, length = float(np.linalg.norm(center - mean)), float(np.linalg.norm(rows, axis=1).mean())
        return mean + rows * radius / max(length, 1e-12), 0.0

    return implied


def _alike(rows: Table, center: Table) -> Table:
    return np.full(len(center), center.mean())


def _low(rows: Table, center: Table) -> Table:
    least = -rows.min(axis=0)
    return least * center.mean() / max(float(least.mean()), 1e-12)


def _by_covariance(weights: Table, new: Table) -> tuple[Table, float]:
    """Return centres that rows of a discriminant have: the covariance times the row, from the mean."""
    apart = new - new.mean(axis=0)
    rows = (weights - weights.mean(axis=0)) @ (apart.T @ apart / len(new))
    return _around_mean(_alike)(rows, new)


WAYS = (
    Way("as it is", SAMPLES),
    Way("scale and offset from the new class alone", SAMPLES, _constant(linear, "TEACHERS", 0)),
    Way("no penalty on the scale", SAMPLES, _constant(calibration, "PRIOR", 0.0)),
    Way("penalty on the scale ten times as large", SAMPLES, _constant(calibration, "PRIOR", 1.0)),
    Way("shrinkage 1 alone: the difference of the means", SAMPLES, _shrinkage(1.0)),
    Way("shrinkage 0.1 alone", SAMPLES, _shrinkage(0.1)),
    Way("logistic regression, penalty 0.01", SAMPLES, _logistic(0.01)),
    Way("logistic regression, penalty 0.0001", SAMPLES, _logistic(0.0001)),
    Way("as it is", HEAD),
    Way("no strictness", HEAD, _strict(0.0)),
    Way("threshold that nine of ten samples pass", HEAD, _strict(1.0)),
    Way("no strictness, mean with all values alike", HEAD, _strict(0.0, _around_mean(_alike))),
    Way("no strictness, mean as low as the head allows", HEAD, _strict(0.0, _around_mean(_low))),
    Way("no strictness, covariance of the new samples in the centres", HEAD, _strict(0.0, _by_covariance)),
)


def _measure(run: Run, name: str, count: int, way: Way) -> dict[str, float]:
    """Return the mean difference over classes, and its standard error."""
    found = list(trials(run, name, count, DRAWS))
    classes: dict[int, list[float]] = {}
    with way.patch():
        for seed, trial in found:
            images = trial.network.train.take(trial.others())
            figures = trial.figures(way.mode, seed, images)
            classes.setdefault(trial.left_out, []).append(figures["difference"])
    mean, error = mean_over([float(np.mean(each)) for each in classes.values()])
    return {"difference": mean, "error": error}


def ways(run: Run) -> None:
    """Differences of all classes from the network, in points, for each way and network."""
    for count in COUNTS:
        run.output.section(f"other ways, {count} images, training images that were not used")
        run.output.header("others", "way", *NETWORKS)
        for way in WAYS:
            cells = []
            for name in NETWORKS:
                found = run.output.measured(
                    f"{count} {way.mode} {way.name} {name} {run.few}",
                    functools.partial(_measure, run, name, count, way),
                )
                cells.append(f"{found['difference']:+.2f} ± {found['error']:.2f}")
            run.output.row(way.mode, way.name, *cells)


SECTIONS = {"ways": ways}

if __name__ == "__main__":
    start(__doc__, SECTIONS)
