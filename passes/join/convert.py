"""Bring a model to an opset and an IR version."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from graft.passes.base import Context, Report
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.importing import LOWEST_OPSET, converted
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.weights import without_references
from graft.rewriter.run.equivalence import differs


@dataclass(frozen=True, kw_only=True)
class ConvertReport(Report):
    """Versions before and after.

    Attributes:
        opset: version of the standard operators, before and after.
        ir_version: version of the file format, before and after.
    """

    opset: tuple[int, int]
    ir_version: tuple[int, int]


@dataclass(frozen=True)
class Convert:
    """Change the versions of a model in place; onnx's converter does the opset.

    The result is compared with the original on random inputs.

    Attributes:
        opset: version of the standard operators; ``None``: as it is.
        ir_version: version of the file format; ``None``: as it is, or the least that the opset needs.
    """

    opset: int | None = None
    ir_version: int | None = None

    def __call__(self, model: Model, context: Context) -> ConvertReport:
        """Convert ``model``.

        Args:
            model: changed in place.
            context: nothing of it is used.

        Raises:
            GraftError: ``version-unknown``, ``version-conflict`` or ``convert-failed``.
        """
        del context
        before = (model.opset, model.ir_version)
        opset = model.opset if self.opset is None else self.opset
        wanted = self._ir_version(model, opset)
        if opset != model.opset:
            _convert(model, opset)
        header = onnx.ModelProto()
        header.CopyFrom(model.header)
        header.ir_version = wanted
        model.header = header
        changed = int(before != (model.opset, wanted))
        return ConvertReport(changed=changed, opset=(before[0], model.opset), ir_version=(before[1], wanted))

    def _ir_version(self, model: Model, opset: int) -> int:
        """Return the IR version to write, checked against the operator sets."""
        newest = onnx.defs.onnx_opset_version()
        if opset != model.opset and not LOWEST_OPSET <= opset <= newest:
            raise GraftError(
                "version-unknown", f"no opset {opset}", f"choose one from {LOWEST_OPSET} to {newest}"
            )
        sets = [entry for entry in model.graph.import_domains or () if entry.domain not in ("", "ai.onnx")]
        sets.append(onnx.helper.make_opsetid("", opset))
        least = onnx.helper.find_min_ir_version_for(sets, ignore_unknown=True)
        wanted = max(model.ir_version, least) if self.ir_version is None else self.ir_version
        if not least <= wanted <= onnx.IR_VERSION:
            raise GraftError(
                "version-conflict",
                f"IR version {wanted} does not go with opset {opset}, which needs {least}; the "
                f"installed onnx writes up to {onnx.IR_VERSION}",
                f"use --ir-version {least}",
            )
        return wanted


def _convert(model: Model, opset: int) -> None:
    original = model.message()
    try:
        changed = converted(original, opset)
        onnx.checker.check_model(without_references(changed))
        reason = differs(original, changed)
    except Exception as error:  # the converter raises RuntimeError, the checker its own types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
    if reason:
        raise GraftError(
            "convert-failed",
            f"the model cannot be converted from opset {model.opset} to {opset}: {reason}",
            f"leave it at {model.opset}, or export the parent with opset {opset}",
        )
    model.graph = Model.from_proto(changed).graph
