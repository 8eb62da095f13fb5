"""Prune every model by onnxsim's structured pruning; figures as JSON for ``benchmarks.coverage``.

Run in an environment of its own with onnxsim 0.8 or newer, onnx, onnxruntime and numpy::

    python -m benchmarks.zoo.onnxsim_pruning [-o .zoo/onnxsim.json] [NAME ...]

Half of the channels of everything it can prune are to go (``sparsity=0.5``), of linear and
convolution chains and of attention heads, on the graph as exported and on the one its own simplifier
makes of it (which folds BatchNormalization); the result that is smaller and still runs counts.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import onnxsim
from onnxsim import pruning

from benchmarks.zoo import FOLDER, Entry
from benchmarks.zoo.subjects import Subject, subjects

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


@dataclass(frozen=True)
class Pruned:
    """Figures of one model.

    Attributes:
        parameters: before, in floating-point constants.
        removed: share of them that is gone at half of the channels.
        reached: share of them in tensors that lost something: what it can cut at all.
        problem: why there is no result, or what is wrong with the others.
        seconds: for all attempts.
    """

    parameters: int
    removed: float
    reached: float
    problem: str
    seconds: float


def prune(subject: Subject) -> Pruned:
    """The best of both attempts."""
    start, proto = time.perf_counter(), without_stored_inputs(subject.proto())
    whole, problems, best = numbers(proto), [], (0.0, 0.0)
    for simplify in (False, True):
        try:
            before = onnxsim.simplify(proto)[0] if simplify else proto
            after = pruning.apply_attention_head_pruning(pruning.apply_structured_pruning(before, 0.5), 0.5)
            run(after, subject.entry)
        except Exception as error:  # any failure of the other tool is a result
            how = "simplified" if simplify else "as exported"
            problems.append(f"{how}: {type(error).__name__}: {str(error).splitlines()[0][:160]}")
            continue
        # what the simplifier duplicates or drops is no matter of pruning: relative to its own graph
        size = numbers(before)
        best = max(best, (1 - numbers(after) / size, reached(before, after) / size))
    return Pruned(whole, *best, "; ".join(problems), time.perf_counter() - start)


def without_stored_inputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """``proto`` without weights among its inputs, as files of its age have them: onnxsim trips over those."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    given = [value for value in proto.graph.input if value.name not in stored]
    del proto.graph.input[:]
    proto.graph.input.extend(given)
    proto.ir_version = max(proto.ir_version, 4)
    return proto


def floats(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of floating-point constants."""
    return {t.name: tuple(t.dims) for t in proto.graph.initializer if t.data_type in FLOATS}


def numbers(proto: onnx.ModelProto) -> int:
    """Numbers in floating-point constants."""
    return sum(int(np.prod(shape)) for shape in floats(proto).values())


def reached(before: onnx.ModelProto, after: onnx.ModelProto) -> int:
    """Numbers in tensors that are smaller afterwards."""
    left = floats(after)
    return sum(int(np.prod(shape)) for name, shape in floats(before).items() if left.get(name) != shape)


def run(proto: onnx.ModelProto, entry: Entry) -> None:
    """Raise unless onnxruntime runs ``proto`` on a sample and finite numbers come out."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    for values in session.run(None, entry.draw(1)):  # a ZipMap gives a list
        if isinstance(values, np.ndarray) and values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError("the result is not finite")


def main() -> None:
    """Prune everything and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("-o", "--output", type=Path, default=FOLDER / "onnxsim.json")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    chosen = parser.parse_args()
    logging.disable(logging.ERROR)
    found: dict[str, Any] = {"models": {}}
    if chosen.names and chosen.output.is_file():
        found = json.loads(chosen.output.read_text())
    found["version"] = version("onnxsim")
    for subject in subjects(chosen.folder, chosen.names):
        result = prune(subject)
        found["models"][subject.entry.name] = asdict(result)
        print(
            f"{subject.entry.name}: {100 * result.removed:.0f} % removed, "
            f"{100 * result.reached:.0f} % reached, {result.seconds:.1f} s {result.problem}",
            flush=True,
        )
        chosen.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
