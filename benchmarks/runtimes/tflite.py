"""TFLite by onnx2tf, in an environment of its own, as a runtime that ``Verification`` takes.

Once, with what onnx2tf asks for besides: ``python -m venv .tflite``, ``.tflite/bin/pip install onnx2tf
tensorflow tf_keras ai-edge-litert``; ``GRAFT_TFLITE`` names the Python in it. This file runs there, too.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PYTHON = os.environ.get("GRAFT_TFLITE", "")


def main(model: str, folder: str) -> None:
    """Convert a file at the shapes of its inputs, and run them.

    Args:
        model: an ONNX file.
        folder: of ``inputs.npz``; ``outputs.npz`` is written there.
    """
    import onnx
    import onnx2tf
    import tensorflow

    with np.load(f"{folder}/inputs.npz") as stored:
        inputs = {name: stored[name] for name in stored.files}
    onnx2tf.convert(
        input_onnx_file_path=model,
        output_folder_path=f"{folder}/converted",
        keep_shape_absolutely_input_names=list(inputs),
        non_verbose=True,
    )
    (path,) = Path(folder, "converted").glob("*_float32.tflite")
    runner = tensorflow.lite.Interpreter(str(path))
    given = {}
    for each in runner.get_input_details():
        name = each["name"].removeprefix("serving_default_").partition(":")[0]
        given[each["index"]] = inputs[name] if name in inputs else next(iter(inputs.values()))
        runner.resize_tensor_input(each["index"], list(given[each["index"]].shape))
    runner.allocate_tensors()
    for index, array in given.items():
        runner.set_tensor(index, array)
    runner.invoke()
    names = [value.name for value in onnx.load(model).graph.output]
    found = [runner.get_tensor(each["index"]) for each in runner.get_output_details()]
    np.savez(
        f"{folder}/outputs.npz", **{str(k): value for k, value in zip(range(len(names)), found, strict=True)}
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
else:
    from graft.rewriter.runtimes.base import Run, Runtime

    class TFLite(Runtime):
        """TFLite on the CPU, a process for each batch."""

        name = "tflite"
        module = ""
        distributions = ()
        install = "see benchmarks/runtimes/tflite.py"
        slow = True

        @property
        def installed(self) -> bool:
            """True where ``GRAFT_TFLITE`` names a Python."""
            return bool(PYTHON) and Path(PYTHON).exists()

        @functools.cached_property
        def version(self) -> str:
            """Versions of onnx2tf and TensorFlow in that environment."""
            code = "from importlib.metadata import version as v; print(v('onnx2tf'), 'TF', v('tensorflow'))"
            return subprocess.run([PYTHON, "-c", code], capture_output=True, text=True).stdout.strip()

        @property
        def command(self) -> str:
            """What installs it."""
            return self.install

        def open(self, model: Path, threads: int) -> Run:
            """Return what converts and runs a batch."""

            def run(inputs: Mapping[str, Any]) -> Sequence[Any]:
                with tempfile.TemporaryDirectory() as folder:
                    np.savez(f"{folder}/inputs.npz", **inputs)
                    words = [PYTHON, "-P", __file__, str(model), folder]
                    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
                    done = subprocess.run(words, capture_output=True, text=True, env=plain, cwd=folder)
                    if done.returncode:
                        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
                    with np.load(f"{folder}/outputs.npz") as stored:
                        return [stored[key] for key in stored.files]

            return run
