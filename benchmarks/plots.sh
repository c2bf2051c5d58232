#!/usr/bin/env bash
# benchmarks/plots.sh RUNS [--quick]: measure and draw the README's plots again, in some six minutes on a quiet machine.
#
# The objects and the reports of the runs go to the folder RUNS: serve.json and serve.html (ratios to echoes and ONNX
# Runtime alone), tiny.json and tiny.html (the gateway as any KServe server is measured). The plots that the README
# shows go to benchmarks/plots/, or the folder PLOTS. What is in RUNS already is not measured again. A promise that is
# broken is drawn too.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1"
runs=$(cd "$1" && pwd)
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BIN=.venv/bin

# Only what was measured to its end is kept.
measure() {
    local to="$runs/$1.json"
    shift
    [ -s "$to" ] || { "$@" >"$to.new" || [ -s "$to.new" ] && mv "$to.new" "$to"; }
}

measure serve "$BIN/demur" bench serve --json "$@"
measure tiny "$BIN/python" -m benchmarks.serve.own tiny "$@"
for run in serve tiny; do
    "$BIN/demur" bench report "$runs/$run.json" --html "$runs/$run.html" --plots "$runs" >/dev/null
done
plots=${PLOTS:-benchmarks/plots}
mkdir -p "$plots"
for plot in serve-ratios tiny-percentiles tiny-rates; do
    cp "$runs/$plot.svg" "$plots/"
done
