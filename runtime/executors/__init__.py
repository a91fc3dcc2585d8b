"""Runs the components by ONNX Runtime or TensorRT: how one of them is chosen and opened."""
