"""Densities of units on a forest: independent ones, and the most informative tree.

_columns                      how often gates are open
_information  _sparse_edges   which of them edges join
_forest_model --> _forest --> _product  _chow_liu
"""
