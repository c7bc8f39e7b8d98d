"""The clinic: labelled training runs on real data, and how often the diagnosis and the prescription are right on them.

`python -m benchmarks.clinic run --out DIR` from the repository's root; `report` writes docs/clinic.md.
"""
