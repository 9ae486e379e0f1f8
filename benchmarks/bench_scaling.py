"""Time of a pass over the pairs by samples and gates, and what it is worth on many workers.

    python benchmarks/bench_scaling.py
    python benchmarks/bench_scaling.py --plan 1000000 16384 600

Times the kernel masses of one layer, one term and one thread on a grid of sizes, and fits a cost
model to them, whose counts are those of the tiles and pairs that the code goes through. Then one
thread is compared with two workers. More workers than there are here are simulated: tasks have
the times that were measured of them one by one, each worker takes the next task when it is done
with one, and the client takes results in their order. ``--plan`` fits the model to this machine,
on a few small sizes, and prints how many workers N samples of D gates want for a result within
SECONDS.
"""

import argparse
import heapq
import logging
import sys
from dataclasses import dataclass, replace
from functools import cache, partial

import joblib
import numpy as np
from _common import NONE, machine_line, median, publish, rst_table, timed, verdict
from bench_entropy import ALPHAS, make_states, variance
from distributed import Client
from scipy.optimize import linprog
from skgate.utils.parallel import run, slices

from skgate import gating_entropy
from skgate.pairwise import Engine, kernel_masses
from skgate.pairwise._cpu import _symmetric_task
from skgate.pairwise._distances import Bits
from skgate.pairwise._tiles import symmetric_tasks, tile_rows

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
_SATURATED = 10_000, 4096  # where it is told what a pass takes whose kernel values round off
_WARM_UP = 4000  # samples that are enough for a cluster to be asked
_EMPTY_TASKS = 300
_PIECES = 64  # of a task, where what their number costs is left out


def weight_of(states, gates="unsaturated"):
    """Return the weight of the one term."""
    return np.array([[0.5 / variance(states, ALPHAS[gates])]])


def one_pass(states, weight):
    """Return the least seconds of a pass on one thread."""
    run_once = partial(kernel_masses, states, weight, engine=Engine(n_jobs=1))
    seconds = [timed(run_once)[0]]
    if seconds[0] < _BUDGET_SECONDS:
        repeats = int(np.clip(_BUDGET_SECONDS / seconds[0], 2, 9))
        seconds = [timed(run_once)[0] for _ in range(repeats)]  # the first one warmed up
    return min(seconds)


def measure_grid(samples, gates):
    """Return seconds by ``(n, d)``."""
    seconds = {}
    for d in gates:
        states = make_states(max(samples), d, "unsaturated")
        weight = weight_of(states)
        for n in samples:
            print(n, d, sep=", ", file=sys.stderr)
            seconds[n, d] = one_pass(states[:n], weight)
    return dict(sorted(seconds.items()))


@cache
def tasks_of(n, d):
    """Return the tasks of a pass, and the number of pairs of each."""
    cost = 1 + Bits([np.empty((0, -(-d // 8)), np.uint8)]).cost  # of a term, and of the distance
    tasks = symmetric_tasks(np.zeros(n, int), Bits.tile_columns, cost)
    counts = [
        # the square on the diagonal is computed whole
        sum(
            (min(rows.stop, c.stop) - rows.start) * (c.stop - c.start)
            for c in slices(columns.start, columns.stop, Bits.tile_columns)
        )
        for rows, columns in tasks
    ]
    return tasks, np.array(counts, float)


@dataclass
class CostModel:
    """Seconds of a pass: of itself, by pair, and by pair and byte of its packed gates.

    A pass costs the list of its tasks and what they share, a pair its kernel value and the two sums
    that it goes into, and a byte the counting of its bits.
    """

    call: float
    pair: float
    byte: float

    @classmethod
    def fitted(cls, seconds):
        """Return the model whose largest relative error is least."""
        counts = np.array([cls._counts(n, d) for n, d in seconds])
        shares = counts / np.array(list(seconds.values()))[:, None]
        scale = shares.max(axis=0)
        # of the parameters and the error: least error, with shares p - 1 between -error and error
        error = np.ones((len(shares), 1))
        bounds = np.block([[shares / scale, -error], [-shares / scale, -error]])
        limits = np.concatenate([error, -error]).ravel()
        found = linprog([*np.zeros(len(scale)), 1.0], bounds, limits)  # none is negative
        return cls(*(found.x[:-1] / scale))

    @staticmethod
    def _counts(n, d):
        pairs = tasks_of(n, d)[1].sum()
        return [1, pairs, pairs * d / 8]

    def seconds(self, n, d):
        return float(np.dot(self._counts(n, d), [self.call, self.pair, self.byte]))

    def task_seconds(self, n, d):
        """Return the seconds of each task."""
        return tasks_of(n, d)[1] * (self.pair + self.byte * d / 8)

    def __str__(self):
        return (
            f"{self.call * 1e3:.1f} ms a pass, {self.pair * 1e9:.2f} ns a pair, "
            f"{self.byte * 1e12:.2f} ps a pair and byte"
        )


def grid_table(seconds, model):
    header = ["n", "d", "seconds", "ns a pair", "model, s", "off"]
    rows = []
    for (n, d), taken in seconds.items():
        off = model.seconds(n, d) / taken - 1
        per_pair = taken / (n * n / 2) * 1e9
        said = f"{model.seconds(n, d):.4g}"
        rows.append([str(n), str(d), f"{taken:.4g}", f"{per_pair:.2f}", said, f"{off:+.1%}"])
    return rst_table(header, rows)


def model_lines(seconds, model):
    """Return what the model is, and how well it fits."""
    worst = max(abs(model.seconds(n, d) / taken - 1) for (n, d), taken in seconds.items())
    return (
        f"The model: {model}. Its largest relative error is {worst:.1%}; to be within "
        f"{TOLERANCE:.0%} everywhere is {verdict(worst <= TOLERANCE)}."
    )


def saturated_line():
    """Return what a pass takes whose kernel values round off."""
    n, d = _SATURATED
    taken = []
    for gates in ALPHAS:
        states = make_states(n, d, gates)
        taken.append(one_pass(states, weight_of(states, gates)))
    return (
        f"Where kernel values round off they are left out: a pass over {n} samples of {d} "
        f"independent gates, with alpha 0.01, took {taken[0] / taken[1]:.0%} of the time."
    )


def measure_workers(n, d, repeats):
    """Return the least seconds of H by where it is computed, and those of an empty task."""
    states = make_states(n, d, "unsaturated")
    fit = partial(gating_entropy, alpha=ALPHAS["unsaturated"], standard_errors=False)
    places = {
        "one thread": partial(joblib.parallel_config, "threading", n_jobs=1),
        "two threads": partial(joblib.parallel_config, "threading", n_jobs=2),
        "two processes, loky": partial(joblib.parallel_config, "loky", n_jobs=2),
        "two processes, Dask": partial(joblib.parallel_config, "dask"),
    }
    seconds = dict.fromkeys(places, np.inf)
    with local_cluster():
        for _ in range(repeats):  # in turn, so that what else the machine does comes to all alike
            for place, config in places.items():
                with config():
                    fit(states[:_WARM_UP])
                    seconds[place] = min(seconds[place], timed(fit, states)[0])
                print(place, seconds[place], sep=", ", file=sys.stderr)
        return seconds, empty_task()


def local_cluster():
    """Return a client of two processes of one thread each."""
    logging.getLogger("distributed").setLevel(logging.ERROR)
    return Client(n_workers=2, threads_per_worker=1, dashboard_address=None)


def empty_task():
    """Return the seconds that a task takes scheduler and client that does nothing."""
    tasks = [(index,) for index in range(_EMPTY_TASKS)]
    with joblib.parallel_config("dask"):
        seconds, _ = timed(lambda: list(run(int, (), tasks, None, np.inf)))
    return seconds / _EMPTY_TASKS


def workers_table(seconds):
    one = seconds["one thread"]
    rows = []
    for place, taken in seconds.items():
        met = one / taken >= LEAST_RATIO if "processes" in place else None
        verdict_ = f"{verdict(met)} (>= {LEAST_RATIO})" if met is not None else ""
        rows.append([place, f"{taken:.2f}", f"{one / taken:.2f}", verdict_])
    return rst_table(["where", "seconds", "times as fast", "target"], rows)


@dataclass
class Job:
    """What a fit takes, seconds.

    Parameters
    ----------
    before : float
        What the client does before the pairs.
    tasks : ndarray of shape (n_tasks,)
        What a worker takes for each.
    adding : ndarray of shape (n_tasks,)
        What the client takes to add the result of each.
    handling : ndarray of shape (n_tasks,)
        What passing on a task and its result takes, where workers are processes.
    sending : float
        What the states take from one process to another.
    """

    before: float
    tasks: np.ndarray
    adding: np.ndarray
    handling: np.ndarray
    sending: float

    @classmethod
    def of(cls, n, d, bandwidth, tasks, adding, before, per_task):
        sizes = [8 * (r.stop - r.start + c.stop - c.start) for r, c in tasks_of(n, d)[0]]
        handling = per_task + np.array(sizes) / bandwidth
        return cls(before, np.array(tasks), np.array(adding), handling, n * d / 8 / bandwidth)

    def alone(self):
        """Return the seconds of one process that needs no other."""
        return self.before + self.tasks.sum() + self.adding.sum()

    def seconds(self, n_workers):
        """Return the seconds of a cluster.

        The client sends the states to the scheduler, and this to a worker; the others get them
        from that one, all at the same time. For a single worker the client does the work.
        """
        if n_workers == 1:
            return self.alone()
        ready = [2 * self.sending] + [(n_workers + 1) * self.sending] * (n_workers - 1)
        client = 0.0
        for task, after in zip(self.tasks, self.adding + self.handling, strict=True):
            done = heapq.heappop(ready) + task
            heapq.heappush(ready, done)
            client = max(client, done) + after
        return self.before + client

    def efficiency(self, n_workers):
        return self.alone() / (n_workers * self.seconds(n_workers))

    def without(self):
        """Return the job without each thing that keeps workers waiting."""
        split = {
            name: np.repeat(getattr(self, name) / _PIECES, _PIECES)
            for name in ["tasks", "adding", "handling"]
        }
        return {
            "tasks could be split further": replace(self, **split),
            "sending the states took no time": replace(self, sending=0.0),
            "passing on tasks and results took no time": replace(self, handling=0 * self.handling),
            "adding results took no time": replace(self, adding=0 * self.adding),
            "what comes before the pairs took no time": replace(self, before=0.0),
        }

    def reason(self, n_workers):
        """Return what costs so many workers most, and the seconds without it."""
        rest = {name: job.seconds(n_workers) for name, job in self.without().items()}
        name = min(rest, key=rest.get)
        return f"{self.seconds(n_workers):.3g} s, and {rest[name]:.3g} s if {name}"


def _timed_task(*args):
    return timed(_symmetric_task, *args)


def measure_job(n, d, bandwidth, per_task):
    """Return the job of n samples of d gates, whose tasks run here one by one."""
    states = make_states(n, d, "unsaturated")
    before, _ = timed(states.activation_rates)
    points, parts, tasks = Bits(states.packed), np.zeros(n, int), tasks_of(n, d)[0]
    height = tile_rows(Bits.tile_columns, n_layers=1, n_terms=1)
    shared = points, weight_of(states), (), parts, height
    masses = np.zeros((1, 1, 1, n))

    def add(rows, columns, to_rows, to_columns):
        masses[:, :, 0, rows] += to_rows
        masses[..., columns] += to_columns

    seconds, adding = [], []
    for task, (taken, sums) in zip(tasks, run(_timed_task, shared, tasks, 1, 0), strict=True):
        seconds.append(taken)
        adding.append(timed(add, *task, *sums)[0])
    return Job.of(n, d, bandwidth, seconds, adding, before, per_task)


def simulation_table(job):
    rows = []
    for w in WORKERS:
        seconds, times = job.seconds(w), job.alone() / job.seconds(w)
        rows.append([str(w), f"{seconds:.3g}", f"{times:.1f}", f"{job.efficiency(w):.0%}"])
    return rst_table(["workers", "seconds", "times as fast", "efficiency"], rows)


def threshold_lines(job):
    """Return from how many workers on efficiency is lost, and why."""
    lines = []
    for share in [0.8, 0.5]:
        below = [w for w in range(1, max(WORKERS) + 1) if job.efficiency(w) < share]
        if below:
            why = job.reason(below[0])
            lines.append(f"Efficiency falls under {share:.0%} at {below[0]} workers: {why}.")
        else:
            lines.append(f"Efficiency stays over {share:.0%} to {max(WORKERS)} workers.")
    return " ".join(lines)


def job_by_model(n, d, model, bandwidth, before_per_gate, adding, per_task):
    """Return a job that was not measured."""
    tasks = model.task_seconds(n, d)
    adding = np.full(len(tasks), adding)
    return Job.of(n, d, bandwidth, tasks, adding, before_per_gate * n * d, per_task)


def plan(job, limit):
    """Return the fewest workers for a result in time, or None, and the fastest number of them."""
    fastest = min(_numbers(len(job.tasks)), key=job.seconds)
    in_time = (w for w in _numbers(fastest) if job.seconds(w) <= limit)
    return next(in_time, None), fastest


def _numbers(most):
    """Return numbers of workers up to ``most``, a twentieth apart."""
    steps = np.ceil(1.05 ** np.arange(200)).astype(int)
    return [int(w) for w in np.unique(np.minimum(steps, most))]


def plan_table(jobs):
    """Return a table of jobs by ``(n, d, limit)``."""
    header = ["n", "d", "alone, s", "wanted, s", "workers", "seconds", "most useful", "seconds"]
    rows = []
    for (n, d, limit), job in jobs.items():
        fewest, fastest = plan(job, limit)
        wanted = ["none", NONE] if fewest is None else [str(fewest), f"{job.seconds(fewest):.3g}"]
        lead = [str(n), str(d), f"{job.alone():.3g}", f"{limit:g}"]
        rows.append([*lead, *wanted, str(fastest), f"{job.seconds(fastest):.3g}"])
    return rst_table(header, rows)


def _size(text):
    n, d = map(int, text.split("x"))
    return n, d


def main():
    """Measure, print the tables and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes alone")
    parser.add_argument("--workers-size", type=_size, metavar="NxD", help="of two workers")
    parser.add_argument("--job-size", type=_size, metavar="NxD", help="of the simulated cluster")
    parser.add_argument("--repeats", type=int, default=3, help="runs of two workers")
    parser.add_argument("--bandwidth", type=float, default=10, help="Gbit/s between machines")
    parser.add_argument("--plan", nargs=3, type=float, metavar=("N", "D", "SECONDS"))
    parser.add_argument("--output", metavar="PATH", help="file to write the tables to")
    args = parser.parse_args()
    quick = args.quick or args.plan is not None
    seconds = measure_grid(QUICK_SAMPLES if quick else SAMPLES, GATES)
    model, bandwidth = CostModel.fitted(seconds), args.bandwidth * 1e9 / 8
    job_size = args.job_size or ((10_000, 4096) if quick else (100_000, 16_384))
    if args.plan is not None:
        with local_cluster():
            per_task = empty_task()
    else:
        workers_size = args.workers_size or ((10_000, 4096) if quick else (50_000, 16_384))
        by_place, per_task = measure_workers(*workers_size, args.repeats)
    job = measure_job(*job_size, bandwidth, per_task)
    per_gate, adding = job.before / np.prod(job_size), median(job.adding)
    plans = [(int(args.plan[0]), int(args.plan[1]), args.plan[2])] if args.plan else PLANS
    jobs = {
        (n, d, limit): job_by_model(n, d, model, bandwidth, per_gate, adding, per_task)
        for n, d, limit in plans
    }
    machine = machine_line("numpy", "numkong", "joblib", "distributed")
    network = (
        f"{args.bandwidth:g} Gbit/s between machines, and {per_task * 1e3:.1f} ms a task for "
        "scheduler and client, as measured of empty ones here"
    )
    planned = [
        f"Plans by the model, with {network}. Alone is one process without a cluster; more workers "
        "than are most useful take longer.",
        plan_table(jobs),
    ]
    if args.plan is not None:
        publish([machine, model_lines(seconds, model), *planned], args.output)
        return
    publish(
        [
            f"{machine}. {NOTE}",
            f"A pass on one thread. {model_lines(seconds, model)} {saturated_line()}",
            grid_table(seconds, model),
            "H of {} samples of {} gates, with workers that had started:".format(*workers_size),
            workers_table(by_place),
            "Simulated, H of {} samples of {} gates on ".format(*job_size)
            + f"a Dask cluster: {len(job.tasks)} tasks of up to {max(job.tasks):.2g} s, measured "
            f"one by one, with {network}. {threshold_lines(job)}",
            simulation_table(job),
            *planned,
        ],
        args.output,
    )


if __name__ == "__main__":
    main()
