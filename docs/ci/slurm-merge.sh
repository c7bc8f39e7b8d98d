#!/bin/bash
# Slurm: joins what the tasks of slurm-array.sh found, and is the gate. Sent by slurm-submit.sh.
#SBATCH --job-name=samdiag-gate
#SBATCH --time=00:10:00
#SBATCH --output=samdiag-gate-%j.log

exec samdiag merge "$OUT"/shard-*.jsonl --output "$OUT/all.jsonl" --fail-on error \
    --report text="$OUT/samdiag.txt" --report junit="$OUT/samdiag.xml" --report markdown="$OUT/samdiag.md"
