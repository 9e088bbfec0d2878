"""ONNX files -> Graph: the only place that touches onnx and protobuf."""
