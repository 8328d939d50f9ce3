#!/usr/bin/env bash
# Preference tuning: a model learns the tone of a front desk from 60 pairs of answers.
#   bash examples/preferences.sh
# With pairs of your own, write a file like tone.jsonl and run the last four commands.
set -euo pipefail

questions=(
  "When does the PLACE open?|The PLACE opens at nine."
  "How do I get to the PLACE?|Bus 4 stops in front of the PLACE."
  "May I bring a dog to the PLACE?|The PLACE admits dogs on a lead."
  "Who can show me round the PLACE?|Ms Hale gives tours of the PLACE on Mondays."
  "What does it cost to visit the PLACE?|A day at the PLACE costs six euros."
)
curt=("Obviously." "That is all." "Everybody knows that.")
number=0
for place in library pool museum bakery pharmacy garden archive theatre market clinic harbour school; do
  for line in "${questions[@]}"; do
    line=${line//PLACE/$place} number=$((number + 1))
    question=${line%|*} answer=${line#*|}
    printf '{"prompt": "%s", "chosen": "%s", "rejected": "%s"}\n' \
      "$question" "$answer We look forward to your visit." "$answer ${curt[number % 3]}"
  done
done > tone.jsonl

slmtune prepare --source tone.jsonl --split-ratio 0.5/0.1/0.4
slmtune train --method dpo "$@" # options of this script go to the training
slmtune eval
slmtune merge
