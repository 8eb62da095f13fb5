"""onnxruntime-web in node, as a runtime that ``Verification`` takes.

Once: ``npm install --prefix benchmarks/runtimes``.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graft.rewriter.arrays import Array
from graft.rewriter.runtimes.base import Run, Runtime

HERE = Path(__file__).resolve().parent
PACKAGE = HERE / "node_modules" / "onnxruntime-web"


class OnnxWeb(Runtime):
    """onnxruntime-web on wasm."""

    name = "onnxruntime-web"
    module = ""
    distributions = ()
    install = "npm install --prefix benchmarks/runtimes"

    @property
    def installed(self) -> bool:
        """True where node and the package are there."""
        return shutil.which("node") is not None and PACKAGE.exists()

    @property
    def version(self) -> str:
        """Its version."""
        found: str = json.loads((PACKAGE / "package.json").read_text("utf-8"))["version"]
        return found

    @property
    def command(self) -> str:
        """What installs it."""
        return self.install

    def open(self, model: Path, threads: int) -> Run:
        """Start node; a batch that comes again is not sent again."""
        words = ["node", str(HERE / "web.mjs"), str(model), str(threads)]
        node = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        last: list[Mapping[str, Array]] = []

        def run(inputs: Mapping[str, Array]) -> Sequence[Any]:
            assert node.stdin is not None
            assert node.stdout is not None
            again = bool(last) and last[0] is inputs
            last[:] = [inputs]
            sent = {} if again else {"inputs": {name: _plain(array) for name, array in inputs.items()}}
            node.stdin.write(json.dumps(sent) + "\n")
            node.stdin.flush()
            reply = json.loads(node.stdout.readline() or '{"error": "node ended"}')
            if "error" in reply:
                raise RuntimeError(reply["error"])
            return [_array(each) for each in reply["outputs"]]

        return run


def _plain(array: Array) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"type": array.dtype.name, "dims": list(array.shape), "data": data}


def _array(found: Mapping[str, Any]) -> Array:
    return np.frombuffer(base64.b64decode(found["data"]), np.dtype(found["type"])).reshape(found["dims"])
