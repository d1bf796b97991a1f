"""What matches a pattern, and how an answer is compared."""

import math

import pytest

from conformance.answer import ANY, Answer, mismatch, same


@pytest.mark.parametrize(
    ("pattern", "value", "fault"),
    [
        (ANY, {"anything": 1}, None),
        ({"a": ANY}, {"a": None, "b": 2}, None),
        ({"a": ANY}, {"b": 2}, ".a is missing"),
        ({"a": [1, {"b": "c"}]}, {"a": [1, {"b": "c", "d": 0}]}, None),
        ({"a": [1, {"b": "c"}]}, {"a": [1, {"b": "d"}]}, ".a[1].b: expected 'c', received 'd'"),
        ([1, 2], [1], "the body: expected [1, 2], received [1]"),
        (1, True, "the body: expected 1, received True"),
        (lambda value: value > 1, 2, None),
        ({"a": lambda value: value > 1}, {"a": 0}, ".a: 0 will not do"),
        ("x" * 300, "", f"the body: expected '{'x' * 149} ..., received ''"),
    ],
)
def test_a_pattern_says_where_a_value_differs(pattern, value, fault):
    assert mismatch(pattern, value, at="") == fault


def test_true_is_no_number_and_nan_is_itself():
    assert not same(1, True)
    assert same(1, 1.0)
    assert same(math.nan, math.nan)
    assert not same(math.nan, 0.0)
    assert same({"a": [math.nan]}, {"a": [math.nan * 1]})
    assert not same({"a": [1]}, {"a": [True]})
    assert not same({"a": [1]}, {"a": [1, 1]})
    assert not same({"a": 1}, {"b": 1})


def test_the_wording_of_an_error_is_not_compared():
    one, other = (Answer("400", {"error": text, "list": [{"error": text}]}) for text in "ab")

    assert one.comparable() == other.comparable()
    assert one.comparable() != Answer("500", {"error": "a", "list": [{"error": "a"}]}).comparable()
    assert one.failed
    assert not Answer("OK").failed
