"""Which keys and values a spec may have, and what is said about the others."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest

from samdiag.errors import UsageError
from samdiag.spec.parsing import flatten, nest, parse, parse_toml


def complaint(document: dict[str, Any]) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse(document, "samdiag.toml")
    assert "samdiag.toml" in caught.value.what
    assert "\n" not in caught.value.what + caught.value.todo
    return caught.value


def test_a_whole_file() -> None:
    document = parse_toml(
        """
        pythonpath = ["."]
        data = "train.py:data"
        loss = "mse"
        weights = "ema"
        [model]
        gallery = "tiny"
        args = { hidden = 4, sizes = [1, 2] }
        [sam]
        rho = 1
        [gate]
        fail_on = "bounce, unstable"
        """,
        "samdiag.toml",
    )
    assert flatten(parse(document, "samdiag.toml")) == {
        "model": {"gallery": "tiny", "args": {"hidden": 4, "sizes": [1, 2]}},
        "data": {"python": "train.py:data", "args": {}},
        "loss": {"name": "mse"},
        "weights": "ema",
        "sam.rho": 1.0,
        "gate.fail_on": ["bounce", "unstable"],
    }


def test_shorthands() -> None:
    spec = flatten(parse({"model": "m:f", "data": "digits", "loss": "m:g"}, "x"))
    assert spec["model"] == {"python": "m:f", "args": {}}
    assert spec["data"] == {"gallery": "digits", "args": {}}
    assert spec["loss"] == {"python": "m:g"}
    assert flatten(parse({"loss": {"name": "python", "python": "m:g"}}, "x"))["loss"]["python"] == "m:g"


@pytest.mark.parametrize(
    ("table", "key", "bad"),
    [
        *(("sam", "rho", bad) for bad in (0, -1, math.inf, math.nan, "0.1", True, [0.1])),
        *(("sam", "lr", bad) for bad in (0.0, -0.1, math.nan)),
        *(("sam", "momentum", bad) for bad in (1.0, -0.1, math.nan)),
        *(("sam", "weight_decay", bad) for bad in (-1e-9, math.inf)),
        *(("sam", "batch_size", bad) for bad in (0, 1.5, "8")),
        ("sam", "variant", "SAM"),
        *(("measure", "tol", bad) for bad in (0, 1, 2.0)),
        *(("measure", "seed", bad) for bad in (-1, 2**63)),
        *(("measure", "samples", bad) for bad in (0,)),
        *(("measure", "num_eigenvalues", bad) for bad in (0, 1001)),
        *(("measure", "device", bad) for bad in ("gpu", "cuda:", "cuda:x")),
        ("measure", "dtype", "bfloat16"),
        *(("gate", "fail_on", bad) for bad in (["sadle-attraction"], "never,bounce", [], 3)),
        *(("gate", "require", bad) for bad in (["lambda_mx < 1"], "loss", [""], 3)),
        ("gate", "strict_spec", "yes"),
        *(("data", "num_samples", bad) for bad in (0,)),
    ],
)
def test_bad_values_name_key_and_value(table: str, key: str, bad: Any) -> None:
    inner = {"gallery": "digits", key: bad} if table == "data" else {key: bad}
    error = complaint({table: inner})
    assert f"{table}.{key}" in error.what
    assert error.todo == "correct it in samdiag.toml"


@pytest.mark.parametrize(
    ("document", "what"),
    [
        ({"model": {"timm": "a", "gallery": "b"}}, "exactly one of"),
        ({"model": {}}, "it has none"),
        ({"data": {"args": {}}}, "exactly one of"),
        ({"loss": {}}, "must have a name"),
        ({"loss": {"name": "python"}}, "must have a name"),
        ({"loss": {"name": "mse", "python": "a:b"}}, "not both"),
        ({"loss": "crossentropy"}, "'cross_entropy'"),
        ({"problem": "train"}, "module:function"),
        ({"problem": "a:b", "model": "c:d"}, "either problem or model"),
        ({"model": {"gallery": "a", "args": {"day": datetime.date(2020, 1, 1)}}}, "model.args.day"),
        ({"model": 3}, "model = 3"),
        ({"sam": 3}, "sam = 3"),
        ({"weights": "best"}, "'raw' or 'ema'"),
        ({"gate": {"fail_on": ["sadle-attraction"]}}, "did you mean 'saddle-attraction'"),
        ({"gate": {"require": ["lambda_mx < 1"]}}, "did you mean `lambda_max`?"),
        ({"sam": {"rho": -1, "lr": -1, "momentum": 2, "weight_decay": -1}}, "(and 1 more)"),
    ],
)
def test_other_complaints(document: dict[str, Any], what: str) -> None:
    assert what in complaint(document).what


@pytest.mark.parametrize(
    ("document", "near", "known"),
    [
        ({"modle": "a:b"}, "'model'", "pythonpath"),
        ({"sam": {"roh": 0.1}}, "'rho'", "variant"),
        ({"model": {"galery": "a"}}, "'gallery'", "timm"),
        ({"measure": {"epsilon": 1}}, None, "samples"),
    ],
)
def test_unknown_keys_suggest_known_ones(document: dict[str, Any], near: str | None, known: str) -> None:
    error = complaint(document)
    assert "unknown" in error.what
    assert (f"did you mean {near}" in error.what) == (near is not None)
    assert known in error.todo


def test_control_characters_are_escaped() -> None:
    assert complaint({"\x1b[2J": 1}).what.isprintable()
    assert complaint({"weights": "\x1b[2J" * 999}).what.isprintable()


def test_deep_nesting_is_an_error() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    complaint({"model": {"gallery": "a", "args": {"x": deep}}})


def test_nest_drops_what_was_not_said() -> None:
    assert nest({"sam.rho": 0.1, "sam.lr": None, "gate.fail_on": ("any",)}, "x") == {
        "sam": {"rho": 0.1},
        "gate": {"fail_on": ["any"]},
    }
    for clash in ({"model": "a:b", "model.args": {}}, {"model.args": {}, "model": "a:b"}):
        with pytest.raises(UsageError, match="model"):
            nest(clash, "command line")


def test_invalid_toml_names_the_line() -> None:
    with pytest.raises(UsageError, match="line 1"):
        parse_toml("a = = 1", "samdiag.toml")
