#!/usr/bin/env bash
# Times ours and theirs by turns in one run on this machine, 2 threads, and prints the ratios of the best figures:
#   encode: `msa bench encode` against llama.cpp's prefill at F16      decode: the same 4-bit file, batch 1
#   route:  `msa bench route` against faiss-cpu's flat inner product over the same number of keys
# The machine should be idle otherwise: faiss and llama.cpp spin at barriers and suffer most when it is not.
# Usage: scripts/bench/compare.sh [rounds, default 3]       prints one JSON object; MSA_BENCH_THREADS changes the threads
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

rounds=${1:-3}
[[ $rounds =~ ^[1-9][0-9]*$ ]] || die "'$rounds' is no number of rounds" "scripts/bench/compare.sh 3"
scripts/install_dependencies.sh
scripts/bench/llama_baseline.sh --build-only
ensure_venv "$root/build/venv-faiss" faiss-cpu numpy
MSA_CMAKE_ARGS="-DMSA_BENCH=OFF" scripts/build.sh release msa

load=$(cut -d' ' -f1 /proc/loadavg)
if awk -v load="$load" 'BEGIN {exit !(load > 1.0)}'; then
  note "the load of this machine is $load: the build just now, or others; the figures of a busy machine mean nothing"
  note "waiting up to two minutes for it to fall"
  for ((i = 0; i < 24; ++i)); do
    sleep 5
    load=$(cut -d' ' -f1 /proc/loadavg)
    awk -v load="$load" 'BEGIN {exit !(load > 1.0)}' || break
  done
  note "load is now $load"
fi
exec "$root/build/venv-faiss/bin/python3" scripts/bench/compare.py --msa build/release/msa --rounds "$rounds" \
  --threads "${MSA_BENCH_THREADS:-2}" --model "$default_model_dir" --f16 build/bench/base-f16.gguf \
  --llama-python build/venv-llama/bin/python3 --faiss-python build/venv-faiss/bin/python3
