"""`LambdaDisplay`: complexity and losses of networks trained with several λ."""

import numpy as np

from ._drawing import drawing, style

LABELS = {
    "complexity": "complexity [bits]",
    "gap": "test loss - train loss",
    "test_loss": "test loss",
}


class LambdaDisplay:
    """Complexity, gap and test loss of networks that were trained with several λ.

    Points are means over seeds. Bars are standard errors of the difference from λ = 0 with the same
    seed, since variation that all λ of a seed share is not informative about λ. A line marks the
    test loss at λ = 0.

    Parameters
    ----------
    records : list of dict
        One for each training, ``{"lam": 1e-3, "seed": 0, "complexity": 24.1, "gap": 0.1,
        "test_loss": 0.2}``: each seed with each λ, including λ = 0. Records may lack quantities, if
        all lack the same ones.

    Attributes
    ----------
    ax_ : ndarray of matplotlib.axes.Axes
        One for each quantity.
    figure_ : matplotlib.figure.Figure
    lams_ : list of float
        Along the horizontal axis, evenly spaced.
    means_, errors_ : dict of str to ndarray of shape (n_lams,)
        The drawn values by quantity. Errors are NaN for one seed.

    See Also
    --------
    ComplexityRegularizedClassifier : Trains with λ.

    Examples
    --------
    >>> from skgate import LambdaDisplay
    >>> records = [{"lam": lam, "seed": seed, "complexity": 30 - 9e3 * lam + seed, "gap": 0.1}
    ...            for lam in (0, 1e-4, 1e-3) for seed in (0, 1)]
    >>> display = LambdaDisplay.from_records(records)
    >>> display.means_["complexity"], display.errors_["complexity"]
    (array([30.5, 29.6, 21.5]), array([0., 0., 0.]))
    """

    def __init__(self, records):
        self.records = records

    @classmethod
    def from_records(cls, records, *, ax=None):
        """Draw the records.

        Parameters
        ----------
        records : list of dict
            One for each training.
        ax : array of matplotlib.axes.Axes, default=None
            One for each quantity; a new figure by default.

        Returns
        -------
        display : LambdaDisplay
        """
        return cls(records).plot(ax=ax)

    def plot(self, ax=None):
        """Draw the records.

        Parameters
        ----------
        ax : array of matplotlib.axes.Axes, default=None
            One for each quantity; a new figure by default.

        Returns
        -------
        display : LambdaDisplay

        Raises
        ------
        ValueError
            If no record has λ = 0, or a seed lacks some λ.
        """
        values = self._values()
        n, places = len(values), np.arange(len(self.lams_))
        size = {"height": 0.4 + 1.5 * n, "shape": (n, 1), "sharex": True}
        self.means_, self.errors_ = {}, {}
        with drawing(ax, n, **size) as (self.figure_, found):
            for axis, (i, key) in zip(found, enumerate(values), strict=True):
                means, errors = values[key].mean(axis=1), _errors(values[key] - values[key][0])
                self.means_[key], self.errors_[key] = means, errors
                axis.errorbar(places, means, errors, capsize=2, **style(i))
                if key == "test_loss":
                    axis.axhline(means[0], color="0.4", linestyle=":", label="at λ = 0")
                    axis.legend(frameon=False)
                axis.set_ylabel(LABELS[key])
                axis.set_xticks(places, [_short(lam) for lam in self.lams_])
                if key == "complexity":
                    axis.set_ylim(0, None)
            found[-1].set_xlabel("λ")
        self.ax_ = np.array(found, dtype=object)
        return self

    def _values(self):
        """Return values of shape (n_lams, n_seeds) by quantity."""
        records = list(self.records)
        if not all({"lam", "seed"} <= record.keys() for record in records):
            raise ValueError('Each record needs "lam" and "seed".')
        keys = [key for key in LABELS if records and all(key in record for record in records)]
        if not keys:
            raise ValueError(f"Need records that all have one or more of {list(LABELS)}.")
        self.lams_ = sorted({record["lam"] for record in records})
        seeds = sorted({record["seed"] for record in records})
        trained = {(record["lam"], record["seed"]): record for record in records}
        if 0 not in self.lams_:
            raise ValueError(
                f"No record has λ = 0, only {self.lams_}; bars are errors of the difference from "
                "it. Train without the penalty, too."
            )
        missing = [(lam, s) for lam in self.lams_ for s in seeds if (lam, s) not in trained]
        if missing or len(trained) < len(records):
            found = f"(lam, seed) {missing[:5]} are missing" if missing else "some have several"
            raise ValueError(f"Each λ needs one record of each seed; {found}.")
        rows = [[trained[lam, s] for s in seeds] for lam in self.lams_]
        return {key: np.array([[r[key] for r in row] for row in rows], float) for key in keys}


def _short(lam):
    small = 0 < lam < 0.1
    return np.format_float_scientific(lam, exp_digits=1, trim="-") if small else f"{lam:g}"


def _errors(differences):
    n_seeds = differences.shape[1]
    if n_seeds == 1:
        return np.full(len(differences), np.nan)
    return differences.std(axis=1, ddof=1) / np.sqrt(n_seeds)
