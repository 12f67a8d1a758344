#!/usr/bin/env bash
# Tests everything on this machine: installs what is missing, builds, runs all tests, then runs the readers of foreign
# bytes again under the address sanitizer and each fuzz target for some seconds. The last line is the closing line of the main run of ctest.
# Usage: scripts/test.sh [arguments of the main ctest run, for instance -R tokenizer]
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Folders of tests/ whose code reads files, requests and text of others.
hostile_folders=(io tokenizer bank model)
test_timeout_s=600
fuzz_s=3  # scripts/fuzz.sh without arguments is the long run

scripts/install_dependencies.sh
scripts/fetch_model.sh
scripts/cudnn_frontend.sh || note "attention on a GPU is built without cuDNN"
step "preparing build/venv for the comparison tests"
ensure_venv "$root/build/venv" tokenizers gguf numpy safetensors pytrec-eval-terrier bm25s PyStemmer \
  openai prometheus-client

export MSA_CMAKE_ARGS="-DMSA_PYTHON=$root/build/venv/bin/python3 ${MSA_CMAKE_ARGS:-}"
scripts/build.sh release
main_log="$root/build/test.log"
step "running all tests"
main_result=ok
ctest --test-dir build/release -j2 --output-on-failure --timeout "$test_timeout_s" "$@" 2>&1 | tee "$main_log" ||
  main_result=FAILED
main_seconds=$SECONDS

asan_summary=()
asan_result=ok
targets=()
for folder in "${hostile_folders[@]}"; do
  if [[ -f tests/$folder/CMakeLists.txt ]]; then targets+=("tests/$folder/all"); fi
done
scripts/build.sh fuzz "${targets[@]}"  # one build for these tests and the fuzz targets
for target in "${targets[@]}"; do
  folder=$(dirname "$target")
  step "running $folder under the address sanitizer"
  log="$root/build/test-asan-$(basename "$folder").log"
  ctest --test-dir "build/fuzz/$folder" -j2 -LE slow --output-on-failure --timeout "$test_timeout_s" 2>&1 | tee "$log" ||
    asan_result=FAILED
  asan_summary+=("  $folder: $(grep -E 'tests passed|No tests' "$log" || echo 'did not finish')")
done

step "running each fuzz target for $fuzz_s s"
fuzz_result=ok
scripts/fuzz.sh "$fuzz_s" >"$root/build/fuzz.log" 2>&1 || {
  fuzz_result=FAILED
  tail -n 60 "$root/build/fuzz.log"
}

step "summary (logs in build/test*.log, build/fuzz.log)"
echo "all tests, release build: $main_result, done after $main_seconds s"
echo "address sanitizer: $asan_result, done after $SECONDS s"
printf '%s\n' "${asan_summary[@]}"
echo "fuzz targets: $fuzz_result, done after $SECONDS s"
grep -E 'tests passed' "$main_log" || die "ctest did not finish its main run"
[[ $main_result == ok && $asan_result == ok && $fuzz_result == ok ]]
