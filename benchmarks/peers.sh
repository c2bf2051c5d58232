#!/usr/bin/env bash
# benchmarks/peers.sh FOLDER [--rounds N] [--seconds S] [--only NAME ...]: this gateway beside MLServer, the KServe SDK
# and PyTriton with the same small model and load, in turns. The table at the end is of all rounds that FOLDER knows of.
#
# Each peer gets a virtual environment in FOLDER, 1.5 GB in all, made once. Wants h2load (Debian: nghttp2-client), and
# for PyTriton a Python whose standard library fits the one it brings: of 3.11 that is up to 3.11.3. PYTHON names another
# than /usr/bin/python3. A peer whose environment cannot be made is left out, and that is said.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# NAME and what is installed for it.
environment() {
    local name=$1
    shift
    [ -e "$folder/$name/made" ] && return
    echo "making the environment of $name ..." >&2
    rm -rf "${folder:?}/$name"
    if "${PYTHON:-/usr/bin/python3}" -m venv "$folder/$name" &&
        "$folder/$name/bin/pip" install --quiet --disable-pip-version-check "$@" onnxruntime >&2; then
        touch "$folder/$name/made"
    else
        echo "$name is left out: its environment could not be made" >&2
        rm -rf "${folder:?}/$name"
    fi
}

# The workers of MLServer 1.7 do not start on a newer uvloop.
environment mlserver mlserver==1.7.1 'uvloop<0.22'
environment kserve kserve==0.21.0
environment pytriton nvidia-pytriton==0.7.0
exec .venv/bin/python -m benchmarks.peers "$folder" "$@"
