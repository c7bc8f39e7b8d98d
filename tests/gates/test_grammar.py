"""The grammar of --require: what it takes, what it says of mistakes, and that nothing is ever evaluated."""

from __future__ import annotations

import ast
import inspect
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samdiag import requirements
from samdiag.errors import UsageError
from samdiag.gates import Condition, parse_requirement, parse_requirements
from samdiag.quantities import NAMES
from samdiag.requirements import LONGEST, OPERATORS

SPACES = st.sampled_from(["", " ", "  ", "\t"])


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("lambda_max < 200", [("lambda_max", "<", 200.0)]),
        ("  lambda_max<200\n", [("lambda_max", "<", 200.0)]),
        ("grad_norm <= 1e-3", [("grad_norm", "<=", 1e-3)]),
        ("lambda_min >= -0.5", [("lambda_min", ">=", -0.5)]),
        ("lambda_min > -.5E+2", [("lambda_min", ">", -50.0)]),
        ("loss < inf and loss > -inf", [("loss", "<", math.inf), ("loss", ">", -math.inf)]),
        ("batch_size == 128 and lr != 0.1", [("batch_size", "==", 128.0), ("lr", "!=", 0.1)]),
        ("loss < 1  and\tgrad_norm < 2", [("loss", "<", 1.0), ("grad_norm", "<", 2.0)]),
    ],
)
def test_what_it_takes(text: str, conditions: list[tuple[str, str, float]]) -> None:
    found = parse_requirement(text)
    assert [(c.name, c.operator, c.threshold) for c in found.conditions] == conditions
    assert found.text == text.strip()


@pytest.mark.parametrize(
    ("text", "what", "todo"),
    [
        ("", "empty", "name operator number"),
        ("   ", "empty", "name operator number"),
        ("lambda_mx < 1", "'lambda_mx'", "did you mean `lambda_max`?"),
        ("LAMBDA_MAX < 1", "'LAMBDA_MAX'", "did you mean `lambda_max`?"),
        ("zzzzzz < 1", "'zzzzzz'", "known: rho"),
        ("top_eigenvalues < 1", "'top_eigenvalues'", "known: rho"),
        ("loss = 1", "'='", "=="),
        ("loss <> 1", "'<>'", "known: < <="),
        ("loss < nan", "'loss < nan'", "name operator number"),
        ("loss < 1e999", "too large", "inf"),
        ("loss < 1_000", "'loss < 1_000'", "name operator number"),
        ("loss < ٣", "condition", "name operator number"),
        ("loss < 0x10", "condition", "name operator number"),
        ("1 < loss", "'1 < loss'", "name operator number"),
        ("0 < loss < 1", "condition", "name operator number"),
        ("loss < grad_norm", "condition", "name operator number"),
        ("loss < 1 or loss > 2", "condition", "name operator number"),
        ("loss < 1 and", "condition", "name operator number"),
        ("and loss < 1", "condition", "name operator number"),
        ("loss < 1,", "condition", "name operator number"),
        ("__import__('os').system('x') < 1", "condition", "name operator number"),
        ("loss.__class__ < 1", "condition", "name operator number"),
        ("loss < 1" + " and loss < 1" * LONGEST, f"longer than {LONGEST}", "name operator number"),
    ],
)
def test_mistakes_are_usage_errors_of_two_lines(text: str, what: str, todo: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_requirement(text)
    assert what in caught.value.what
    assert todo in caught.value.todo
    assert caught.value.what.startswith("--require ")
    assert caught.value.exit_code == 2
    assert len(caught.value.what.splitlines()) == len(caught.value.todo.splitlines()) == 1


@given(st.text(max_size=60) | st.from_regex(r"[a-z_]{1,12} ?[<>=!]{1,2} ?[-+0-9.einfa]{1,8}( and [a-z<0-9 ]*)?"))
def test_anything_else_is_a_usage_error(text: str) -> None:
    try:
        found = parse_requirement(text)
    except UsageError as error:
        refused = error
    else:
        for condition in found.conditions:
            assert condition.name in NAMES
            assert condition.operator in OPERATORS
            assert not math.isnan(condition.threshold)
        return
    assert (refused.what + refused.todo).isprintable()  # and so on one line each


@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(OPERATORS), st.floats(allow_nan=False), SPACES),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_written_is_what_is_read(parts: list[tuple[str, str, float, str]]) -> None:
    text = " and ".join(f"{name}{space}{operator}{space}{value!r}" for name, operator, value, space in parts)
    found = parse_requirement(text)
    expected = tuple(Condition(name=n, operator=o, threshold=v) for n, o, v, _ in parts)
    assert found.conditions == expected


@given(st.sampled_from(NAMES), st.sampled_from(OPERATORS), st.floats(allow_nan=False))
def test_the_one_spelling_reads_back(name: str, operator: str, threshold: float) -> None:
    """The baseline's key: equal for equal conditions, however they were written."""
    condition = Condition(name=name, operator=operator, threshold=threshold)
    assert parse_requirement(str(condition)).conditions == (condition,)


def test_equal_requirements_count_once() -> None:
    assert [r.text for r in parse_requirements(["loss<1", "loss < 1.0", "loss < 2"])] == ["loss < 1.0", "loss < 2"]
    assert parse_requirements(None) == ()
    assert len(parse_requirements("loss < 1")) == 1


def test_nothing_is_evaluated() -> None:
    """No eval, exec, compile, import or attribute look-up by name in the reader of the grammar."""
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(inspect.getsource(requirements)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"eval", "exec", "compile", "__import__", "getattr", "setattr", "vars", "globals"}
