"""The paper's kernel density, with its ceilings and standard errors.

_jackknife   errors, from one pass over the pairs of samples
_independent_kernel --> _kernel
_equal_rows --> _saturation  which values are too low, and a warning that names them
"""
