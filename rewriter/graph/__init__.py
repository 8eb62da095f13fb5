"""An ONNX graph in memory: reading and writing files, shapes, adding nodes."""
