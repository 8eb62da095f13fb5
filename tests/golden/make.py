"""Write the golden files with the Graft that is installed: ``python tests/golden/make.py GRAFT FOLDER``.

``GRAFT`` is the command of an installation of the commit that README.md names. tests/test_golden.py reads
the golden files in this folder; they are made anew only when a file format changes on purpose.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

MODELS = Path(__file__).resolve().parents[2] / "models"
PARENTS = {
    "mnist": "mnist_torch",
    "digits": "digits_sklearn",
    "fashion": "fashion_keras",
    "languages": "languages_torch",
}
PROFILED = {
    "mnist": ("3,8", "--samples-per-class 40"),
    "digits": ("two,six,nine", ""),
    "fashion": ("Trouser,Sneaker", "--samples-per-class 40"),
    "languages": ("French", "--samples-per-class 20"),
}
"""Classes of each profile, all others being one row more, and how many samples."""
DECOMPOSE = {
    "mnist": "--classes 3,8 --keep 0.5",
    "digits": "--classes two,six,nine --keep 0.6",
    "fashion": "--classes Trouser,Sneaker --together --other --keep 0.5",
    "languages": "--classes French --keep 0.5",
}
M, D, F = "mnist/3.onnx", "digits/two.onnx", "fashion/Trouser_Sneaker.onnx"
DATA = {name: f"{MODELS}/{parent.rsplit('_', 1)[0]}_sample.npz" for name, parent in PARENTS.items()}
STORED = {
    "digits_trunk": "compose digits --strategy trunk",
    "digits_replaced": f"replace {MODELS}/digits_sklearn.onnx --class two --with {D}",
    "mixed_joint": f"compose m={M} d={D} --data m={DATA['mnist']} --data d={DATA['digits']}",
}
"""Composites that are kept."""
COMPUTED = {
    "mnist_branches": "compose mnist/3.onnx mnist/8.onnx --strategy branches",
    "digits_branches": "compose digits --strategy branches",
    "digits_trunk_data": f"compose digits --data {DATA['digits']} --strategy trunk",
    "mixed_typicality": f"compose mnist/3.onnx mnist/8.onnx {F}",
    "mixed_other": f"compose {M} {F} --other",
    **{
        f"mixed_{score}": f"compose {M} {F} --scores {score}"
        for score in ("vote", "softmax", "logits", "odds")
    },
    "mixed_calibrated": (
        f"compose m={M} f={F} --scores calibrated --data m={DATA['mnist']} --data f={DATA['fashion']}"
    ),
    "mnist_replaced": f"replace {MODELS}/mnist_torch.onnx --class 3 --with {M}",
    "digits_added": f"add digits_trunk.onnx --with {M} --input raw",
    "digits_removed": "remove digits_trunk.onnx --class six",
}
"""Composites of which only the outputs are kept."""
SAMPLES = 12


def inputs(session: ort.InferenceSession) -> dict[str, Any]:
    """Test samples of the data set with as many values a sample; half of the images are of another."""
    (entry,) = session.get_inputs()
    shape = [SAMPLES if not isinstance(size, int) else size for size in entry.shape]
    names = {64: ("digits", "digits"), 784: ("mnist", "fashion"), 32: ("languages", "languages")}
    parts = []
    for part, name in enumerate(names[int(np.prod(shape[1:]))]):
        with np.load(DATA[name]) as data:
            parts.append(data["x_test"][part :: len(data["x_test"]) // SAMPLES][: SAMPLES // 2])
    values = np.concatenate(parts).reshape(shape)
    if entry.type == "tensor(float)":
        return {entry.name: (values / (255 if values.max() > 16 else 16)).astype(np.float32)}
    return {entry.name: values.astype(entry.type[7:-1])}


def outputs(path: Path) -> dict[str, Any]:
    """What onnxruntime computes for :func:`inputs`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs(session)), strict=True))


def main(graft: str, folder: Path) -> None:
    """Write everything to ``folder``."""

    def call(line: str, *more: str) -> dict[str, Any]:
        done = subprocess.run([graft, *line.split(), *more, "--json"], cwd=folder, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    folder.mkdir(parents=True)
    scratch = folder / "scratch"
    scratch.mkdir()
    expected: dict[str, Any] = {}
    for name, options in DECOMPOSE.items():
        parent = MODELS / f"{PARENTS[name]}.onnx"
        classes, few = PROFILED[name]
        call(f"profile {parent} --data {DATA[name]} --classes {classes} {few} --threads 1 -o scratch/{name}")
        line = f"decompose {parent} --data {DATA[name]} --profile scratch/{name} {options} {few}"
        call(f"{line} --threads 1 -o {name}")
    for name, line in STORED.items():
        call(f"{line} --threads 1 -o {name}.onnx" if "compose" in line else f"{line} -o {name}.onnx")
    files = [path for path in sorted(folder.rglob("*.onnx")) if path.name != "parent.onnx"]
    for path in files:
        place = path.relative_to(folder).as_posix()
        expected[place] = {"inspect": call(f"inspect {place}")}
        name = place.split("/")[0].split("_")[0]
        if name in DATA:
            expected[place]["evaluate"] = call(f"evaluate {place} --data {DATA[name]} --threads 1")
    arrays = {f"{p.relative_to(folder).as_posix()}|{k}": v for p in files for k, v in outputs(p).items()}
    for name, line in COMPUTED.items():
        call(f"{line} -o scratch/{name}.onnx")
        arrays |= {f"{name}|{k}": v for k, v in outputs(scratch / f"{name}.onnx").items()}
    shutil.rmtree(scratch)
    shutil.rmtree(folder / "fashion/parent")
    np.savez_compressed(folder / "outputs.npz", **arrays)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
