"""Measure how much of every model of the zoo can be cut, and prove the law on it. Prints Markdown.

Export the zoo first (see benchmarks/zoo/README.md), then::

    python -m benchmarks.coverage [-o docs/coverage.md] [--json coverage.json] [--models NAME ...]

A model is normalized as ``graft inspect`` and ``graft decompose`` do; the law is checked on the graph as
it was exported, too. Takes about half an hour on two cores; VGG-19 alone 8 minutes, and 19 GB of memory.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import argument_parser
from benchmarks.zoo import FOLDER, Entry, counter
from benchmarks.zoo.law import SHARES, TOLERANCE, Arrays, Law
from benchmarks.zoo.pins import pins
from benchmarks.zoo.subjects import Subject, subjects
from graft.passes.base import Context
from graft.passes.normalize.simplify import Normalize
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.measure.cost import CostModel, cost_of

SAMPLES = 4
LARGE = 20_000_000
"""Parameters of a model of which only the normalized graph is cut."""
MARKS = "<!-- coverage -->", "<!-- /coverage -->"
HEADER = (
    *("model", "exporter", "opset", "nodes", "parameters", "cuttable", "aside", "groups", "largest error"),
    *(
        "shifted cut",
        "seconds",
        "MACs against onnx-tool",
        "removed at half: Graft",
        "onnxsim",
        "what pins most",
    ),
)


@dataclass(frozen=True)
class Row:
    """Figures of one model."""

    entry: Entry
    opset: int
    nodes: int
    parameters: int
    cuttable: float
    without_stream: float
    groups: int
    error: float
    shifted: float
    seconds: float
    macs: str
    removed: float
    pins: str


def measure(subject: Subject) -> Row:
    """Everything about one model."""
    start, entry = time.perf_counter(), subject.entry
    proto = subject.proto()
    nodes = len(proto.graph.node)
    exported = Model.from_proto(proto)
    del proto  # of large models one copy is enough
    opset = exported.opset if subject.path else entry.opset
    inputs, threads, errors = entry.draw(SAMPLES), 2, []
    if cost_of(exported).parameters < LARGE:
        raw = Law(exported.copy(), inputs, threads)
        errors = [raw.error(raw.plan(share, seed)) for seed, share in enumerate(SHARES)]
    model = exported
    Normalize()(model, Context())
    law = Law(model, inputs, threads)
    if min(law.varies()) < 0.01:
        raise ValueError("the output does not vary")
    errors += [law.error(law.plan(share, 10 + seed)) for seed, share in enumerate(SHARES)]
    groups, cost = law.groups, CostModel(law.groups)
    half = law.half().mask(groups)
    whole, pinned = cost.parameters(), pins(groups)
    (reason, number), *_ = pinned.numbers.most_common(1) or [("", 0)]
    return Row(
        entry=entry,
        opset=opset,
        nodes=nodes,
        parameters=whole,
        cuttable=cost.cuttable_parameters() / whole,
        without_stream=cost.cuttable_parameters() / max(1, whole - pinned.aside),
        groups=sum(bool(group.cuttable.any()) for group in groups),
        error=max(errors),
        shifted=law.shifted(law.shiftable(), 100 * TOLERANCE),
        seconds=time.perf_counter() - start,
        macs=compared(model, groups, inputs),
        removed=1 - cost.parameters(half) / whole,
        pins=f"{reason} ({100 * number / whole:.0f} %)" if number > 0.005 * whole else "",
    )


def compared(model: Model, groups: ChannelGroups, inputs: Arrays) -> str:
    """Compare Graft's multiply-accumulates of nodes with a matrix with those of onnx-tool, in percent.

    Args:
        model: the normalized model.
        groups: its analysis.
        inputs: prepared samples, of which one is used.
    """
    one = {name: values[:1] for name, values in inputs.items()}
    try:
        theirs = counter.matrix_macs(model.proto(), one)
    except Exception as error:  # any failure of the other tool is a result
        return f"onnx-tool fails: {type(error).__name__}"
    ours = counter.our_macs(groups)
    return f"{100 * (sum(ours[name] for name in theirs) / sum(theirs.values()) - 1):+.2f} %"


# ------------------------------------------------------------------------------- printing


def table(rows: Sequence[Row], onnxsim: Mapping[str, Any]) -> list[str]:
    """The rows as Markdown."""
    lines = [_line(HEADER), _line(["---"] * len(HEADER))]
    for row in rows:
        other = onnxsim["models"].get(row.entry.name)
        lines.append(_line(_cells(row, other)))
    return lines


def _cells(row: Row, other: Mapping[str, Any] | None) -> list[str]:
    return [
        f"{row.entry.architecture} (`{row.entry.name}`)",
        row.entry.exporter,
        str(row.opset),
        str(row.nodes),
        f"{row.parameters:,}",
        f"{100 * row.cuttable:.1f} %",
        f"{100 * row.without_stream:.1f} %",
        str(row.groups),
        f"{row.error:.0e}",
        f"{row.shifted:.0e}",
        f"{row.seconds:.1f}",
        row.macs,
        f"{100 * row.removed:.0f} %",
        "" if other is None else f"{100 * other['removed']:.0f} %",
        row.pins.replace("|", "/"),
    ]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def summary(rows: Sequence[Row], onnxsim: Mapping[str, Any]) -> list[str]:
    """Summarize the table."""
    lines = []
    for family, share, name in (("cnn", 0.9, "CNNs"), ("transformer", 0.8, "transformers")):
        some = [row for row in rows if row.entry.family == family]
        enough = [row for row in some if row.without_stream >= share]
        below = ", ".join(f"`{row.entry.name}`" for row in some if row.without_stream < share)
        lines.append(
            f"- {name}: {len(enough)} of {len(some)} models reach {100 * share:.0f} %"
            + (f"; below: {below}" if below else "")
        )
    both = [(row, onnxsim["models"][row.entry.name]) for row in rows if row.entry.name in onnxsim["models"]]
    more = sum(row.removed > other["removed"] for row, other in both)
    less = ", ".join(f"`{row.entry.name}`" for row, other in both if row.removed <= other["removed"])
    lines.append(
        f"- onnxsim {onnxsim['version']}: at half of the channels Graft removes more "
        f"on {more} of {len(both)} models" + (f"; not on {less}" if less else "")
    )
    worst = max(row.error for row in rows)
    lines.append(f"- largest error over all models and plans: {worst:.1e}")
    return lines


def write(path: Path, lines: Sequence[str]) -> None:
    """Put ``lines`` between the marks of the file."""
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    body = "\n".join(lines)
    path.write_text(f"{before}{MARKS[0]}\n\n{body}\n\n{MARKS[1]}{after}", encoding="utf-8")


def measure_all(chosen: Sequence[Subject], onnxsim: Mapping[str, Any]) -> tuple[list[Row], list[str]]:
    """Measure every model; a model that fails is no reason not to measure the others.

    Args:
        chosen: the models.
        onnxsim: figures of onnxsim, by model.

    Returns:
        The rows, and what failed.
    """
    rows, failed = [], []
    for subject in chosen:
        try:
            row = measure(subject)
        except Exception as error:  # the others are measured all the same
            failed.append(f"{subject.entry.name}: {type(error).__name__}: {error}")
            print(failed[-1], file=sys.stderr, flush=True)
            continue
        finally:
            gc.collect()
        rows.append(row)
        print(_line(_cells(row, onnxsim["models"].get(subject.entry.name))), file=sys.stderr, flush=True)
        if row.error >= TOLERANCE:
            failed.append(f"{row.entry.name}: error {row.error:.1e}")
        if row.groups and row.shifted < 10 * TOLERANCE:
            failed.append(f"{row.entry.name}: a shifted cut passes")
    return rows, failed


def main() -> None:
    """Measure the models that are named, or all."""
    parser = argument_parser(__doc__)
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("-o", "--output", type=Path, help="file with marks; default: print")
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    pruned = chosen.folder / "onnxsim.json"
    onnxsim = json.loads(pruned.read_text()) if pruned.is_file() else {"version": "?", "models": {}}
    rows, failed = measure_all(subjects(chosen.folder, chosen.models), onnxsim)
    lines = [*summary(rows, onnxsim), *(f"- **failed** {each}" for each in failed), "", *table(rows, onnxsim)]
    if chosen.json:
        figures = [{**asdict(row), "entry": row.entry.name} for row in rows]
        chosen.json.write_text(json.dumps({"models": figures, "failed": failed}, indent=1) + "\n", "utf-8")
    if chosen.output:
        write(chosen.output, lines)
    else:
        print("\n".join(lines))
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
