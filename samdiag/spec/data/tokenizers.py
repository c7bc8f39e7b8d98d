"""Tokenizers from a local folder, as data: no code beside them is run and nothing is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from samdiag.errors import UsageError
from samdiag.formats.json_text import parse_json
from samdiag.quoting import quoted, shown
from samdiag.spec.libraries import library
from samdiag.spec.requests import DataRequest
from samdiag.spec.user_code import call

KEY = "data.tokenizer"
OWN = "checkpoint"  # the folder that the checkpoint lies in
FILES = ("tokenizer_config.json", "config.json")
TOKENIZERS = ("*token*", "*vocab*", "*merges*", "*.model", "*.spm", "*.bpe*", "*bpe.*")  # what tokenizers are saved as
MAX_BYTES = 50_000_000  # of a JSON that is looked through here; tokens added by hand can be many


def load_tokenizer(request: DataRequest) -> Any:
    """The tokenizer that the data names.

    Raises:
        UsageError: none is named, there is none, or it is code.
    """
    said = request.paths.get("tokenizer")
    if said is None:
        todo = 'add tokenizer = "checkpoint" where its files lie with the weights, or tokenizer = "path/to/folder"'
        raise UsageError("the texts of data.datasets need a tokenizer, and none is named", todo)
    folder = request.checkpoint.folder if said == OWN else request.path(str(said), KEY)
    if not folder.is_dir():
        raise UsageError(f"{KEY} = {quoted(said)} is no folder", "name the folder that holds tokenizer.json")
    for name in FILES:
        _refuse_code(folder / name)
    if not any(any(folder.glob(pattern)) for pattern in TOKENIZERS):  # the library may make one without words
        near = request.checkpoint.path if said == OWN and folder == request.checkpoint.path.absolute() else folder
        raise UsageError(f"no tokenizer files in {shown(near)}", 'name their folder: tokenizer = "path/to/base"')
    transformers = library("transformers", key=KEY, extra="transformers")
    return call(
        transformers.AutoTokenizer.from_pretrained,
        f"the tokenizer in {shown(folder)}",
        pretrained_model_name_or_path=str(folder),
        local_files_only=True,
        trust_remote_code=False,
    )


def _refuse_code(file: Path) -> None:
    """Nothing, or UsageError where a configuration names code for the tokenizer."""
    if not file.is_file():
        return
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        found = parse_json(text)
    except (OSError, ValueError) as error:
        raise UsageError(f"{shown(file)} cannot be read: {shown(error)}", "correct it, or leave it out") from None
    auto_map = found.get("auto_map") if isinstance(found, dict) else None
    if isinstance(auto_map, dict) and "AutoTokenizer" in auto_map:
        what = f"{shown(file)} has auto_map: its tokenizer is code beside the files, which is not run"
        raise UsageError(
            what, "tokenize the texts yourself and give them as data.tensors, or by data = 'module:factory'"
        )
