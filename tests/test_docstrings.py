"""Docstrings: their examples run, and they have what a reader of the API pages looks for."""

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

import skgate
from skgate import datasets, densities

MODULES = [m.name for m in pkgutil.walk_packages(skgate.__path__, "skgate.")]
PUBLIC = {name: getattr(skgate, name) for name in skgate.__all__}
PUBLIC |= {f"datasets.{name}": getattr(datasets, name) for name in datasets.__all__}
PUBLIC |= {f"densities.{kind.__name__}": kind for kind in densities.NAMED.values()}
WARNINGS = {n: o for n, o in PUBLIC.items() if isinstance(o, type) and issubclass(o, Warning)}
DOCUMENTED = {name: public for name, public in PUBLIC.items() if name not in WARNINGS}
#: Functions that leave the description of their parameters to a class, and that class.
TWINS = {
    "gating_entropy": "GatingEntropy",
    "gating_mi": "GatingMI",
    "total_correlation": "TotalCorrelation",
    "gibbs_layer_mi": "GibbsLayerMI",
    "binned_layer_mi": "BinnedLayerMI",
    "kde_layer_mi": "KDELayerMI",
}
#: Names that return or keep something in units of ``base`` or in bits.
MEASURING = [
    *("gating_entropy", "gating_mi", "total_correlation", "entropy_curve", "permutation_test"),
    *("gibbs_layer_mi", "binned_layer_mi", "kde_layer_mi"),
    *("GatingEntropy", "GatingMI", "TotalCorrelation", "GibbsLayerMI", "BinnedLayerMI"),
    *("KDELayerMI", "ComplexityLoss", "ComplexityRegularizedClassifier", "ComplexityMonitor"),
]


def sections(obj):
    """Return the sections of a docstring by their titles, and the summary as ``""``."""
    doc = inspect.cleandoc(obj.__doc__)
    _, *parts = re.split(r"^(\w[\w ]*)\n-+$", f"Summary\n---\n{doc}\n", flags=re.MULTILINE)
    return dict(zip(parts[::2], (text.strip("\n") for text in parts[1::2]), strict=True))


def entries(text):
    """Return the types of the entries of a section by their names, and what is said of them."""
    found = {}
    for block in re.split(r"\n(?=\S)", text):
        head, _, body = block.partition("\n")
        names, _, kind = head.partition(" : ")
        found |= dict.fromkeys((name.strip() for name in names.split(",")), (kind, body))
    return found


def methods(public):
    """Return the public methods and functions of a class that skgate defines, by name."""
    found = {
        name: getattr(member, "__func__", member)
        for owner in reversed(public.__mro__)
        if owner.__module__.startswith("skgate.")
        for name, member in vars(owner).items()
        if not name.startswith(("_", "on_"))  # those are skorch's
    }
    return {name: member for name, member in found.items() if inspect.isfunction(member)}


#: Methods of the contract between densities and measures, which skgate.densities describes.
CONTRACT = {
    *("estimate", "fit_states", "growth", "layer_choices"),
    *("log_likelihoods", "log_marginals", "log_ratios"),
}


def callables():
    """Return the documented functions, and the methods of the documented classes, by name."""
    found = {n: o for n, o in DOCUMENTED.items() if not isinstance(o, type)}
    for name, public in DOCUMENTED.items():
        if isinstance(public, type):
            own = methods(public).items()
            found |= {f"{name}.{m}": method for m, method in own if m not in CONTRACT}
    return found


def check_parameters(name, function, documented):
    """Check that each parameter has a type, in the order of the signature.

    A function with a class beside it refers to the class, which has the same parameters.
    """
    if name in TWINS:
        _, _, *own = inspect.signature(function).parameters.values()  # after the data and labels
        parameters = inspect.signature(PUBLIC[TWINS[name]]).parameters
        # described in the function, and in fit of the class
        alone = {"standard_errors", "groups"}
        own = [parameter for parameter in own if parameter.name not in alone]
        assert own == [parameters[parameter.name] for parameter in own]
        assert f":class:`{TWINS[name]}`, which describes the parameters" in function.__doc__
        return
    names = [n for n in inspect.signature(function).parameters if n not in ("self", "cls")]
    documented = entries(documented) if documented else {}
    assert [name.lstrip("*") for name in documented] == names
    for name, (kind, _) in documented.items():
        assert kind or "As in" in documented[name][1], f"{name} has no type"


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    result = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert result.failed == 0


@pytest.mark.parametrize("name", WARNINGS)
def test_a_warning_says_what_it_means(name):
    assert inspect.cleandoc(WARNINGS[name].__doc__).splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_public_name_is_documented(name):
    public = DOCUMENTED[name]
    found = sections(public)
    summary = found["Summary"].splitlines()
    assert summary[0].endswith(".")
    assert summary[1:2] in ([], [""])
    check_parameters(name, public, found.get("Parameters"))
    assert ">>>" in found["Examples"]
    assert {"References", "See Also"} & set(found)
    if not isinstance(public, type):
        assert "Returns" in found
        assert "Raises" in found
    elif any(re.search(r"^[a-z]\w*_$", n) for n in vars(public)) or hasattr(public, "fit"):
        assert "Attributes" in found
    for title in ("Parameters", "Attributes", "Returns"):
        for entry, (kind, body) in entries(found.get(title, "")).items():
            if re.search(r"\b(ndarray|array-like)\b(?! of (float|str|these|matplotlib))", kind):
                assert "of shape" in kind + body, f"{entry} has no shape"


@pytest.mark.parametrize("name", callables())
def test_a_function_or_method_is_documented(name):
    function = callables()[name]
    found = sections(function)
    assert found["Summary"].splitlines()[0].endswith(".")
    check_parameters(name, function, found.get("Parameters"))
    if name.endswith(".fit"):
        assert "Raises" in found


@pytest.mark.parametrize("name", MEASURING)
def test_a_measure_names_its_unit(name):
    doc = inspect.cleandoc(PUBLIC[TWINS.get(name, name)].__doc__)
    assert re.search(r"\bbits?\b|\bnats\b|^base : ", doc, re.MULTILINE)
