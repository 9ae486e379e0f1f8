"""Kill the extraction of gates to disk, let it go on, and compare the bytes.

    python benchmarks/kill_extraction.py

A ResNet-20 runs on random images of CIFAR's size. One process writes its gates to a folder
undisturbed; others are killed by a signal at random moments, and the last one goes on to the end.
The verdict is computed from the files.
"""

import argparse
import filecmp
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from _common import machine_line, publish, rst_table
from bench_capture import resnet20

from skgate import GateExtractor

LAYERS = ["10.relu1", "10.relu2", "11.relu1", "11.relu2"]


def extract(n_images, folder):
    """Write the gates of the last four layers of a network to a folder."""
    torch.manual_seed(0)
    net, images = resnet20(), torch.randn(n_images, 3, 32, 32)
    GateExtractor(net, layers=LAYERS).fit(images[:256]).transform_to(images, folder)


def start(n_images, folder):
    return subprocess.Popen([sys.executable, __file__, "--worker", str(n_images), str(folder)])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", metavar="PATH", help="file to write the table to")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        extract(int(args.worker[0]), args.worker[1])
        return
    rng, rows = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        begun = time.perf_counter()
        start(args.images, whole).wait()
        seconds = time.perf_counter() - begun
        for kill in range(args.kills):
            process = start(args.images, broken)
            delay = rng.uniform(0.2, 0.5) * seconds  # so that all of them come before the end
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            rows.append([f"{kill + 1}", f"{delay:.1f}", f"{process.wait()}"])
        begun = time.perf_counter()
        start(args.images, broken).wait()
        rest = time.perf_counter() - begun
        names = sorted(file.name for file in whole.iterdir())
        same, _, _ = filecmp.cmpfiles(whole, broken, names, shallow=False)
        size = sum(file.stat().st_size for file in whole.iterdir()) / 1e6
    publish(
        [
            machine_line("torch", "numpy"),
            f"{args.images} images, {size:.0f} MB of gates; undisturbed {seconds:.1f} s, the last "
            f"run {rest:.1f} s. {len(same)} of {len(names)} files have the same bytes.",
            rst_table(["kill", "after, s", "exit status"], rows),
        ],
        args.output,
    )


if __name__ == "__main__":
    main()
