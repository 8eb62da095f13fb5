"""Continuous learning: samples of other parents' classes as new unconcerned examples."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from graft.passes.base import Context
from graft.passes.parent import Parent
from graft.passes.select.observe import Observe, ObserveReport
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError


@dataclass(frozen=True)
class Continuous:
    """Profile a parent again, with what it will meet in a composite and never learned.

    Concern identification sees the samples of the other networks' classes as samples of ``(other)``, and
    compensation does (Pan and Rajan, ICSE 2022, continuous learning; no training).

    Attributes:
        others: the classes of the other networks.
    """

    others: frozenset[str]

    def __call__(self, parent: Parent, context: Context) -> ObserveReport:
        """Extend the profile of ``parent`` by the samples of the other networks' classes.

        Args:
            parent: left as it is.
            context: the profile, the data with the other classes, and the device that runs the parent.

        Returns:
            The extended profile.

        Raises:
            GraftError: there are no such samples, or no profile.
        """
        data, profile = context.data, context.profile
        if data is None or profile is None:
            raise GraftError(
                "continuous-data",
                "continuous learning takes a profile, and data of the other classes",
                "name the data of the other modules, too",
            )
        names = data.class_names or ()
        foreign = np.array([name in self.others for name in names], bool)
        known = (data.labels >= 0) & (data.labels < len(names))
        numbers = np.where(known, data.labels, 0)
        positions = np.flatnonzero(known & foreign[numbers] if len(names) else np.zeros(0, bool))
        if not len(positions):
            raise GraftError(
                "continuous-data",
                f"there are no samples of {', '.join(sorted(self.others)[:3])} to learn from",
                "name the data of the other modules, too",
            )
        samples = Samples(data, positions, np.zeros(len(positions), np.int64), parent.card.resizing())
        found = Observe(classes=())(parent, replace(context, samples=samples))
        return replace(found, profile=profile.with_others(found.profile))
