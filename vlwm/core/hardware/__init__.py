"""Tell what this machine has: GPUs through NVML, CPU, memory, disk; and what fits on it."""
