"""How the examples compare, print and draw."""

import numpy as np

__all__ = [
    "Claims",
    "at_least",
    "count",
    "means",
    "near",
    "plot_images",
    "plot_planes",
    "show",
    "standard_error",
    "table",
]

TOLERANCE = 0.1
WORDS = {True: "yes", False: "NO", None: "open"}


class Claims:
    """Statements of the paper about one figure, each held against the numbers."""

    def __init__(self):
        self.held = {}

    def check(self, statement, holds):
        """Keep a statement that is true, false, or None: open."""
        self.held[statement] = None if holds is None else bool(holds)

    def report(self):
        for statement, holds in self.held.items():
            print(f"    {WORDS[holds]:4}  {statement}")
        failed = [statement for statement, holds in self.held.items() if holds is False]
        open_ = [statement for statement, holds in self.held.items() if holds is None]
        verdict = f"not reproduced: {'; '.join(failed)}" if failed else "reproduced"
        print(f"  {verdict}" + (f" (open: {'; '.join(open_)})" if open_ else ""))


def standard_error(values):
    return values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0


def show(values):
    return f"{values.mean():.2f} ±{standard_error(values):.2f}"


def means(values):
    return " ".join(f"{value:.2f}" for value in values)


def near(values, published, tolerance=TOLERANCE):
    return abs(values.mean() - published) <= tolerance


def at_least(a, b):
    """Return whether a ≥ b on average, as far as the starts can tell."""
    return (a - b).mean() >= -2 * standard_error(a - b) - 1e-3


def table(header, rows):
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows]:
        print("    " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)))


def count(flags):
    return f"(at {sum(flags)} of {len(flags)} epochs)"


def plot_planes(path, planes):
    """Save the information of each layer over epochs, a panel for X, X_bar and Y each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.5), layout="constrained")
    for ax, quantity in zip(figure.subplots(1, 3), ["x", "x_bar", "y"], strict=True):
        curves = np.array([getattr(plane, quantity).mean(axis=1) for plane in planes.values()])
        ax.plot(list(planes), curves, label=[f"layer {i + 1}" for i in range(curves.shape[1])])
        ax.set(xscale="symlog", xlabel="epoch", title=f"I({quantity};T)", ylim=(0, None))
    ax.legend()
    figure.savefig(path)


def plot_images(path, pictures):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.5 * len(pictures), 2.5), layout="constrained")
    for ax, picture in zip(figure.subplots(1, len(pictures)), pictures, strict=True):
        ax.imshow(picture)
        ax.set_axis_off()
    figure.savefig(path)
