"""Parents as commands need them: loaded, and profiled with a progress bar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graft.passes.base import Context
from graft.passes.parent import Parent
from graft.passes.select.observe import ObserveReport
from graft.passes.select.profiling import profiled, rows_for, stored_profile
from graft.rewriter.data.samples import Samples
from graft.rewriter.run.session import Device
from graft.tools import console as show


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
        return ObserveReport(profile=stored_profile(path, parent, classes))
    return observe(parent, samples, data, device, rows_for(parent, classes))
