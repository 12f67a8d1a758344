#!/usr/bin/env bash
# Runs the tests of a bundle (scripts/gpu-bundle.sh --test …) under compute-sanitizer on a machine with an NVIDIA GPU:
# memcheck, then racecheck of our own kernels. Prints a table; exit code 1 where a test was not found clean, but for the
# reports on the routing scan's bulk copies that docs/gpu.md explains.
# Usage: gpu-sanitize.sh BUNDLE_DIR [LOG_DIR]          gpu-sanitize.sh --list: the tests a bundle needs
# Tests that a bundle lacks are named and left out. A program is cut after MSA_SANITIZE_SECONDS (default 90), and
# MSA_SANITIZE_JOBS of them (default 4) run side by side. MSA_SANITIZER: the tool, where the system's is an older one;
# racecheck of norm_linear needs 2026.4 or later (package nvidia-cuda-sanitizer-api; docs/gpu.md).
set -u

# Program, tests. The tools slow a kernel down 10 to 100 times: every kernel once or a few times, at small sizes.
memcheck=(
  "device_keys *"
  "growing_memory *"
  "attention On/Attention.PackedEqualsReference/Cuda:On/Attention.PacksOfDocuments*/Cuda:On/Attention.LongContext/Cuda"
  "decode_attention */Cuda"
  "norm_linear */Cuda"
  "linear */Cuda"
  "norm_rope */Cuda"
  "rms_norm */Cuda"
  "rope */Cuda"
  "embedding */Cuda"
  "silu_mul */Cuda"
  "chunk_mean */Cuda"
  "best_scores */Cuda"
  "fill */Cuda"
  "max_inner_product */Cuda"
  "routing_scan -*.EqualsReference:*.RulesOutAlmostAllOfManyRandomKeys:*.ManyDocumentsAndALongOne"
  "bank_memory *Cuda*"
  "session */Cuda*"
  "conformance On/Conformance.BFloat16/Cuda"
)
racecheck=(
  "attention On/Attention.PacksOfDocumentsWithoutCudnn/Cuda"
  "decode_attention */Cuda"
  "norm_linear */Cuda"
  "norm_rope */Cuda"
  "rms_norm */Cuda"
  "chunk_mean */Cuda"
  "best_scores */Cuda"
  "routing_scan RoutingScan.InSteps:RoutingScan.BrokenNumbers"
)

if [[ ${1:-} == --list ]]; then
  printf '%s\n' "${memcheck[@]}" "${racecheck[@]}" | cut -d' ' -f1 | sort -u
  exit 0
fi
if [[ $# -lt 1 || $1 == -* ]]; then
  sed -n '2,9s/^# //p' "$0" >&2
  exit 2
fi
bundle=$1
logs=${2:-$bundle/sanitizer}
seconds=${MSA_SANITIZE_SECONDS:-90}
sanitizer=${MSA_SANITIZER:-$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)}
if [[ ! -x $sanitizer ]]; then
  echo "error: there is no compute-sanitizer at $sanitizer (fix: install the CUDA toolkit, or set MSA_SANITIZER)" >&2
  exit 1
fi
mkdir -p "$logs"
rm -f "$logs"/*.row
export MSA_REQUIRE_CUDA=1

# Whether a log of racecheck reports nothing but the routing scan's bulk copies, and the tests passed.
only_the_bulk_copies() {
  local reports kernel='void msa::scan_kernel<msa::Bf16Scan, (int)8>('
  reports=$(grep -c 'Race reported between' "$1")
  [[ $reports -gt 0 && $reports -le 2 ]] && grep -q "RACECHECK SUMMARY: $reports hazards* displayed" "$1" &&
    ! grep 'Race reported between' "$1" | grep -qvF "Write access at $kernel" &&
    ! grep -F '=====     and ' "$1" | grep -qvF "Read access at $kernel" &&
    grep -q '\[  PASSED  \]' "$1" && ! grep -q '\[  FAILED  \]' "$1"
}

# check TOOL PROGRAM TESTS OPTION…: a row of the table
check() {
  local tool=$1 program=$2 tests=$3 begin=$SECONDS
  local log="$logs/$tool-$program.log"
  shift 3
  if [[ ! -x $bundle/bin/${program}_test ]]; then
    printf '%-10s %-18s %s\n' "$tool" "$program" "not in the bundle"
    return
  fi
  timeout "$seconds" "$bundle/run" --under "$sanitizer --tool $tool --error-exitcode 9 $*" "${program}_test" \
    --gtest_filter="$tests" >"$log" 2>&1
  local rc=$? verdict=clean summary passed
  summary=$(grep -oE '(ERROR|RACECHECK) SUMMARY: .*' "$log" | tail -n 1 | sed 's/.*SUMMARY: //')
  passed=$(grep -c '\[       OK \]' "$log")
  if [[ $rc -eq 124 ]]; then
    verdict="cut after $seconds s"
  elif grep -q 'Internal Sanitizer Error' "$log"; then
    verdict="the tool failed"
  elif [[ $passed -eq 0 ]]; then
    verdict="no test ran"
  elif [[ $tool == racecheck && $rc -eq 9 ]] && only_the_bulk_copies "$log"; then
    verdict="the bulk copies alone"
  elif [[ $rc -ne 0 ]]; then
    verdict=FOUND
  fi
  printf '%-10s %-18s %4d tests %4d s  %-60s %s\n' "$tool" "$program" "$passed" $((SECONDS - begin)) \
    "${summary:-no summary}" "$verdict"
}

rows=0
# start TOOL ENTRY OPTION…: check in the background, as soon as there is room
start() {
  local tool=$1 entry=$2 row
  shift 2
  while [[ $(jobs -rp | wc -l) -ge ${MSA_SANITIZE_JOBS:-4} ]]; do wait -n; done
  printf -v row '%s/%03d.row' "$logs" $((rows++))
  check "$tool" "${entry%% *}" "${entry#* }" "$@" >"$row" &
}

# Calls that fail are no finding: growing_memory asks for more memory than there is, and the code checks every call.
for entry in "${memcheck[@]}"; do start memcheck "$entry" --leak-check no --report-api-errors no; done
# Kernels of libraries are theirs to check.
for entry in "${racecheck[@]}"; do start racecheck "$entry" --kernel-name kns=msa; done
wait
cat "$logs"/*.row
! grep -qvE '(clean|the bulk copies alone|not in the bundle)$' "$logs"/*.row
