"""``graft profile``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from graft.passes.select.budget import dead_channels
from graft.rewriter.files import refuse_overwrite
from graft.rewriter.run.session import Device
from graft.tools import console as show
from graft.tools import options, parents


@click.command(epilog="Example: graft profile resnet20.onnx --data cifar10.npz -o resnet20.profile")
@click.argument("model", type=click.Path(path_type=Path))
@options.data()
@options.card
@options.classes
@options.split
@options.samples_per_class
@options.ignore_label
@options.seed
@options.running
@options.writing("The profile to write.")
@options.common
def command(
    model: Path,
    data: Path,
    card: Path | None,
    classes: tuple[str, ...],
    split: str,
    ignore_label: str | None,
    samples_per_class: int | None,
    seed: int,
    device: Device,
    output: Path,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Record what every channel of MODEL does for every class of the samples.

    One pass over the training split. Only sums by class leave the device; the profile is small, and
    'graft plan' and 'graft decompose' need nothing else of the data.
    """
    refuse_overwrite(output, force)
    parent = parents.load_parent(model, card)
    labels = parent.card
    samples, fingerprint = options.samples_of(
        data, split, labels, None, samples_per_class, seed, ignore=ignore_label
    )
    names = options.classes_with_samples(classes, samples)
    if dry_run:
        would = {"output": output, "dry_run": True, "samples": len(samples), "classes": samples.counts()}
        note = f"would profile {len(samples)} samples of {len(samples.counts())} classes"
        show.emit("profile", would, as_json, lambda: show.note(note))
        return
    profile = parents.observe(parent, samples, fingerprint, device, names)
    profile.save(output, force)
    dead = dead_channels(parent.groups, profile)
    by_group = {group.name: int(dead[group.channels].sum()) for group in parent.groups}
    result: dict[str, Any] = {
        "output": output,
        "samples": int(profile.counts.sum()),
        "top1": profile.top1,
        "classes": dict(zip(profile.classes, profile.counts.tolist(), strict=True)),
        "dead": {name: number for name, number in by_group.items() if number},
        "providers": list(device.open(parent.model).providers),
    }
    show.emit("profile", result, as_json, lambda: _show(result))


def _show(result: dict[str, Any]) -> None:
    show.note(
        f"{result['output']}: {result['samples']} samples, {len(result['classes'])} classes, "
        f"parent top-1 {show.percent(result['top1'])} on them, ran on {', '.join(result['providers'])}"
    )
    if result["dead"]:
        dead = ", ".join(f"{name} {number}" for name, number in result["dead"].items())
        show.note(f"channels that are zero for every sample: {dead}")
