"""Who runs the components: ONNX Runtime or TensorRT, and how one is chosen and opened."""
