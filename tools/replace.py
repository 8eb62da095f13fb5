"""``graft replace``."""

from __future__ import annotations

from pathlib import Path

import click

from graft.passes.replace import Replace
from graft.rewriter.model import Model, refuse_overwrite
from graft.rewriter.session import Device
from graft.tools import options, show
from graft.tools.patch import described, measured, newcomer_options, patch, told, written


@click.command(
    epilog="Example: graft replace digits.onnx --class 3 --with better/3.onnx --data mnist.npz -o new.onnx"
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--class", "name", required=True, metavar="NAME", help="The class to be decided anew.")
@newcomer_options
@options.data(required=False, multiple=True)
@options.card
@options.test_split
@options.running
@options.writing("The model to write.")
@options.common
def command(
    model: Path,
    name: str,
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
    """Let another module decide class NAME of MODEL, a composite or any classifier with a card.

    All other columns stay as they are. Where the module's class is called otherwise, so is the class of the
    result, unless --rename says not. With --data the newcomer's score is fitted to the training split, and
    the patch is reported on the test split.
    """
    refuse_overwrite(output, force)
    before = Model.load(model, card)
    before.card = before.require_card(model)
    replacing = Replace(scores, input_, device=device, samples_per_class=samples_per_class, seed=seed)
    report, newcomer, samples, reason = patch(
        before, name, module, with_class, rename, data, ignore_label, replacing
    )
    result = {
        **written(report.model, output, force, dry_run, device),
        "class": name,
        **described(report, newcomer, module, reason),
    }
    if data:
        result.update(measured(before, report.model, [name], [newcomer.name], samples, test_split, device))
    what = f"{name} is decided by {module} now" + ("" if newcomer.name == name else f", as {newcomer.name}")
    show.emit("replace", result, as_json, lambda: told(result, what))
