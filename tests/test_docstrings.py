"""The examples in docstrings, of the package as it is installed."""

import doctest
import importlib
import pkgutil

import pytest

import skgate

MODULES = [m.name for m in pkgutil.walk_packages(skgate.__path__, "skgate.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    result = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert result.failed == 0


@pytest.mark.parametrize("name", skgate.__all__)
def test_public_names_have_a_docstring_and_an_example(name):
    public = getattr(skgate, name)
    assert public.__doc__
    if not issubclass(public if isinstance(public, type) else object, (Warning, skgate.GateLayer)):
        assert ">>>" in public.__doc__
