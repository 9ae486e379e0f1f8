"""Time of a pass over the pairs by samples and gates, and its speed-up on many workers.

    python -m benchmarks.bench_scaling
    python -m benchmarks.bench_scaling --plan 1000000 16384 600

Times the kernel masses of one layer, one term and one thread on a grid of sizes, and fits a cost
model to them. Then one thread is compared with two workers. More workers than this machine has are
predicted from the time of a pass, by the formula of doc/scale.rst with whole tasks. ``--plan`` fits
the model to this machine, on a few small sizes, and prints how many workers N samples of D gates
need for a result within SECONDS.
"""

import argparse
import logging
import sys
from dataclasses import dataclass
from functools import partial

import joblib
import numpy as np
from distributed import Client
from scipy.optimize import nnls

from skgate import gating_entropy
from skgate.densities import Kernel
from skgate.pairwise import Engine, kernel_masses
from skgate.pairwise._distances import HammingDistances
from skgate.pairwise._tiles import symmetric_tasks

from ._comparison import ALPHAS, kernel_weight, make_states, seconds_of, shape
from .tables import NONE, machine_line, publish, rst_table

SAMPLES, GATES = [2000, 5000, 10_000, 20_000, 50_000, 100_000], [1024, 4096, 16_384, 65_536]
QUICK_SAMPLES = [2000, 5000, 10_000]
PLANS = [(100_000, 16_384, 60), (1_000_000, 4096, 600), (1_000_000, 16_384, 600)]
WORKERS = [1, 2, 4, 8, 16, 32, 64, 128, 256]
NOTE = (
    "Gates are the signs of random mixtures of 4 Gaussian factors and alpha is 0.04, so that every "
    "kernel value counts."
)
TOLERANCE, LEAST_RATIO = 0.15, 1.8

_BUDGET_SECONDS = 5  # of the repeated runs of one size
_WARM_UP = 4000  # samples that are enough for a cluster to be used
_EMPTY_TASKS = 300


def one_pass(n, d):
    """Return the least seconds of a pass on one thread."""
    print(n, d, sep=", ", file=sys.stderr)
    states = make_states(n, d)
    weights = np.array([[kernel_weight(states)]])
    run = partial(kernel_masses, states, weights, engine=Engine(n_jobs=1))
    first = seconds_of(run)
    repeats = int(np.clip(_BUDGET_SECONDS / first, 0, 9))
    return min([first, *(seconds_of(run) for _ in range(repeats))])


def counts(n, d):
    """Return how often a pass of the cost model pays for a call, a pair, and a pair's byte."""
    return np.array([1, n * n / 2, n * n / 2 * d / 8])


def fitted_model(seconds):
    """Return the seconds of each of the `counts`, whose squared relative errors are least."""
    shares = np.array([counts(n, d) / taken for (n, d), taken in seconds.items()])
    scale = shares.max(axis=0)
    return nnls(shares / scale, np.ones(len(shares)))[0] / scale


def grid_table(seconds, model):
    """Return the model with its fit, and the table of the grid."""
    header, rows, offs = ["n", "d", "seconds", "ns a pair", "model, s", "off"], [], []
    for (n, d), taken in seconds.items():
        predicted = model @ counts(n, d)
        offs.append(predicted / taken - 1)
        cells = f"{taken:.4g}", f"{taken / (n * n / 2) * 1e9:.2f}", f"{predicted:.4g}"
        rows.append([str(n), str(d), *cells, f"{offs[-1]:+.1%}"])
    worst, (call, pair, byte) = max(map(abs, offs)), model * [1e3, 1e9, 1e12]
    line = (
        f"The model: {call:.1f} ms a pass, {pair:.2f} ns a pair, {byte:.2f} ps a pair and byte. "
        f"Its largest relative error is {worst:.1%}; to be within {TOLERANCE:.0%} everywhere is "
        f"{'met' if worst <= TOLERANCE else 'not met'}."
    )
    return line, rst_table(header, rows)


def local_cluster():
    """Return a client of two processes of one thread each."""
    logging.getLogger("distributed").setLevel(logging.ERROR)
    return Client(n_workers=2, threads_per_worker=1, dashboard_address=None)


def empty_task(client):
    """Return the seconds of scheduler and client for a task that does nothing."""

    def run():
        futures = [client.submit(int, pure=False) for _ in range(_EMPTY_TASKS)]
        for future in futures:
            future.result()

    return seconds_of(run) / _EMPTY_TASKS


def measure_workers(n, d, repeats):
    """Return the least seconds of H by where it is computed."""
    states, density = make_states(n, d), Kernel(alpha=ALPHAS["unsaturated"])
    fit = partial(gating_entropy, density=density, standard_errors=False)
    places = {
        "one thread": partial(joblib.parallel_config, "threading", n_jobs=1),
        "two threads": partial(joblib.parallel_config, "threading", n_jobs=2),
        "two processes, loky": partial(joblib.parallel_config, "loky", n_jobs=2),
        "two processes, Dask": partial(joblib.parallel_config, "dask"),
    }
    seconds = dict.fromkeys(places, np.inf)
    for _ in range(repeats):  # in turn, so that other load on the machine affects all alike
        for place, config in places.items():
            with config():
                fit(states[:_WARM_UP])
                seconds[place] = min(seconds[place], seconds_of(fit, states))
            print(place, seconds[place], sep=", ", file=sys.stderr)
    return seconds


def workers_table(seconds):
    one, rows = seconds["one thread"], []
    for place, taken in seconds.items():
        target = f"{'met' if one / taken >= LEAST_RATIO else 'not met'} (>= {LEAST_RATIO})"
        cells = f"{taken:.2f}", f"{one / taken:.2f}", target if "processes" in place else ""
        rows.append([place, *cells])
    return rst_table(["where", "seconds", "times as fast", "target"], rows)


@dataclass
class Job:
    """A fit on a cluster.

    Parameters
    ----------
    pairs : float
        Seconds of a pass over the pairs, on one worker.
    before : float
        Seconds of the client before the pairs.
    sending : float
        Seconds of the states from one machine to another.
    per_task : float
        Seconds of scheduler and client for each task.
    n_tasks : int
    """

    pairs: float
    before: float
    sending: float
    per_task: float
    n_tasks: int

    @classmethod
    def of(cls, n, d, pairs, before_per_gate, bandwidth, per_task):
        distances = HammingDistances([np.empty((0, -(-d // 8)), np.uint8)])
        cost = 1 + distances.cost  # one term and the distance
        n_tasks = len(symmetric_tasks(n, distances.tile_columns, cost))
        return cls(pairs, before_per_gate * n * d, n * d / 8 / bandwidth, per_task, n_tasks)

    def terms(self, n_workers):
        """Return the seconds of a worker's tasks, of sending the states, and of the scheduler.

        The client sends the states to the scheduler, and this to a worker; the others get them
        from that one, all at the same time. For a single worker the client does the work.
        """
        if n_workers == 1:
            return self.pairs, 0.0, 0.0
        tasks = np.ceil(self.n_tasks / n_workers) * self.pairs / self.n_tasks
        return tasks, (n_workers + 1) * self.sending, self.n_tasks * self.per_task

    def seconds(self, n_workers):
        tasks, sending, scheduler = self.terms(n_workers)
        return self.before + max(tasks + sending, scheduler)

    def plan(self, limit):
        """Return the fewest workers for a result in time, or None, and the fastest number."""
        fastest = min(_numbers(self.n_tasks), key=self.seconds)
        in_time = (w for w in _numbers(fastest) if self.seconds(w) <= limit)
        return next(in_time, None), fastest


def _numbers(most):
    """Return numbers of workers up to ``most``, a twentieth apart."""
    steps = np.ceil(1.05 ** np.arange(200)).astype(int)
    return [int(w) for w in np.unique(np.minimum(steps, most))]


def cluster_table(job):
    rows = []
    for w in WORKERS:
        seconds = [job.seconds(w), *job.terms(w)]
        times = job.seconds(1) / seconds[0]
        rows.append([str(w), *(f"{s:.3g}" for s in seconds), f"{times:.1f}", f"{times / w:.0%}"])
    parts = ["tasks, s", "sending, s", "scheduler, s"]
    return rst_table(["workers", "seconds", *parts, "times as fast", "efficiency"], rows)


def plan_table(jobs):
    """Return a table of jobs by ``(n, d, limit)``."""
    header = ["n", "d", "alone, s", "wanted, s", "workers", "seconds", "most useful", "seconds"]
    rows = []
    for (n, d, limit), job in jobs.items():
        fewest, fastest = job.plan(limit)
        wanted = ["none", NONE] if fewest is None else [str(fewest), f"{job.seconds(fewest):.3g}"]
        lead = [str(n), str(d), f"{job.seconds(1):.3g}", f"{limit:g}"]
        rows.append([*lead, *wanted, str(fastest), f"{job.seconds(fastest):.3g}"])
    return rst_table(header, rows)


def main():
    """Measure, print the tables and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", nargs="+", type=int, help="of the grid")
    parser.add_argument("--gates", nargs="+", type=int, default=GATES, help="of the grid")
    parser.add_argument("--workers-size", default="50000x16384", metavar="NxD")
    parser.add_argument("--job-size", default="100000x16384", metavar="NxD", help="predicted")
    parser.add_argument("--repeats", type=int, default=3, help="runs of two workers")
    parser.add_argument("--bandwidth", type=float, default=10, help="Gbit/s between machines")
    parser.add_argument("--plan", nargs=3, type=float, metavar=("N", "D", "SECONDS"))
    parser.add_argument("--output", metavar="PATH", help="file to write the tables to")
    args = parser.parse_args()
    samples = args.samples or (QUICK_SAMPLES if args.plan else SAMPLES)
    seconds = {(n, d): one_pass(n, d) for n in samples for d in args.gates}
    model, workers_size, job_size = (
        fitted_model(seconds),
        *map(shape, [args.workers_size, args.job_size]),
    )
    with local_cluster() as client:
        per_task = empty_task(client)
        by_place = None if args.plan else measure_workers(*workers_size, args.repeats)
    states = make_states(2000, 4096)
    before_per_gate = seconds_of(states.activation_rates) / np.prod(states.shape)
    costs = before_per_gate, args.bandwidth * 1e9 / 8, per_task
    plans = [(int(args.plan[0]), int(args.plan[1]), args.plan[2])] if args.plan else PLANS
    jobs = {(n, d, s): Job.of(n, d, model @ counts(n, d), *costs) for n, d, s in plans}
    machine = machine_line("numpy", "numkong", "joblib", "distributed")
    network = (
        f"{args.bandwidth:g} Gbit/s between machines, and {per_task * 1e3:.1f} ms a task for "
        "scheduler and client, as measured with empty ones here"
    )
    planned = [
        f"Plans by the model, with {network}. Alone is one process without a cluster; more workers "
        "than are most useful take longer.",
        plan_table(jobs),
    ]
    model_line, grid = grid_table(seconds, model)
    if args.plan:
        publish([machine, model_line, *planned], args.output)
        return
    job = Job.of(*job_size, seconds.get(job_size) or one_pass(*job_size), *costs)
    publish(
        [
            f"{machine}. {NOTE}",
            f"A pass on one thread. {model_line}",
            grid,
            "H of {} samples of {} gates, with workers that had started:".format(*workers_size),
            workers_table(by_place),
            "Predicted, H of {} samples of {} gates on ".format(*job_size)
            + f"a Dask cluster: {job.n_tasks} tasks of {job.pairs / job.n_tasks:.2g} s, {network}. "
            "Tasks are those of one worker; the scheduler works beside it.",
            cluster_table(job),
            *planned,
        ],
        args.output,
    )


if __name__ == "__main__":
    main()
