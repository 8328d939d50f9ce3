#!/usr/bin/env bash
# Your own labelled texts, from a CSV file with the columns text and label:
#   bash examples/own_data.sh tickets.csv "Which team should answer this message?"
# Other columns: add --map text=message --map label=team to the first command.
set -euo pipefail
file=${1:?Give a CSV file with the columns text and label}
question=${2:-"Which label fits this text?"}
shift $(($# < 2 ? $# : 2)) # further options go to the training

slmtune prepare --source "$file" --instruction "$question" --split-ratio 0.8/0.05/0.15
slmtune train "$@"
slmtune eval
slmtune merge
