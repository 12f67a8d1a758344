# What the scripts of this folder share; they set data, python and scripts.

# make OUTPUT COMMAND…: runs the command where OUTPUT is missing.
make() {
  local output=$1
  shift
  [[ -e $output ]] || { echo "$output" >&2 && "$@"; }
}

# teacher SET NAME OPTION…: vectors SET/NAME.safetensors, negatives SET/NAME.tsv.
teacher() {
  local set=$data/$1 name=$2
  shift 2
  make "$set/$name.safetensors" "$python" "$scripts/dense_teacher.py" "$set" "$set/$name.safetensors" \
    --negatives "$set/$name.tsv" "$@"
}
