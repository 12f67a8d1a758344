#!/usr/bin/env bash
# Configures and builds one preset of CMakePresets.json, with all its targets or only those named.
# Usage: scripts/build.sh [preset, default release] [target…]
# MSA_CMAKE_ARGS adds options to the configuration, for instance MSA_CMAKE_ARGS="-DMSA_BENCH=OFF".
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

preset=${1:-release}
if [[ $# -gt 0 ]]; then shift; fi
read -r -a options <<<"${MSA_CMAKE_ARGS:-}"

jobs=$(build_jobs)
log="build/$preset-configure.log"
mkdir -p build
step "configuring build/$preset"
if ! cmake --preset "$preset" "${options[@]}" >"$log" 2>&1; then
  tail -n 30 "$log" >&2
  die "cmake could not configure preset '$preset' (whole log: $log)" "scripts/install_dependencies.sh"
fi
step "building build/$preset with $jobs jobs: ${*:-all targets}"
targets=()
if [[ $# -gt 0 ]]; then targets=(--target "$@"); fi
cmake --build "build/$preset" --parallel "$jobs" "${targets[@]}" >&2
