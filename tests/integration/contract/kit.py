"""Command lines that work, and what is asked of their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests import small
from tests.integration import kit
from tests.integration.kit import Place, Result

OTHER = "(other)"
KEEP = ("--keep", "0.7")
LINES = {
    "card": "card dense.onnx --data dense.npz",
    "profile": "profile dense.onnx --data dense.npz",
    "plan": "plan dense.onnx --profile dense.profile --classes ant,cow --keep 0.7",
    "decompose": "decompose dense.onnx --data dense.npz --keep 0.7",
    "compose": "compose modules",
    "replace": "replace dense.onnx --class ant --with modules/ant.onnx",
    "add": "add dense.onnx --with modules/ant.onnx --rename ant=emu",
    "remove": "remove dense.onnx --class ant",
    "evaluate": "evaluate dense.onnx --data dense.npz",
    "predict": "predict dense.onnx sample.npy",
    "inspect": "inspect dense.onnx",
}
WRITING = ("card", "profile", "plan", "decompose", "compose", "replace", "add", "remove")
RUNNING = ("card", "profile", "decompose", "compose", "replace", "add", "remove", "evaluate", "predict")
NEEDING_CARD = ("profile", "plan", "decompose", "replace", "add", "remove", "evaluate", "predict")
WITH_CLASSES = ("profile", "plan", "decompose", "evaluate")
CARD_OF_Y = kit.card().replace("scores", "y")


WRITTEN = ["modules/cow.onnx", "set/dog_ant.onnx", "trunk.onnx", "branches.onnx"]


def words(command: str, output: object = "out") -> list[str]:
    """The line of a command, with ``-o`` where it writes."""
    return [*LINES[command].split(), *(["-o", str(output)] if command in WRITING else [])]


def found(result: Result, command: str) -> dict[str, Any]:
    """The JSON of a command that succeeded."""
    assert result.code == 0, result
    assert result.json["schema"] == f"graft/{command}/1"
    return result.json


def refused(result: Result, code: str) -> str:
    """The message of a command that was refused with this code, and what it says to do."""
    assert (result.code, result.json["schema"], result.json["code"]) == (2, "graft/error/1", code), result
    return f"{result.json['message']}; {result.json['hint']}"


def arrays(here: Place) -> dict[str, kit.Array]:
    with np.load(here.data) as data:
        return dict(data)


def resaved(here: Place, **changes: Any) -> None:
    """Other arrays in the data; ``None`` leaves one out."""
    content = {**arrays(here), **changes}
    np.savez(here.data, **{key: value for key, value in content.items() if value is not None})


def put(
    name: str,
    net: small.Net,
    inputs: Mapping[str, tuple[int, Sequence[int]]] | None = None,
    y: Sequence[Any] = (4,),
    ir_version: int = 8,
    batch: int | str = "N",
) -> onnx.ModelProto:
    """``NAME.onnx`` with inputs (type, shape) and the output ``y``, and its card, here."""
    inputs = inputs or {"x": (TensorProto.FLOAT, net.shape)}
    graph = helper.make_graph(
        net.nodes,
        name,
        [helper.make_tensor_value_info(n, kind, [batch, *shape]) for n, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, *y])],
        list(net.constants.values()),
    )
    opsets = [helper.make_opsetid("", net.opset)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    onnx.checker.check_model(proto)
    onnx.save(proto, f"{name}.onnx")
    Path(f"{name}.yaml").write_text(CARD_OF_Y)
    return proto


def props(file: str | Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(file).metadata_props}


def versions(file: str | Path) -> tuple[int, int]:
    """Opset and IR version."""
    model = onnx.load(file)
    (opset,) = (entry.version for entry in model.opset_import if entry.domain == "")
    return opset, model.ir_version


def files_of(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in kit.listing(folder).items() if content is not None}


def counted(proto: onnx.ModelProto) -> int:
    """Multiply-accumulates of Gemm and MatMul with constant weights, for one sample."""
    weights = {weight.name: list(weight.dims) for weight in proto.graph.initializer}
    return sum(
        int(np.prod(weights[node.input[1]]))
        for node in proto.graph.node
        if node.op_type in ("Gemm", "MatMul")
    )
