"""Arguments of a closed library's model: plain JSON that can build a network and can fetch, read and import nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from samdiag.errors import UsageError
from samdiag.quoting import quoted, shown
from samdiag.spec.requests import Request

LOADS = "it makes the library load weights of its own; the weights are the checkpoint's"
PLACES = "it names a file or an address"
LOADING: dict[str, str] = {  # argument → why it is refused, whatever the library
    **dict.fromkeys(("pretrained", "weights", "weights_backbone", "backbone_weights", "pretrained_backbone"), LOADS),
    **dict.fromkeys(
        ("pretrained_cfg", "pretrained_cfg_overlay", "pretrained_window_size_from", "use_pretrained_backbone"), LOADS
    ),
    **dict.fromkeys(
        ("checkpoint", "checkpoint_path", "cache_dir", "name_or_path", "_name_or_path", "revision"), PLACES
    ),
    "auto_map": "it names code to import",
    "trust_remote_code": "code beside a checkpoint is never run",
}
PLACE_ENDINGS = ("_path", "_url", "_file", "_dir", "_folder", "_repo")
NO_PLACES = frozenset({"drop_path"})  # stochastic depth
HARMLESS: Mapping[str, tuple[Any, ...]] = {"pretrained": (False,), "weights": (None,), "weights_backbone": (None,)}
SCHEMES = ("hf-hub:", "hf_hub:", "local-dir:", "pipe:")


def check_arguments(request: Request, *, key: str) -> dict[str, Any]:
    """The arguments without those that say what holds anyway (`pretrained = false`).

    Raises:
        UsageError: one could make the library load or import something.
    """
    kept = {name: value for name, value in request.args.items() if not _is_harmless(name, value)}
    for name, value in _entries(kept):
        reason = _reason(name, value)
        if reason:
            what = f"{key}.args.{shown(name)} = {quoted(value)} ({request.source}) is refused: {reason}"
            raise UsageError(what, f"leave out {shown(name.rpartition('.')[2])}")
    return kept


def _is_harmless(name: str, value: Any) -> bool:
    return any(value is allowed for allowed in HARMLESS.get(name, ()))


def _reason(name: str, value: Any) -> str:
    last = name.rpartition(".")[2]
    if last in LOADING:
        return LOADING[last]
    if last.endswith(PLACE_ENDINGS) and last not in NO_PLACES and isinstance(value, str):
        return PLACES
    if isinstance(value, str) and ("://" in value or value.startswith(SCHEMES) or "/" in value or "\\" in value):
        return PLACES
    return ""


def _entries(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value inside, tables and lists included, with its dotted name."""
    if name:
        yield name, value
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for part, item in inner:
        yield from _entries(item, f"{name}.{part}" if name else str(part))
