"""Options that commands share, so that they are spelled and explained alike everywhere."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from graft.rewriter.card.card import Card
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.run.session import Device

Command = Callable[..., Any]


def common(function: Command) -> Command:
    """``--json``, ``-q``, ``-v`` and ``--debug``."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
    @click.option("-q", "--quiet", is_flag=True, help="No progress bars, no warnings.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more on standard error.")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(function)
    def wrapped(*args: Any, quiet: bool, verbose: bool, debug: bool, **options: Any) -> Any:
        level = logging.ERROR if quiet else logging.INFO if verbose or debug else logging.WARNING
        logging.getLogger("graft").setLevel(level)
        click.get_current_context().meta["quiet"] = quiet
        return function(*args, **options)

    return wrapped


def running(function: Command) -> Command:
    """``--providers``, ``--strict-providers`` and ``--threads``, handed over as ``device``."""

    @click.option(
        "--providers",
        default="",
        metavar="NAMES",
        help="Where to run, in order: cuda,cpu ... Default: the best there is.",
    )
    @click.option("--strict-providers", is_flag=True, help="Fail where the first is not to be had.")
    @click.option("--threads", default=0, type=click.IntRange(0), help="Threads; 0: onnxruntime decides.")
    @functools.wraps(function)
    def wrapped(*args: Any, providers: str, strict_providers: bool, threads: int, **options: Any) -> Any:
        names = [name.strip() for name in providers.split(",") if name.strip()]
        return function(*args, device=Device(names, strict_providers, threads), **options)

    return wrapped


def writing(what: str, required: bool = True) -> Callable[[Command], Command]:
    """``-o``, ``--force`` and ``--dry-run``."""

    def decorate(function: Command) -> Command:
        for option in (
            click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing."),
            click.option("--force", is_flag=True, help="Replace what is there."),
            click.option("-o", "--output", required=required, type=click.Path(path_type=Path), help=what),
        ):
            function = option(function)
        return function

    return decorate


card = click.option(
    "--card",
    type=click.Path(path_type=Path),
    help="The model's card. Default: NAME.yaml beside it.",
)
seed = click.option("--seed", default=0, type=click.IntRange(0), help="For everything that is drawn.")
split = click.option("--split", default="train", help="Split to learn from.", show_default=True)
test_split = click.option("--test-split", default="test", help="Split to report on.", show_default=True)
samples_per_class = click.option(
    "--samples-per-class", type=click.IntRange(1), help="Use at most this many of each class."
)
ignore_label = click.option(
    "--ignore-label", metavar="CLASS", help="Labels of this class do not count, as those of padding."
)
classes = click.option(
    "--classes",
    multiple=True,
    metavar="A,B|@FILE",
    help="Classes by name, separated by commas; repeatable; @FILE: one a line. Default: all.",
)


round_to = click.option(
    "--round-to",
    type=click.IntRange(1),
    help="Channels fall so many at a time. Default: what their operators are fast with; 1: one by one.",
)


@dataclass(frozen=True)
class Prefixed:
    """A path, and what comes before the names of its classes: ``k=kmnist.npz`` makes ``k:3``."""

    path: Path
    prefix: str = ""

    def name(self, label: str) -> str:
        """What a class of it is called."""
        return f"{self.prefix}:{label}" if self.prefix else label

    def __str__(self) -> str:
        return str(self.path)


class PrefixedPath(click.ParamType):  # type: ignore[type-arg]
    """``PATH`` or ``PREFIX=PATH``; a file whose name holds ``=`` is that file."""

    name = "path"

    def convert(
        self, value: str | Prefixed, parameter: click.Parameter | None, context: click.Context | None
    ) -> Prefixed:
        """The path and its prefix."""
        if isinstance(value, Prefixed):
            return value
        prefix, sign, path = value.partition("=")
        if sign and PREFIX.fullmatch(prefix) and not Path(value).exists():
            return Prefixed(Path(path), prefix)
        return Prefixed(Path(value))


PREFIX = re.compile(r"[\w.-]+")


def data(required: bool = True, multiple: bool = False) -> Callable[[Command], Command]:
    """``--data``, once or several times."""
    several = (
        " Repeatable: classes are matched by name; PREFIX=PATH calls them PREFIX:NAME." if multiple else ""
    )
    return click.option(
        "--data",
        required=required,
        multiple=multiple,
        type=PrefixedPath() if multiple else click.Path(path_type=Path),
        help=f"Labelled samples: .npz, folder train/CLASS/*.jpg, or Parquet.{several}",
    )


def versions(function: Command) -> Command:
    """``--opset`` and ``--ir-version``."""
    for option in (
        click.option("--ir-version", type=click.IntRange(4), help="Version of the file format to write."),
        click.option("--opset", type=click.IntRange(11), help="Operator set to write."),
    ):
        function = option(function)
    return function


class Share(click.ParamType):  # type: ignore[type-arg]
    """A share of 1, as 0.5 or 50%; with ``zero`` it may be 0."""

    name = "share"

    def __init__(self, zero: bool = False) -> None:
        self.zero = zero

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """The number."""
        try:
            text = str(value).strip()
            share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            self.fail(f"expected a share such as 0.5 or 50%, found {value}", param, ctx)
        if not (0 < share <= 1 or (self.zero and share == 0)):
            self.fail(f"expected a share above 0 and at most 1 (100%), found {value}", param, ctx)
        return share


def class_names(given: Sequence[str], card: Card) -> tuple[str, ...] | None:
    """The classes that ``--classes`` names, or ``None`` where it was not given.

    A whole label beats splitting at commas.

    Raises:
        GraftError: a name is unknown or named twice, or a file is missing.
    """
    names: list[str] = []
    for text in given:
        if text.startswith("@") and text not in card.labels:
            names += _lines(Path(text[1:]))
        elif text in card.labels:
            names.append(text)
        else:
            names += [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        card.class_index(name)
        if names.count(name) > 1:
            raise GraftError("class-twice", f"class '{name}' is named twice", "name it once")
    if given and not names:
        raise GraftError("class-unknown", "--classes names no class", "name at least one")
    return tuple(names) if given else None


def classes_with_samples(given: Sequence[str], samples: Samples) -> tuple[str, ...] | None:
    """As :func:`class_names`; each of them has to have samples."""
    names = class_names(given, samples.card)
    if names:
        Samples.match(samples.split, samples.card, names)  # says which of them has none
    return names


def split_of(
    paths: Sequence[Prefixed],
    split: str,
    ignore: str | None = None,
    numbers: Mapping[str, Sequence[str]] | None = None,
) -> Split:
    """One split of one or several data sets.

    ``numbers``: what class numbers without names mean, by prefix.
    """
    parts = [_named(Dataset.load(each.path).split(split), each, numbers or {}) for each in paths]
    return replace(Split.join(parts), ignore=ignore)


def _named(part: Split, named: Prefixed, numbers: Mapping[str, Sequence[str]]) -> Split:
    names = part.class_names or numbers.get(named.prefix)
    if names is None and named.prefix:
        raise GraftError(
            "data-names",
            f"the classes of {named} are numbers, and what they mean is not known",
            "add class_names to the .npz file",
        )
    return replace(part, class_names=tuple(map(named.name, names)) if names else None)


def samples_of(
    path: Path,
    split: str,
    card: Card,
    classes: Sequence[str] | None = None,
    per_class: int | None = None,
    seed: int = 0,
    names: Sequence[str] | None = None,
    ignore: str | None = None,
) -> tuple[Samples, str]:
    """Samples of a data set for a card, and the fingerprint of the data and split."""
    dataset = Dataset.load(path)
    found = replace(dataset.split(split), ignore=ignore)
    samples = Samples.match(found, card, classes, per_class, seed, names)
    if samples.left_out:
        logging.getLogger("graft").info("%d samples of other classes left out", samples.left_out)
    without = "" if ignore is None else f"/without {ignore}"
    return samples, f"{dataset.fingerprint()}/{split}{without}"


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise GraftError(
            "classes-file", f"cannot read the class names in {path}", "check the path"
        ) from error
