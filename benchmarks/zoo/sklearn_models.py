"""Export multilayer perceptrons of scikit-learn with seeded random weights, by skl2onnx.

Run in an environment with scikit-learn and skl2onnx::

    python -m benchmarks.zoo.sklearn_models [-o .zoo] [NAME ...]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.zoo import LABELS, Entry, parameter
from benchmarks.zoo.entries import ENTRIES
from benchmarks.zoo.export import export_all

SAMPLES = 200
MODELS: dict[str, dict[str, Any]] = {
    "mlp_sklearn": {"hidden_layer_sizes": (48, 32, 24), "activation": "relu"},
    "mlp_tanh_sklearn": {"hidden_layer_sizes": (40, 24), "activation": "tanh"},
}


def build(entry: Entry) -> Any:
    """A pipeline whose network was made by ``fit`` and then given random weights."""
    (values,) = entry.draw(SAMPLES).values()
    labels = np.array(LABELS)[np.arange(SAMPLES) % len(LABELS)]
    network = MLPClassifier(max_iter=1, random_state=0, **MODELS[entry.name])
    pipeline = make_pipeline(StandardScaler(), network)
    pipeline.fit(values * np.linspace(0.5, 2, values.shape[1]) + 0.3, labels)
    for number, (weight, bias) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        weight[:] = parameter(f"{entry.name}.{number}.weight", weight.shape, len(weight))
        bias[:] = parameter(f"{entry.name}.{number}.bias", bias.shape, None)
    return pipeline


def export(entry: Entry, path: Path) -> None:
    """Write one model with the outputs that skl2onnx gives by default: a label and a ZipMap."""
    given = entry.inputs[0]
    proto = convert_sklearn(
        build(entry),
        name=entry.name,
        initial_types=[(given.name, FloatTensorType([None, *given.shape]))],
        target_opset={"": entry.opset, "ai.onnx.ml": 1},
    )
    onnx.save(proto, path)


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")  # one step of training is meant
    export_all([entry for entry in ENTRIES.values() if entry.exporter == "sklearn"], export)
