#!/bin/bash
# Slurm: one share of the checkpoints in $RUN per task of the array, results in $OUT. Sent by slurm-submit.sh.
#SBATCH --job-name=samdiag
#SBATCH --array=1-8
#SBATCH --time=02:00:00
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-task=1
#SBATCH --requeue
#SBATCH --output=samdiag-%A-%a.log

# Preempted, requeued or sent again: what is in the file already is not measured again.
# The gate is in slurm-merge.sh, where all results are.
exec samdiag inspect --files-from "$OUT/list" -0 --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" \
    --resume "$OUT/shard-$SLURM_ARRAY_TASK_ID.jsonl" --fail-on never
