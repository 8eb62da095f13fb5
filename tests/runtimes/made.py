"""Files of every kind that Graft writes, from the bundled models and the zoo."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import onnx

from benchmarks.zoo import LABELS
from benchmarks.zoo.entries import ENTRIES
from graft.passes import compare
from graft.tools.cli import run
from tests.integration import kit

ZOO = Path(__file__).parents[1] / "zoo"
PARENTS = {"mnist": "mnist_torch", "fashion": "fashion_keras", "digits": "digits_sklearn"}
PARENTS |= {"languages": "languages_torch"}
PAIRS = {"mnist": ("3", "8"), "fashion": ("Trouser", "Bag"), "digits": ("two", "six")}
PAIRS |= {"languages": ("Dutch", "Polish")}
OPSETS = (11, 13, 18, 21)
CHEAPLY = "--keep 0.6 --samples-per-class 20 --method magnitude"


@dataclass(frozen=True)
class Workshop:
    """A folder with the bundled models, where commands are run.

    Attributes:
        folder: the folder.
    """

    folder: Path

    @classmethod
    def of(cls, folder: Path) -> Workshop:
        """Copy the bundled models and their data to a folder."""
        source = resources.files("graft.models")
        for name, model in PARENTS.items():
            for file in (f"{model}.onnx", f"{model}.yaml", f"{name}_sample.npz"):
                with resources.as_file(source / file) as path:
                    shutil.copy(path, folder / file)
        return cls(folder)

    def graft(self, line: str, output: str) -> Path:
        """Run a command line in the folder, where ``{}`` is its path, unless the output is there already."""
        words = [word.replace("{}", str(self.folder)) for word in line.split(" ")]
        target = self.folder / output
        if target.exists():
            return target
        assert run([*words, "-o", str(target), "-q"]) == 0, line
        return target

    def parent(self, name: str) -> Path:
        """The bundled model of a data set."""
        return self.folder / f"{PARENTS[name]}.onnx"

    def modules(self, name: str) -> list[Path]:
        """A module for each of two classes, at 60 % of the parent's multiply-accumulates."""
        first, second = PAIRS[name]
        line = f"decompose {self.parent(name)} --data {{}}/{name}_sample.npz --classes {first},{second}"
        folder = self.graft(f"{line} {CHEAPLY}", f"p_{name}")
        return [folder / f"{each}.onnx" for each in (first, second)]

    def together(self, name: str, options: str) -> Path:
        """A module for both classes."""
        line = (
            f"decompose {self.parent(name)} --data {{}}/{name}_sample.npz --classes {','.join(PAIRS[name])}"
        )
        words = options.replace("-", "").replace(" ", "_") or "plain"
        folder = self.graft(
            f"{line} --together {options} {CHEAPLY}".replace("  ", " "),
            f"t_{name}_{words}",
        )
        (file,) = sorted(folder.glob("*.onnx"))
        return file


Made = Mapping[str, tuple[Path, tuple[Path, ...]]]
"""What a file is, to the file and its parents."""


def modules(shop: Workshop, name: str) -> Made:
    """Modules of one class and of two, with and without (other) and rest, and a trunk of them."""
    parents = (shop.parent(name),)
    alone = shop.modules(name)
    found = {f"module of {path.stem}": path for path in alone}
    for options in ("", "--other", "--no-rest"):
        found[f"module of two {options}".strip()] = shop.together(name, options)
    both = " ".join(map(str, alone))
    found["trunk"] = shop.graft(f"compose {both} --strategy trunk", f"trunk_{name}.onnx")
    return {kind: (path, parents) for kind, path in found.items()}


def compared(shop: Workshop, name: str) -> Made:
    """Branches with every way of comparing scores."""
    both = " ".join(map(str, shop.modules(name)))
    found = {}
    for scores in compare.names():
        line = f"compose {both} --strategy branches --scores {scores} --data {{}}/{name}_sample.npz"
        found[f"branches {scores}"] = (shop.graft(line, f"{scores}_{name}.onnx"), (shop.parent(name),))
    return found


def patched(shop: Workshop) -> Made:
    """Classes that were replaced, added and removed."""
    mnist, three = shop.parent("mnist"), shop.modules("mnist")[0]
    bag = shop.modules("fashion")[1]
    data, found = "--data {}/mnist_sample.npz", {}
    for scores in compare.names(patches=True):
        line = f"replace {mnist} --class 3 --with {three} --scores {scores} {data}"
        found[f"replaced {scores}"] = shop.graft(line, f"replaced_{scores}.onnx")
    found["removed"] = shop.graft(f"remove {mnist} --class 3", "removed.onnx")
    with np.load(shop.folder / "mnist_sample.npz") as arrays:
        key = next(each for each in arrays.files if each.startswith("x_train"))
        images = arrays[key][:40]
    np.savez(shop.folder / "new.npz", x=255 - images)
    line = f"add {mnist} --class inverse --data {{}}/new.npz --data {{}}/mnist_sample.npz"
    found["class from samples"] = shop.graft(line, "new.onnx")
    made: dict[str, tuple[Path, tuple[Path, ...]]] = {kind: (path, (mnist,)) for kind, path in found.items()}
    both = (mnist, shop.parent("fashion"))
    made["added"] = (shop.graft(f"add {mnist} --with {bag}", "added.onnx"), both)
    return made


def mixed(shop: Workshop) -> Made:
    """Composites of several parents on raw pixels."""
    (three, _), (_, bag) = shop.modules("mnist"), shop.modules("fashion")
    two, six = shop.modules("digits")
    m, f, d = (shop.parent(name) for name in ("mnist", "fashion", "digits"))
    every, pair = f"compose {three} {bag} {two} {six}", f"compose {three} {bag}"
    data = "--data {}/mnist_sample.npz --data {}/fashion_sample.npz"
    return {
        "three parents": (shop.graft(every, "raw3.onnx"), (m, f, d)),
        "three parents, softmax": (shop.graft(f"{every} --scores softmax", "soft3.onnx"), (m, f, d)),
        "float pixels": (shop.graft(f"{pair} --input-type float32", "float2.onnx"), (m, f)),
        "rejection": (shop.graft(f"{pair} --other", "other2.onnx"), (m, f)),
        "joint head": (shop.graft(f"{pair} {data}", "joint2.onnx"), (m, f)),
    }


def derived(shop: Workshop) -> Made:
    """What is made of composites, and rejection of networks of one parent."""
    made = mixed(shop)
    joined, m, f, d = (
        made["three parents"][0],
        *(shop.parent(name) for name in ("mnist", "fashion", "digits")),
    )
    (three, eight), (_, bag), (two, _) = (shop.modules(name) for name in ("mnist", "fashion", "digits"))
    added, data = shop.graft(f"add {m} --with {bag}", "added.onnx"), "--data {}/mnist_sample.npz"
    other = f"compose {three} {eight} --strategy branches --other {data}"
    replaced = f"replace {added} --class 3 --with {three} {data}"
    newest = f"compose {three} {bag} --opset 21"
    return {
        "removed from three parents": (shop.graft(f"remove {joined} --class 3", "less3.onnx"), (m, f, d)),
        "removed beside rejection": (
            shop.graft(f"remove {made['rejection'][0]} --class 3", "less_other.onnx"),
            (m, f),
        ),
        "added to a composite": (shop.graft(f"add {added} --with {two}", "added2.onnx"), (m, f, d)),
        "added of a composite": (
            shop.graft(f"add {m} --with {joined} --with-class Bag", "of3.onnx"),
            (m, f, d),
        ),
        "replaced in a composite": (shop.graft(replaced, "added_replaced.onnx"), (m, f)),
        "rejection, one parent": (shop.graft(other, "other1.onnx"), (m,)),
        "newer operators": (shop.graft(newest, "newer.onnx"), (m, f)),
    }


def versions(shop: Workshop) -> Made:
    """Modules and composites of every version of the operators, of logits and of probabilities."""
    found: dict[str, tuple[Path, tuple[Path, ...]]] = {}
    for opset, softmax in itertools.product(OPSETS, (False, True)):
        name = f"{'softmax' if softmax else 'dense'}_{opset}"
        model = kit.dense(opset=opset, softmax=softmax)
        parent, data = shop.folder / f"{name}.onnx", shop.folder / f"{name}.npz"
        onnx.save(model, parent)
        parent.with_suffix(".yaml").write_text(kit.card("probabilities" if softmax else "logits"))
        np.savez(data, **kit.samples(model, 40))  # type: ignore[arg-type]
        folder = shop.graft(f"decompose {parent} --data {data} --classes ant,cow {CHEAPLY}", f"v_{name}")
        found[f"module, {name}"] = (folder / "ant.onnx", (parent,))
        both = f"compose {folder / 'ant.onnx'} {folder / 'cow.onnx'} --strategy branches"
        found[f"branches, {name}"] = (shop.graft(both, f"b_{name}.onnx"), (parent,))
    return found


def zoo(shop: Workshop, name: str) -> Made:
    """A module of a model of an exporter."""
    for suffix in (".onnx", ".yaml"):
        shutil.copy(ZOO / f"{name}{suffix}", shop.folder)
    parent, data = shop.folder / f"{name}.onnx", shop.folder / f"{name}.npz"
    np.savez(data, **ENTRIES[name].data(40))  # type: ignore[arg-type]
    made = shop.folder / f"z_{name}"
    words = ["decompose", parent, "--data", data, "--classes", LABELS[1], "--keep", "0.8"]
    words += ["--method", "magnitude", "--samples-per-class", "4", "-o", made, "-q"]
    assert made.exists() or run(list(map(str, words))) == 0  # another test may have made it
    (module,) = made.glob("*.onnx")
    return {"module": (module, (parent,))}


FAMILIES: dict[str, Callable[[Workshop], Made]] = {
    **{f"modules of {name}": lambda shop, name=name: modules(shop, name) for name in PARENTS},
    **{
        f"comparisons of {name}": lambda shop, name=name: compared(shop, name)
        for name in ("mnist", "languages")
    },
    "patched": patched,
    "several parents": mixed,
    "made of composites": derived,
    "opsets": versions,
    **{name: lambda shop, name=name: zoo(shop, name) for name in sorted(p.stem for p in ZOO.glob("*.onnx"))},
}
