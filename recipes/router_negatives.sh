#!/usr/bin/env bash
# Makes what run 12 reads beside the sets of prepare.sh: DATA/asked-all, where the questions by a model have all
# introductions to choose from, and hard.tsv of three sets, the documents that a router ranks first. What is there is
# not made again.
# Usage: recipes/router_negatives.sh DATA MODEL_DIR      after recipes/prepare.sh DATA asked
# MODEL_DIR: the model whose router it is (base.gguf, adapter, template). MSA: the program (default: build/release/msa).
# DEVICE: --device of its runs (default: the program's own, MSA_DEVICE or the CPU). PYTHON: as for prepare.sh. A GPU
# makes vectors and runs in minutes, a CPU in hours.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ $# -eq 2 ]] || { echo "error: $# arguments (fix: recipes/router_negatives.sh DATA MODEL_DIR)" >&2; exit 1; }
data=$1 model=$2
msa=${MSA:-$here/../build/release/msa}
python=${PYTHON:-python3}
scripts=$here/../scripts/train
source "$here/steps.sh"

# need PATH FIX
need() { [[ -e $1 ]] || { echo "error: $1 is missing (fix: $2)" >&2; exit 1; }; }

need "$model" "name a model directory"
need "$msa" "scripts/build.sh release msa, or MSA=PROGRAM"
for set in made asked squad-train squadshifts; do need "$data/$set" "recipes/prepare.sh $data asked"; done
for set in squad-train squadshifts; do
  for name in minilm minilm.plain; do need "$data/$set/$name.tsv" "recipes/prepare.sh $data asked"; done
done

# link SET NAME: asked-all/NAME → SET/NAME, plain or .zst.
link() {
  local name=$2
  [[ -e $data/$1/$name ]] || name=$2.zst
  need "$data/$1/$name" "recipes/prepare.sh $data asked"
  make "$data/asked-all/$name" ln -s "../$1/$name" "$data/asked-all/$name"
}

mkdir -p "$data/asked-all"
link made corpus.jsonl
link asked queries.jsonl
link asked qrels.tsv
teacher asked-all minilm

# negatives SET HARD MINED FIRST OTHERS: SET/HARD.tsv of the router's run and SET/MINED.tsv.
negatives() {
  local set=$data/$1
  # Each corpus in a bank of its own, in memory: in a common bank the others' documents would be ranked as well.
  make "$set/router.trec" env -u MSA_BANK "$msa" eval retrieval --data "$set" --model "$model" \
    --run "$set/router.trec" ${DEVICE:+--device "$DEVICE"} >&2
  make "$set/$2.tsv" "$python" "$scripts/router_negatives.py" "$set/router.trec" "$set/$3.tsv" "$set/$2.tsv" \
    --first "$4" --others "$5"
}

negatives asked-all hard minilm 10 3
for set in squad-train squadshifts; do
  negatives $set hard minilm 14 4
  negatives $set hard.plain minilm.plain 14 4
done
