#!/bin/bash
# Slurm: diagnoses the last checkpoint when training ends, on the node that it ran on.
#   export RUN=runs/mine; srun --epilog=docs/ci/slurm-epilog.sh python train.py --output "$RUN"
# srun does not look at an epilogue's exit code: the result is in $RUN/samdiag.md and $RUN/samdiag.jsonl.
exec samdiag inspect "$RUN" --last 1 --resume "$RUN/samdiag.jsonl" --report markdown="$RUN/samdiag.md"
