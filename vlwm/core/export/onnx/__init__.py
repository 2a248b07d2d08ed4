"""Write a model as ONNX graphs, and run them with NumPy and onnxruntime alone."""
