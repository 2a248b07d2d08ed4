"""Name the files of an exported folder."""

WEIGHTS, CONFIG, FORECAST = "model.safetensors", "config.json", "forecast.json"
SCORES, PICTURE, CARD = "scores.json", "forecast.png", "README.md"
FILES = (WEIGHTS, CONFIG, FORECAST, SCORES, PICTURE, CARD)
NEEDED = (WEIGHTS, CONFIG, FORECAST)
"""without these a folder cannot be loaded"""
