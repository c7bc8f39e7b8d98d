#!/bin/bash
# Slurm: slurm-submit.sh RUN OUT sends an array over the checkpoints in RUN, and after it the job that joins them.
# RUN is a run that has ended: all tasks must see the same list. OUT is a folder outside of it that all nodes see.
set -eu
export RUN=$1 OUT=$2
here=$(dirname "$0")
mkdir -p "$OUT"
array=$(sbatch --parsable --export=ALL "$here/slurm-array.sh")
# afterany: a checkpoint that could not be decided (exit 3) does not keep the others from being joined
sbatch --dependency="afterany:${array%%;*}" --export=ALL "$here/slurm-merge.sh"
