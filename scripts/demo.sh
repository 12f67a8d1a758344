#!/usr/bin/env bash
# Sets up everything, encodes 2,067 Wikipedia passages into a memory bank and asks it questions.
# Usage: scripts/demo.sh [number of questions, default 6] [a question of your own…]
# The bank is build/demo/bank; a second run finds it there and asks at once.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

count=6
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
  count=$1
  shift
fi

scripts/install_dependencies.sh
scripts/fetch_model.sh
MSA_CMAKE_ARGS="-DMSA_BENCH=OFF" scripts/build.sh release msa

msa=build/release/msa
[[ -x $msa ]] || die "the build left no program $msa" "rm -r build/release, then run this script again"
export MSA_MODEL="$default_model_dir" MSA_BANK="$root/build/demo/bank"
mkdir -p "$root/build/demo"

if [[ -d $MSA_BANK ]]; then
  step "the memory bank is there: build/demo/bank (only documents that are missing will be encoded)"
else
  step "encoding the documents of data/demo into build/demo/bank (once, some minutes on two cores)"
fi
if ! "$msa" add data/demo/corpus.jsonl.zst --first-id 1; then
  [[ -d $MSA_BANK ]] || die "msa add failed"
  step "that bank cannot be used (see above): making it anew"
  rm -r "$MSA_BANK"
  "$msa" add data/demo/corpus.jsonl.zst --first-id 1 || die "msa add failed"
fi
"$msa" stat

step "asking"
python3 scripts/demo_ask.py --msa "$msa" --questions data/demo/questions.jsonl --count "$count" "$@"
step "done; ask your own: MSA_MODEL=models/smollm2-135m-msa MSA_BANK=build/demo/bank $msa ask \"…\""
