#!/bin/bash
# Slurm: joins what the tasks of slurm-array.sh found, and is the gate. Sent by slurm-submit.sh.
# --expect: a checkpoint of the list without a record, because a task died or never began, is a gap (exit 3), not a pass.
#SBATCH --job-name=samdiag-gate
#SBATCH --time=00:10:00
#SBATCH --output=samdiag-gate-%j.log

exec samdiag merge "$OUT"/shard-*.jsonl --expect "$OUT/list" --output "$OUT/all.jsonl" --fail-on error \
    --report text="$OUT/samdiag.txt" --report junit="$OUT/samdiag.xml" --report markdown="$OUT/samdiag.md"
