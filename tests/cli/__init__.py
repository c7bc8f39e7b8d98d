"""The command line, run as a user runs it: real files in, exit code, stdout and stderr out."""
