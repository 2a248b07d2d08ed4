"""Take a trained model out of its run folder: arrays, exported folders, the Hub, MCAP, ONNX."""
