"""What the design promises of --classes, --samples-per-class and --seed, sentence by sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.integration import kit
from tests.integration.contract.kit import (
    WITH_CLASSES,
    WRITING,
    arrays,
    found,
    refused,
    resaved,
    words,
)
from tests.integration.kit import Graft, Place


@pytest.mark.parametrize("command", ["profile", "plan", "decompose"])
def test_all_classes_that_have_training_samples(command: str, graft: Graft, here: Place) -> None:
    """``--classes``: default all classes that have training samples."""
    content = arrays(here)
    cows = content["y_train"] == 2
    resaved(here, x_train=content["x_train"][~cows], y_train=content["y_train"][~cows])
    (here / "dense.profile").unlink()
    assert graft(*words("profile", "dense.profile")).code == 0
    line = [word for word in words(command) if word not in ("--classes", "ant,cow")]
    result = found(graft(*line, "--json"), command)
    if command == "decompose":
        assert [module["classes"] for module in result["modules"]] == [["ant"], ["bee"], ["dog"]]
    else:
        with_samples = [name for name in result["classes"] if command == "plan" or result["classes"][name]]
        assert with_samples == ["ant", "bee", "dog"]


@pytest.mark.parametrize("command", WITH_CLASSES)
def test_how_classes_are_named(command: str, graft: Graft, here: Place) -> None:
    """Repeatable; a whole name beats splitting at commas; ``@FILE``; an unknown name shows the nearest."""
    here.card.write_text(kit.card(labels="[ant, 'bee, or wasp', cow, dog]"))
    (here / "names").write_text("bee, or wasp\n\ndog\n")
    profile = ("profile", "dense.onnx", "--data", "dense.npz", "-o", "dense.profile", "--force")
    assert graft(*profile).code == 0
    line = [word for word in words(command) if word not in ("--classes", "ant,cow", "-o", "out")]
    told = []
    for number, asked in enumerate((["bee, or wasp", "dog"], ["@names"])):
        classes = [word for name in asked for word in ("--classes", name)]
        output = ["-o", f"out{number}"] if command in WRITING else []
        told.append(kit.untimed(found(graft(*line, *classes, *output, "--json"), command)))
    for result in told:
        for key in ("output", "latency_ms"):
            result.pop(key, None)
    assert told[0] == told[1]
    assert "bee, or wasp" in json.dumps(told[0])
    output = ["-o", "no"] if command in WRITING else []
    says = refused(graft(*line, "--classes", "dog,bee or wasp", *output, "--json"), "class-unknown")
    assert "did you mean 'bee, or wasp'?" in says


@pytest.mark.parametrize(
    "command",
    [
        *("profile", "decompose"),
        *("plan", "decompose with profile", "evaluate"),
    ],
)
def test_a_class_with_few_samples_is_a_warning(command: str, graft: Graft, here: Place) -> None:
    """A class with fewer than 20 samples is a warning."""
    name = command.split()[0]
    line = [*words(name), *(["--profile", "dense.profile"] if "with" in command else [])]
    for count in (20, 19):
        content = arrays(here)
        for split in ("train", "test"):
            y = content[f"y_{split}"]
            dogs = np.flatnonzero(y == 0)[count:]
            content[f"y_{split}"], x = np.delete(y, dogs), np.delete(content[f"x_{split}"], dogs, axis=0)
            content[f"x_{split}"] = x
        resaved(here, **content)
        profile = ("profile", "dense.onnx", "--data", "dense.npz", "-o", "dense.profile", "--force", "-q")
        assert graft(*profile).code == 0
        asked = [] if name == "plan" else ["--classes", "ant,bee"]
        told = graft(*line, *asked, *(["--force"] if name in WRITING else []), "--json")
        assert found(told, name)
        assert ("warning: class 'ant' has only 19 samples" in told.err) == (count == 19)
        assert "'bee'" not in told.err


@pytest.mark.parametrize("command", ["profile", "decompose", "evaluate"])
def test_samples_per_class_and_seed(command: str, graft: Graft, here: Place) -> None:
    """``--samples-per-class N``; which ones is drawn by ``--seed``."""
    few = ("--samples-per-class", "25", "--json")
    line = [word for word in words(command) if word not in ("-o", "out")]
    told = []
    for number, seed in enumerate(([], ["--seed", "0"], ["--seed", "1"])):
        output = ["-o", f"out{number}"] if command in WRITING else []
        told.append(found(graft(*line, *few, *seed, *output), command))
    if command == "evaluate":
        assert [each["samples"] for each in told] == [100, 100, 100]
        return
    if command == "profile":
        assert [each["classes"] for each in told] == [dict.fromkeys(kit.LABELS, 25)] * 3
    place = "out{}/parent/profile.safetensors" if command == "decompose" else "out{}"
    drawn = [(here / place.format(number)).read_bytes() for number in range(3)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("command", ["plan", "decompose"])
def test_seed_is_for_methods_that_draw(command: str, graft: Graft, here: Place) -> None:
    line = [*words(command)[:-2], "--method", "random"]
    told = []
    for seed in ("1", "1", "2"):
        assert graft(*line, "--seed", seed, "-o", "out", *(["--force"] if told else [])).code == 0
        told.append((here / ("out" if command == "plan" else "out/plans/ant.json")).read_text())
    assert told[0] == told[1] != told[2]
