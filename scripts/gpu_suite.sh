#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, in pieces that each end in time:
#
#   scripts/gpu_suite.sh tests             the tests of the Triton kernels, on the GPU
#   scripts/gpu_suite.sh check             every op and network against float64
#   scripts/gpu_suite.sh tune              launch configurations for this GPU
#   scripts/gpu_suite.sh bench [OPTION...] as many cases as there is time for; again to go on
#
# SECONDS_EACH (480) is when a piece stops, FOLDER (benchmarks/results) where its results go, PYTHON
# (python3) the interpreter; it needs PyTorch with Triton and what this repository needs, and for
# the tests pytest, pytest-timeout and hypothesis. Nothing has to be installed: it runs from a
# checkout. WHEELS names a folder of wheels to use beside what is there, such as spandrel's.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
seconds=${SECONDS_EACH:-480}
folder=${FOLDER:-benchmarks/results}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
mkdir -p "$folder"

if [ -n "${WHEELS:-}" ]; then
    site=$(mktemp -d)
    "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl
    export PYTHONPATH="$PYTHONPATH:$site"
fi

piece=${1:-}
[ $# -gt 0 ] && shift
known=()
for file in benchmarks/results/gpu-*.json; do
    [ -e "$file" ] && known+=(--merge "$file")
done
case $piece in
tests)
    timeout "$seconds" "$python" -m pytest -q -p no:cacheprovider tests/kernels/*_triton.py "$@" \
        2>&1 | tee "$folder/gpu-tests.log"
    ;;
check) "$python" -m benchmarks.gpu --check-only --budget "$seconds" --out "$folder" "${known[@]}" "$@" ;;
tune) "$python" -m benchmarks.gpu --tune --budget "$seconds" "$@" ;;
bench) "$python" -m benchmarks.gpu --budget "$seconds" --out "$folder" "${known[@]}" "$@" ;;
*)
    sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
