"""What `samdiag init` reads off a checkpoint and the working folder; nothing of the user's own is imported or run."""
