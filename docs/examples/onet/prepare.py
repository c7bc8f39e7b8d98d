"""Data for onet: face or not, 48×48."""

from pathlib import Path

from faces import write_faces


def prepare(folder: Path, sources: dict[str, Path]) -> None:
    """Writes faces.npz with inputs and targets."""
    write_faces(sources["lfw_subset.npy"], folder / "faces.npz", size=48)
