#!/usr/bin/env bash
# Makes what the recipes read beside the public sets: made questions, hidden facts, comparisons, and of a teacher vectors
# and negatives. What is there is not made again.
# Usage: recipes/prepare.sh [DATA] [asked]
# DATA (default: recipes/data) holds squad-train, squadshifts, multihop-train, nq-swap, fairytaleqa and ottqa, and
# eval/2wiki and eval/hotpotqa, whose pairs of documents are kept out of the comparisons: recipes/README.md says where
# they come from. MSA_TRAIN: the trainer (default: build/release/msa-train). PYTHON: with torch, transformers and
# safetensors (default: python3); a GPU makes the vectors in minutes, a CPU in hours.
# asked: also questions by a model, which runs 11 and 12 read; needs a GPU, gguf for Python, and eval/nq and
# eval/squad-dev as well, whose questions and documents are kept out.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
data=${1:-$here/data}
trainer=${MSA_TRAIN:-$here/../build/release/msa-train}
python=${PYTHON:-python3}
scripts=$here/../scripts/train
source "$here/steps.sh"

for set in squad-train squadshifts multihop-train nq-swap fairytaleqa ottqa eval/2wiki eval/hotpotqa; do
  [[ -d $data/$set ]] || { echo "error: $data/$set is missing (fix: recipes/README.md says where it comes from)" >&2; exit 1; }
done

make "$data/made" "$trainer" make-data "$data/ottqa" "$data/made" --inverse-cloze 90000 --fill-in 90000 --title 90000 \
  --link 60000 --bridge 40000
make "$data/key-values" "$python" "$scripts/key_values.py" "$data/made" "$data/key-values" --documents 12000 --seed 2
make "$data/comparisons" "$python" "$scripts/comparisons.py" "$data/ottqa" "$data/comparisons" \
  --held-out "$data/eval/2wiki" --held-out "$data/eval/hotpotqa"

teacher made minilm --count 4
teacher multihop-train minilm
for set in squad-train squadshifts; do
  teacher $set minilm
  teacher $set minilm.plain --no-titles
done

if [[ ${2:-} == asked ]]; then
  held_out=()
  for set in nq squad-dev 2wiki hotpotqa; do held_out+=(--held-out "$data/eval/$set"); done
  make "$data/asked" "$python" "$scripts/ask_questions.py" "$data/made" "$data/asked" --documents 48000 --steps 260 \
    --model "$here/../models/smollm2-135m-msa/base.gguf" --learn "$data/squad-train" --learn "$data/squadshifts=new_wiki" \
    --learn-search "$data/nq-swap" "${held_out[@]}"
  teacher asked minilm
fi
