"""Compare the published methods with Graft's default: the table of docs/published.md.

    python -m benchmarks.published --json published.json
    python -m benchmarks.published --json published.json --only clinc_lstm1_published

Each method makes a module for each of the ten classes and joins them, by the command line that the table's
note shows: ``graft decompose`` and ``graft compose`` on the same samples. Time is that of ``graft decompose``
with everything it does, from start to end, over one plain onnxruntime pass of the parent over its calibration
set (all cores), timed in the same run. Figures of the JSON file are not measured again. Takes an hour on
two cores.
"""  # fmt: skip

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.common import DEVICE, Run, bench_folder, difference, points, start
from graft.passes.parent import Parent
from graft.passes.published import masks
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import score

BATCH = 100
DENSE = tuple(name for name in masks() if name.startswith("fse20:"))
RECURRENT = tuple(name for name in masks() if name.startswith("icse23:"))
IMAGES = tuple(name for name in masks() if name.startswith("icse22:"))
LINEAR = "--propagation linear --concerned 99"
"""The reading of icse22 whose losses are like the printed ones, see docs/papers.md."""
OWN = {
    "Graft, default": "",
    "Graft, `--keep 0.5`": "--keep 0.5",
}


@dataclass(frozen=True)
class Subject:
    """A network of the table.

    Attributes:
        title: as the table calls it.
        model: its file in the bench, without suffix.
        data: its samples in the bench.
        methods: published methods for networks of its kind.
    """

    title: str
    model: str
    data: str
    methods: Sequence[str]


SUBJECTS = (
    Subject("Clinc LSTM-1", "rnn/clinc_lstm1_published", "rnn/clinc.npz", RECURRENT),
    Subject("Clinc GRU-1", "rnn/clinc_gru1_published", "rnn/clinc.npz", RECURRENT),
    Subject("MNIST-4", "vision/dense_mnist_4", "vision/mnist.npz", DENSE),
    Subject("FMNIST-4", "vision/dense_fmnist_4", "vision/fmnist.npz", DENSE),
    Subject("ResNet-20", "vision/resnet20_cifar10", "vision/cifar10.npz", IMAGES),
)


def ways(subject: Subject) -> dict[str, tuple[list[str], list[str]]]:
    """Return for each row the options of ``decompose`` and of ``compose``."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for name in subject.methods:
        compare = ["--strategy", "branches", "--scores", masks()[name].scores]
        found[f"`{name}`"] = (["--method", name, "--cut"], compare)
        if name in IMAGES:
            found[f"`{name}`, `{LINEAR}`"] = (["--method", name, "--cut", *LINEAR.split()], compare)
    return found | {name: (options.split(), []) for name, options in OWN.items()}


def graft(*words: str | Path) -> tuple[dict[str, Any], float]:
    """Run a command in a process of its own; return what ``--json`` prints, and the seconds that it took."""
    begin = time.perf_counter()
    line = [sys.executable, "-c", "from graft.tools.cli import main; main()", *map(str, words), "--json"]
    done = subprocess.run(line, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found, time.perf_counter() - begin


def one_pass(parent: Parent, samples: Samples) -> float:
    """Return the seconds that a plain session takes for the samples, read beforehand; the faster of two."""
    session = ort.InferenceSession(
        parent.source.proto().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    batches = [inputs for inputs, _ in samples.batches(BATCH)]
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        for inputs in batches:
            session.run(None, inputs)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def measure(subject: Subject, decompose: Sequence[str], compose: Sequence[str]) -> dict[str, Any]:
    """Make the modules of a network by one method, join them, and measure all.

    Args:
        subject: the network.
        decompose: options of ``graft decompose``.
        compose: options of ``graft compose``.
    """
    model, data = bench_folder() / f"{subject.model}.onnx", bench_folder() / subject.data
    with tempfile.TemporaryDirectory() as folder:
        modules, whole = Path(folder, "modules"), Path(folder, "all.onnx")
        made, seconds = graft("decompose", model, "--data", data, *decompose, "-o", modules)
        joined, _ = graft("compose", modules, "--data", data, *compose, "-o", whole)
        parent, dataset = Parent.load(model), Dataset.load(data)
        card = parent.card
        test = Samples.match(dataset.split("test"), card)
        plain = one_pass(parent, Samples.match(dataset.split("train"), card))
        composite = Model.load(whole)
        own = Samples.match(dataset.split("test"), composite.require_card(), names=card.labels)
        ours = score(composite, own, DEVICE)
        change = difference(ours, score(parent.model, test, DEVICE))
    each = made["modules"]
    return {
        "change": change,
        "samples": len(test),
        "parameters": float(np.mean([m["parameters"] for m in each])) / parent.cost.parameters,
        "zeros": float(np.mean([m.get("zero_weights_ratio", 0.0) for m in each])),
        "macs": float(np.mean([m["macs"] for m in each])) / parent.cost.macs,
        "composite": joined["macs"] / parent.cost.macs,
        "seconds": seconds,
        "passes": seconds / plain,
        "modules": len(each),
        "cores": os.cpu_count(),
    }


def table(subject: Subject, run: Run) -> None:
    """Print the rows of one network."""
    run.output.section(subject.title)
    columns = ("change of accuracy", "weights that are 0", "parameters removed", "MACs of a module")
    run.output.header("method", *columns, "MACs of all ten joined", "`decompose`, in passes of the parent")
    for name, (decompose, compose) in run.some(ways(subject).items()):
        found = run.output.measured(f"{subject.title}: {name}", partial(measure, subject, decompose, compose))
        run.output.row(
            name,
            points(tuple(found["change"])),
            f"{found['zeros']:.0%}",
            f"{1 - found['parameters']:.0%}",
            f"{found['macs']:.0%}",
            f"{found['composite']:.0%}",
            f"{found['passes']:,.0f}",
        )
    run.output.note(f"{found['samples']} test samples, {found['modules']} modules")


SECTIONS = {each.model.partition("/")[2]: partial(table, each) for each in SUBJECTS}

if __name__ == "__main__":
    start(__doc__, SECTIONS)
