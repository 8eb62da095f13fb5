"""The options of commands: groups that several share, spelled and explained alike everywhere."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import click
from pydantic import Field

from graft.passes.compensate.fold import STEPS
from graft.passes.identify import DEFAULT, MEASURED, methods
from graft.passes.select.budget import UNITS
from graft.passes.select.layers import LayerRules
from graft.rewriter.card.card import Card
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.prefixed import PrefixedData
from graft.rewriter.data.prefixed import prefixed as name_with
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import TEST
from graft.rewriter.errors import GraftError
from graft.rewriter.files import claimed, refuse_overwrite
from graft.rewriter.graph.model import Model
from graft.rewriter.regular_files import read_regular
from graft.rewriter.run.budget import parse_size
from graft.rewriter.run.session import Device
from graft.tools.command import GENERAL, Argument, Option, Options, Reads, checked_path, one_of

PRUNE = "What to prune"
MODEL = "Model"
DATA = "Data"
METHOD = "Method"
SCORES = "Scores"
RUN = "Run"
OUTPUT = "Output"
REPEATABLE = "Repeatable: classes are matched by name; PREFIX=PATH calls them PREFIX:NAME."
HELD_OUT = "Split of held-out samples to report on."
FORMATS = (
    "An .npz file, a folder train/CLASS/*.jpg or CLASS/*.jpg, or Parquet. Samples without labels get the "
    "predictions of the parent."
)
TIMING_THREADS = 2
LARGEST_NUMBER = 2**31 - 1
"""Of samples, channels and images at once."""
LARGEST_SEED = 2**63 - 1
LARGEST_INPUT = 2**40
"""Numbers in an input whose shape is given."""


# ---- values


def share(value: Any) -> float:
    """Return a share of 1 given as 0.5 or 50%.

    Raises:
        ValueError: it is none above 0 and at most 1.
    """
    found = _number(value)
    if not 0 < found <= 1:
        raise ValueError(f"expected a share above 0 and at most 1 (100%), found {value}")
    return found


def share_or_zero(value: Any) -> float:
    """Return a share of 1, as :func:`share`, or 0.

    Raises:
        ValueError: it is none.
    """
    found = _number(value)
    if not 0 <= found <= 1:
        raise ValueError(f"expected a share from 0 to 1 (100%), found {value}")
    return found


def _number(value: Any) -> float:
    text = str(value).strip()
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise ValueError(f"expected a share such as 0.5 or 50%, found {value}") from None


def _points(value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"expected a number of percentage points, found {value}") from None
    if not 0 <= found <= 100:
        raise ValueError(f"expected 0 to 100 percentage points, found {value}")
    return found


UNITS_OF_TIME = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(value: Any) -> float:
    """Return seconds given as 90, 90s, 10m, 1.5h, or ``none``: without limit.

    Raises:
        ValueError: it is no such time.
    """
    text = str(value).strip().lower()
    if text == "none":
        return float("inf")
    try:
        unit = UNITS_OF_TIME.get(text[-1:])
        found = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        found = -1.0
    if not found >= 0:
        raise ValueError(f"expected a time such as 90, 10m or none, found {value}")
    return found


def _names(value: Any) -> tuple[str, ...]:
    words = value.split(",") if isinstance(value, str) else value
    return tuple(str(word).strip() for word in words if str(word).strip())


def layer_share(value: Any) -> tuple[str, float]:
    """Return the pattern and the share of ``PATTERN=0.7``; the pattern may hold the sign.

    Raises:
        ValueError: there is no pattern or no share.
    """
    if isinstance(value, tuple):
        return str(value[0]), share(value[1])
    pattern, sign, number = str(value).rpartition("=")
    if not sign or not pattern:
        raise ValueError(f"expected PATTERN=SHARE such as '/conv2*=0.7', found {value}")
    return pattern, share(number)


def _shape(text: str) -> tuple[str, list[int]]:
    name, _, sizes = text.rpartition(":")
    try:
        shape = [int(size) for size in sizes.replace("x", ",").split(",")]
        if not name or min(shape) < 1 or math.prod(shape) > LARGEST_INPUT:
            raise ValueError
    except ValueError as error:
        raise GraftError(
            "shape-unreadable",
            f"expected a shape such as input:1,3,224,224, found {text}",
            "give the name of the input and its sizes",
        ) from error
    return name, shape


PREFIX = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Prefixed:
    """A path, and what comes before the names of its classes: ``k=kmnist.npz`` makes ``k:3``."""

    path: Path
    prefix: str = ""

    def load(self, seed: int = 0) -> PrefixedData:
        """Load the data set at the path.

        Args:
            seed: draws splits where the data has none.

        Raises:
            GraftError: there is none, or it cannot be read.
        """
        return PrefixedData(Dataset.load(self.path, seed), self.prefix)

    def __str__(self) -> str:
        return str(self.path)


def prefixed(value: str | Path | Prefixed) -> Prefixed:
    """Read ``PATH`` or ``PREFIX=PATH``; a file whose name holds ``=`` is that file."""
    if isinstance(value, Prefixed):
        return value
    prefix, sign, path = str(value).partition("=")
    if sign and PREFIX.fullmatch(prefix) and not os.path.lexists(str(value)):
        return Prefixed(Path(checked_path(path)), prefix)
    return Prefixed(Path(checked_path(str(value))))


SHARE = Reads("share", share)
Share = Annotated[float, SHARE]
ShareOrZero = Annotated[float, Reads("share", share_or_zero)]
Seconds = Annotated[float, Reads("time", seconds)]
Points = Annotated[float, Reads("points", _points)]
Names = Annotated[tuple[str, ...], Reads("names", _names)]
LayerShare = Annotated[tuple[str, float], Reads("pattern=share", layer_share)]
PrefixedPath = Annotated[Prefixed, Reads("path", prefixed)]


# ---- what is worked on


class ModelOptions(Options):
    """A trained classifier and its card."""

    model: Annotated[Path, Argument("MODEL", "A trained classifier, an ONNX file.")]
    card: Annotated[Path | None, Option("Card of the model. Default: NAME.yaml beside it.", MODEL)] = None


class ShapeOptions(Options):
    """Sizes that models leave open."""

    input_shape: Annotated[
        tuple[str, ...],
        Option(
            "Shape of an input with free dimensions, at which MACs are counted; repeatable. Default: that of "
            "the samples.",
            MODEL,
            metavar="NAME:1,3,224,224",
        ),
    ] = ()

    def shapes(self) -> dict[str, list[int]]:
        """Return input name to shape.

        Raises:
            GraftError: ``shape-unreadable``.
        """
        return dict(map(_shape, self.input_shape))


class ShapedModelOptions(ShapeOptions, ModelOptions):
    """A trained classifier, its card, and sizes that its graph leaves open."""

    def load(self) -> Model:
        """Return the model with its card, and its costs counted at the shapes.

        Raises:
            GraftError: the model or its card cannot be read, or an input does not take its shape.
        """
        model = Model.load(self.model, self.card)
        model.card = model.require_card(self.model)
        model.sizes = {**model.sizes, **model.sizes_at(self.shapes())}
        return model


class ClassOptions(ShapedModelOptions):
    """A trained classifier, and some of its classes."""

    classes: Annotated[
        tuple[str, ...],
        Option(
            "Names of classes, separated by commas; repeatable; @FILE: one a line. Default: all.",
            PRUNE,
            metavar="A,B|@FILE",
        ),
    ] = ()


class LayerOptions(Options):
    """Layers to leave alone, and shares of one's own."""

    freeze: Annotated[
        tuple[str, ...],
        Option(
            "Prune nothing of these layers: a glob over names of nodes or channel groups. Repeatable.",
            PRUNE,
            metavar="PATTERN",
        ),
    ] = ()
    keep_layer: Annotated[
        tuple[LayerShare, ...],
        Option(
            "Share of the channels of these layers to keep, such as '/conv2*=0.7'; the rest of the budget is "
            "spent elsewhere. Repeatable; the last one that matches holds.",
            PRUNE,
            metavar="PATTERN=SHARE",
        ),
    ] = ()

    @property
    def layers(self) -> LayerRules:
        """The patterns and their shares."""
        return LayerRules.read(self.freeze, self.keep_layer)


class BudgetOptions(LayerOptions):
    """Budget: the share that is kept."""

    keep: Annotated[Share | None, Option("Share of the cost to keep: 0.5 or 50%.", PRUNE)] = None
    keep_by: Annotated[
        str,
        one_of(UNITS),
        Option(
            "Cost that --keep counts: MACs (head included), parameters (head excluded), or latency, measured "
            "on this machine.",
            PRUNE,
            metavar="COST",
            show_default=True,
        ),
    ] = "macs"
    round_to: Annotated[
        int | None,
        Field(ge=1, le=LARGEST_NUMBER),
        Option(
            "Prune channels in multiples of N. Default: what their operators run fast with.",
            PRUNE,
            metavar="N",
        ),
    ] = None


class PlanTimeOptions(Options):
    """Time that plans by default may take."""

    plan_time: Annotated[
        Seconds | None,
        Option(
            f"Take {DEFAULT} where plans by {MEASURED} would take more than this: 90, 10m, none. Default: "
            "10m, and of one plan no more than 30 passes over the samples beyond 2m.",
            METHOD,
            metavar="TIME",
        ),
    ] = None


class MethodOptions(PlanTimeOptions):
    """Importance of channels."""

    method: Annotated[
        str | None,
        one_of(methods),
        Option(
            f"Importance of channels. Default: {MEASURED} with --data, {DEFAULT} without it and for "
            "recurrent models.",
            METHOD,
        ),
    ] = None


class CompensateOptions(MethodOptions):
    """Importance of channels, and compensation for the pruned ones."""

    compensate: Annotated[
        str,
        one_of(STEPS),
        Option("How the kept channels make up for the pruned ones.", METHOD, show_default=True),
    ] = "refit"
    mirror: Annotated[
        bool,
        Option("Use mirrored images too, to choose channels and to refit layers.", METHOD),
    ] = False
    profile: Annotated[
        Path | None, Option("Profile from 'graft profile', which saves profiling again.", METHOD)
    ] = None


# ---- data


class LabelOptions(Options):
    """How samples without labels get some."""

    labels_among: Annotated[
        str,
        one_of(("all", "asked")),
        Option(
            "Predict missing labels among all classes of the parent, or only among those asked for (where "
            "all samples are of these).",
            DATA,
            show_default=True,
        ),
    ] = "all"

    def among(
        self, names: Sequence[str], ignored: str | None, data: Sequence[Prefixed] = ()
    ) -> tuple[str, ...] | None:
        """Return the classes that labels are predicted among; ``None``: all.

        Args:
            names: the classes asked for, with their prefixes.
            ignored: the class of padding, which time steps may also have; ``None``: none.
            data: what may have prefixes.
        """
        if self.labels_among == "all":
            return None
        prefixes = {"", *(each.prefix for each in data)}
        padding = [] if ignored is None else [name_with(prefix, ignored) for prefix in prefixes]
        return tuple(dict.fromkeys([*names, *padding]))


class CalibrationOptions(LabelOptions):
    """The calibration set."""

    data: Annotated[Path | None, Option(FORMATS, DATA)] = None
    split: Annotated[
        str, Option("Split of the calibration set.", DATA, metavar="NAME", show_default=True)
    ] = "train"
    samples_per_class: Annotated[
        int | None,
        Field(ge=1, le=LARGEST_NUMBER),
        Option("Use at most N samples of each class.", DATA, metavar="N"),
    ] = None
    ignore_label: Annotated[
        str | None,
        Option("Ignore labels of this class, such as those of padding.", DATA, metavar="CLASS"),
    ] = None

    def samples(self, dataset: Dataset, card: Card, seed: int = 0) -> tuple[Samples, str]:
        """Take the calibration set out of a data set.

        Args:
            dataset: opened, see :func:`graft.tools.parents.open_data`.
            card: of the model that takes the samples.
            seed: chooses them where there are more than :attr:`samples_per_class`.

        Returns:
            The samples, and the fingerprint of data and split.

        Raises:
            GraftError: there is no such split, or it does not fit the card.
        """
        found = replace(dataset.split(self.split), ignore=self.ignore_label)
        samples = Samples.match(found, card, None, self.samples_per_class, seed)
        if samples.left_out:
            logging.getLogger("graft").info("%d samples of other classes left out", samples.left_out)
        without = "" if self.ignore_label is None else f"/without {self.ignore_label}"
        among = found.label_classes
        labels = "" if among is None else f"/labels among {', '.join(among)}"
        return samples, f"{dataset.fingerprint()}/{self.split}{without}{labels}"


class DataOptions(CalibrationOptions):
    """The calibration set, which is needed."""

    data: Annotated[Path, Option(FORMATS, DATA)]


class HeldOutOptions(DataOptions):
    """The calibration set, and the held-out samples that results are measured on."""

    test_split: Annotated[str, Option(HELD_OUT, DATA, metavar="NAME", show_default=True)] = "test"

    def held_out(self, dataset: Dataset, card: Card, classes: Sequence[str]) -> Samples | None:
        """Take the held-out samples of ``classes`` out of a data set.

        Args:
            dataset: opened, see :func:`graft.tools.parents.open_data`.
            card: of the model that takes the samples.
            classes: names; those without samples are left out, with a warning.

        Returns:
            The samples; ``None`` where the data has no such split, or none of the classes.

        Raises:
            GraftError: the samples do not fit the card, or a split that was named is not there.
        """
        name = self.test_split
        if name == TEST and not dataset.has(name):
            return None
        part = replace(dataset.split(name), ignore=self.ignore_label)
        if card.decoder is not None:
            return Samples.match(part, card).speaking(classes)
        return Samples.present(part, card, classes)


class SeveralDataOptions(Options):
    """Several data sets, whose classes are matched by name."""

    data: Annotated[
        tuple[PrefixedPath, ...],
        Option(f"{FORMATS} {REPEATABLE}", DATA),
    ] = ()
    test_split: Annotated[str, Option(HELD_OUT, DATA, metavar="NAME", show_default=True)] = "test"
    ignore_label: Annotated[
        str | None,
        Option("Ignore labels of this class, such as those of padding.", DATA, metavar="CLASS"),
    ] = None


class SampledDataOptions(SeveralDataOptions):
    """Several data sets, of which some samples are used."""

    samples_per_class: Annotated[
        int | None,
        Field(ge=1, le=LARGEST_NUMBER),
        Option("Use at most N samples of each class.", DATA, metavar="N"),
    ] = None


# ---- how to run, what to write


class RunOptions(Options):
    """Providers, threads and memory."""

    providers: Annotated[
        Names,
        Option("Where to run, in order of preference: cuda,cpu. Default: the best that is there.", RUN),
    ] = ()
    strict_providers: Annotated[bool, Option("Fail where the first provider is missing.", RUN)] = False
    threads: Annotated[
        int,
        Field(ge=0),
        Option("Number of threads, up to 4 a processor. Default: onnxruntime decides.", RUN, metavar="N"),
    ] = 0
    memory: Annotated[
        str | None,
        Option(
            "Memory to take at most: 4GB, 500MB, or 50% of what is free. Activations beyond it go to a"
            " temporary file; results are the same. Default: half of what is free.",
            RUN,
            metavar="SIZE",
        ),
    ] = None

    def device(self) -> Device:
        """Return where models run.

        Raises:
            GraftError: a provider is unknown, or a size.
        """
        return Device(self.providers, self.strict_providers, self.threads, memory=self.bytes())

    def timing_device(self) -> Device:
        """Return where models run whose latency is measured: with two threads unless others are given.

        Raises:
            GraftError: a provider is unknown, or a size.
        """
        return replace(self.device(), threads=self.threads or TIMING_THREADS)

    def bytes(self) -> int | None:
        """Return the memory that the process may take; ``None``: half of what is free.

        Raises:
            GraftError: ``memory-size``.
        """
        return None if self.memory is None else parse_size(self.memory)


class SeededRunOptions(RunOptions):
    """Providers, threads, memory and the seed."""

    seed: Annotated[
        int,
        Field(ge=0, le=LARGEST_SEED),
        Option("Seed for everything that is drawn.", RUN, metavar="N", show_default=True),
    ] = 0


class PrintOptions(Options):
    """Printing and logging."""

    as_json: Annotated[
        bool, Option("Print one JSON object on standard output.", OUTPUT, flags=("--json",))
    ] = Field(default=False, alias="json")
    quiet: Annotated[bool, Option("No progress bars, no warnings.", GENERAL, flags=("-q", "--quiet"))] = False
    verbose: Annotated[
        bool, Option("Say more on standard error, such as what was declined.", GENERAL, ("-v", "--verbose"))
    ] = False
    debug: Annotated[bool, Option("Show the traceback of an error.", GENERAL)] = False

    def prepare(self) -> None:
        """Set the level of the log; progress bars ask the context whether they are wanted."""
        level = logging.DEBUG if self.debug else logging.INFO if self.verbose else logging.WARNING
        logging.getLogger("graft").setLevel(logging.ERROR if self.quiet else level)
        click.get_current_context().meta["quiet"] = self.quiet


class _Writing(Options):
    """Output path, and how it is written."""

    output: Annotated[Path | None, Option("File to write.", OUTPUT, ("-o", "--output"))] = None
    force: Annotated[bool, Option("Replace what is there.", OUTPUT)] = False
    dry_run: Annotated[bool, Option("Compute everything, print the result, write nothing.", OUTPUT)] = False


class OutputOptions(PrintOptions, _Writing):
    """Output, printing and logging."""

    def claim(self, path: Path, refuse: Callable[[Path, bool], object] = refuse_overwrite) -> None:
        """Refuse before the work what could not be written after it, and keep other runs from writing there.

        Args:
            path: of the output.
            refuse: raises where the output cannot be written.

        Raises:
            GraftError: ``output-exists``, ``output-unwritable`` or ``output-busy``.
        """
        refuse(path, self.force)
        if not self.dry_run:
            click.get_current_context().with_resource(claimed(path))
            refuse(path, self.force)  # another run may just have ended

    @contextlib.contextmanager
    def target(self, path: Path) -> Iterator[Path]:
        """Hand out where to write what is for ``path``: in a dry run, a temporary folder that vanishes."""
        if not self.dry_run:
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="graft-dry-run-") as folder:
            yield Path(folder) / path.name

    def dry(self) -> dict[str, bool]:
        """Return what the result of a dry run says beside that of a real one."""
        return {"dry_run": True} if self.dry_run else {}


class ModelOutputOptions(OutputOptions):
    """Output of commands that write one model."""

    output: Annotated[Path, Option("Model to write.", OUTPUT, ("-o", "--output"))]


class VersionedOutputOptions(OutputOptions):
    """Output of commands that write models of a given version."""

    opset: Annotated[
        int | None,
        Field(ge=11, le=LARGEST_NUMBER),
        Option("Operator set of the written model.", OUTPUT, metavar="N"),
    ] = None
    ir_version: Annotated[
        int | None,
        Field(ge=4, le=LARGEST_NUMBER),
        Option("Version of the ONNX format of the written model.", OUTPUT, metavar="N"),
    ] = None


# ---- classes and samples that options name


def class_names(given: Sequence[str], card: Card) -> tuple[str, ...] | None:
    """Return the classes that ``--classes`` names, or None where it was not given.

    A whole label beats splitting at commas.

    Raises:
        GraftError: a name is unknown or named twice, or a file is missing.
    """
    names: list[str] = []
    for text in given:
        if text.startswith("@") and text not in card.classes:
            names += _lines(Path(text[1:]))
        elif text in card.classes:
            names.append(text)
        else:
            names += [name.strip() for name in text.split(",") if name.strip()]
    for name, number in Counter(names).items():
        card.check_class(name)
        if number > 1:
            raise GraftError("class-twice", f"class '{name}' is named twice", "name it once")
    if given and not names:
        raise GraftError("class-unknown", "--classes names no class", "name at least one")
    return tuple(names) if given else None


def classes_with_samples(given: Sequence[str], samples: Samples) -> tuple[str, ...] | None:
    """Return the classes that ``--classes`` names, as :func:`class_names`; each has samples.

    Raises:
        GraftError: as :func:`class_names`, or a class has no samples.
    """
    names = class_names(given, samples.card)
    if names and samples.card.decoder is not None:
        samples.speaking(names)
    elif names:
        _check_samples(samples, names)
    return names


def _check_samples(samples: Samples, names: Sequence[str]) -> None:
    """Raise ``class-empty`` where one of the classes has no samples."""
    try:
        Samples.match(samples.split, samples.card, names)
    except GraftError as error:
        predicted = samples.split.predicted and samples.split.label_classes is None
        if error.code != "class-empty" or not predicted or len(names) < 2:
            raise
        hint = f"{error.hint}; or, where all samples are of the classes asked for, --labels-among asked"
        raise GraftError(error.code, error.message, hint) from error


def _lines(path: Path) -> list[str]:
    try:
        text = read_regular(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise GraftError(
            "classes-file", f"cannot read the class names in {path}: {reason}", "check the path"
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]
