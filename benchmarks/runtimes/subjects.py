"""The files of ``python -m benchmarks.runtimes``: parents, modules, composites, by the command line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from benchmarks.common import EFFICIENTNET, RESNET, bench_folder

PER_CLASS = 100
"""Training samples of each class that prune, and that calibrate 8 bits."""
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class File:
    """A file that is run.

    Attributes:
        name: as the table has it.
        path: where it is.
        parent: what it was made from; ``None``: nothing.
        data: labelled samples, of what has a row in the tables of latency and accuracy.
    """

    name: str
    path: Path
    parent: Path | None = None
    data: Path | None = None


def graft(*words: object) -> None:
    """Run a command line whose last word is its output, unless that is there from an earlier run.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    if Path(str(words[-1])).exists():
        return
    start = [sys.executable, "-c", "from graft.tools.cli import main; main()"]
    subprocess.run([*start, *map(str, words), "-q"], check=True, stdout=subprocess.DEVNULL)


def bundled(folder: Path) -> list[File]:
    """Make modules and composites of the bundled models."""
    source = resources.files("graft.models")
    models = {"mnist_torch": ("mnist", "3,8"), "fashion_keras": ("fashion", "Trouser,Bag")}
    models["languages_torch"] = ("languages", "Dutch,Polish")
    found = []
    for model, (data, classes) in models.items():
        for file in (f"{model}.onnx", f"{model}.yaml", f"{data}_sample.npz"):
            with resources.as_file(source / file) as path:
                shutil.copy(path, folder)
        parent, samples, parts = folder / f"{model}.onnx", folder / f"{data}_sample.npz", folder / data
        graft("decompose", parent, "--data", samples, "--classes", classes, "--keep", "0.6", "-o", parts)
        first, second = (parts / f"{name}.onnx" for name in classes.split(","))
        found += [File(model, parent), File(f"module of {model}", first, parent)]
        for strategy in ("trunk", "branches"):
            path = folder / f"{data}_{strategy}.onnx"
            graft("compose", first, second, "--strategy", strategy, "-o", path)
            found.append(File(f"{strategy} of {model}", path, parent))
    three, bag = folder / "mnist" / "3.onnx", folder / "fashion" / "Bag.onnx"
    mnist, made = folder / "mnist_torch.onnx", {}
    for name, line in {
        "two parents on raw pixels": ("compose", three, bag),
        "two parents, joint head": (
            *("compose", three, bag, "--data", folder / "mnist_sample.npz"),
            *("--data", folder / "fashion_sample.npz"),
        ),
        "a class replaced": ("replace", mnist, "--class", "3", "--with", three),
        "a class added": ("add", mnist, "--with", bag),
    }.items():
        made[name] = folder / f"{name.replace(' ', '_').replace(',', '')}.onnx"
        graft(*line, "-o", made[name])
    return [*found, *(File(name, path, mnist) for name, path in made.items())]


def zoo(folder: Path) -> list[File]:
    """Make a module of a transformer of the zoo, on random samples."""
    import numpy as np

    from benchmarks.zoo.entries import ENTRIES

    name = "vit_dynamo"
    for suffix in (".onnx", ".yaml"):
        shutil.copy(ROOT / "tests" / "zoo" / f"{name}{suffix}", folder)
    parent, data = folder / f"{name}.onnx", folder / "vit.npz"
    np.savez(data, **ENTRIES[name].data(100))  # type: ignore[arg-type]
    line = ("decompose", parent, "--data", data, "--classes", "class 1", "--keep", "0.7")
    graft(*line, "--samples-per-class", 10, "-o", folder / "vit")
    (module,) = (folder / "vit").glob("*.onnx")
    return [File("ViT (dynamo)", parent), File("module of ViT", module, parent)]


def bench(folder: Path) -> list[File]:
    """Make modules of the benchmark models at half of the multiply-accumulates."""
    vision, rnn = bench_folder("vision"), bench_folder("rnn")
    ten = sorted(path.name for path in (vision / "imagenette" / "train").iterdir())
    gru = rnn / "mathqa_gru1_retrained.onnx"
    found = []
    for name, model, data, classes in (
        ("ResNet-20", vision / f"{RESNET}.onnx", vision / "cifar10.npz", ["cat", "dog"]),
        ("EfficientNet-Lite0", vision / f"{EFFICIENTNET}.onnx", vision / "imagenette", ten),
        ("MathQA GRU-1", gru, rnn / "mathqa.npz", ["gain", "physics"]),
    ):
        parts = folder / model.stem
        line = ("decompose", model, "--data", data, "--classes", ",".join(classes), "--together")
        graft(*line, "--keep", "0.5", "--samples-per-class", PER_CLASS, "-o", parts)
        (module,) = parts.glob("*.onnx")
        known = data if model != gru else None
        found += [File(name, model), File(f"module of {name}, 50 %", module, model, known)]
    return found
