"""`IntervalEstimator`, the base of the measures that have a confidence interval."""

from numbers import Real

from ..utils.sklearn import Interval
from ._base import GatingEstimator

#: Constraint on ``confidence``.
CONFIDENCE = [Interval(Real, 0, 1, closed="neither")]


class IntervalEstimator(GatingEstimator):
    """Base of the measures whose results have intervals that hold with a ``confidence``."""

    _parameter_constraints = {**GatingEstimator._parameter_constraints, "confidence": CONFIDENCE}

    def __init__(
        self,
        model=None,
        *,
        density="auto",
        cv=5,
        budget=60,
        threshold=0.0,
        base=2,
        confidence=0.95,
        max_samples=None,
        device="auto",
        n_jobs=None,
        verbose=0,
        random_state=None,
    ):
        super().__init__(
            model,
            density=density,
            cv=cv,
            budget=budget,
            threshold=threshold,
            base=base,
            max_samples=max_samples,
            device=device,
            n_jobs=n_jobs,
            verbose=verbose,
            random_state=random_state,
        )
        self.confidence = confidence
