"""Mean log-likelihoods of the densities on public binary datasets, beside published ones.

    SKGATE_DATA=folder python -m benchmarks.bench_debd --output doc/densities_debd.inc

``debd.npz`` has the train, valid and test rows of each dataset, packed bits, and its number of
variables. Each density is fitted to the train rows in its default and sees no others; the settings
of all were chosen on train and valid rows. Seconds are those of the processor, fit and score.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np

from skgate.densities import Autoregressive, ChowLiu, Product

from .tables import NONE, machine_line, publish, rst_table

DENSITIES = {
    "product": Product(),
    "chow-liu": ChowLiu(),
    "autoregressive": Autoregressive(),
    "with hidden=512": Autoregressive(hidden=512),
}
#: LearnSPN (Gens & Domingos 2013), ID-SPN (Rooshenas & Lowd 2014), the better of MADE and EoNADE
#: (Germain et al. 2015).
PUBLISHED = {
    "nltcs": ("-6.11", "-6.02", NONE),
    "plants": ("-12.98", "-12.54", NONE),
    "baudio": ("-40.50", "-39.79", NONE),
    "jester": ("-53.48", "-52.86", NONE),
    "accidents": ("-30.04", "-26.98", NONE),
    "dna": ("-82.52", "-81.21", "-79.66"),
    "mushrooms": (NONE, NONE, "-9.68"),
    "bbc": ("-250.69", "-248.93", NONE),
}


def rows_of(archive, name, part):
    """Return the rows of a part of a dataset."""
    width = int(archive[f"{name}_n_variables"])
    return np.unpackbits(archive[f"{name}_{part}"], axis=1)[:, :width]


def row_of(archive, name):
    """Return the cells of a dataset."""
    train, test = rows_of(archive, name, "train"), rows_of(archive, name, "test")
    cells = [name, str(train.shape[1]), f"{len(train):,}"]
    for density in DENSITIES.values():
        start = time.process_time()
        score = density.fit(train).score(test)
        cells.append(f"{score:.2f} ({time.process_time() - start:.1f} s)")
    return cells + list(PUBLISHED.get(name, (NONE,) * 3))


def main():
    """Measure and print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="datasets; all by default")
    parser.add_argument("--output", metavar="PATH")
    args = parser.parse_args()
    archive = np.load(Path(os.environ["SKGATE_DATA"]) / "debd.npz")
    found = [key.removesuffix("_n_variables") for key in archive if key.endswith("_n_variables")]
    header = ["dataset", "variables", "rows", *DENSITIES, "LearnSPN", "ID-SPN", "MADE, EoNADE"]
    rows = [row_of(archive, name) for name in args.names or found]
    parts = [machine_line("torch", "numpy", "scipy"), rst_table(header, rows)]
    publish(parts, args.output)


if __name__ == "__main__":
    main()
