"""What only a machine with a GPU can show; `benchmarks/gpu.sh` runs all of it."""
