#!/bin/bash
# Slurm: slurm-submit.sh RUN OUT sends an array over the checkpoints in RUN, and after it the job that joins them.
# OUT is a folder outside of RUN that all nodes see. All tasks take their shares of the list that is written there now.
set -eu
export RUN=$1 OUT=$2
here=$(dirname "$0")
mkdir -p "$OUT"
samdiag inspect "$RUN" --list -0 > "$OUT/list"
array=$(sbatch --parsable --export=ALL "$here/slurm-array.sh")
# afterany: a checkpoint that could not be decided (exit 3) does not keep the others from being joined
sbatch --dependency="afterany:${array%%;*}" --export=ALL "$here/slurm-merge.sh"
