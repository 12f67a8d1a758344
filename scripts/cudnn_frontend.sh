#!/usr/bin/env bash
# Brings the headers of cuDNN's C++ frontend into build/cudnn-frontend, from its Python package: for attention by cuDNN.
# Does nothing when they are there, or where there is no nvcc.
# Usage: scripts/cudnn_frontend.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=1.32.0
target="$root/build/cudnn-frontend"

[[ -f $target/include/cudnn_frontend.h ]] && exit 0
if ! command -v nvcc >/dev/null && [[ ! -x /usr/local/cuda/bin/nvcc ]]; then
  step "no nvcc: no need of cuDNN's frontend"
  exit 0
fi
step "fetching the headers of nvidia-cudnn-frontend $version"
mkdir -p "$target"
# Headers do not depend on the interpreter that the package was built for.
retry 3 python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 \
  --platform manylinux_2_28_x86_64 --dest "$target" "nvidia-cudnn-frontend==$version" ||
  die "pip could not fetch nvidia-cudnn-frontend $version" "check the network; without it attention runs on our own kernels"
python3 - "$target" <<'PY'
import pathlib
import sys
import zipfile

target = pathlib.Path(sys.argv[1])
for wheel in target.glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target, [n for n in archive.namelist() if n.startswith("include/") or "licenses/" in n])
    wheel.unlink()
PY
[[ -f $target/include/cudnn_frontend.h ]] || die "the package holds no include/cudnn_frontend.h" "see what is in $target"
