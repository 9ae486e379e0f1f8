"""Gates regressed on those before them in a window, by weights that all positions share.

_grids  _windows              gates as channels at positions, and what comes before a gate
_places  _projections         windows drawn at random, and their principal components
_causal_regression            least squares, curves, refinement
_layer_scores                 logits of all gates by a masked convolution
_link_fits  _link_costs       a layer, alone and given the one before, in all folds
_convolutional
"""
