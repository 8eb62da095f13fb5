"""Accuracy of a parent, of a module with half of its multiply-accumulates, and of the module in 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.common import DEVICE
from benchmarks.runtimes.subjects import PER_CLASS, File
from graft.rewriter.arrays import Array
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.measure import metrics
from graft.rewriter.measure.evaluation import score

BATCH = 16


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Training samples of a model's classes, prepared as its card says: those that pruned it.

    Args:
        model: with a card.
        data: an ``.npz`` file or a folder of images.
    """

    def __init__(self, model: Path, data: Path) -> None:
        split = Dataset.load(data).split("train")
        samples = Samples.match(split, Model.load(model).require_card(), per_class=PER_CLASS)
        self._batches = samples.batches(BATCH)

    def get_next(self) -> Mapping[str, Array] | None:
        """Return the next batch; ``None`` after the last one."""
        return next((inputs for inputs, _ in self._batches), None)


def eight_bits(model: Path, data: Path, target: Path) -> Path:
    """Quantize a file as docs/deploy.md does.

    Args:
        model: the file.
        data: whose training samples calibrate it.
        target: what is written.
    """
    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared))
    samples = Calibration(model, data)
    quantize_static(str(prepared), str(target), samples, quant_format=QuantFormat.QDQ, per_channel=True)
    return target


def quantized(files: list[File], folder: Path) -> dict[str, Any]:
    """Print a row a module, and return the figures.

    Args:
        files: parents and modules.
        folder: where 8-bit models are written.
    """
    print("\n| classes of | parent | module | module in 8 bits | size of the three, MB |")
    print(f"|{' --- |' * 5}")
    found = {}
    for file in files:
        if file.parent is None or file.data is None:
            continue
        small = eight_bits(file.path, file.data, folder / f"{file.path.stem}_int8.onnx")
        three = (file.parent, file.path, small)
        classes = Model.load(file.path).require_card().labels
        shares = [_top1(path, classes, file.data) for path in three]
        sizes = [path.stat().st_size / 1e6 for path in three]
        cells = [*(f"{100 * share:.2f} %" for share in shares), ", ".join(f"{size:.2f}" for size in sizes)]
        print(f"| {file.name} | {' | '.join(cells)} |", flush=True)
        found[file.name] = {"top1": shares, "megabytes": sizes}
    return found


def _top1(path: Path, classes: tuple[str, ...], data: Path) -> float:
    """Return the accuracy on the test samples of some classes, among these classes."""
    model = Model.load(path)
    samples = Samples.match(Dataset.load(data).split("test"), model.require_card(), classes)
    scored = score(model, samples, DEVICE, classes)
    return metrics.accuracy(scored.predictions, scored.labels)
