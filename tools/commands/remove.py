"""``graft remove``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from graft.passes.base import Context
from graft.passes.join.naming import PatchData
from graft.passes.join.patch_report import describe, evaluate_before_after, held_out
from graft.passes.remove import Remove
from graft.tools import console as show
from graft.tools import languages, options, parents
from graft.tools.command import Option, takes_options
from graft.tools.estimates import Passes
from graft.tools.patch import print_report
from graft.tools.saving import save


class RemoveOptions(options.ShapedModelOptions):
    """A classifier, and the classes that it loses."""

    names: Annotated[
        tuple[str, ...],
        Option("Class to remove; repeatable.", "What to remove", flags=("--class",), metavar="NAME"),
    ] = Field(alias="class")


@takes_options(epilog="Example: graft remove digits.onnx --class 3 -o fewer.onnx")
def command(
    subject: RemoveOptions,
    data: options.SeveralDataOptions,
    run: options.RunOptions,
    output: options.ModelOutputOptions,
) -> None:
    """Remove classes of MODEL, a composite or any classifier with a card, and what only they need.

    With --data accuracy on the other classes, before and after, is measured on the test split.
    """
    output.claim(output.output)
    before = subject.load()
    device = run.device()
    names = tuple(dict.fromkeys(subject.names))
    if languages.speaks(before):
        languages.remove(before, names, data, run, output)
        return
    sets = parents.open_sets(data.data, 0, (data.test_split,), lambda _: before, device)
    samples = PatchData.of(before, sets, data.ignore_label)
    card, part, numbers = before.require_card(), None, samples.numbers.get("")
    if sets:
        part = held_out(samples.split(data.test_split), card, card.labels, numbers)
    passes = Passes([before], part, 2.0, device)  # before and after
    if part is not None:
        passes.announce(f"2 models on {len(part)} samples")
    report = Remove(names)(before, Context(device=device))
    after = report.model
    result = {
        "output": output.output,
        **describe(after, device),
        "removed": list(names),
        "declined": list(map(str, report.declined)),
    }
    if part is not None:
        result.update(evaluate_before_after((before, after), (names, ()), part, numbers, device))
        result.update(parents.sources_of(None, part))
    result.update(save(after, output.output, output), **passes.plain())
    show.declined(result["declined"])
    show.emit(
        "remove", result, output.as_json, lambda: print_report(result, f"{show.classes(names)} removed")
    )
