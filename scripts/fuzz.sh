#!/usr/bin/env bash
# Runs every fuzz target of tests/fuzz under the address sanitizer (clang). A finding stops with its input's path.
# Usage: scripts/fuzz.sh [SECONDS_EACH]      120 for a nightly run (default), a few in continuous integration
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

seconds=${1:-120}
[[ $seconds =~ ^[0-9]+$ ]] || die "'$seconds' is no number of seconds"
command -v clang++ >/dev/null || die "clang++ is missing (fix: apt-get install clang)"
targets=()
for source in tests/fuzz/*_fuzz.cc; do targets+=("$(basename "$source" .cc)"); done
scripts/build.sh fuzz "${targets[@]}"
for target in "${targets[@]}"; do
  step "$target, $seconds s"
  mkdir -p "build/fuzz/corpus/$target"
  "build/fuzz/tests/fuzz/$target" -max_total_time="$seconds" -rss_limit_mb=4096 -timeout=20 \
    -artifact_prefix="build/fuzz/$target-" -verbosity=0 -print_funcs=0 -print_final_stats=1 "build/fuzz/corpus/$target"
done
echo "${#targets[@]} fuzz targets, $seconds s each, no finding"
