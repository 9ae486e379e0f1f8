"""Means over 10⁵ rows, in bits, as ``python -m benchmarks.truth`` prints them."""

#: H and its standard error, and where there are labels I(Σ;Y) and its own.
STORED = {
    "DichotomisedGaussian(100)": (66.82864, 0.03799),
    "ProductMixture(5, 60)": (59.65177, 0.00321, 0.54657, 0.00121),
    "LowRank(300)": (254.29151, 0.04657, 0.49049, 0.00109),
}
