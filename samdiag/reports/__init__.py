"""One file per medium: a Diagnosis in, a string out. Nothing here prints, and nothing imports torch."""
