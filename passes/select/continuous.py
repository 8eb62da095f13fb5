"""Continuous learning: samples of other parents' classes as new unconcerned examples."""

from __future__ import annotations

import numpy as np

from graft.passes.parent import Parent
from graft.passes.select.observe import Observe
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.record.profile import Profile
from graft.rewriter.run.session import Device


class Continuous:
    """Profile a parent again, with what it will meet in a composite and never learned.

    Concern identification sees the samples of the other networks' classes as samples of ``(other)``, and
    compensation does (Pan and Rajan, ICSE 2022, continuous learning; no training).

    Args:
        device: where the parent runs.
    """

    def __init__(self, device: Device) -> None:
        self.device = device

    def __call__(self, parent: Parent, profile: Profile, data: Split, others: set[str]) -> Profile:
        """``profile`` of ``parent`` with the samples of ``data`` that are of ``others``.

        Raises:
            GraftError: there are none.
        """
        names = data.class_names or ()
        foreign = np.array([name in others for name in names], bool)
        known = (data.labels >= 0) & (data.labels < len(names))
        numbers = np.where(known, data.labels, 0)
        positions = np.flatnonzero(known & foreign[numbers] if len(names) else np.zeros(0, bool))
        if not len(positions):
            raise GraftError(
                "continuous-data",
                f"there are no samples of {', '.join(sorted(others)[:3])} to learn from",
                "name the data of the other modules, too",
            )
        samples = Samples(data, positions, np.zeros(len(positions), np.int64), parent.card.resizing())
        found = Observe(self.device, classes=())(parent.model, samples, parent.sha256)
        return profile.with_others(found)
