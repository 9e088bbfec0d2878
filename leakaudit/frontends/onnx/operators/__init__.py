"""Builders of ONNX operators, one file per family of the model graph's operators."""
