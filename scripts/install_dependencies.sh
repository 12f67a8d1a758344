#!/usr/bin/env bash
# Installs the Debian packages that the build, the tests and the demo need. Does nothing when all are there.
# Usage: scripts/install_dependencies.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

packages=(
  build-essential cmake ninja-build pkg-config ccache           # tools of the build
  libdnnl-dev libhwy-dev                                        # matrix products, SIMD
  nlohmann-json3-dev libcli11-dev libspdlog-dev libfmt-dev      # JSON, command line, log
  libtomlplusplus-dev                                           # training recipes
  libsqlite3-dev libpcre2-dev libunistring-dev libxml2-dev      # documents, pre-tokeniser, normalisation, HTML
  libcpp-httplib-dev libssl-dev prometheus-cpp-dev               # HTTP, keys, metrics
  libzstd-dev libxxhash-dev zstd unzip                          # compression, checksums
  libstemmer-dev                                                # word stems of the question maker
  poppler-utils                                                 # text of PDF files
  libtorch-dev libopenblas0-pthread                             # the trainer, and a fast BLAS for it
  libopenmpi-dev openmpi-bin                                    # runs of several processes
  libgtest-dev libgmock-dev libbenchmark-dev                    # tests, micro-benchmarks
  python3 python3-venv python3-pip                              # set-up of the model, comparison tests
  clang-format git ca-certificates                              # house tests
  clang libclang-rt-dev                                         # fuzz targets
)

missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $state == installed ]] || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then
  step "Debian packages: all ${#packages[@]} are installed"
  exit 0
fi

command -v apt-get >/dev/null || die "this system has no apt-get" "install by hand: ${missing[*]}"
step "installing ${#missing[@]} Debian packages: ${missing[*]}"
retry 3 as_root apt-get update -qq || die "apt-get update failed" "check the network and the package sources"
log="$root/build/apt.log"
mkdir -p "$root/build"
if ! as_root apt-get install --yes --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  die "apt-get install failed (whole log: build/apt.log)" "install by hand: ${missing[*]}"
fi
step "installed ${#missing[@]} Debian packages"
