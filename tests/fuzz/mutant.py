"""One mutant: files in a folder of its own and a command line, both given by its seed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import bases
from tests.fuzz.bases import RUN
from tests.fuzz.mutate_data import mutate_images, mutate_npy, mutate_npz, mutate_profile
from tests.fuzz.mutate_files import replace_file
from tests.fuzz.mutate_model import mutate_file
from tests.fuzz.mutate_options import mutate_options
from tests.fuzz.mutate_parquet import mutate_parquet
from tests.fuzz.mutate_text import mutate_card, mutate_json

KINDS = {
    "model": 50,
    "card": 10,
    "data": 10,
    "images": 4,
    "parquet": 4,
    "plan": 4,
    "profile": 5,
    "folder": 8,
    "options": 10,
}
"""How often each kind of mutant is drawn."""
OUT = "out"
KEEP = ("1.0", "1.0", "0.8", "0.6")


@dataclass(frozen=True)
class Mutant:
    """What a seed draws.

    Attributes:
        seed: of the mutant.
        kind: of what is changed.
        base: what it is made of.
        arguments: the command line, in the folder of the mutant.
        change: what was changed, in words.
    """

    seed: int
    kind: str
    base: str
    arguments: tuple[str, ...]
    change: str = ""

    @property
    def command(self) -> str:
        """The subcommand, if there is one."""
        return self.arguments[0] if self.arguments else ""

    def option(self, name: str) -> str | None:
        """The value of an option."""
        places = [at for at, word in enumerate(self.arguments) if word == name]
        return self.arguments[places[-1] + 1] if places else None


def kind_of(seed: int) -> str:
    """The kind of the mutant of this seed."""
    return random.Random(f"kind {seed}").choices([*KINDS], [*KINDS.values()])[0]


def draw(seed: int) -> tuple[Mutant, random.Random]:
    """The unchanged command of a mutant, and the source of its changes."""
    rng = random.Random(f"mutant {seed}")
    kind = kind_of(seed)
    name = rng.choice(_bases_for(kind))
    labels = list(bases.labels(name))
    commands = COMMANDS[kind]
    if name not in bases.WITH_MODULES:
        commands = [each for each in commands if each not in (_add, _replace, _compose, _folder, _force)]
    arguments = rng.choice(commands)(rng, labels)
    if kind in PICTURES:
        arguments = [PICTURES[kind] if each == "data.npz" else each for each in arguments]
    if kind == "plan":
        arguments += ["--plan", "plan.json"]
    if kind == "profile":
        arguments += ["--profile", "profile.safetensors"]
    if rng.random() < 0.4:
        arguments.append("--json")
    return Mutant(seed, kind, name, tuple(arguments)), rng


def make(seed: int, made: Path, folder: Path) -> Mutant:
    """Write the files of a mutant.

    Args:
        seed: of the mutant.
        made: folder with the bases.
        folder: is made; the working directory of the command.
    """
    mutant, rng = draw(seed)
    shutil.copytree(made / mutant.base, folder, symlinks=True)
    changed, arguments = "", list(mutant.arguments)
    if mutant.kind in FILES and rng.random() < 0.06:
        changed = replace_file(rng, folder / FILES[mutant.kind])
    elif mutant.kind == "options":
        arguments, changed = mutate_options(rng, arguments)
    else:
        changed = CHANGES[mutant.kind](rng, folder, mutant)
    return Mutant(seed, mutant.kind, mutant.base, tuple(arguments), changed)


PICTURES = {"images": "images", "parquet": "data.parquet"}
"""What takes the place of ``data.npz``."""
FILES = {
    "model": "model.onnx",
    "card": "model.yaml",
    "plan": "plan.json",
    "profile": "profile.safetensors",
    "folder": "modules/graft.json",
}
"""The file of each kind that something else may take the place of."""


def _bases_for(kind: str) -> tuple[str, ...]:
    if kind in PICTURES:
        return ("pictures",)
    if kind in ("plan", "profile", "folder"):
        return bases.WITH_MODULES
    if kind == "card":
        return (*bases.names(), *bases.FILES, "pictures", "pictures")
    if kind == "options":
        return (*bases.WITH_MODULES, "recurrent", "attention_of_three_projections")
    return bases.names()


# ------------------------------------------------------------------- commands

Line = Callable[[random.Random, list[str]], list[str]]
DATA = ("--data", "data.npz")


def _classes(rng: random.Random, labels: Sequence[str]) -> list[str]:
    chosen = rng.sample(list(labels), rng.choice([1, 2, 2, 3, len(labels)]))
    return ["--classes", ",".join(chosen)]


def _inspect(rng: random.Random, labels: list[str]) -> list[str]:
    return ["inspect", "model.onnx"]


def _card(rng: random.Random, labels: list[str]) -> list[str]:
    return ["card", "model.onnx", *(DATA if rng.random() < 0.5 else ()), "-o", OUT]


def _profile(rng: random.Random, labels: list[str]) -> list[str]:
    return ["profile", "model.onnx", *DATA, *RUN, "-o", OUT]


def _plan(rng: random.Random, labels: list[str]) -> list[str]:
    given = [
        "--profile",
        "profile.safetensors",
        "--method",
        rng.choice(["contrast", "magnitude", "activity"]),
    ]
    return ["plan", "model.onnx", *given, *_classes(rng, labels), "--keep", "0.6", "-o", OUT]


def _decompose(rng: random.Random, labels: list[str], plan: bool = False) -> list[str]:
    line = ["decompose", "model.onnx", *DATA, *RUN, *_classes(rng, labels)]
    if rng.random() < 0.6 or len(line[-1].split(",")) == len(labels):
        line.append("--together")
    if not plan:
        line += ["--keep", rng.choice(KEEP)]
    line += ["--compensate", rng.choice(["none", "none", "none", "fold", "refit"])]
    method = rng.choice([None, "contrast", "magnitude", "relevance", "random"])
    line += ["--method", method] if method else []
    line += [flag for flag in ("--no-rest", "--no-verify") if rng.random() < 0.2]
    return [*line, "-o", OUT]


def _decompose_by_plan(rng: random.Random, labels: list[str]) -> list[str]:
    return _decompose(rng, labels, plan=True)


def _predict(rng: random.Random, labels: list[str]) -> list[str]:
    return ["predict", "model.onnx", rng.choice(["sample.npy", "data.npz"]), *RUN]


def _predict_sample(rng: random.Random, labels: list[str]) -> list[str]:
    return ["predict", "model.onnx", "sample.npy", *RUN]


def _evaluate(rng: random.Random, labels: list[str]) -> list[str]:
    return ["evaluate", "model.onnx", *DATA, *RUN]


def _remove(rng: random.Random, labels: list[str]) -> list[str]:
    return ["remove", "model.onnx", "--class", rng.choice(labels), *RUN, "-o", OUT]


def _add(rng: random.Random, labels: list[str]) -> list[str]:
    data = DATA if rng.random() < 0.3 else ()
    return ["add", "model.onnx", "--with", "modules/ant.onnx", "--rename", "ant=new", *data, *RUN, "-o", OUT]


def _replace(rng: random.Random, labels: list[str]) -> list[str]:
    given = ["--class", "cow", "--with", "modules/bee.onnx", "--rename", "bee=new"]
    return ["replace", "model.onnx", *given, *(DATA if rng.random() < 0.3 else ()), *RUN, "-o", OUT]


def _replace_from_samples(rng: random.Random, labels: list[str]) -> list[str]:
    return ["replace", "model.onnx", "--class", rng.choice(labels), *DATA, *RUN, "-o", OUT]


def _compose(rng: random.Random, labels: list[str]) -> list[str]:
    more = rng.choice([[], ["--strategy", "branches"], ["--strategy", "trunk"], list(DATA), ["--other"]])
    return ["compose", "modules/ant.onnx", "modules/bee.onnx", *more, *RUN, "-o", OUT]


def _curve(rng: random.Random, labels: list[str]) -> list[str]:
    budgets = ["--budgets", "0.8,0.5", "--methods", rng.choice(["magnitude", "contrast,random"])]
    return ["curve", "model.onnx", *DATA, *RUN, *_classes(rng, labels), *budgets, "-o", OUT]


def _folder(rng: random.Random, labels: list[str]) -> list[str]:
    if rng.random() < 0.5:
        return ["compose", "modules", *RUN, "-o", OUT]
    return ["evaluate", "modules", *DATA, *RUN]


def _force(rng: random.Random, labels: list[str]) -> list[str]:
    return [*_decompose(rng, labels)[:-2], "--force", "-o", "modules"]


COMMANDS: dict[str, list[Line]] = {
    "model": [_inspect] * 6
    + [_decompose] * 10
    + [_predict, _evaluate, _remove] * 2
    + [_profile, _card, _curve, _add, _add, _replace, _replace, _replace_from_samples],
    "card": [_inspect, _decompose, _predict, _evaluate, _card, _remove],
    "data": [_decompose, _evaluate, _profile, _predict, _card, _curve, _replace_from_samples],
    "images": [_decompose, _evaluate, _profile, _replace_from_samples, _card],
    "parquet": [_decompose, _evaluate, _evaluate, _profile, _replace_from_samples, _card],
    "plan": [_decompose_by_plan],
    "profile": [_plan, _plan, _decompose],
    "folder": [_compose, _compose, _compose, _folder, _folder, _force, _add, _replace],
    "options": [
        *(_inspect, _card, _profile, _plan, _decompose, _decompose, _curve, _predict, _evaluate, _remove),
        *(_add, _replace, _replace_from_samples, _compose, _folder, _force),
    ],
}


# ------------------------------------------------------------------- changes


def _change_card(rng: random.Random, folder: Path, mutant: Mutant) -> str:
    path = folder / "model.yaml"
    path.write_bytes(mutate_card(rng, path.read_text()))
    return "card"


def _change_data(rng: random.Random, folder: Path, mutant: Mutant) -> str:
    if "sample.npy" in mutant.arguments:
        return mutate_npy(rng, folder / "sample.npy")
    return mutate_npz(rng, folder / "data.npz")


def _change_plan(rng: random.Random, folder: Path, mutant: Mutant) -> str:
    path = folder / "plan.json"
    path.write_bytes(mutate_json(rng, path.read_text()))
    return "plan"


def _change_folder(rng: random.Random, folder: Path, mutant: Mutant) -> str:
    """``graft.json``, a module's file, or what lies beside."""
    path = folder / "modules"
    how = rng.choice(["index", "index", "index", "module", "module", "module", "files"])
    if how == "index":
        (path / "graft.json").write_bytes(mutate_json(rng, (path / "graft.json").read_text()))
        return how
    if how == "module":
        return f"module: {mutate_file(rng, path / rng.choice(['ant.onnx', 'bee.onnx']))}"
    gone = rng.choice(sorted(each for each in path.rglob("*") if each.is_file()))
    gone.unlink()
    if rng.random() < 0.5:
        gone.symlink_to(rng.choice(["/dev/zero", "nowhere", "../../outside.bin", gone.name, "../model.onnx"]))
    return how


CHANGES: dict[str, Callable[[random.Random, Path, Mutant], str]] = {
    "model": lambda rng, folder, mutant: mutate_file(rng, folder / "model.onnx"),
    "card": _change_card,
    "data": _change_data,
    "images": lambda rng, folder, mutant: mutate_images(rng, folder / "images"),
    "parquet": lambda rng, folder, mutant: mutate_parquet(rng, folder / "data.parquet"),
    "plan": _change_plan,
    "profile": lambda rng, folder, mutant: mutate_profile(rng, folder / "profile.safetensors"),
    "folder": _change_folder,
}
