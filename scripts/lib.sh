# Shared by the scripts of this folder; source it, do not run it. Sets `root` and moves there.
# shellcheck shell=bash
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
export DEBIAN_FRONTEND=noninteractive
export MSA_SCRIPT_BEGIN="${MSA_SCRIPT_BEGIN:-$(date +%s)}"  # of the outermost script

default_model_dir="$root/models/smollm2-135m-msa"

if [[ -t 2 ]]; then _bold=$'\e[1m' _plain=$'\e[0m'; else _bold='' _plain=''; fi

# step TEXT: announces a stage with the time passed since the script began (on stderr; stdout is for results).
step() {
  local passed=$(($(date +%s) - MSA_SCRIPT_BEGIN))
  printf '%s[%3d:%02d] %s%s\n' "$_bold" $((passed / 60)) $((passed % 60)) "$*" "$_plain" >&2
}

# note TEXT: a detail of the current stage.
note() { printf '        %s\n' "$*" >&2; }

# die WHAT [FIX]: one clear message, exit 1.
die() {
  printf 'error: %s\n' "$1" >&2
  if [[ $# -gt 1 ]]; then printf '  fix: %s\n' "$2" >&2; fi
  exit 1
}

# as_root COMMAND…: runs it directly when root, through sudo otherwise.
as_root() {
  if [[ $(id -u) -eq 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo --preserve-env=DEBIAN_FRONTEND "$@"
  else
    die "this needs root and there is no sudo: $*" "run the script as root, or install sudo"
  fi
}

# retry COUNT COMMAND…: for steps over the network; pauses longer after each failure.
retry() {
  local count=$1 attempt
  shift
  for ((attempt = 1; ; ++attempt)); do
    "$@" && return 0
    [[ $attempt -lt $count ]] || return 1
    note "attempt $attempt of $count failed, trying again in $((attempt * 5)) s"
    sleep $((attempt * 5))
  done
}

# ensure_venv DIR PACKAGE…: a virtual environment with the packages; touches the network only when the list changed.
ensure_venv() {
  local dir=$1 stamp="$1/.packages"
  shift
  [[ -x $dir/bin/python3 ]] || python3 -m venv "$dir" || die "cannot create $dir" "apt-get install python3-venv"
  [[ -f $stamp && $(<"$stamp") == "$*" ]] && return 0
  if [[ $# -gt 0 ]]; then
    note "pip install $*"
    retry 3 "$dir/bin/python3" -m pip install --quiet "$@" || die "pip could not install: $*" "check the network"
  fi
  printf '%s' "$*" >"$stamp"
}

# build_jobs: as many as there are CPUs, at most one per 2 GiB of memory (heavy headers).
build_jobs() {
  local cpus memory_gib
  cpus=$(nproc)
  memory_gib=$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
  local by_memory=$((memory_gib / 2 > 0 ? memory_gib / 2 : 1))
  echo $((cpus < by_memory ? cpus : by_memory))
}
