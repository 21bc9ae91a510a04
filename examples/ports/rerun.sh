#!/usr/bin/env bash
# Runs the ports on all vectors and writes their tables to results/, with versions and the digest of the vectors.
#   examples/ports/rerun.sh PYTHON_WITH_TORCH PYTHON_WITH_JAX      (each with balinp installed, or PYTHONPATH set)
set -euo pipefail
cd "$(dirname "$0")"
for dtype in float64 float32; do
  "$1" -m balinp.vectors run --adapter torch_port.py --dtype "$dtype" > "results/torch_$dtype.txt"
  "$2" -m balinp.vectors run --adapter jax_port.py --dtype "$dtype" > "results/jax_$dtype.txt"
done
node node_port.mjs ../../balinp/vectors/v1 /tmp/node_candidate.$$.json
"$1" -m balinp.vectors verify /tmp/node_candidate.$$.json --only "$(node node_port.mjs --operations)" > results/node_float64.txt
rm /tmp/node_candidate.$$.json
tail -qn 1 results/*.txt
