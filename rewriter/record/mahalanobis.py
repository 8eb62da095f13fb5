"""Mahalanobis statistics of features: class centres and covariance, kept in the metadata of a module."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from graft.rewriter.arrays import Single, Table
from graft.rewriter.card.card import OTHER
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.record.profile import PRODUCTS, SUM, Profile

KEY = "graft.typicality"
DIRECTIONS = 64
"""Number of directions of most variance that the covariance is kept along; across them it is one number."""
LEAST_SPREAD = 0.1
"""Least spread relative to the mean one: few samples, or samples that are all alike, show too little."""
RIDGE = 1e-2
"""Added to all variances, relative to their mean."""


@dataclass(frozen=True)
class Mahalanobis:
    """Centres of classes in a feature space, and the distances of their own samples from them.

    The distance of features f to class k is d = (f - m_k)' S (f - m_k), S the inverse of the covariance
    within classes, the same for all of them (Mahalanobis distance; as a score for out-of-distribution
    samples: Lee et al., NeurIPS 2018). Samples of class k have d = ``expected`` on average, with
    standard deviation ``spread`` (that of normally distributed features with the covariance of class k).

    Attributes:
        tensor: name of the features (samples, features) in the graph.
        classes: names.
        centers: float32 (classes, features).
        directions: float32 (features, directions), divided by the standard deviations along them.
        across: float32 (1,): inverse variance of what lies across all directions, 0 where nothing does.
        expected: float32 (classes,).
        spread: float32 (classes,).
    """

    tensor: str
    classes: tuple[str, ...]
    centers: Single
    directions: Single
    across: Single
    expected: Single
    spread: Single

    @classmethod
    def fit(
        cls, profile: Profile, tensor: str, stays: NDArray[np.bool_], classes: Sequence[str]
    ) -> Mahalanobis | None:
        """Fit the statistics to a profile.

        Args:
            profile: of the parent, with sums and products of the features.
            tensor: name of the features.
            stays: bool (features of the parent,), those that the module keeps.
            classes: names of the classes of the module.

        Returns:
            ``None`` where the profile lacks products of the features, or a class on its own.
        """
        seen = [name for name in profile.seen if name != OTHER]
        if not profile.has(PRODUCTS, tensor, len(stays)) or not set(classes) <= set(seen):
            return None
        centers, covariances = {}, {}
        for name in seen:
            center = profile.mean(SUM, tensor, [name])
            products = profile.mean(PRODUCTS, tensor, [name]).reshape(len(stays), len(stays))
            centers[name] = center[stays]
            covariances[name] = (products - np.outer(center, center))[np.ix_(stays, stays)]
        directions, across = _whiten(np.mean(list(covariances.values()), axis=0))
        inverse = across * np.eye(len(directions)) + directions * _weights(directions, across) @ directions.T
        relative = [inverse @ covariances[name] for name in classes]
        expected = [float(np.trace(each)) for each in relative]
        spread = np.sqrt([max(0.0, 2 * float(np.trace(each @ each))) for each in relative])
        spread = np.maximum(spread, max(1e-6, LEAST_SPREAD * float(spread.mean())))
        return cls(
            tensor,
            tuple(classes),
            *(
                np.asarray(values, np.float32)
                for values in ([centers[name] for name in classes], directions, [across], expected, spread)
            ),
        )

    def attach(self, model: Model) -> None:
        """Write the statistics into the metadata of ``model``."""
        names = ("centers", "directions", "across", "expected", "spread")
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in names}
        content = {
            "tensor": self.tensor,
            "classes": list(self.classes),
            "safetensors": base64.b64encode(save(tensors)).decode("ascii"),
        }
        model.metadata[KEY] = json.dumps(content, sort_keys=True)

    @classmethod
    def of(cls, model: Model) -> Mahalanobis | None:
        """Return the statistics in the metadata of ``model``, or ``None``.

        Raises:
            GraftError: ``module-broken``.
        """
        if KEY not in model.metadata:
            return None
        try:
            content = json.loads(model.metadata[KEY])
            tensors = load(base64.b64decode(content["safetensors"], validate=True))
            found = cls(str(content["tensor"]), tuple(map(str, content["classes"])), **tensors)
            found._check()
        except (ValueError, KeyError, TypeError, AttributeError, SafetensorError, RecursionError) as error:
            raise GraftError(
                "module-broken", f"{KEY} of the module cannot be read", "decompose the parent again"
            ) from error
        return found

    def _check(self) -> None:
        """Raise ValueError unless distances can be computed from the statistics."""
        classes, features = self.centers.shape
        directions = self.directions.shape[1:]
        shapes = {
            "directions": (features, *directions),
            "across": (1,),
            "expected": (classes,),
            "spread": (classes,),
        }
        if len(directions) != 1 or len(self.classes) != classes:
            raise ValueError("shapes differ")
        if any(getattr(self, name).shape != shape for name, shape in shapes.items()):
            raise ValueError("shapes differ")
        if not all(np.isfinite(getattr(self, name)).all() for name in ("centers", *shapes)):
            raise ValueError("not finite")
        if (self.spread <= 0).any() or not (self.directions != 0).any(axis=0).all():
            raise ValueError("distances would not be finite")

    @property
    def weights(self) -> Single:
        """Weights of the squares along the directions, beside ``across`` times the whole square."""
        return np.asarray(_weights(self.directions, float(self.across[0])), np.float32)

    def distances(self, features: NDArray[np.floating]) -> Table:
        """Return standardised distances (samples, classes) of ``features`` (samples, features)."""
        offset = features[:, None, :].astype(np.float64) - self.centers[None]
        squares = (offset @ self.directions) ** 2 @ self.weights + self.across[0] * (offset**2).sum(axis=-1)
        return np.asarray((squares - self.expected) / self.spread)


def _weights(directions: NDArray[np.floating], across: float) -> NDArray[np.floating]:
    return np.asarray(1 - across / (directions**2).sum(axis=0))


def _whiten(covariance: Table) -> tuple[Table, float]:
    """Directions over their standard deviations (features, directions), and the inverse variance across."""
    size = len(covariance)
    ridge = RIDGE * max(float(np.trace(covariance)) / max(1, size), 1e-12)
    variances, vectors = np.linalg.eigh(covariance)
    variances, vectors = np.maximum(variances[::-1], 0) + ridge, vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)  # eigenvectors come with any sign
    vectors = vectors * np.sign(vectors[largest, np.arange(size)])
    kept = min(size, DIRECTIONS)
    across = float(1 / variances[kept:].mean()) if kept < size else 0.0
    return vectors[:, :kept] / np.sqrt(variances[:kept]), across
