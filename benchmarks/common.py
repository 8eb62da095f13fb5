"""Arguments, models and data, printed tables, and a parent with its samples, for all benchmarks.

Test samples only report here; nothing is chosen by them.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime as ort

from graft.passes.base import Context
from graft.passes.compare import COMPARISONS
from graft.passes.compose import Compose, ComposeReport
from graft.passes.decompose import Decompose, DecomposeReport
from graft.passes.networks import Modules
from graft.passes.parent import Parent
from graft.passes.select.observe import Observe
from graft.passes.trunk import Source
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure import metrics
from graft.rewriter.measure.evaluation import Scored, latencies, score
from graft.rewriter.record.profile import Profile
from graft.rewriter.run.session import Device

DEVICE = Device(("cpu",))
THREADS = 2
TIMER = Device(("cpu",), threads=THREADS)
FOLDER = "GRAFT_BENCH"
DATA = {
    "resnet20_cifar10": "cifar10",
    "dense_mnist_4": "mnist",
    "dense_fmnist_4": "fmnist",
    "efficientnet_lite0_imagenet": "imagenette",
}
"""The data of each model in ``$GRAFT_BENCH/vision``: an ``.npz`` file, or a folder of images."""
WITH_DATA = [each.name for each in COMPARISONS if each.needs_data]
WITHOUT_DATA = [each.name for each in COMPARISONS if not each.needs_data]
"""Comparisons of scores that are fitted to samples, and those that are not."""
RESNET, EFFICIENTNET = "resnet20_cifar10", "efficientnet_lite0_imagenet"
DENSE = ("dense_mnist_4", "dense_fmnist_4")

Item = TypeVar("Item")
Pair = tuple[float, float]
"""A figure and its standard error."""


def bench_folder(name: str = "") -> Path:
    """Return a folder of ``$GRAFT_BENCH``; exit with 2 where it is not set, or has no such folder."""
    root = os.environ.get(FOLDER, "")
    if not root:
        stop(f"set the environment variable {FOLDER} to the folder with the benchmark models and data")
    found = Path(root) / name
    if not found.is_dir():
        stop(f"{FOLDER}: no folder {found}")
    return found


def stop(message: str) -> None:
    """Print one line on standard error and exit with 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


# ------------------------------------------------------------------------------- command line


class Output:
    """Print tables as Markdown, and keep them in a JSON file.

    The file holds ``machine``, ``sections`` (title, header, rows and notes, as printed) and ``measured``:
    single figures by key. A figure that the file already holds is not measured again, so a run that was
    broken off goes on; delete the file to measure anew.

    Args:
        path: the file; ``None``: print only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        known = json.loads(path.read_text("utf-8")) if path and path.exists() else {}
        self._measured: dict[str, Any] = known.get("measured", {})
        self._sections: dict[str, Any] = {each["title"]: each for each in known.get("sections", ())}
        self._section: dict[str, Any] = {}
        self.machine = (
            f"{platform.machine()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}, "
            f"onnxruntime {ort.__version__} on CPU"
        )

    def begin(self) -> None:
        """Print the machine and how figures are meant."""
        print(f"Machine: {self.machine}. Seed 0 unless named.")
        print("Differences: result minus parent in percentage points, ± standard error; negative is worse.")

    def section(self, title: str) -> None:
        """Begin a section."""
        print(f"\n## {title}\n", flush=True)
        self._section = {"title": title, "header": [], "rows": [], "notes": []}
        self._sections[title] = self._section

    def header(self, *cells: str) -> None:
        """Begin the table of the section."""
        self._print_row(cells)
        self._print_row(["---"] * len(cells))
        self._section["header"] = list(cells)

    def row(self, *cells: object) -> None:
        """Add a row to the table of the section."""
        texts = [str(cell) for cell in cells]
        self._print_row(texts)
        self._section["rows"].append(texts)
        self.save()

    def note(self, text: str) -> None:
        """Add a line to the section."""
        print(f"- {text}", flush=True)
        self._section["notes"].append(text)
        self.save()

    def measured(self, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the figures known by ``key``, or else what ``measure`` finds."""
        if key not in self._measured:
            self._measured[key] = measure()
            self.save()
        found: dict[str, Any] = self._measured[key]
        return found

    def save(self) -> None:
        """Write the file."""
        if self._path is not None:
            sections = [*self._sections.values()]
            content = {"machine": self.machine, "sections": sections, "measured": self._measured}
            self._path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")

    @staticmethod
    def _print_row(cells: Iterable[str]) -> None:
        print(f"| {' | '.join(cells)} |", flush=True)


@dataclass(frozen=True)
class Run:
    """One call of a benchmark.

    Attributes:
        output: where figures go.
        few: at most so many pairs, sets, draws or plans; ``None``: all.
        samples: at most so many training and test samples of a class; ``None``: all.
        options: the arguments of the command line.
    """

    output: Output
    few: int | None = None
    samples: int | None = None
    options: argparse.Namespace = field(default_factory=argparse.Namespace)

    def some(self, items: Iterable[Item]) -> list[Item]:
        """Return the items of a trial run, or all."""
        return list(items)[: self.few]

    def bench(self, model: str) -> Bench:
        """Load a model of ``$GRAFT_BENCH/vision``, by its file's name without suffix, with its data, once."""
        folder = bench_folder("vision")
        return _bench(folder / f"{model}.onnx", folder / DATA[model], self.samples)


@functools.cache
def _bench(model: Path, data: Path, samples: int | None) -> Bench:
    return Bench(model, data, samples)


def argument_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark."""
    name = f"python -m benchmarks.{Path(sys.argv[0]).stem}"
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(name, description=doc, formatter_class=form, allow_abbrev=False)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures in this file, too")
    return parser


def start(
    doc: str | None,
    sections: Mapping[str, Callable[[Run], None]],
    configure: Callable[[argparse.ArgumentParser], None] | None = None,
    data: bool = True,
) -> None:
    """Read the command line and measure all sections, or those that are named.

    Args:
        doc: the module's docstring, for ``--help``.
        sections: what can be measured, by name.
        configure: adds options of one benchmark.
        data: whether it reads models or data of ``$GRAFT_BENCH``.
    """
    parser = argument_parser(doc)
    parser.add_argument(
        "--only", choices=sections, nargs="+", default=[*sections], help="sections to measure"
    )
    parser.add_argument("--few", type=int, metavar="N", help="trial: at most N pairs, sets, draws or plans")
    parser.add_argument("--samples", type=int, metavar="N", help="trial: at most N samples of a class")
    if configure:
        configure(parser)
    options = parser.parse_args()
    if data:
        bench_folder()
    output = Output(options.json)
    chosen = Run(output, options.few, options.samples, options)
    output.begin()
    for name in options.only:
        sections[name](chosen)
    output.save()


# ------------------------------------------------------------------------------- a parent with its data


class Bench:
    """A parent with its data, profiled on all training samples; classes that have none are one row.

    Args:
        model: file of the model, with its card beside it.
        data: folder of images, or an ``.npz`` file without its suffix.
        samples: at most so many of a class; ``None``: all.
    """

    def __init__(self, model: Path, data: Path, samples: int | None = None) -> None:
        self.name = model.stem
        self.model = Model.load(model)
        dataset = Dataset.load(data if data.is_dir() else data.with_name(f"{data.name}.npz"))
        self.card = self.model.require_card()
        splits = [limited(dataset.split(name), samples) for name in ("train", "test")]
        self.train, self.test = (Samples.match(split, self.card) for split in splits)
        self.parent = Parent(self.model)
        self.trained = tuple(self.train.counts())
        apart = self.trained if len(self.trained) < len(self.card.labels) else None
        seen = Context(samples=self.train, device=DEVICE)
        self.profile: Profile = Observe(apart)(self.parent, seen).profile
        self.context = replace(seen, profile=self.profile)

    @functools.cached_property
    def whole(self) -> Scored:
        """Scores of the parent on the test samples."""
        return score(self.parent.model, self.test, DEVICE)

    def named(self, split: str) -> Split:
        """Return ``train`` or ``test`` with names for its classes, ready to be joined with others."""
        part = {"train": self.train, "test": self.test}[split].split
        return replace(part, class_names=part.class_names or self.card.labels)

    def cut(
        self, classes: Sequence[str], plan: Plan | None = None, seed: int = 0, **options: Any
    ) -> DecomposeReport:
        """Cut a module.

        Args:
            classes: its classes.
            plan: channels to keep; ``None``: chosen here.
            seed: for methods that draw.
            options: of :class:`graft.passes.decompose.Decompose`.
        """
        decompose = Decompose(classes, fixed_plan=plan, **options)
        return decompose(self.parent, replace(self.context, seed=seed))

    def plan(self, classes: Sequence[str], **options: Any) -> Plan:
        """Choose the channels of a module; options as for :meth:`cut`."""
        return Decompose(classes, **options).plan(self.parent, self.context)

    def modules(self, plan: Plan | None = None, **options: Any) -> list[DecomposeReport]:
        """Cut one module a class; options as for :meth:`cut`."""
        return [self.cut([name], plan, **options) for name in self.card.labels]

    def source(self, samples: bool = False) -> dict[str, Source]:
        """Return what trunks are planned by; with ``samples`` methods may run the parent."""
        return {self.parent.sha256: Source(self.parent, self.profile, self.train if samples else None)}

    def joined(self, reports: Sequence[DecomposeReport]) -> Scored:
        """Scores of all modules joined as branches, on the test samples."""
        model = compose([report.model for report in reports], strategy="branches").model
        return score(model, self.test, DEVICE)

    def score(self, model: Model, classes: Sequence[str] | None = None) -> Scored:
        """Scores of a model on the test samples of its classes.

        Args:
            model: the parent, a module or a composite.
            classes: what it chooses among; ``None``: all of its classes.
        """
        samples = Samples.match(self.test.split, model.require_card(), classes, names=self.card.labels)
        return score(model, samples, DEVICE, classes)

    def difference(self, found: Scored) -> Pair:
        """Percentage points of a result on all test samples minus the parent's."""
        return difference(found, self.whole)


def limited(split: Split, most: int | None) -> Split:
    """Return a split with the first ``most`` samples of each class, or all of them where it is ``None``."""
    if most is None:
        return split
    first = split.labels.reshape(len(split), -1)[:, 0]
    kept = np.sort(np.concatenate([np.flatnonzero(first == label)[:most] for label in np.unique(first)]))
    return replace(
        split, labels=split.labels[kept], reader=lambda places, card: split.reader(kept[places], card)
    )


def compose(
    modules: Sequence[Model],
    sources: Mapping[str, Source] | None = None,
    data: Split | None = None,
    **options: Any,
) -> ComposeReport:
    """Join modules.

    Args:
        modules: of one or several parents.
        sources: what trunks are planned by, by the parent's hash; ``None``: no trunks.
        data: samples of all classes.
        options: of :class:`graft.passes.compose.Compose`.
    """
    return Compose(**options)(Modules(modules, sources or {}), Context(data=data, device=DEVICE))


# ------------------------------------------------------------------------------- figures


def difference(found: Scored, reference: Scored) -> Pair:
    """Percentage points of ``found`` minus ``reference`` on the same samples; the paired standard error."""
    mean, error = metrics.paired_difference(found.correct.ravel(), reference.correct.ravel())
    return 100 * mean, 100 * error


def mean_over(values: Sequence[float]) -> Pair:
    """Mean and its standard error over sets of classes."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return statistics.mean(values), error


def points(pair: Pair) -> str:
    """Format ``-1.23 ± 0.20``."""
    return f"{pair[0]:+.2f} ± {pair[1]:.2f}"


def percent(share: float, digits: int = 2) -> str:
    """Format a share as ``91.73 %``."""
    return f"{100 * share:.{digits}f} %"


def top1(found: Scored) -> float:
    """Share of samples that were classified right."""
    return float(found.summary()["top1"])


def time_ratio(model: Model, reference: Model, samples: Samples) -> float:
    """Median latency of ``model`` over that of ``reference``: batch 32, two threads, taking turns.

    Args:
        model: the one.
        reference: the other.
        samples: where the batch is taken from.
    """
    inputs = next(samples.take(np.arange(min(32, len(samples)))).batches(32))[0]
    found = latencies([(TIMER.open(each), inputs) for each in (model, reference)], THREADS)
    return float(found[0]["median"] / found[1]["median"])
