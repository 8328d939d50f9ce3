#!/usr/bin/env bash
# The finance domain from its bundled sample to a model that others can load. Options go to the training:
#   bash examples/finance.sh --model qwen2.5-0.5b
set -euo pipefail

slmtune prepare --domain finance --sample      # 810 rows that come with slmtune; without --sample: tweets from the Hub
slmtune train --domain finance "$@"            # QLoRA; runs/finance/adapter
slmtune eval --domain finance                  # base and adapter side by side; runs/finance/eval/report.html
slmtune merge --domain finance                 # one plain transformers folder, verified; runs/finance/model
slmtune chat --domain finance --prompt "Kelvar Rail cut its outlook after a strike." \
  --system "Is this news bearish, neutral or bullish for the investor?"

echo "Serve it:  slmtune serve --domain finance"
echo "Share it:  slmtune push runs/finance/adapter YOUR_NAME/finance-news"
