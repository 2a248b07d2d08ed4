"""Name the files of an exported folder."""

WEIGHTS, CONFIG, FORECAST = "model.safetensors", "config.json", "forecast.json"
SCORES, PICTURE, CARD = "scores.json", "forecast.png", "README.md"
FILES = (WEIGHTS, CONFIG, FORECAST, SCORES, PICTURE, CARD)
NEEDED = (WEIGHTS, CONFIG, FORECAST)
"""without these a folder cannot be loaded"""

ONNX = "onnx"
"""folder of `vlwm export --onnx`"""
DATA, SPLITS = "data", "splits.json"
BASELINES, BENCHMARK, PROTOCOL = "baselines.safetensors", "benchmark.json", "PROTOCOL.md"
RELEASE = (BASELINES, BENCHMARK, PROTOCOL, f"{DATA}/*")
"""what a benchmark has in addition"""
