"""Small real and classical problems on which samdiag can be tried and tested."""
