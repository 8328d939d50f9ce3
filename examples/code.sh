#!/usr/bin/env bash
# Short Python functions from descriptions. Options go to the training: bash examples/code.sh --model qwen2.5-0.5b
set -euo pipefail
domain=$(dirname "$0")/code

slmtune prepare --domain "$domain" --sample
slmtune train --domain "$domain" --num-train-epochs 4 "$@"
slmtune eval --domain "$domain" # runs/code/eval/report.html
