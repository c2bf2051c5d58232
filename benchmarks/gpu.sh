#!/usr/bin/env bash
# benchmarks/gpu.sh [--cpu]: every check and benchmark that needs an NVIDIA GPU, in one command of a few minutes.
#
# Progress goes to stderr; the last line of stdout is one JSON object with `checks` among its keys (see
# benchmarks/bench_gpu.py). Ends with 0, with 1 where a check is not ok, with 77 where there is no GPU. --cpu tries the
# same code out on the CPU. Installs into .venv what is missing: Demur itself, and on a machine with a GPU, where CUDA's
# and cuDNN's libraries do not load, the extra `gpu` (some GB). PYTHON names the Python to make .venv with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BIN=.venv/bin

say() { echo "gpu.sh: $*" >&2; }

# Quietly: what it prints is for the log alone.
works() { "$BIN/python" -c "$1" >/dev/null 2>&1; }

if ! works "import benchmarks.bench_gpu"; then
    say "installing Demur into .venv"
    [ -x "$BIN/python" ] || "${PYTHON:-python3}" -m venv .venv >&2 || { rm -rf .venv; exit 1; }
    "$BIN/python" -m pip install --quiet --disable-pip-version-check --editable . >&2
fi
if [ "${1:-}" != "--cpu" ] && works "import sys; from gateway.model import count_gpus; sys.exit(not count_gpus())" &&
    ! works "from gateway.model import probe; probe('cuda')"; then
    say "ONNX Runtime's CUDA provider does not load yet: installing CUDA's and cuDNN's libraries"
    "$BIN/python" -m pip install --quiet --disable-pip-version-check --editable '.[gpu]' >&2 ||
        say "they could not be installed; going on, to say what is missing"
fi
exec "$BIN/demur" bench gpu --json "$@"
