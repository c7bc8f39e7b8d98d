"""Crops of Labeled Faces in the Wild as scikit-image ships them, as inputs for the networks of MTCNN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional


def write_faces(source: Path, target: Path, *, size: int) -> None:
    """Writes 200 crops: inputs float32 [200, 3, size, size] in [-1, 1], targets int64: 1 = face, 0 = background.

    The grey 25×25 crops are scaled to the network's own size and repeated over the three colours. The first 100 are
    faces and the others background, as scikit-image says of `lfw_subset`.
    """
    grey = torch.from_numpy(np.load(source, allow_pickle=False)).to(torch.float32).unsqueeze(1)
    scaled = functional.interpolate(grey, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    inputs = (scaled * 255 - 127.5) / 128  # the networks' own scaling of grey values from 0 to 255
    targets = np.repeat(np.array([1, 0], dtype=np.int64), len(inputs) // 2)
    np.savez(target, inputs=inputs.repeat(1, 3, 1, 1).numpy(), targets=targets)
