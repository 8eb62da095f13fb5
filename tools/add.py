"""``graft add``."""

from __future__ import annotations

from pathlib import Path

import click

from graft.passes.replace import Replace
from graft.rewriter.model import Model, refuse_overwrite
from graft.rewriter.session import Device
from graft.tools import options, show
from graft.tools.patch import described, measured, newcomer_options, patch, told, written


@click.command(
    epilog="Example: graft add digits.onnx --with Sneaker.onnx --data a.npz --data b.npz -o more.onnx"
)
@click.argument("model", type=click.Path(path_type=Path))
@newcomer_options
@options.data(required=False, multiple=True)
@options.card
@options.test_split
@options.running
@options.writing("The model to write.")
@options.common
def command(
    model: Path,
    module: options.Prefixed,
    with_class: str | None,
    rename: tuple[str, ...],
    scores: str | None,
    input_: str | None,
    data: tuple[options.Prefixed, ...],
    card: Path | None,
    test_split: str,
    samples_per_class: int | None,
    ignore_label: str | None,
    seed: int,
    device: Device,
    output: Path,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Add a class to MODEL, a composite or any classifier with a card, that another module decides.

    All other columns stay as they are. With --data the newcomer's score is fitted to the training split, and
    the patch is reported on the test split.
    """
    refuse_overwrite(output, force)
    before = Model.load(model, card)
    before.card = before.require_card(model)
    replacing = Replace(scores, input_, device=device, samples_per_class=samples_per_class, seed=seed)
    report, newcomer, samples, reason = patch(
        before, None, module, with_class, rename, data, ignore_label, replacing
    )
    result = {
        **written(report.model, output, force, dry_run, device),
        **described(report, newcomer, module, reason),
    }
    if data:
        result.update(measured(before, report.model, [], [newcomer.name], samples, test_split, device))
    what = f"{newcomer.name} of {module} was added"
    show.emit("add", result, as_json, lambda: told(result, what))
