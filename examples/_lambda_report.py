"""What `grid_search_lambda.py` measures, checks, prints and draws for each λ."""

import warnings

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import log_loss

from skgate import GateExtractor, GatingEntropy, LambdaDisplay, SaturationWarning

#: The densities whose entropies are in the table; the claims are checked with the first.
DENSITIES = ("chow-liu", "kde")
#: Points of accuracy that a lower test loss may cost.
MOST_POINTS = 1.0
WORDS = {True: "yes", False: "NO", None: "open"}


def summarize(classifier, train, test, layers):
    """Return the entropies, losses and accuracies of a trained classifier.

    The entropies are those of the test images, summed over layers, in bits.
    """
    states = GateExtractor(classifier.module_, layers=layers).fit_transform(test[0])
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaturationWarning)  # the other density does not saturate
        for density in DENSITIES:
            # layer by layer: the joint entropy costs far more, and is not needed
            parts = [
                GatingEntropy(density=density, random_state=0).fit(states.select(name))
                for name in states.layer_names
            ]
            found[density] = float(sum(part.entropy_ for part in parts))
    losses = [
        log_loss(labels, classifier.predict_proba(images), labels=classifier.classes_)
        for images, labels in (train, test)
    ]
    return {
        **found,
        "train_loss": losses[0],
        "test_loss": losses[1],
        "gap": losses[1] - losses[0],
        "accuracy": 100 * classifier.score(*test),
    }


def by_lambda(records, key):
    """Return the λs, and values of shape (n_lams, n_seeds) in the order of the seeds."""
    lams = sorted({record["lam"] for record in records})
    seeds = sorted({record["seed"] for record in records})
    values = {(record["lam"], record["seed"]): record[key] for record in records}
    return lams, np.array([[values[lam, seed] for seed in seeds] for lam in lams])


def report(records):
    """Print a row for each λ, and whether the claims of the paper hold."""
    columns = [
        *((density, f"{density}, bits", 1) for density in DENSITIES),
        ("train_loss", "train loss", 4),
        ("test_loss", "test loss", 4),
        ("gap", "gap", 4),
        ("accuracy", "accuracy, %", 2),
    ]
    lams, losses = by_lambda(records, "test_loss")
    if lams[0] or len(lams) < 3:
        raise SystemExit("The claims need λ = 0 and at least two others.")
    n_seeds = losses.shape[1]
    rows = [[f"{lam:g}"] for lam in lams]
    for key, _, digits in columns:
        for row, values in zip(rows, by_lambda(records, key)[1], strict=True):
            error = f" ±{standard_error(values):.{digits}f}" if n_seeds > 1 else ""
            row.append(f"{values.mean():.{digits}f}{error}")
    for row, difference in zip(rows, losses - losses[0], strict=True):
        row.append(signed(difference))
    header = ["lam", *(title for _, title, _ in columns), "test loss less that at 0"]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows]:
        print("    " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)))
    print(f"    means over {n_seeds} seeds, ± standard errors" if n_seeds > 1 else "    one seed")
    claims = check(records)
    for claim, holds in claims.items():
        print(f"    {WORDS[holds]:4}  {claim}")
    failed = [claim for claim, holds in claims.items() if holds is False]
    open_ = [claim for claim, holds in claims.items() if holds is None]
    verdict = f"not reproduced: {'; '.join(failed)}" if failed else "reproduced"
    print(f"  {verdict}" + (f" (open: {'; '.join(open_)})" if open_ else ""))


def check(records):
    """Return whether the claims of Fig. 7 and 8 hold for the records; None where that is open."""
    lams, bits = by_lambda(records, DENSITIES[0])
    _, gaps = by_lambda(records, "gap")
    _, losses = by_lambda(records, "test_loss")
    _, accuracies = by_lambda(records, "accuracy")
    claims = {}
    rho = spearmanr(lams, bits.mean(1)).statistic
    text = f"complexity ({DENSITIES[0]}) falls with every step of lam: Spearman {rho:.2f}"
    claims[text] = bool(rho <= -1 + 1e-9)
    rho = spearmanr(lams, gaps.mean(1)).statistic
    claims[f"the gap falls as lam rises: Spearman {rho:.2f} < 0"] = bool(rho < 0)
    difference = gaps[-1] - gaps[0]
    text = f"the gap at lam = {lams[-1]:g} is below that at 0: difference {signed(difference)}"
    claims[text] = below(difference)
    lost = accuracies[0].mean() - accuracies[1:].mean(1)
    able = [i for i, points in enumerate(lost, 1) if points <= MOST_POINTS]
    text = f"some lam > 0 has a lower test loss, accuracy at most {MOST_POINTS:g} point lower"
    if not able:
        return claims | {f"{text}: all lose more": False}
    best = min(able, key=lambda i: losses[i].mean())
    difference = losses[best] - losses[0]
    gained = accuracies[best] - accuracies[0]
    text += f": lam = {lams[best]:g}, test loss {signed(difference)}, points {signed(gained)}"
    return claims | {text: below(difference)}


def below(differences):
    """Return whether the mean is below 0; None if there are too few seeds to tell."""
    if differences.mean() >= 0:
        return False
    few = len(differences) < 2 or differences.mean() > -2 * standard_error(differences)
    return None if few else True


def standard_error(values):
    return values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0


def signed(differences):
    error = f" ±{standard_error(differences):.4f}" if len(differences) > 1 else ""
    return f"{differences.mean():+.4f}{error}"


def draw(records, path):
    """Draw complexity, gap and test loss over λ."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text, not outlines
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(8.7, 2.8), layout="constrained")
    drawn = [{**record, "complexity": record[DENSITIES[0]]} for record in records]
    LambdaDisplay.from_records(drawn, ax=axes)
    for ax in axes:
        ax.set_xlabel("λ")
    figure.supxlabel("bars: standard error of the difference from λ = 0", fontsize="small")
    figure.savefig(path)
