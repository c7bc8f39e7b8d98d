"""One file per command: arguments become overrides, reports are written, the exit code returned. No torch at import."""
