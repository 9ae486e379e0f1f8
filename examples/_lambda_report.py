"""How the examples that train with λ measure, compare, print and draw."""

import warnings

import numpy as np
from _report import Claims, standard_error, table
from scipy.stats import spearmanr
from sklearn.metrics import log_loss

from skgate import GateExtractor, GatingEntropy, SaturationWarning

#: Points of accuracy that a lower test loss may cost.
MOST_POINTS = 1.0


def complexities(classifier, X, layers, densities):
    """Return the entropy in bits by density, summed over layers."""
    states = GateExtractor(classifier.module_, layers=layers).fit_transform(X)
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaturationWarning)  # that is why other densities are there
        for density in densities:
            # layer by layer, since the joint entropy that would come along costs far more
            parts = [
                GatingEntropy(density=density, random_state=0).fit(states.select(name))
                for name in states.layer_names
            ]
            found[density] = float(sum(part.entropy_ for part in parts))
    return found


def summarize(classifier, train, test, layers, densities, n_measured=None):
    """Return what is said of a classifier that was trained.

    Gates are those of the first test images, on which it was not trained.
    """
    (X, y), (X_test, y_test) = train, test
    losses = [
        log_loss(labels, classifier.predict_proba(images), labels=classifier.classes_)
        for images, labels in (train, test)
    ]
    return {
        **complexities(classifier, X_test[:n_measured], layers, densities),
        "train_loss": losses[0],
        "test_loss": losses[1],
        "gap": losses[1] - losses[0],
        "train_accuracy": 100 * classifier.score(X, y),
        "accuracy": 100 * classifier.score(X_test, y_test),
    }


def by_lambda(records, key):
    """Return the λs, and values of shape (n_lams, n_seeds) in the order of the seeds."""
    lams = sorted({record["lam"] for record in records})
    seeds = sorted({record["seed"] for record in records})
    values = {(record["lam"], record["seed"]): record[key] for record in records}
    return lams, np.array([[values[lam, seed] for seed in seeds] for lam in lams])


def report(records, densities):
    """Print a row for each λ, and what the paper claims held against the rows."""
    names = {"chow-liu": "chow-liu, bits", "product": "product, bits", "kde": "kde, bits"}
    columns = [
        *((key, names[key], 1) for key in densities),
        ("train_loss", "train loss", 4),
        ("test_loss", "test loss", 4),
        ("gap", "gap", 4),
        ("accuracy", "accuracy, %", 2),
    ]
    lams, _ = by_lambda(records, "gap")
    if lams[0] or len(lams) < 3:
        raise SystemExit("The claims need λ = 0 and at least two others.")
    n_seeds = len({record["seed"] for record in records})
    rows = [[f"{lam:g}"] for lam in lams]
    for key, _, digits in columns:
        for row, values in zip(rows, by_lambda(records, key)[1], strict=True):
            error = f" ±{standard_error(values):.{digits}f}" if n_seeds > 1 else ""
            row.append(f"{values.mean():.{digits}f}{error}")
    losses = by_lambda(records, "test_loss")[1]
    for row, difference in zip(rows, losses - losses[0], strict=True):
        row.append(signed(difference))
    table(["lam", *(title for _, title, _ in columns), "test loss less that at 0"], rows)
    print(f"    means over {n_seeds} seeds, ± standard errors" if n_seeds > 1 else "    one seed")
    claims = Claims()
    check(records, densities[0], claims)
    claims.report()


def check(records, density, claims):
    """Hold the claims of Fig. 7 and 8 against the records."""
    lams, bits = by_lambda(records, density)
    _, gaps = by_lambda(records, "gap")
    _, losses = by_lambda(records, "test_loss")
    _, accuracies = by_lambda(records, "accuracy")
    rho = spearmanr(lams, bits.mean(1)).statistic
    text = f"complexity ({density}) falls with every step of lam: Spearman {rho:.2f}"
    claims.check(text, rho <= -1 + 1e-9)
    rho = spearmanr(lams, gaps.mean(1)).statistic
    claims.check(f"the gap falls as lam rises: Spearman {rho:.2f} < 0", rho < 0)
    difference = gaps[-1] - gaps[0]
    text = f"the gap at lam = {lams[-1]:g} is below that at 0: difference {signed(difference)}"
    claims.check(text, below(difference))
    lost = accuracies[0].mean() - accuracies[1:].mean(1)
    able = [i for i, points in enumerate(lost, 1) if points <= MOST_POINTS]
    text = f"some lam > 0 has a lower test loss, accuracy at most {MOST_POINTS:g} point lower"
    if not able:
        claims.check(f"{text}: all lose more", False)
        return
    best = min(able, key=lambda i: losses[i].mean())
    difference = losses[best] - losses[0]
    gained = accuracies[best] - accuracies[0]
    text += f": lam = {lams[best]:g}, test loss {signed(difference)}, points {signed(gained)}"
    claims.check(text, below(difference))


def below(differences):
    """Return whether the mean is below 0; None where the seeds are too few to tell."""
    if differences.mean() >= 0:
        return False
    few = len(differences) < 2 or differences.mean() > -2 * standard_error(differences)
    return None if few else True


def signed(differences):
    error = f" ±{standard_error(differences):.4f}" if len(differences) > 1 else ""
    return f"{differences.mean():+.4f}{error}"


def draw(panels, path):
    """Draw Fig. 7 and 8, a row for each title: records in ``panels``."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text, not outlines
    import matplotlib.pyplot as plt

    figure, rows = plt.subplots(
        len(panels), 3, figsize=(8.7, 2.8 * len(panels)), squeeze=False, layout="constrained"
    )
    for row, (title, (records, density)) in zip(rows, panels.items(), strict=True):
        lams, _ = by_lambda(records, "gap")
        for ax, key, label in [
            (row[0], density, f"complexity ({density}), bits"),
            (row[1], "gap", "test loss - train loss"),
            (row[2], "test_loss", "test loss"),
        ]:
            _, values = by_lambda(records, key)
            # what all λ of a seed share says nothing of λ
            errors = [standard_error(v) for v in values - values[0]]
            ax.errorbar(range(len(lams)), values.mean(1), errors, fmt="o-", ms=3, lw=1.2, capsize=2)
            ax.set(title=title, xlabel="λ", ylabel=label)
            ticks = [f"{lam:.0e}".replace("e-0", "e-") if lam else "0" for lam in lams]
            ax.set_xticks(range(len(lams)), ticks, fontsize="small")
        row[0].set_ylim(0, None)
        row[2].axhline(values[0].mean(), color="C0", ls="--", lw=1, label="λ = 0")
        row[2].legend(frameon=False)
    figure.supxlabel("bars: standard error of the difference from λ = 0", fontsize="small")
    figure.savefig(path)
