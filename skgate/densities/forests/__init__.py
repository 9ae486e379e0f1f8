"""Densities of units on a forest: independent ones, and the most informative tree.

_units  _columns              variables, and how often their values occur
_information  _sparse_edges   which of them edges join
_forest_model --> _forest --> _product  _chow_liu
"""
