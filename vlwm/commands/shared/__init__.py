"""Parts that commands share: output, progress, choices."""
