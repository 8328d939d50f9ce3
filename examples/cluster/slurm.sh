#!/usr/bin/env bash
# Two machines with eight GPUs each:  sbatch examples/cluster/slurm.sh
# Not run by the authors of slmtune; README.md says what was checked.
#SBATCH --job-name=slmtune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=slmtune-%j.log

# Corpus and output lie on storage that all machines see. A job that ends early, at its time limit or with a machine, goes on
# from the last checkpoint of --save-steps when it is requeued or submitted again.
set -euo pipefail
DOMAIN=${DOMAIN:-finance}
RUNS=${RUNS:-$SLURM_SUBMIT_DIR/runs}
FIRST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export FIRST DOMAIN RUNS

# shellcheck disable=SC2016 # the variables are those of each machine
srun bash -c 'exec torchrun --nnodes="$SLURM_NNODES" --nproc-per-node="$SLURM_GPUS_ON_NODE" \
  --node-rank="$SLURM_NODEID" --master-addr="$FIRST" --master-port=29500 \
  -m finetune train --domain "$DOMAIN" --run-dir "$RUNS" --per-device-train-batch-size 16 --resume'
