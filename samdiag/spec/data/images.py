"""Images decoded by Pillow from bytes that nobody vouches for, and made tensors [channels, height, width] in [0, 1]."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samdiag.errors import CannotDecide, UsageError
from samdiag.quoting import quoted, shown
from samdiag.spec.data.normalising import Normalisation
from samdiag.spec.data.options import Options
from samdiag.spec.libraries import library

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # none that starts another program, as EPS does
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
MAX_BYTES = 200_000_000  # of one image's file
MAX_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs: a quarter of a GiB at three bytes
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """How an image becomes an input.

    Attributes:
        resize: the shorter side before cropping; None: `size`, or none at all.
        size: height and width at the end.
        crop: whether the middle is cut out, or the image is squeezed to `size`.
    """

    resize: int | None
    size: tuple[int, int] | None
    crop: bool
    interpolation: str
    grayscale: bool
    normalisation: Normalisation

    @classmethod
    def of(cls, options: Options) -> Preparation:
        """From the arguments `size`, `resize`, `interpolation`, `grayscale`, `mean`, `std`, `normalize`, `scale`."""
        said = options.numbers("size")
        if said is not None and (len(said) > 2 or any(value < 1 or value != int(value) for value in said)):
            raise UsageError(f"data.args.size = {quoted(list(said))} is no size", "give a number, or [height, width]")
        size = None if said is None else (int(said[0]), int(said[-1]))
        resize = options.count("resize", None)
        if resize is not None and size is None:
            raise UsageError("data.args has resize without size", "resize says the shorter side before size is cropped")
        return cls(
            resize=resize,
            size=size,
            crop=said is not None and (len(said) == 1 or resize is not None),
            interpolation=str(options.choice("interpolation", "bilinear", INTERPOLATIONS)),
            grayscale=options.flag("grayscale", False),
            normalisation=Normalisation.of(options),
        )

    def tensor(self, image: Any, label: str) -> Tensor:
        """A Pillow image as input [channels, height, width]."""
        image = image.convert("L" if self.grayscale or image.mode in {"1", "L"} else "RGB")
        if self.size is not None:
            image = self._sized(image, self.size)
        pixels = np.array(image, dtype=np.uint8)
        channels = torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())
        return self.normalisation.apply(channels.to(torch.get_default_dtype()) / 255, channel=0)

    def _sized(self, image: Any, size: tuple[int, int]) -> Any:
        filters = library("PIL.Image", key="data", extra="images").Resampling
        chosen = getattr(filters, self.interpolation.upper())
        height, width = size
        if not self.crop:
            return image.resize((width, height), chosen)
        shorter = self.resize if self.resize is not None else min(size)
        share = max(shorter / min(image.size), height / image.height if self.resize is None else 0)
        if min(image.size) != shorter:
            image = image.resize((max(1, int(image.width * share)), max(1, int(image.height * share))), chosen)
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))


def decode(content: bytes, label: str) -> Any:
    """The Pillow image in `content`.

    Raises:
        CannotDecide: it is no image, damaged, or too large; `label` says which.
    """
    pillow = library("PIL.Image", key="data", extra="images")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a large image is refused below; odd metadata does not matter
            image = pillow.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MAX_PIXELS}")
            image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds on damaged data
        what = f"the image {shown(label)} cannot be read: {shown(error)}"
        raise CannotDecide(what, "replace or remove it") from None
    return image


def check_same_size(shapes: set[tuple[int, ...]]) -> None:
    """Nothing, or UsageError where images of different sizes would have to make one batch."""
    if len(shapes) > 1:
        first, second = sorted(shapes)[:2]
        what = f"the images have different sizes: {first} and {second}"
        raise UsageError(what, "say one: args = { size = 224 } (and grayscale where some are grey)")
