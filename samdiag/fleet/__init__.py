"""Many checkpoints: which ones, one process for all of them, and results that survive any interruption."""
