"""A model of transformers as config.json describes it: its class where that is not said, and how it fits."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from samdiag.errors import SamdiagError
from samdiag.guessing.catalogs import Build
from samdiag.guessing.hollow import hollow, real, shapes_of
from samdiag.guessing.outline import Outline
from samdiag.quoting import listed, shown
from samdiag.user_errors import summary

HEADS = (  # a tensor that only such a model has → the library's table of classes; the first that is found decides
    # of BERT's pre-training, whose second head needs labels that data rarely have: it is left aside on loading
    ("cls.seq_relationship.weight", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
    ("cls.predictions.transform.dense.weight", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
    ("predictions.dense.weight", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
    ("lm_head.dense.weight", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
    ("lm_head.weight", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"),
    ("qa_outputs.weight", "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES"),
    ("classifier.weight", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES"),
    ("classifier.out_proj.weight", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES"),
    ("score.weight", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES"),
)
WORDLESS = "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES"  # in place of sequences, where there are no words
BARE = "MODEL_MAPPING_NAMES"  # a network without a head
LABELLED = re.compile(r"(classifier|score|classifier\.out_proj)\.(weight|bias)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How a configured model compares with the tensors.

    Attributes:
        args: what must be said beside the configuration, so that it fits.
        why: what was compared; empty where it could not be built.
        fits: every tensor has its place.
        unbuilt: why the library here cannot build it; empty where it can, or where only the check was impossible.
    """

    args: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    fits: bool = False
    unbuilt: str = ""


def find_class(config: Mapping[str, Any], outline: Outline) -> str | None:
    """The class whose head the tensors have, for a config.json that does not say it; None where none is known.

    Args:
        config: of the checkpoint. Its `model_type` names the family; else the tensors' common prefix does.
        outline: of the checkpoint.
    """
    try:
        from samdiag.spec.libraries import library

        tables = library("transformers.models.auto.modeling_auto", key="model.transformers", extra="transformers")
    except SamdiagError:
        return None
    table = next((table for tensor, table in HEADS if tensor in outline.shapes), BARE)
    if outline.vocabulary is None and table == "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES":
        table = WORDLESS
    classes: Mapping[str, Any] = getattr(tables, table, {})
    said = config.get("model_type")
    families = [said] if isinstance(said, str) else [name for name in sorted(outline.components) if name in classes]
    found = classes.get(families[0]) if families else None
    return found if isinstance(found, str) else None


def compare(name: str, outline: Outline, build: Build) -> Fit:
    """How the class, built from the checkpoint's configuration on the meta device, fits the tensors.

    Where only its classifier has another size, the number of labels is read off the tensors.
    """
    args: dict[str, Any] = {}
    for _ in range(2):
        try:
            made = shapes_of(hollow(functools.partial(build, "transformers", name, args)))
        except SamdiagError as error:
            return Fit(why=f"it could not be built here: {error.what}", unbuilt=error.what)
        except Exception as error:  # a library's constructor may raise anything
            reason = summary(error)
            return Fit(why=f"it could not be built here: {reason}", unbuilt=real(reason))
        wrong = [key for key in made if key in outline.shapes and made[key] != outline.shapes[key]]
        labels = [outline.shapes[key][0] for key in wrong if LABELLED.fullmatch(key)]
        if not wrong or len(labels) != len(wrong) or args:
            break
        args = {"num_labels": labels[0]}
    unplaced = [key for key in outline.shapes if key not in made and not key.endswith("position_ids")]
    reasons = [f"other shapes: {listed(map(shown, wrong), 3)}"] * bool(wrong)
    renamed = (
        f"not in it under these names, of which transformers converts older ones: {listed(map(shown, unplaced), 3)}"
    )
    reasons += [renamed] * bool(unplaced)
    why = "; ".join(reasons) if reasons else "every tensor has its place in it"
    return Fit(args=args if not wrong else {}, why=why, fits=not reasons)
