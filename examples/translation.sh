#!/usr/bin/env bash
# Sentences of a clinic or a bank, into German. Options go to the training: bash examples/translation.sh --model qwen2.5-0.5b
set -euo pipefail
domain=$(dirname "$0")/translation

slmtune prepare --domain "$domain" --sample
slmtune train --domain "$domain" --num-train-epochs 4 "$@"
slmtune eval --domain "$domain" # runs/translation/eval/report.html
