"""``graft profile``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from graft.passes.select.budget import dead_by_group
from graft.rewriter.measure.pseudo_labels import describe_labels
from graft.tools import console as show
from graft.tools import options, parents
from graft.tools.command import Option, takes_options
from graft.tools.estimates import Estimate
from graft.tools.languages import load_classifier


class ProfileOutput(options.OutputOptions):
    """Output of ``graft profile``."""

    output: Annotated[Path, Option("Profile to write.", options.OUTPUT, ("-o", "--output"))]


@takes_options(epilog="Example: graft profile resnet20.onnx --data cifar10.npz -o resnet20.profile")
def command(
    subject: options.ClassOptions,
    data: options.DataOptions,
    run: options.SeededRunOptions,
    output: ProfileOutput,
) -> None:
    """Record channel statistics of MODEL for every class, in one pass over the calibration set.

    Only sums by class leave the device. The profile is small, and 'graft plan' and 'graft decompose'
    read it instead of the samples.
    """
    output.claim(output.output)
    parent = load_classifier(subject, "profile")
    device = run.device()
    dataset = parents.open_data(parent, data, subject.classes, device, run.seed)
    samples, fingerprint = data.samples(dataset, parent.card, run.seed)
    names = options.classes_with_samples(subject.classes, samples)
    estimate = Estimate(parent, samples, device)
    work = estimate.subject.profile(names, len(samples))
    estimate.announce(work, f"a profile of {len(samples)} samples")
    report = parents.observe(parent, samples, fingerprint, device, names)
    profile = report.profile
    with output.target(output.output) as path:
        profile.save(path, output.force)
    result: dict[str, Any] = {
        "output": output.output,
        "samples": int(profile.counts.sum()),
        "top1": profile.top1,
        **describe_labels(samples, names or tuple(samples.counts())),
        "classes": dict(zip(profile.classes, profile.counts.tolist(), strict=True)),
        "dead": dead_by_group(parent.groups, profile),
        "providers": list(device.open(parent.model).providers),
        "declined": list(map(str, (*parent.declined, *report.declined))),
        **estimate.plain(),
        **output.dry(),
    }
    show.declined(result["declined"])
    show.emit("profile", result, output.as_json, lambda: _show(result, len(names or ())))


def _show(result: dict[str, Any], asked: int) -> None:
    predicted = result["label_source"] == "predictions"
    accuracy = "" if predicted else f"parent top-1 {show.percent(result['top1'])} on them, "
    show.note(
        f"{result['output']}: {result['samples']} samples, {len(result['classes'])} classes, "
        f"{accuracy}ran on {', '.join(result['providers'])}"
    )
    show.data_source(result, asked)
    if result["dead"]:
        dead = ", ".join(f"{name} {number}" for name, number in result["dead"].items())
        show.note(f"channels that are zero for every sample: {dead}")
