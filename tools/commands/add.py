"""``graft add``."""

from __future__ import annotations

from graft.tools import options
from graft.tools.command import takes_options
from graft.tools.patch import CompareOptions, NewcomerOptions, bring_in


@takes_options(
    epilog="Example: graft add digits.onnx --with Sneaker.onnx --data a.npz --data b.npz -o more.onnx"
)
def command(
    subject: NewcomerOptions,
    compare: CompareOptions,
    data: options.SampledDataOptions,
    run: options.SeededRunOptions,
    output: options.ModelOutputOptions,
) -> None:
    """Add a class to MODEL, a composite or any classifier with a card, that another module decides.

    All other columns stay as they are. With --data the module's score is fitted to the training split, and
    accuracy before and after is measured on the test split.
    """
    bring_in(None, subject, compare, data, run, output)
