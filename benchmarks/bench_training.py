"""Time and memory of a training step with the complexity penalty, beside training without it.

A size, in place of all, is that of a batch and the width of the residual MLP.
"""

import torch
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier
from torch import nn

from skgate import ComplexityRegularizedClassifier

from . import peers
from ._comparison import _Comparison, shape, sizes
from .networks import mlp, resnet20

PACKAGES = "torch", "skorch", "scikit-learn"
BATCH_SIZE, WIDTH = shape(sizes("128x3072")[0])
STEPS = 10  # of a run
#: What the paper's code sets.
PUBLISHED = {
    "lam": 1e-4,
    "sampler": "langevin",
    "gate_sharpness": 100.0,
    "langevin_steps": 5,
    "langevin_step_size": 1e-3,
    "penalty_interval": 10,
}
N_PENALIZED = 4
PLAIN, EBM, REFERENCE = "skorch", 'penalty="ebm"', "algorithm in plain torch"
SETTINGS = {
    "lam=0": {"lam": 0},
    'penalty="product"': {"lam": 1e-4, "penalty": "product"},
    EBM: {"lam": 1e-4},
    "published settings": PUBLISHED,
}
METHODS = [PLAIN, *SETTINGS, REFERENCE]


class ResidualMLP(nn.Module):
    """Perceptron with a skip-connection around each hidden layer."""

    def __init__(self, width, n_hidden=9):
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(n_hidden))
        self.acts = nn.ModuleList(nn.ReLU() for _ in range(n_hidden))
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        """Return logits."""
        for linear, act in zip(self.hidden, self.acts, strict=True):
            x = x + act(linear(x))
        return self.head(x)


RESIDUAL, RESNET, DIGITS = "residual MLP", "ResNet-20", "MLP, digits"
# constructor, optimizer, largest ratio of EBM to PLAIN
NETS = {
    RESIDUAL: (lambda: ResidualMLP(WIDTH), torch.optim.SGD, 1.5),
    RESNET: (lambda: resnet20(16), torch.optim.SGD, 1.5),
    DIGITS: (lambda: mlp([64, 256, 128, 10]), torch.optim.Adam, 3.0),
}


def make_data(network):
    """Return inputs and labels."""
    if network == DIGITS:
        X, y = load_digits(return_X_y=True)
        return torch.tensor(X / 16, dtype=torch.float32), torch.tensor(y)
    generator = torch.Generator().manual_seed(0)
    sample = (WIDTH,) if network == RESIDUAL else (3, 32, 32)
    X = torch.randn(2 * BATCH_SIZE, *sample, generator=generator)
    return X, torch.arange(len(X)) % 10


class Training:
    """A method on a network: ``step`` on a ready batch, and ``epoch``."""

    def __init__(self, method, network):
        torch.manual_seed(0)
        make, optimizer, _ = NETS[network]
        X, y = make_data(network)
        self.batch = X[:BATCH_SIZE], y[:BATCH_SIZE]
        momentum = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
        if method == REFERENCE:
            loop = peers.PlainPenalty(
                make(),
                lambda parameters: optimizer(parameters, lr=1e-3, **momentum),
                n_layers=N_PENALIZED,
                settings=PUBLISHED,
            )
            self.step, self.epoch = lambda: loop.step(*self.batch), lambda: loop.epoch(X, y)
            return
        options = {"max_epochs": 1, "batch_size": BATCH_SIZE, "warm_start": True, "verbose": 0}
        momentum = {f"optimizer__{key}": value for key, value in momentum.items()}
        if method == PLAIN:
            self.model = NeuralNetClassifier(
                make(),
                criterion=nn.CrossEntropyLoss,
                optimizer=optimizer,
                lr=1e-3,
                iterator_train__shuffle=True,
                train_split=None,
                **options,
                **momentum,
            )
        else:
            self.model = ComplexityRegularizedClassifier(
                make(),
                optimizer="sgd" if momentum else "adam",
                net_params=momentum,
                random_state=0,
                **options,
                **SETTINGS[method],
            )
        self.epoch = lambda: self.model.fit(X, y)
        self.net = getattr(self.model.fit(X, y), "net_", self.model)

    def step(self):
        self.net.history.new_batch()
        self.net.train_step(self.batch)

    def parts(self):
        """Return functions by the part of a step that each does."""
        penalty, (x, _) = self.net.complexity, self.batch
        _, relaxed = penalty.run(x)

        def gradient():
            leaves = [g.detach().requires_grad_() for g in relaxed]
            torch.autograd.grad(penalty(type(relaxed)(leaves)), leaves)

        return {
            "step": self.step,
            "plain forward": lambda: self.net.infer(x),
            "relaxed forward": lambda: penalty.run(x),
            "energy step": lambda: penalty.energy_step(relaxed),
            "penalty": gradient,
            "estimate": lambda: penalty.complexity(x),
        }


class Step(_Comparison):
    """Batches of 128, the same for all, ready in memory. A run is 10 steps in a row, and the
    seconds are those of a step. Every 10th step of the last two rows of a network has the penalty,
    and each step trains f. The algorithm in plain torch has an energy network for each layer,
    Langevin steps by autograd, and Swish written into the module; it makes no checks and keeps no
    history. The optimizer is SGD with momentum, that of the default MLP Adam. The ratio is to
    skorch alone. The peak memory is that of a run, with network, optimizer and data.
    """

    param_names = "network", "method"
    params = list(NETS), METHODS
    targets = [
        (f"{network}: <= {most}x skorch", (network, EBM), (network, PLAIN))
        for network, (_, _, most) in NETS.items()
    ]
    n_steps, repeat, peak_with_data = STEPS, (2, 3, 30.0), True

    def prepare(self, network, method):
        training = Training(method, network)

        def run():
            for _ in range(STEPS):
                training.step()

        training.step()
        return run, None


class Epoch(_Comparison):
    """An epoch of fit on the digits, with loading, checks and the estimate of complexity."""

    param_names = "network", "method"
    params = [DIGITS], METHODS
    peak_with_data = True

    def prepare(self, network, method):
        return Training(method, network).epoch, None


class Parts(_Comparison):
    """The parts of a step with the default penalty. The relaxed forward pass contains the plain
    one. The energy step is the sampler and the update of f; the penalty is its value and its
    gradient by the relaxed gates; the rest of a step are the gradient of the network, its optimizer
    and the records. The estimate of complexity is once an epoch.
    """

    param_names = "network", "part"
    params = (
        list(NETS),
        ["step", "plain forward", "relaxed forward", "energy step", "penalty", "estimate"],
    )
    track_peak = None

    def prepare(self, network, part):
        training = Training(EBM, network)
        training.step()
        return training.parts()[part], None


COMPARISONS = [Step, Epoch, Parts]
