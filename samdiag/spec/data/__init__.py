"""Data by name: one file for each kind, each with `build(request) -> Data`."""
