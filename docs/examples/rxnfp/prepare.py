"""Data for rxnfp: masked reactions."""

from pathlib import Path

from reactions import write_masked


def prepare(folder: Path, sources: dict[str, Path]) -> None:
    """Writes reactions.safetensors with input_ids, attention_mask and labels."""
    write_masked(sources, folder / "model" / "vocab.txt", folder / "reactions.safetensors")
