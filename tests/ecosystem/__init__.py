"""Checkpoints written by the libraries that people use, opened by samdiag: the table in docs/formats.md."""
