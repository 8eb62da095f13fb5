"""``graft plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from graft.passes.decompose import Decompose
from graft.passes.identify import DEFAULT, MEASURED, METHODS, PUBLISHED, best
from graft.passes.select.budget import UNITS
from graft.passes.select.latency_budget import Stopwatch
from graft.rewriter.data.samples import Samples
from graft.rewriter.files import refuse_overwrite, writing
from graft.rewriter.measure.cost import CostModel
from graft.rewriter.run.session import Device
from graft.tools import console as show
from graft.tools import options, parents

method_option = click.option(
    "--method",
    type=click.Choice([method.name for method in (*METHODS, *PUBLISHED)]),
    help=f"How channels are chosen. Default: {MEASURED} with --data, {DEFAULT} without it or if recurrent.",
)
keep_by_option = click.option(
    "--keep-by",
    default="macs",
    type=click.Choice(UNITS),
    show_default=True,
    help="What --keep counts: macs (head included), parameters (head excluded), or latency, measured here.",
)


@click.command(
    epilog="Example: graft plan resnet20.onnx --profile resnet20.profile --classes cat,dog "
    "--keep 0.5 -o pets.json"
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--profile", required=True, type=click.Path(path_type=Path), help="From 'graft profile'.")
@options.data(required=False)
@options.split
@options.samples_per_class
@options.card
@options.classes
@click.option("--keep", type=options.Share(), required=True, help="Share of the cost to keep: 0.5 or 50%.")
@keep_by_option
@options.round_to
@method_option
@options.seed
@options.running
@options.writing("The plan to write.")
@options.common
def command(
    model: Path,
    profile: Path,
    data: Path | None,
    split: str,
    samples_per_class: int | None,
    card: Path | None,
    classes: tuple[str, ...],
    keep: float,
    keep_by: str,
    round_to: int | None,
    method: str | None,
    seed: int,
    device: Device,
    output: Path,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Choose which channels of MODEL a module for a set of classes keeps.

    The plan is a JSON file: for each channel group the kept channels as ranges. Edit it, and cut along
    it with 'graft decompose MODEL --plan PLAN'.
    """
    refuse_overwrite(output, force)
    parent = parents.load_parent(model, card)
    names = options.class_names(classes, parent.card)
    found = parents.matching_profile(profile, parent, names)
    names = names or parents.profiled(found)
    decompose = Decompose(
        keep=keep,
        unit=keep_by,
        method=method or best(parent.groups, bool(data)),
        together=True,
        seed=seed,
        round_to=round_to,
        stopwatch=Stopwatch(device),
    )
    samples: Samples | None = None
    if data:
        samples, _ = options.samples_of(data, split, parent.card, None, samples_per_class, seed)
    plan = decompose.plan(parent, found, names, samples, device)
    mask = plan.mask(parent.groups)
    kept, channels = plan.counts()
    cost = CostModel(parent.groups).cost(mask)
    result: dict[str, Any] = {
        "output": output,
        "classes": list(names),
        "channels_kept": kept,
        "channels": channels,
        "macs_ratio": cost.macs / max(1, parent.cost.macs),
        "parameters_ratio": cost.parameters / max(1, parent.cost.parameters),
    }
    if dry_run:
        result["dry_run"] = True
    else:
        with writing(output, force) as temporary:
            temporary.write_text(plan.to_json(), encoding="utf-8")
    show.emit("plan", result, as_json, lambda: _show(result))


def _show(result: dict[str, Any]) -> None:
    show.note(
        f"{result['output']}: keeps {result['channels_kept']} of {result['channels']} channels, "
        f"{show.percent(result['macs_ratio'], 1)} of the MACs, "
        f"{show.percent(result['parameters_ratio'], 1)} of the parameters"
    )
