"""Running a graph: sessions of onnxruntime, whole or piece by piece."""
