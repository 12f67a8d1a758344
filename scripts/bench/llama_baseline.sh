#!/usr/bin/env bash
# Times llama.cpp with the default model, as the yardstick of our own CPU figures. One JSON object on stdout.
# Builds llama-cpp-python from source for the machine at hand the first time (many minutes), into build/venv-llama.
# Usage: scripts/bench/llama_baseline.sh [--build-only | arguments of llama_baseline.py]
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

venv="$root/build/venv-llama"
if [[ ! -f $venv/.packages ]]; then
  step "building llama-cpp-python from source for this machine (many minutes)"
fi
export CMAKE_ARGS="-DGGML_NATIVE=ON" CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-2}"
ensure_venv "$venv" --no-binary=llama-cpp-python llama-cpp-python gguf numpy

"$root/scripts/fetch_model.sh"
quantised="$default_model_dir/base.gguf"
f16="$root/build/bench/base-f16.gguf"
if [[ ! -f $f16 ]]; then
  step "writing an F16 version of the model"
  mkdir -p "$root/build/bench"
  "$venv/bin/python3" "$root/scripts/bench/make_f16_gguf.py" "$quantised" "$f16"
fi
if [[ ${1:-} == --build-only ]]; then exit 0; fi
if [[ $# -eq 0 ]]; then set -- --prefill "$f16" --decode "$quantised"; fi
step "timing llama.cpp"
"$venv/bin/python3" "$root/scripts/bench/llama_baseline.py" "$@"
