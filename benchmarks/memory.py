"""Peak memory of commands over the weights of a model.

    python -m benchmarks.memory [--gigabytes 1.2] [--networks dense convolutional]

Writes networks with random weights, and runs ``inspect`` and ``decompose`` on them, each in a process of its
own. Peaks hold the interpreter with its libraries, 0.15 GB. Takes two minutes on two cores, 5 GB of memory
and 6 GB of disk. Linux only.
"""  # fmt: skip

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

SAMPLES, SIZE, CLASSES = 12, 8, 3
"""Few small images: what they take is little beside the weights."""
UNITS, CHANNELS = 4096, 1024
"""Of each layer: there are as many layers as the weights ask for, as in real networks."""
DECOMPOSE = ("--classes", "0", "--keep", "0.5", "--method", "magnitude", "--compensate", "none")
"""One module, without linear algebra, whose time is cubic in the units of a layer."""
RUN = """
import re, sys
from graft.tools.cli import run
code = run(sys.argv[1:])
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]  # ru_maxrss has the caller's
print(code, peak, file=sys.stderr)
"""


def dense(weights: int) -> onnx.ModelProto:
    """Return a dense network with so many bytes of weights."""
    layers = max(1, round(weights / 4 / UNITS**2))
    shapes = [(SIZE * SIZE, UNITS), *[(UNITS, UNITS)] * layers, (UNITS, CLASSES)]
    return _network("Gemm", shapes)


def convolutional(weights: int) -> onnx.ModelProto:
    """Return convolutions with normalizations behind them, with so many bytes of weights."""
    layers = max(1, round(weights / 4 / 9 / CHANNELS**2))
    shapes = [(CHANNELS, 1, 3, 3), *[(CHANNELS, CHANNELS, 3, 3)] * layers, (CHANNELS, CLASSES)]
    return _network("Conv", shapes)


def _network(op: str, shapes: list[tuple[int, ...]]) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    nodes, tensors, last = [], [], "x"
    for number, shape in enumerate(shapes):
        weight = random.standard_normal(shape, np.float32)
        weight *= np.float32((2 / np.prod(shape[1:] if len(shape) > 2 else shape[:1])) ** 0.5)
        tensors.append(numpy_helper.from_array(weight, f"w{number}"))
        if len(shape) == 2 and op == "Conv":
            nodes += [helper.make_node("GlobalAveragePool", [last], ["pooled"])]
            nodes += [helper.make_node("Flatten", ["pooled"], ["flat"])]
            last = "flat"
        kind, attributes = ("Gemm", {}) if len(shape) == 2 else ("Conv", {"pads": [1] * 4})
        nodes.append(
            helper.make_node(kind, [last, f"w{number}"], [f"a{number}"], f"layer{number}", **attributes)
        )
        last = f"a{number}"
        if len(shape) == 4:
            names = [f"{part}{number}" for part in ("scale", "offset", "mean", "variance")]
            values = [random.uniform(0.5, 1.5, shape[0]).astype(np.float32) for _ in names]
            tensors += [numpy_helper.from_array(each, name) for each, name in zip(values, names, strict=True)]
            nodes.append(
                helper.make_node("BatchNormalization", [last, *names], [f"n{number}"], f"norm{number}")
            )
            last = f"n{number}"
        if number < len(shapes) - 1:
            nodes.append(helper.make_node("Relu", [last], [f"r{number}"], f"relu{number}"))
            last = f"r{number}"
    shape_in = ["n", SIZE * SIZE] if op == "Gemm" else ["n", 1, SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        op.lower(),
        [helper.make_tensor_value_info("x", 1, shape_in)],
        [helper.make_tensor_value_info(last, 1, ["n", CLASSES])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


NETWORKS: Mapping[str, Callable[[int], onnx.ModelProto]] = {"dense": dense, "convolutional": convolutional}


def peak(*arguments: str) -> int:
    """Return the peak resident memory, in bytes, of a command in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    *said, last = done.stderr.splitlines() or ["nothing"]
    code, _, kilobytes = last.partition(" ")
    if code != "0" or not kilobytes.isdecimal():
        raise RuntimeError(f"graft {' '.join(arguments)}: {' '.join([*said, last])}")
    return int(kilobytes) << 10


def weights(gigabytes: float, kinds: list[str], folder: Path) -> None:
    """Print peak memory over the size of the weights, for each kind of network and each command."""
    random = np.random.default_rng(1)
    print(f"{'network':15}{'command':12}{'weights':>9}{'peak':>9}{'ratio':>7}")
    for kind in kinds:
        model, data, card = folder / f"{kind}.onnx", folder / f"{kind}.npz", folder / f"{kind}.yaml"
        onnx.save(NETWORKS[kind](int(gigabytes * 1e9)), model)
        size = model.stat().st_size
        shape = (SAMPLES, SIZE * SIZE) if kind == "dense" else (SAMPLES, 1, SIZE, SIZE)
        np.savez(data, x=random.normal(size=shape).astype(np.float32), y=np.arange(SAMPLES) % CLASSES)
        subprocess.run(
            [sys.executable, "-c", RUN, "card", str(model), "-o", str(card), "--data", str(data)], check=True
        )
        commands = {
            "inspect": ["inspect", str(model), "--json"],
            "decompose": [
                *("decompose", str(model), "--data", str(data), *DECOMPOSE),
                *("-o", str(folder / kind)),
            ],
        }
        for name, arguments in commands.items():
            most = peak(*arguments)
            print(
                f"{kind:15}{name:12}{size / 1e9:>6.2f} GB{most / 1e9:>6.2f} GB{most / size:>7.2f}", flush=True
            )


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.2)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights(options.gigabytes, options.networks, Path(folder))


if __name__ == "__main__":
    main()
