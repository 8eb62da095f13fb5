"""``graft replace``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from graft.tools import options
from graft.tools.command import Option, takes_options
from graft.tools.patch import NEWCOMER, CompareOptions, NewcomerOptions, bring_in


class ReplaceOptions(NewcomerOptions):
    """A classifier, one of its classes, and the module that decides it."""

    name: Annotated[
        str, Option("Class of MODEL that the module decides.", NEWCOMER, flags=("--class",), metavar="NAME")
    ] = Field(alias="class")


@takes_options(
    epilog="Example: graft replace digits.onnx --class 3 --with better/3.onnx --data mnist.npz -o new.onnx"
)
def command(
    subject: ReplaceOptions,
    compare: CompareOptions,
    data: options.SampledDataOptions,
    run: options.SeededRunOptions,
    output: options.ModelOutputOptions,
) -> None:
    """Let another module decide class NAME of MODEL, a composite or any classifier with a card.

    All other columns stay as they are. The class is called as in the module, unless --rename gives another
    name. With --data the module's score is fitted to the training split, and accuracy before and after is
    measured on the test split.
    """
    bring_in(subject.name, subject, compare, data, run, output)
