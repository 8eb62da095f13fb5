"""onnxruntime: choose a device, run batches, and report the providers that ran."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model

log = logging.getLogger("graft")

SHORT_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
TYPES = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
_QUIET = 4  # nothing but fatal: errors are raised as a GraftError of one line


@dataclass(frozen=True)
class Device:
    """Providers and threads that run models.

    Attributes:
        providers: short names in order of preference (``cuda``, ``cpu``); empty: the best there is.
        strict: fail where the first provider is missing, instead of taking the next.
        threads: onnxruntime's threads within an operator; 0 leaves it to onnxruntime.
        patient: threads wait asleep for work. Awake, as by default, they answer faster, but take the
            processor from other sessions and from numpy.

    Raises:
        GraftError: ``provider-unknown``.
    """

    providers: Sequence[str] = ()
    strict: bool = False
    threads: int = 0
    patient: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.providers if name not in SHORT_NAMES]
        if unknown:
            raise GraftError(
                "provider-unknown",
                f"unknown provider {unknown[0]}",
                f"choose from {', '.join(SHORT_NAMES)}",
            )
        object.__setattr__(self, "providers", tuple(self.providers))  # hashable, like every device

    @property
    def wanted(self) -> tuple[str, ...]:
        """Short names in order of preference, never empty."""
        return tuple(self.providers) or (("cuda", "cpu") if _has_cuda() else ("cpu",))

    def waiting(self) -> Device:
        """Return the device with threads that wait asleep: for sessions that take turns with others."""
        return replace(self, patient=True)

    def open(self, model: Model | onnx.ModelProto) -> Session:
        """Return a session for ``model``.

        Raises:
            GraftError: ``model-not-runnable`` or ``provider-missing``.
        """
        return Session(model, self)


class Session:
    """A model loaded by onnxruntime.

    Args:
        model: in memory.
        device: where it runs.

    Attributes:
        providers: short names of the providers that run it.

    Raises:
        GraftError: ``model-not-runnable`` or ``provider-missing``.
    """

    def __init__(self, model: Model | onnx.ModelProto, device: Device) -> None:
        proto = model.proto() if isinstance(model, Model) else model
        options = ort.SessionOptions()
        options.log_severity_level = _QUIET
        options.intra_op_num_threads = device.threads
        if device.patient:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        available = ort.get_available_providers()
        names = [SHORT_NAMES[name] for name in device.wanted if SHORT_NAMES[name] in available]
        if device.strict and SHORT_NAMES[device.wanted[0]] not in available:
            raise GraftError(
                "provider-missing",
                f"onnxruntime here offers {', '.join(available)}, not {device.wanted[0]}",
                "install the runtime for it or drop --strict-providers",
            )
        try:
            self._session = ort.InferenceSession(
                proto.SerializeToString(), options, providers=names or [SHORT_NAMES["cpu"]]
            )
        except Exception as error:  # onnxruntime's errors have no common public type
            reason = str(error).strip().splitlines()[0]
            raise GraftError(
                "model-not-runnable",
                f"onnxruntime {ort.__version__} cannot run the model: {reason[:300]}",
                "check the model with onnxruntime, or export it for this version",
            ) from error
        self._types = {
            value.name: TYPES[value.type] for value in self._session.get_inputs() if value.type in TYPES
        }
        ran = self._session.get_providers()
        self.providers = tuple(name for name, full in SHORT_NAMES.items() if full in ran)
        first = device.wanted[0]
        if SHORT_NAMES[first] not in ran:
            message = f"{first} was asked for, {', '.join(self.providers)} runs"
            if device.strict:
                raise GraftError("provider-missing", message, "drop --strict-providers to accept it")
            log.warning(message)

    @property
    def batch(self) -> int | None:
        """Number of samples that the model takes at once, where its file fixes it."""
        found = [value.shape[0] for value in self._session.get_inputs() if value.shape]
        return found[0] if found and isinstance(found[0], int) else None

    @property
    def outputs(self) -> list[str]:
        """Names of the model's outputs."""
        return [output.name for output in self._session.get_outputs()]

    def run(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Run one batch.

        Args:
            inputs: input name to array.
            outputs: names of the wanted outputs; ``None``: all.

        Returns:
            Output name to array.

        Raises:
            GraftError: ``run-failed``.
        """
        names = list(outputs) if outputs is not None else self.outputs
        feed = self.typed(inputs)
        try:
            values = self._session.run(names, feed)
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise GraftError(
                "run-failed",
                f"onnxruntime failed on a batch: {reason[:300]}",
                "check card and data",
            ) from error
        return dict(zip(names, map(np.asarray, values), strict=True))

    def typed(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return ``inputs`` in the types that the model takes, where these hold the same numbers."""
        return {name: self._typed(name, array) for name, array in inputs.items()}

    def _typed(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """Numbers in the type that the input has; pixels as the nearest whole level."""
        wanted = self._types.get(name)
        if wanted is None or array.dtype == wanted:
            return array
        if array.dtype.kind == "f":
            whole = wanted is np.uint8
            fits = whole or np.dtype(wanted).kind == "f"
            return (np.clip(np.rint(array), 0, 255) if whole else array).astype(wanted) if fits else array
        return array.astype(wanted) if array.dtype.kind in "iu" and _holds(wanted, array) else array


def _holds(kind: type, whole: NDArray[Any]) -> bool:
    """True where integers are within the range of an integer type."""
    if np.dtype(kind).kind not in "iu":
        return False
    limits = np.iinfo(kind)
    return not whole.size or bool(limits.min <= whole.min() and whole.max() <= limits.max)


def fit(inputs: Mapping[str, NDArray[Any]], batch: int | None) -> dict[str, NDArray[Any]]:
    """Return ``inputs`` with the number of samples of a fixed ``batch``: shortened, or the last repeated."""
    if batch is None:
        return dict(inputs)
    return {name: array[np.minimum(np.arange(batch), len(array) - 1)] for name, array in inputs.items()}


@functools.cache
def _has_cuda() -> bool:
    """True where there is an NVIDIA device: onnxruntime-gpu lists its provider on any machine."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return False
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        devices = ctypes.c_int(0)
        found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(devices)) == 0
    except OSError:
        return False
    if found and devices.value:
        ort.preload_dlls()  # takes CUDA from the pip packages of the extra `cuda`, if they are there
    return bool(found and devices.value)
