"""What people do to a model after Graft: each tool takes what was made of a parent that it takes."""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from tests.runtimes.made import Made, Workshop, compared, mixed, modules, patched

ROUNDING, HALF, EIGHT_BITS = 1e-4, 0.02, 0.3
"""Of the scale of an output, how far a tool may move it."""
Feed = dict[str, np.ndarray[Any, np.dtype[Any]]]


class Samples(CalibrationDataReader):  # type: ignore[misc]
    """The same samples three times."""

    def __init__(self, feed: Feed) -> None:
        self.left: Iterator[Feed] = iter([feed] * 3)

    def get_next(self) -> Feed | None:
        return next(self.left, None)


def _half(source: Path, target: Path, feed: Feed) -> None:
    from onnxconverter_common import float16

    onnx.save(float16.convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


def _onnxsim(source: Path, target: Path, feed: Feed) -> None:
    import onnxsim

    onnx.save(onnxsim.simplify(onnx.load(source))[0], target)


def _onnxslim(source: Path, target: Path, feed: Feed) -> None:
    import onnxslim

    onnx.save(onnxslim.slim(onnx.load(source)), target)


def _static(source: Path, target: Path, feed: Feed) -> None:
    quantize_static(source, target, Samples(feed), quant_format=QuantFormat.QDQ)


def _newer(source: Path, target: Path, feed: Feed) -> None:
    onnx.save(version_converter.convert_version(onnx.load(source), 21), target)


@dataclass(frozen=True)
class Tool:
    """A tool that makes a model of a model.

    Attributes:
        run: of a file, the file to write, and samples.
        tolerance: of the scale of an output.
        package: that it is in.
    """

    run: Callable[[Path, Path, Feed], None]
    tolerance: float
    package: str

    @property
    def here(self) -> bool:
        """Whether it can be imported."""
        return importlib.util.find_spec(self.package) is not None


TOOLS = {
    "quant_pre_process": Tool(lambda source, target, _: quant_pre_process(source, target), ROUNDING, "sympy"),
    "static 8 bits": Tool(_static, EIGHT_BITS, "onnxruntime"),
    "dynamic 8 bits": Tool(
        lambda source, target, _: quantize_dynamic(source, target), EIGHT_BITS, "onnxruntime"
    ),
    "float16": Tool(_half, HALF, "onnxconverter_common"),
    "onnxsim": Tool(_onnxsim, ROUNDING, "onnxsim"),
    "onnxslim": Tool(_onnxslim, ROUNDING, "onnxslim"),
    "opset 21": Tool(_newer, ROUNDING, "onnx"),
}
FILES: dict[str, Callable[[Workshop], Made]] = {
    **{f"modules of {name}": functools.partial(modules, name=name) for name in ("digits", "languages")},
    "comparisons of languages": functools.partial(compared, name="languages"),
    "patched": patched,
    "several parents": mixed,
}


def feed_of(session: ort.InferenceSession) -> Feed:
    """Three seeded samples for each input."""
    draw, found = np.random.default_rng(0), {}
    for each in session.get_inputs():
        shape = [size if isinstance(size, int) else (3, 12)[min(k, 1)] for k, size in enumerate(each.shape)]
        if "int64" in each.type:
            found[each.name] = draw.integers(1, 20, shape)
        elif "uint8" in each.type:
            found[each.name] = draw.integers(0, 256, shape).astype(np.uint8)
        else:
            found[each.name] = draw.random(shape, np.float32) * (255 if each.name == "image" else 1)
    return found


def moved(tool: Tool, path: Path, folder: Path) -> float | str:
    """How far a tool moves the outputs of a file, of their scale; why where it cannot."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed, target = feed_of(session), folder / "made.onnx"
    try:
        tool.run(path, target, feed)
        found = ort.InferenceSession(target, providers=["CPUExecutionProvider"]).run(None, feed)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip()[:200]}"
    apart = [
        np.abs(new.astype(float) - old).max() / max(1.0, np.abs(old).max())
        for new, old in zip(found, session.run(None, feed), strict=True)
        if isinstance(old, np.ndarray) and old.dtype.kind == "f"
    ]
    return float(max(apart))


@pytest.mark.parametrize("family", FILES)
@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_takes_what_was_made(
    name: str, family: str, shop: Workshop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tool = TOOLS[name]
    if not tool.here:
        pytest.skip(f"{tool.package} is not installed")
    caplog.set_level(logging.CRITICAL)
    wrong = []
    for kind, (path, parents) in FILES[family](shop).items():
        if "8 bits" in name and "vote" in kind:  # votes are steps
            continue
        plain = [parent for parent in parents if "sklearn" not in parent.name]  # those have a ZipMap
        own = [moved(tool, parent, tmp_path) for parent in plain]
        if any(isinstance(each, str) for each in own):
            continue
        allowed = max([tool.tolerance, *(2 * each for each in own if not isinstance(each, str))])
        found = moved(tool, path, tmp_path)
        if isinstance(found, str) or not found <= allowed:
            wrong.append(f"{kind}: {found}")
    assert not wrong, "\n".join(wrong)
