"""Time of a training step with the complexity penalty, against training without it."""

import argparse
import sys
from unittest import mock

import torch
from _common import (
    NONE,
    fresh_process,
    interleaved,
    machine_line,
    median,
    peak_mb,
    publish,
    rst_table,
    timed,
    verdict,
)
from bench_capture import resnet20
from skgate.training.energy._samplers import Flips
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn import functional as F

from skgate import ComplexityRegularizedClassifier

BATCH_SIZE = 128
LAM = 1e-4
N_CLASSES = 10
N_LAYERS = 4  # that are penalised
INTERVAL = 10
SHARPNESS = 100.0
N_LANGEVIN, LANGEVIN_STEP = 5, 1e-3
#: What the paper's code sets.
PUBLISHED = {
    "lam": LAM,
    "sampler": "langevin",
    "gate_sharpness": SHARPNESS,
    "langevin_steps": N_LANGEVIN,
    "langevin_step_size": LANGEVIN_STEP,
    "penalty_interval": INTERVAL,
}
PLAIN, OFF, PRODUCT = "skorch", "lam=0", 'penalty="product"'
EBM, AS_PUBLISHED, REFERENCE = 'penalty="ebm"', "published settings", "algorithm in plain torch"
SETTINGS = {
    OFF: {"lam": 0},
    PRODUCT: {"lam": LAM, "penalty": "product"},
    EBM: {"lam": LAM},
    AS_PUBLISHED: PUBLISHED,
}
METHODS = (PLAIN, *SETTINGS, REFERENCE)
NOTE = (
    f"Batches of {BATCH_SIZE}, the same for all, ready in memory. The methods take turns in one "
    "process, each with a network of its own; a run is {steps} steps in a row, and the seconds are "
    "the median run's, over its steps. Every "
    f"{INTERVAL}th step of the last two rows of a network has the penalty, and each step teaches "
    "f. The algorithm in plain torch has an energy network for each layer, Langevin steps by "
    "autograd, and Swish written into the module; it makes no checks and keeps no history. "
    "The optimizer is SGD with momentum, that of the default MLP Adam. An epoch is one of fit, "
    "loading, checks and the estimate of complexity included. The peak memory is that of one run "
    "in a process of its own, with network, optimizer and data, on top of the imports."
)
NOTE_PARTS = (
    'Where a step of penalty="ebm" goes, in milliseconds. The relaxed forward pass holds the plain '
    "one. The energy step is the sampler and the update of f; the penalty is its value and its "
    "gradient by the relaxed gates; the rest are the gradient of the network, its optimizer and "
    "the records. The estimate of complexity is once an epoch."
)


class ResidualMLP(nn.Module):
    """Perceptron with a skip-connection around each hidden layer."""

    def __init__(self, width, n_hidden=9):
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(n_hidden))
        self.acts = nn.ModuleList(nn.ReLU() for _ in range(n_hidden))
        self.head = nn.Linear(width, N_CLASSES)

    def forward(self, x):
        """Return logits."""
        x = x.flatten(1)
        for linear, act in zip(self.hidden, self.acts, strict=True):
            x = x + act(linear(x))
        return self.head(x)


def default_mlp():
    """Return the network that ``module=None`` stands for, on the digits."""
    layers = [nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, N_CLASSES))


RESIDUAL, RESNET, DIGITS = "residual MLP", "ResNet-20", "MLP, digits"
# constructor, with --quick, optimizer, most that the ratio of EBM to PLAIN may be
NETS = {
    RESIDUAL: (lambda quick: ResidualMLP(768 if quick else 3072), "sgd", 1.5),
    RESNET: (lambda quick: resnet20(), "sgd", 1.5),
    DIGITS: (lambda quick: default_mlp(), "adam", 3.0),
}


def make_data(name, quick):
    """Return inputs and labels."""
    if name == DIGITS:
        X, y = load_digits(return_X_y=True)
        return torch.tensor(X / 16, dtype=torch.float32), torch.tensor(y)
    size = 16 if quick and name == RESIDUAL else 32
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(2 * BATCH_SIZE, 3, size, size, generator=generator)
    return X, torch.randint(N_CLASSES, (len(X),), generator=generator)


class Training:
    """A method on a network: ``step`` on a ready batch, and ``epoch``.

    Parameters
    ----------
    method, name : str
    quick : bool
    """

    def __init__(self, method, name, quick):
        torch.manual_seed(0)
        make, optimizer, _ = NETS[name]
        self.X, self.y = make_data(name, quick)
        self.batch = self.X[:BATCH_SIZE], self.y[:BATCH_SIZE]
        net = make(quick)
        momentum = {"momentum": 0.9} if optimizer == "sgd" else {}
        if method == REFERENCE:
            kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]
            loop = PlainLoop(net, lambda parameters: kind(parameters, lr=1e-3, **momentum))
            self.step = lambda: loop.step(*self.batch)
            self.epoch = lambda: loop.epoch(self.X, self.y)
            return
        momentum = {f"optimizer__{key}": value for key, value in momentum.items()}
        if method == PLAIN:
            kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]
            options = {"max_epochs": 1, "batch_size": BATCH_SIZE, "train_split": None, "verbose": 0}
            skorch_net = NeuralNetClassifier(
                net,
                criterion=nn.CrossEntropyLoss,
                optimizer=kind,
                lr=1e-3,
                iterator_train__shuffle=True,
                warm_start=True,
                **options,
                **momentum,
            ).fit(self.X, self.y)
            self.epoch = lambda: skorch_net.fit(self.X, self.y)
        else:
            self.classifier = ComplexityRegularizedClassifier(
                net,
                optimizer=optimizer,
                max_epochs=1,
                warm_start=True,
                net_params=momentum,
                random_state=0,
                **SETTINGS[method],
            ).fit(self.X, self.y)
            skorch_net = self.classifier.net_
            self.epoch = lambda: self.classifier.fit(self.X, self.y)

        def step():
            skorch_net.history.new_batch()
            skorch_net.train_step(self.batch)

        self.step = step


class Swish(nn.Module):
    """ReLU with a relaxed gate, which it keeps."""

    def forward(self, z):
        """Return the units times their gates."""
        self.gates = torch.sigmoid(SHARPNESS * z)
        return z * self.gates


class PlainLoop:
    """The published algorithm, written down as it reads."""

    def __init__(self, net, make_optimizer):
        self.net, self.optimizer = net, make_optimizer(net.parameters())
        self.swishes, self.energies, self.rates, self.n_steps = [], None, None, 0
        for name in [n for n, m in net.named_modules() if isinstance(m, nn.ReLU)][-N_LAYERS:]:
            parent, _, attribute = name.rpartition(".")
            self.swishes.append(Swish())
            setattr(net.get_submodule(parent), attribute, self.swishes[-1])

    def _start(self, gates):
        self.energies = nn.ModuleList(_energy_network(g) for g in gates)
        self.rates = [g.mean(0) for g in gates]
        self.energy_optimizer = torch.optim.SGD(
            self.energies.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4
        )

    def step(self, x, y):
        """Train f, and then the network, on a batch."""
        self.net.train()
        output = self.net(x)
        relaxed = [_placed(swish.gates) for swish in self.swishes]
        gates = [g.detach() for g in relaxed]
        if self.energies is None:
            self._start(gates)
        self.rates = [0.9 * r + 0.1 * g.mean(0) for r, g in zip(self.rates, gates, strict=True)]
        self.energy_optimizer.zero_grad()
        for f, rates, data in zip(self.energies, self.rates, gates, strict=True):
            drawn = _langevin(f, rates, data)
            (f(drawn).mean() - f(data).mean()).backward()
        nn.utils.clip_grad_value_(self.energies.parameters(), 1e-5)
        self.energy_optimizer.step()

        loss = F.cross_entropy(output, y)
        if self.n_steps % INTERVAL == 0:
            for f, rates, g in zip(self.energies, self.rates, relaxed, strict=True):
                energy = -f(g).flatten() - _log_prior(rates, g)
                loss = loss + LAM * energy.mean() / g[0, 0].numel()
        self.n_steps += 1
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def epoch(self, X, y):
        """Train on batches in random order."""
        for rows in torch.randperm(len(X)).split(BATCH_SIZE):
            self.step(X[rows], y[rows])


def _placed(gates):
    return gates if gates.ndim == 4 else gates[:, :, None, None]


def _energy_network(gates):
    """Return six convolutional layers: 3 x 3 with positions, which they halve, 1 x 1 without."""
    n_in, size = gates.shape[1:3]
    kernel, padding, layers = (3, 1, []) if size > 1 else (1, 0, [])
    for i in range(6):
        stride = 2 if size > 4 else 1
        size = -(-size // stride)
        layers.append(nn.Conv2d(n_in, 32 if i < 5 else 1, kernel, stride, padding))
        if i < 5:
            layers.append(nn.LeakyReLU(0.2))
        n_in = 32
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _log_prior(rates, gates):
    q = 1 - rates + gates * (2 * rates - 1)
    return q.clamp_min(1e-3).log().flatten(1).sum(1)


def _langevin(f, rates, gates):
    for _ in range(N_LANGEVIN):
        gates = gates.detach().requires_grad_()
        energy = -f(gates).sum() - _log_prior(rates, gates).sum()
        (gradient,) = torch.autograd.grad(energy, gates)
        noise = torch.randn_like(gates)
        gates = gates - LANGEVIN_STEP / 2 * gradient + LANGEVIN_STEP**0.5 * noise
    return gates.detach()


def measure_times(name, quick, steps, repeats):
    """Return the median seconds of a step by method, and, of the digits, of an epoch."""
    trainings = {method: Training(method, name, quick) for method in METHODS}

    def run(training):
        for _ in range(steps):
            training.step()

    runs = {method: lambda t=training: run(t) for method, training in trainings.items()}
    seconds = interleaved(runs, repeats)
    step = {method: median(values) / steps for method, values in seconds.items()}
    if name != DIGITS:
        return step, {}
    epochs = interleaved({m: t.epoch for m, t in trainings.items()}, repeats)
    return step, {method: median(values) for method, values in epochs.items()}


def measure_peak(method, name, quick, steps):
    """Return the MB that some steps, network and data included, add to this process."""
    before = peak_mb()
    training = Training(method, name, quick)
    for _ in range(steps):
        training.step()
    return peak_mb() - before


def measure_parts(name, quick, repeats):
    """Return the median seconds of the parts of a step with the default penalty."""
    training = Training(EBM, name, quick)
    net, (x, _) = training.classifier.net_, training.batch
    penalty, rows, sampling = net.complexity, [], []
    draw = Flips.draw

    def timed_draw(*args):
        seconds, samples = timed(draw, *args)
        sampling.append(seconds)
        return samples

    def gradient(gates):
        leaves = [g.detach().requires_grad_() for g in gates.groups]
        torch.autograd.grad(penalty(type(gates)(leaves)), leaves)

    for _ in range(repeats + 1):
        row = {}
        row["step"], _ = timed(training.step)
        row["plain forward"], _ = timed(net.infer, x)
        row["relaxed forward"], (_, gates) = timed(penalty.run, x)
        sampling.clear()
        with mock.patch.object(Flips, "draw", timed_draw):
            energy, _ = timed(penalty.energy_step, gates)
        row["sampler"] = sum(sampling)
        row["update of f"] = energy - row["sampler"]
        row["penalty"], _ = timed(gradient, gates)
        row["rest"] = row["step"] - row["relaxed forward"] - energy - row["penalty"]
        row["estimate"], _ = timed(penalty.complexity, x)
        rows.append(row)
    return {part: median([row[part] for row in rows[1:]]) for part in rows[0]}


PARTS = ["plain forward", "relaxed forward", "sampler", "update of f", "penalty", "rest"]
PARTS += ["step", "estimate"]


def tables(names, quick, steps, repeats):
    """Return the tables of steps, of targets and of the parts of a step."""
    rows, targets, parts = [], [], []
    for name in names:
        print(name, file=sys.stderr)
        seconds, epochs = fresh_process(measure_times, name, quick, steps, repeats)
        for method in METHODS:
            peak = fresh_process(measure_peak, method, name, quick, 2)
            ratio = f"{seconds[method] / seconds[PLAIN]:.2f}"
            epoch = f"{epochs[method]:.3g}" if epochs else NONE
            rows.append([name, method, f"{seconds[method]:.3g}", ratio, epoch, f"{peak:.0f}"])
        most, ratio = NETS[name][2], seconds[EBM] / seconds[PLAIN]
        targets.append(
            [
                f"{name}: <= {most}x skorch",
                f"{ratio:.2f}x",
                verdict(None if quick else ratio <= most),
            ]
        )
        values = fresh_process(measure_parts, name, quick, repeats)
        parts.append([name, *[f"{1000 * values[part]:.3g}" for part in PARTS]])
    header = ["network", "method", "seconds a step", "ratio", "seconds an epoch", "peak MB"]
    return [
        NOTE.format(steps=steps),
        rst_table(header, rows),
        rst_table(["target", "measured", "verdict"], targets),
        NOTE_PARTS,
        rst_table(["network", *PARTS], parts),
    ]


def main():
    """Measure, print the tables and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--steps", type=int, default=INTERVAL, help="steps of a run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--quick", action="store_true", help="two runs, a narrow residual MLP, no verdicts"
    )
    parser.add_argument("--output", metavar="PATH", help="file to write the tables to")
    args = parser.parse_args()
    repeats = 2 if args.quick else args.repeats
    parts = tables(args.nets, args.quick, args.steps, repeats)
    if args.quick:
        parts[0] = f"A quick run: {repeats} runs, residual MLP of 768 units. {parts[0]}"
    publish([machine_line("torch", "skorch", "scikit-learn"), *parts], args.output)


if __name__ == "__main__":
    main()
