#!/usr/bin/env bash
# A folder that runs on a bare machine with an NVIDIA GPU: the program, the libraries it needs, tests and a model.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
Usage: scripts/gpu-bundle.sh [options] OUT_DIR

  --build DIR     the build folder (default: build/release)
  --test NAME     also the test program NAME_test; may be given several times
  --bench NAME    also the benchmark program NAME; may be given several times
  --model DIR     also a model directory, as OUT_DIR/model
  --with-cublas   also libcublasLt.so.13 (about 500 MB); without it the machine must have it
  --with-mpi      also Open MPI, for OUT_DIR/run mpirun -n RANKS PROGRAM ARGUMENT… on that machine

OUT_DIR/run PROGRAM ARGUMENT… starts a program with the bundled libraries. libcublasLt is looked for in the bundle, in
$MSA_CUBLASLT (its folder), in the system, and in the Python packages (nvidia-cublas); libcudnn, libnvrtc, which it
compiles with, and libnccl in the last two.
TEXT
}

build=build/release out='' model='' with_cublas=0 with_mpi=0 tests=() benches=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --build) build=$2; shift ;;
    --test) tests+=("$2"); shift ;;
    --bench) benches+=("$2"); shift ;;
    --model) model=$2; shift ;;
    --with-cublas) with_cublas=1 ;;
    --with-mpi) with_mpi=1 ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) out=$1 ;;
  esac
  shift
done
[[ -n $out ]] || { usage >&2; exit 2; }

mkdir -p "$out/bin" "$out/lib"
# All that a file is linked with but the C and C++ runtime of the machine itself: an older one there would be an error
# either way.
copy_libraries() {
  ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*)\.so' |
    while read -r library; do [[ -e $out/lib/$(basename "$library") ]] || cp -L "$library" "$out/lib/"; done
}

programs=("$build/msa")
for name in "${tests[@]}"; do
  found=$(find "$build/tests" -type f -name "${name}_test" -perm -u+x | head -n 1)
  [[ -n $found ]] || { echo "error: no program ${name}_test below $build/tests (fix: build it first)" >&2; exit 1; }
  programs+=("$found")
done
for name in "${benches[@]}"; do programs+=("$build/bench/$name"); done
for program in "${programs[@]}"; do
  [[ -x $program ]] || { echo "error: $program is missing (fix: cmake --build $build --target $(basename "$program"))" >&2; exit 1; }
  cp "$program" "$out/bin/"
  strip "$out/bin/$(basename "$program")"
  copy_libraries "$program"
done
if [[ $with_cublas -eq 1 ]]; then
  cublas=$(ls /usr/local/cuda/lib64/libcublasLt.so.13 2>/dev/null || true)
  [[ -n $cublas ]] || { echo "error: libcublasLt.so.13 is not in /usr/local/cuda/lib64" >&2; exit 1; }
  cp -L "$cublas" "$out/lib/"
fi
if [[ $with_mpi -eq 1 ]]; then
  command -v mpirun ompi_info >/dev/null || { echo "error: no Open MPI here (fix: apt install openmpi-bin)" >&2; exit 1; }
  # Open MPI finds all of this below $OPAL_PREFIX. Networks and schedulers of clusters stay out: they bring many libraries.
  path_of() { ompi_info --parsable --path "$1" | cut -d: -f3; }
  prefix=$(path_of prefix) plugins=$(path_of pkglibdir) help=$(path_of pkgdatadir)
  mkdir -p "$out/mpi/bin" "$out/mpi/etc" "$out/mpi${plugins#"$prefix"}" "$out/mpi${help#"$prefix"}"
  cp -L "$(command -v mpirun)" "$(command -v orted)" "$out/mpi/bin/"
  find "$plugins" -name 'mca_*.so' | grep -vE '_(ucx|ofi|psm2?|openib|flux|slurm|jsm|gridengine|romio[0-9]*)\.so$' |
    xargs -I{} cp -L {} "$out/mpi${plugins#"$prefix"}/"
  cp "$help"/*.txt "$out/mpi${help#"$prefix"}/"
  pmix=$(ldd "$plugins/mca_pmix_ext3x.so" 2>/dev/null | awk '$1 ~ /^libpmix/ {print $3}')
  if [[ -n $pmix ]]; then
    pmix=$(dirname "$(dirname "$(readlink -f "$pmix")")")
    mkdir -p "$out/mpi/pmix/lib/pmix"
    cp "$pmix"/lib/pmix/pmix_mca_{pcompress_zlib,prm_default}.so "$out/mpi/pmix/lib/pmix/"
  fi
  copy_libraries "$out/mpi/bin/"* "$out/mpi${plugins#"$prefix"}/"*.so
fi
cp scripts/gpu-sanitize.sh "$out/"
mkdir -p "$out/data"
cp -r tests/data/conformance "$out/data/"
if [[ -n $model ]]; then
  mkdir -p "$out/model"
  cp -rL "$model/." "$out/model/"
fi

cat >"$out/run" <<'RUN'
#!/usr/bin/env bash
# run [--under "TOOL OPTION…"] PROGRAM ARGUMENT…: a program of this bundle with its libraries, under a tool if one is named.
under=()
if [[ $1 == --under ]]; then
  read -r -a under <<<"$2"
  shift 2
fi
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
paths="$here/lib${MSA_CUBLASLT:+:$MSA_CUBLASLT}"
if command -v python3 >/dev/null; then
  paths="$paths$(python3 - <<'PY'
import glob, site, sys
for name in ("libcublasLt.so.13", "libcudnn.so.9", "libnvrtc.so.13", "libnccl.so.2"):
    for folder in site.getsitepackages() + [site.getusersitepackages()] + sys.path:
        found = glob.glob(folder + "/nvidia/**/" + name, recursive=True)
        if found:
            print(":" + found[0].rsplit("/", 1)[0], end="")
            break
PY
  )"
fi
export LD_LIBRARY_PATH="$paths${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export MSA_TEST_DATA="${MSA_TEST_DATA:-$here/data}"
[[ -d $here/model ]] && export MSA_MODEL="${MSA_MODEL:-$here/model}"
program=$1
shift
if [[ -d $here/mpi ]]; then
  # A rank may use all processors, and a bare machine's only user may be root.
  export OPAL_PREFIX="$here/mpi" OPAL_SYSCONFDIR="$here/mpi/etc"
  export PMIX_MCA_mca_base_component_path="$here/mpi/pmix/lib/pmix"
  export OMPI_MCA_hwloc_base_binding_policy="${OMPI_MCA_hwloc_base_binding_policy:-none}"
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  export PATH="$here/bin:$PATH"
  [[ $program == mpirun ]] && exec "${under[@]}" "$here/mpi/bin/mpirun" "$@"
fi
exec "${under[@]}" "$here/bin/$program" "$@"
RUN
chmod +x "$out/run"
du -sh "$out" | cut -f1
