"""Draft a card with data, prune to half of the MACs, and print what happened, for models as people have them.

::

    python -m benchmarks.way_in [--exports FOLDER] [--json way_in.json]

No card is written by hand or edited: ``graft card MODEL --data DATA``, then ``graft decompose`` with the
draft, on the bundled models, those of ``$GRAFT_BENCH``, and the exports of :mod:`benchmarks.way_in.exports`.
What a model should reach: measured with the card beside it on the same samples, or by the framework itself.
Up to 200 samples a class, seed 0.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import DATA, Output, argument_parser, bench_folder

MODELS = Path(__file__).parent.parent.parent / "models"
GRAFT = [sys.executable, "-c", "from graft.tools.cli import main; main()"]
SAMPLES = "200"


@dataclass(frozen=True)
class Subject:
    """A model without a card, and its data.

    Attributes:
        name: in the table.
        model: the ONNX file.
        data: an ``.npz`` file or a folder.
        own: what the framework itself reaches on the test samples; ``None``: a card lies beside the model.
    """

    name: str
    model: Path
    data: Path
    own: float | None = None


def bundled() -> Iterator[Subject]:
    """Yield the models that Graft brings."""
    for data in sorted(MODELS.glob("*_sample.npz")):
        (model,) = MODELS.glob(f"{data.stem.removesuffix('_sample')}_*.onnx")
        yield Subject(f"bundled {model.stem}", model, data)


def published() -> Iterator[Subject]:
    """Yield the models of ``$GRAFT_BENCH`` that have labelled data."""
    vision, recurrent = bench_folder("vision"), bench_folder("rnn")
    for name, data in DATA.items():
        path = vision / data if (vision / data).is_dir() else vision / f"{data}.npz"
        yield Subject(name, vision / f"{name}.onnx", path)
    for model in sorted(recurrent.glob("*.onnx")):
        data = recurrent / f"{model.stem.partition('_')[0]}.npz"
        yield Subject(model.stem, model, data)


def exported(root: Path) -> Iterator[Subject]:
    """Yield what :mod:`benchmarks.way_in.exports` wrote."""
    for folder in sorted(each for each in root.iterdir() if (each / "own.json").exists()):
        known = json.loads((folder / "own.json").read_text("utf-8"))
        data = folder / "data" if (folder / "data").is_dir() else folder / "data.npz"
        yield Subject(known["name"], folder / "model.onnx", data, known["top1"])


def way_in(subject: Subject) -> dict[str, Any]:
    """Draft a card and prune with it; return the cells of the table."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for file in _beside(subject.model):
            shutil.copy(file, scratch)
        model = scratch / subject.model.name
        card = model.with_suffix(".yaml")
        code, found = _graft("card", model, "--data", subject.data, "-o", card)
        if not card.exists():
            return {"card": "none", "own": _own(subject), "verdict": _message(found)}
        content = yaml.safe_load(card.read_text("utf-8"))
        cells = {"card": _described(content), "own": _own(subject)}
        if code:
            return {**cells, "verdict": _message(found)}
        return {**cells, **_pruned(model, subject.data, scratch / "parts")}


def _beside(model: Path) -> Iterator[Path]:
    """Yield the model and what may belong to it: weights and configuration files, but no card."""
    for file in model.parent.iterdir():
        if file == model or (file.is_file() and file.suffix not in (".yaml", ".npz", ".onnx")):
            yield file


def _pruned(model: Path, data: Path, parts: Path) -> dict[str, Any]:
    """Prune to the first two classes of the data, at half of the MACs."""
    code, found = _graft("evaluate", model, "--data", data, "--samples-per-class", SAMPLES)
    if code:
        return {"verdict": _message(found)}
    classes = [label for label, figures in found["per_class"].items() if figures["support"]][:2]
    chosen = [part for label in classes for part in ("--classes", label)]
    options = ["--together", "--keep", "0.5", "--samples-per-class", SAMPLES, "-o", parts]
    code, cut = _graft("decompose", model, "--data", data, *chosen, *options)
    if code:
        return {"tested": found["top1"], "verdict": _message(cut)}
    (module,) = cut["modules"]
    _, after = _graft("evaluate", parts, "--data", data, "--baseline", model, *chosen)
    return {
        "tested": found["top1"],
        "macs": module["macs_ratio"],
        "two": after.get("top1"),
        "two_parent": after.get("baseline", {}).get("top1"),
        "verdict": "pruned",
    }


def _graft(*arguments: object) -> tuple[int, dict[str, Any]]:
    """Run a command; its exit code and JSON."""
    command = [*GRAFT, *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout or "{}")


def _message(found: dict[str, Any]) -> str:
    error = found.get("error", found)
    return str(error.get("message") or error.get("warning") or "refused")


def _described(card: dict[str, Any]) -> str:
    given = card.get("input") or {"kind": "several"}
    parts = [given["kind"]]
    if given["kind"] == "image":
        parts += [given["layout"], given["color"], f"scale {given['scale']:.4g}"]
        parts += [] if given["mean"] in ([0.0], [0]) else [f"mean {given['mean']}"]
    return f"{', '.join(parts)} -> {card['output']['kind']}, {len(card['labels'])} labels"


def _own(subject: Subject) -> float | None:
    """What the model should reach."""
    if subject.own is not None:
        return subject.own
    line = (subject.model, "--card", subject.model.with_suffix(".yaml"), "--data", subject.data)
    found: float | None = _graft("evaluate", *line, "--samples-per-class", SAMPLES)[1].get("top1")
    return found


def main() -> None:
    """Print the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("--exports", type=Path, help="folder of python -m benchmarks.way_in.exports")
    options = parser.parse_args()
    out = Output(options.json)
    out.begin()
    out.section("From an exported file to a pruned model")
    out.header(
        "model", "drafted card", "top-1 of the model", "with the draft", "MACs", "two classes", "verdict"
    )
    subjects = [*bundled(), *published(), *(exported(options.exports) if options.exports else ())]
    for subject in subjects:
        cells = out.measured(subject.name, lambda subject=subject: way_in(subject))
        two = (
            f"{_percent(cells.get('two'))} (parent {_percent(cells.get('two_parent'))})"
            if cells.get("two")
            else ""
        )
        figures = _percent(cells.get("own")), _percent(cells.get("tested")), _percent(cells.get("macs")), two
        out.row(subject.name, cells["card"], *figures, cells["verdict"])


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


if __name__ == "__main__":
    main()
