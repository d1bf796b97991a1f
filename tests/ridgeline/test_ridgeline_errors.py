"""The tree of errors."""

import re

from ridgeline import errors
from ridgeline.errors import RidgelineError


def test_the_tree_is_the_one_that_is_drawn():
    drawn, above = {}, ["RidgelineError"]
    for indent, name in re.findall(r"^    ([| ]*)[|`]-- (\w+) ", errors.__doc__, re.MULTILINE):
        depth = len(indent) // 4 + 1
        drawn[name] = above[depth - 1]
        above[depth:] = [name]
    real = {
        name: next(base.__name__ for base in kind.__mro__[1:] if issubclass(base, RidgelineError))
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and kind is not RidgelineError
    }
    assert drawn == real


def test_a_caller_can_catch_them_as_what_they_are_in_python():
    assert issubclass(errors.InvalidInput, ValueError)
    assert issubclass(errors.NotFound, LookupError)
