"""Models of options: made from plain values, as a recipe has them, and strict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from graft.rewriter.run.budget import parse_size
from graft.tools import options
from graft.tools.cli import COMMANDS, run
from graft.tools.command import Options, fields
from tests.tools.test_command import command_of

PLAIN: dict[str, dict[str, Any]] = {
    "card": {"subject": {"model": "m.onnx"}},
    "inspect": {"subject": {"file": "m.onnx", "input_shape": ["x:1,3"]}},
    "profile": {"subject": {"model": "m.onnx"}, "data": {"data": "d.npz"}, "output": {"output": "p"}},
    "plan": {
        "subject": {"model": "m.onnx", "classes": ["a,b"]},
        "budget": {"keep": "50%", "keep_by": "parameters"},
        "method": {"profile": "p", "method": "contrast"},
        "output": {"output": "plan.json"},
    },
    "decompose": {
        "subject": {"model": "m.onnx", "together": True},
        "budget": {"keep": 0.5, "round_to": 4},
        "method": {"compensate": "fold"},
        "data": {"data": "d.npz", "samples_per_class": 20},
        "run": {"providers": ["cuda", "cpu"], "seed": 3},
        "output": {"output": "out", "opset": 17},
    },
    "curve": {
        "subject": {"model": "m.onnx", "budgets": [0.5, "70%"]},
        "method": {"methods": ["ablation", "one-plan"]},
        "data": {"data": "d.npz"},
        "output": {"output": "curve.json"},
    },
    "compose": {
        "join": {"modules": ["a.onnx", "k=b.onnx"], "strategy": "branches"},
        "compare": {"scores": "odds", "other": True, "false_positive_rate": "10%"},
        "entry": {"input": "raw"},
        "data": {"data": ["a.npz", "k=b.npz"]},
        "output": {"output": "m.onnx"},
    },
    "replace": {
        "subject": {"model": "m.onnx", "class": "3", "with": "3.onnx"},
        "output": {"output": "n.onnx"},
    },
    "add": {"subject": {"model": "m.onnx", "with": "k=3.onnx"}, "output": {"output": "n.onnx"}},
    "remove": {"subject": {"model": "m.onnx", "class": ["3"]}, "output": {"output": "n.onnx"}},
    "evaluate": {"subject": {"models": ["m.onnx"], "min_top1": 0}, "data": {"data": ["d.npz"]}},
    "predict": {"subject": {"model": "m.onnx", "samples": ["a.png"]}},
    "verify": {
        "subject": {"model": "m.onnx", "against": "p.onnx", "runtime": ["mnn"], "tolerance": 0.01},
        "data": {"data": "d.npz", "samples": 3},
        "run": {"time_limit": "2m"},
    },
    "demo": {},
}


def built(name: str) -> dict[str, Options]:
    return {key: model(**PLAIN[name].get(key, {})) for key, model in command_of(name).models.items()}


READ: dict[tuple[str, str], Any] = {
    ("plan", "keep"): 0.5,
    ("compose", "false_positive_rate"): 0.1,
    ("curve", "budgets"): ((0.5,), (0.7,)),
    ("curve", "methods"): (("ablation",), ("one-plan",)),
    ("compose", "modules"): ({"path": "a.onnx", "prefix": ""}, {"path": "b.onnx", "prefix": "k"}),
    ("compose", "data"): ({"path": "a.npz", "prefix": ""}, {"path": "b.npz", "prefix": "k"}),
    ("replace", "with"): {"path": "3.onnx", "prefix": ""},
    ("add", "with"): {"path": "3.onnx", "prefix": "k"},
    ("verify", "time_limit"): 120.0,
    ("evaluate", "data"): ({"path": "d.npz", "prefix": ""},),
}
"""Command and option to the value that is read, where this is another than what was given."""


def plain(value: Any) -> Any:
    """Paths as words, sequences as lists."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", COMMANDS)
def test_models_are_made_from_plain_values(name: str) -> None:
    """What is given is read, and everything else is the default."""
    models = built(name)
    for key, given in PLAIN[name].items():
        model = models[key]
        found = model.model_dump()
        assert found.keys() == {each for each, *_ in fields(type(model))}
        expected = {each: READ.get((name, each), value) for each, value in given.items()}
        for each, info in type(model).model_fields.items():
            alias = info.alias or each
            default = info.get_default(call_default_factory=True, validated_data={})
            assert plain(found[each]) == plain(expected.pop(alias, default)), each
        assert not expected


@pytest.mark.parametrize("name", COMMANDS)
def test_models_refuse_unknown_keys_and_are_frozen(name: str) -> None:
    for key, model in command_of(name).models.items():
        given = PLAIN[name].get(key, {})
        with pytest.raises(ValidationError, match="magic"):
            model(**given, magic=1)
        made = model(**given)
        with pytest.raises(ValidationError, match="frozen"):
            setattr(made, next(iter(model.model_fields)), None)


def test_values_are_read_alike_from_a_recipe_and_the_command_line() -> None:
    decompose, compose = built("decompose"), built("compose")
    assert decompose["budget"].model_dump()["keep"] == 0.5
    assert built("plan")["budget"].model_dump()["keep"] == 0.5
    assert decompose["run"].model_dump()["providers"] == ("cuda", "cpu")
    assert options.RunOptions(providers="cuda, cpu").providers == ("cuda", "cpu")  # type: ignore[arg-type]
    assert built("curve")["subject"].model_dump()["budgets"] == ((0.5,), (0.7,))
    assert compose["compare"].model_dump()["false_positive_rate"] == 0.1
    data = compose["data"]
    assert isinstance(data, options.SampledDataOptions)
    assert [(each.prefix, each.path) for each in data.data] == [("", Path("a.npz")), ("k", Path("b.npz"))]


@pytest.mark.parametrize(
    ("name", "key", "given", "says"),
    [
        ("decompose", "budget", {"keep": 0}, "above 0"),
        ("decompose", "budget", {"keep": "2"}, "100%"),
        ("decompose", "budget", {"keep": "much"}, "50%"),
        ("decompose", "budget", {"keep": 0.5, "max_drop": 1}, "one of"),
        ("decompose", "budget", {"max_drop": -1}, "-1"),
        ("decompose", "budget", {"keep_by": "joules"}, "'macs', 'parameters'"),
        ("decompose", "budget", {"round_to": 0}, "greater than or equal to 1"),
        ("decompose", "method", {"method": "contrst"}, "did you mean 'contrast'"),
        ("decompose", "data", {}, "data"),
        ("compose", "join", {"modules": ["a"], "strategy": "trunc"}, "did you mean 'trunk'"),
        ("curve", "subject", {"model": "m", "budgets": [","]}, "one or more"),
        ("evaluate", "subject", {"model": "m", "min_top1": 1.5}, "from 0 to 1"),
    ],
)
def test_values_that_do_not_fit_are_refused(name: str, key: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        command_of(name).models[key](**given)


HUGE = "9" * 30
NUMBERS = {
    "--keep": ["nan", "inf", "-0.5", "1e400", "9" * 400 + "%"],
    "--round-to": [HUGE, "0", "-1", "1.5", "nan"],
    "--seed": [HUGE, "-1", "inf", "9" * 5000],
    "--samples-per-class": [HUGE, "0", "1e9"],
    "--max-drop": ["nan", "inf", "-1", "1e400", "101"],
    "--opset": [HUGE, "-1"],
    "--ir-version": [HUGE, "nan"],
    "--threads": [HUGE, "99999", "-1"],
    "--keep-layer": ["a=nan", "a=inf", "a=-1", "="],
    "--input-shape": [f"x:1,{HUGE}", "x:-1", "x:nan"],
}


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, value) for option, values in NUMBERS.items() for value in values],
    ids=lambda text: text[:20],
)
def test_numbers_that_cannot_be(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = Path(__file__).parents[2] / "models/digits_sklearn.onnx"
    line = ["decompose", str(model), "--data", "none.npz", option, value, "-o", "never"]
    assert run([*line, "--keep", "0.5"] if option not in ("--keep", "--max-drop") else line) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "unexpected" not in err and "none.npz" not in err
    assert not Path("never").exists()


def test_one_argument_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "a", "b"]) == 2
    assert "there is no place for the argument (b)" in capsys.readouterr().err


def test_memory_without_end() -> None:
    assert parse_size("9" * 400) == 2**62


@pytest.mark.parametrize("text", ["", "-"])
@pytest.mark.parametrize(
    "line",
    [
        "inspect {}",
        "evaluate {} --data d.npz",
        "evaluate m.onnx --data {}",
        "evaluate m.onnx --data k={}",
        "decompose m.onnx --data d.npz -o {}",
        "decompose m.onnx --data d.npz --profile {} -o out",
        "compose {} -o m.onnx",
        "compose a.onnx b=/ -o {}",
        "predict m.onnx {}",
        "predict m.onnx a.png {}",
        "verify m.onnx --against {}",
        "predict m.onnx --card {} a.png",
        "curve m.onnx --data d.npz -o c.json --plot {}",
        "replace m.onnx --class a --with {} -o n.onnx",
    ],
)
def test_empty_paths_and_streams(line: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty path would be the current folder, and ``-`` a file of that name."""
    assert run([word.format(text) for word in line.split(" ")]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and f"expected a path, found {text or 'nothing'}" in err
