#!/usr/bin/env bash
# Reports, each summarised in a sentence. Options go to the training: bash examples/summaries.sh --model qwen2.5-0.5b
set -euo pipefail
domain=$(dirname "$0")/summaries

slmtune prepare --domain "$domain" --sample
slmtune train --domain "$domain" --num-train-epochs 4 "$@"
slmtune eval --domain "$domain" # runs/summaries/eval/report.html
