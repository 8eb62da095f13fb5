"""Array aliases, each once: what the numbers are, and of which type.

Shapes are said where an array is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""Values of a tensor, of any type that ONNX knows."""

Single = NDArray[np.float32]
"""Activations and weights in single precision, as onnxruntime computes them."""

Table = NDArray[np.float64]
"""Statistics, equations and their solutions, in double precision."""

Scores = NDArray[np.float64]
"""Importance or cost, one number for each channel number."""

Mask = NDArray[np.bool_]
"""Which channels or positions are kept: ``True`` stays."""

Channels = NDArray[np.int64]
"""Channel numbers, in the order of the positions along an axis."""

Axes = list[Channels | None]
"""The channels of each axis of a tensor; ``None`` for an axis that holds no channels."""

Integers = NDArray[np.int64]
"""Labels, positions and indices."""
