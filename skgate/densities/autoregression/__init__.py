"""Gates regressed on those before them, and networks that refine the regressions.

_gate_code                    gates of units as columns, of which some are free
_linear_autoregression        all regressions from one Cholesky factor
_masked_network --> _network_mixture
_autoregressive
"""
