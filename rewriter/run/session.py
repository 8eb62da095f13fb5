"""onnxruntime: choose a device, run batches, and report the providers that ran."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.sample_axes import fixes_batch
from graft.rewriter.memory import free_bytes
from graft.rewriter.run.bounds import QUIET, UNBOUNDED, Bounds, out_of_memory
from graft.rewriter.run.budget import room_left
from graft.rewriter.run.feed import InputFeed
from graft.rewriter.run.loop_limit import LoopLimit
from graft.rewriter.run.opening import open_bounded
from graft.rewriter.run.sample_rows import RowTrial, failing_node, other_rows
from graft.rewriter.run.sample_sizes import most_bytes

log = logging.getLogger("graft")

SHORT_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
More = Callable[[Integers, int], Mapping[str, NDArray[Any]]]
"""Makes further inputs of labels and the number of samples that are fed."""
MOST_THREADS = max(64, 4 * (os.cpu_count() or 1))
"""More threads than this help nobody, and take memory each."""


@dataclass(frozen=True)
class Device:
    """Providers and threads that run models.

    Attributes:
        providers: short names in order of preference (``cuda``, ``cpu``); empty: the best there is.
        strict: fail where the first provider is missing, instead of taking the next.
        threads: onnxruntime's threads within an operator, at most :data:`MOST_THREADS`; 0 leaves it to
            onnxruntime.
        patient: threads wait asleep for work. Awake, as by default, they answer faster, but take the
            processor from other sessions and from numpy.
        memory: bytes that the process should take at most; what is kept of many samples goes to a temporary
            file beyond it. ``None``: half of what is free.

    Raises:
        GraftError: ``provider-unknown`` or ``threads``.
    """

    providers: Sequence[str] = ()
    strict: bool = False
    threads: int = 0
    patient: bool = False
    memory: int | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.providers if name not in SHORT_NAMES]
        if unknown:
            raise GraftError(
                "provider-unknown",
                f"unknown provider {unknown[0]}",
                f"choose from {', '.join(SHORT_NAMES)}",
            )
        if not 0 <= self.threads <= MOST_THREADS:
            raise GraftError(
                "threads",
                f"expected 0 to {MOST_THREADS} threads, found {self.threads}",
                "leave it to onnxruntime, or name as many as there are processors",
            )
        object.__setattr__(self, "providers", tuple(self.providers))  # hashable, like every device

    @property
    def wanted(self) -> tuple[str, ...]:
        """Short names in order of preference, never empty."""
        return tuple(self.providers) or (("cuda", "cpu") if _has_cuda() else ("cpu",))

    def room(self) -> int:
        """Return the bytes that values of many samples may still take in memory."""
        return max(0, room_left(self.memory))

    def waiting(self) -> Device:
        """Return the device with threads that wait asleep: for sessions that take turns with others."""
        return replace(self, patient=True)

    def open(self, model: Model | onnx.ModelProto, bounds: Bounds = UNBOUNDED) -> Session:
        """Return a session for ``model``.

        Args:
            model: in memory.
            bounds: on memory and time.

        Raises:
            GraftError: ``model-not-runnable``, ``provider-missing``, ``memory`` or ``constants-large``.
        """
        return Session(model, self, bounds)


class Session:
    """A model loaded by onnxruntime.

    Args:
        model: in memory.
        device: where it runs.
        bounds: on memory and time.

    Attributes:
        providers: short names of the providers that run it.

    Raises:
        GraftError: ``model-not-runnable``, ``provider-missing``, ``memory`` or ``constants-large``.
    """

    def __init__(self, model: Model | onnx.ModelProto, device: Device, bounds: Bounds = UNBOUNDED) -> None:
        proto = model.message() if isinstance(model, Model) else model
        options = ort.SessionOptions()
        options.log_severity_level = QUIET
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
        self._most = None if bounds.memory or bounds.quick else most_bytes(proto)
        if self._most is not None:
            self._most = max(self._most, device.memory or 0)
            bounds = replace(bounds, memory=min(self._most, free_bytes()))
        self._session, self._weights = open_bounded(proto, options, names or [SHORT_NAMES["cpu"]], bounds)
        self._loops = LoopLimit.of(proto, bounds)
        self._model = model if isinstance(model, Model) else None
        self._single = False  # a node inside takes one sample at a time
        self._ends = InputFeed.of(self._session.get_inputs(), self._model)
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
        """Number of samples that the model takes at once, where its file or a node inside fixes it."""
        alone = self._single or (self._model is not None and self._model.one_by_one)
        return 1 if alone else self._ends.batch

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
            GraftError: ``run-failed``, ``run-endless`` or ``memory``.
        """
        names = list(outputs) if outputs is not None else self.outputs
        feed = self._ends.typed(inputs)
        try:
            values = self._loops.run(self._session, names, feed)
        except GraftError:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise out_of_memory(error, self._most) or GraftError(
                "run-failed",
                f"onnxruntime failed on a batch: {reason[:300]}",
                "check card and data",
            ) from error
        return dict(zip(names, map(np.asarray, values), strict=True))

    def batches(
        self, samples: Samples, size: int, more: More | None = None
    ) -> Iterator[tuple[dict[str, NDArray[Any]], Integers]]:
        """Read samples as the model takes them; a fixed batch is filled up with the last one.

        Before the first batch a few samples are run: a model whose output has other rows than samples is
        refused, one that fixes its batch inside is run one by one.

        Args:
            samples: matched to the card of the model.
            size: samples in a batch, unless the model fixes it.
            more: makes further inputs.

        Yields:
            What to run, and the labels of the samples.

        Raises:
            GraftError: ``output-rows``, ``run-failed``, and whatever reading raises.
        """
        self.probe(samples, more)
        for inputs, labels in samples.batches(self.batch or size):
            yield self._fed(inputs, labels, more), labels

    def _fed(self, inputs: Mapping[str, Array], labels: Integers, more: More | None) -> dict[str, Array]:
        feed = self.feed(inputs)
        return {**feed, **more(labels, self.count(feed))} if more else feed

    def feed(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return prepared samples, samples first, as the model takes them.

        Raises:
            GraftError: ``input-constant`` where the size of a constant is not known.
        """
        return self._ends.feed(inputs, self.batch)

    def count(self, feed: Mapping[str, NDArray[Any]]) -> int:
        """Return the number of samples in what :meth:`feed` returned."""
        return self._ends.count(feed)

    def probe(self, samples: Samples, more: More | None = None) -> None:
        """Run a few samples: the output must have a row for each.

        Args:
            samples: matched to the card of the model.
            more: makes further inputs.

        Raises:
            GraftError: ``output-rows``, or ``run-failed`` where not even one sample runs.
        """
        name = samples.card.output.name
        if name not in self.outputs or len(samples) < 2:
            return
        trial = RowTrial(samples, name, lambda inputs, labels: self._trial(inputs, labels, more, name))
        if self.batch is not None:
            if self.batch > 1 and self._ends.doubtful:
                trial.check_apart(self.batch)
        elif not trial.takes_several():
            self._one_by_one(trial.failed)

    def _trial(
        self, inputs: Mapping[str, Array], labels: Integers, more: More | None, name: str
    ) -> NDArray[Any]:
        return self.run(self._fed(inputs, labels, more), [name])[name]

    def _one_by_one(self, failed: GraftError | None) -> None:
        """Take one sample at a time from now on, and say which node asks for it."""
        node = failing_node(failed)
        self._single = True
        if self._model is not None:
            self._model.one_by_one = True
            fixed = fixes_batch(self._model.graph)
            node = f"{fixed.op} {fixed.name}" if fixed else node
        log.warning("%s fixes the batch at 1 inside the model: samples are run one by one", node)

    def rows(self, values: NDArray[Any], name: str, labels: Integers) -> NDArray[Any]:
        """Return the rows of an output that are samples, without those that filled up a fixed batch.

        Args:
            values: the output.
            name: its name.
            labels: of the samples that were fed.

        Raises:
            GraftError: ``output-rows`` where rows are not samples.
        """
        fed = self.batch or len(labels)
        if values.ndim == 0 or len(values) != fed:
            raise other_rows(name, values.shape, fed)
        return values[: len(labels)]


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
