"""The peers: other ways to the numbers that skgate computes, as its users would write them.

A peer takes data and converts them, which is not timed, and returns a function from a number of
rows or gates to the values in bits, or to None if it does only a part of the work.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist
from scipy.special import logsumexp, softmax
from sklearn.metrics import mutual_info_score
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import KernelDensity
from torch import nn

N_CLASSES = 10

_BLOCK_BYTES = {"cuda": 1 << 32, "cpu": 1 << 27}  # kernel values that a peer holds at once
_TILE = {"cuda": 16_384, "cpu": 1024}  # rows and columns of a tile
_UNPACKED_ROWS = 1024


# --- kernel sums: (GatingStates or real numbers, weight, labels or None, device) ----------------
# The values are I(X;T), which is the entropy of gates, and with labels I(Y;T) too.


def torch_gemm(dtype):
    """Return the peer of |x|² + |x'|² - 2 x·x' in one call a block, and the rest in place."""

    def prepare(data, weight, y=None, device="cpu"):
        X = as_numbers(data, dtype, device)
        X = X if y is None else X - X.mean(0)
        squares = torch.einsum("ij,ij->i", X, X)

        def kernel(x, rows):
            distances = torch.addmm(squares[: len(x)], x[rows], x.T, alpha=-2)
            distances.add_(squares[rows, None])
            return distances.mul_(-weight).exp_()

        return _torch_sums(X, kernel, y, device)

    return prepare


def torch_cdist(data, weight, y=None, device="cpu"):
    """`torch.cdist` in float32, squared again."""

    def kernel(x, rows):
        return torch.cdist(x[rows], x).square_().mul_(-weight).exp_()

    return _torch_sums(as_numbers(data, "float32", device), kernel, y, device)


def _torch_sums(X, kernel, y, device):
    if y is not None:
        classes = nn.functional.one_hot(torch.from_numpy(y), N_CLASSES).to(X)

    @torch.inference_mode()
    def run(n):
        x, sums = X[:n], torch.empty(n, 1 if y is None else N_CLASSES).to(X)
        for rows in _blocks(n, X.element_size(), device):
            values = kernel(x, rows)
            sums[rows] = values.sum(1, keepdim=True) if y is None else values @ classes[:n]
        return _of_sums(sums.double().cpu().numpy(), y)

    return run


def scipy_cdist(data, weight, y=None, device="cpu"):
    """`scipy.spatial.distance.cdist`, which works in float64."""
    X, classes = as_numbers(data, "float64").numpy(), None if y is None else np.eye(N_CLASSES)[y]

    def run(n):
        sums = np.empty((n, 1 if y is None else N_CLASSES))
        for rows in _blocks(n, 8):
            kernel = cdist(X[rows], X[:n], "sqeuclidean")
            kernel *= -weight
            np.exp(kernel, out=kernel)
            sums[rows] = kernel.sum(1, keepdims=True) if y is None else kernel @ classes[:n]
        return _of_sums(sums, y)

    return run


def sklearn_distances(data, weight, y=None, device="cpu"):
    """`euclidean_distances` and `logsumexp`, over all columns and over those of the class."""
    X = as_numbers(data, "float32").numpy()

    def run(n):
        x, codes = X[:n], np.zeros(n, int) if y is None else np.sort(y[:n])
        if y is not None:
            x = x[np.argsort(y[:n], kind="stable")]
        bounds = np.searchsorted(codes, np.arange(N_CLASSES + 1))
        total = given = 0.0
        for rows in _blocks(n, 4):
            exponents = -weight * euclidean_distances(x[rows], x, squared=True)
            total += logsumexp(exponents, axis=1).sum(dtype=float)
            for m in np.unique(codes[rows]) if y is not None else ():
                part = exponents[codes[rows] == m, bounds[m] : bounds[m + 1]]
                masses = logsumexp(part, axis=1).sum(dtype=float)
                given += masses - len(part) * np.log(part.shape[1])
        mi_x = np.log(n) - total / n
        return _bits(mi_x) if y is None else _bits(mi_x, mi_x + given / n)

    return run


def sklearn_density(data, weight, y=None, device="cpu"):
    """`KernelDensity`, without the normaliser of its Gaussian."""
    X, variance = as_numbers(data, "float64").numpy(), 0.5 / weight

    def run(n):
        density = KernelDensity(bandwidth=np.sqrt(variance)).fit(X[:n])
        normaliser = X.shape[1] / 2 * np.log(2 * np.pi * variance)
        return _bits(-density.score_samples(X[:n]).mean() - normaliser)

    return run


def scipy_product(states, weight, y=None, device="cpu"):
    """A product of SciPy's sparse arrays for |x|² + |x'|² - 2 x·x', a block of rows at a time."""
    X = open_gates(states).astype(np.float32)
    squares = X.sum(axis=1)

    def run(n):
        x, sums = X[:n], np.empty(n)
        transposed = x.T.tocsr()
        for rows in _blocks(n, 4):
            kernel = (x[rows] @ transposed).toarray()
            kernel *= -2
            kernel += squares[rows, None]
            kernel += squares[:n]
            kernel *= -weight
            np.exp(kernel, out=kernel)
            sums[rows] = kernel.sum(axis=1, dtype=float)
        return _of_sums(sums[:, None], None)

    return run


def sklearn_sparse_distances(states, weight, y=None, device="cpu"):
    """`euclidean_distances` of sparse arrays, and `logsumexp`."""
    X = open_gates(states).astype(float)

    def run(n):
        total = 0.0
        for rows in _blocks(n, 8):
            exponents = -weight * euclidean_distances(X[rows], X[:n], squared=True)
            total += logsumexp(exponents, axis=1).sum()
        return _bits(np.log(n) - total / n)

    return run


def open_gates(states):
    """Return the gates of one layer as a sparse array, which holds an entry for each open one."""
    (gates,) = states.packed
    return csr_array(gates)


def keops(data, weight, y=None, device="cpu"):
    """A symbolic matrix of KeOps, reduced without being held."""
    from pykeops.torch import LazyTensor

    X = as_numbers(data, "float32", device)

    def run(n):
        x = X[:n].contiguous()
        distances = ((LazyTensor(x[:, None, :]) - LazyTensor(x[None, :, :])) ** 2).sum(-1)
        return _bits(np.log(n) - (-weight * distances).logsumexp(1).double().mean().item())

    return run


def numkong_distances(states, weight, y=None, device="cpu"):
    """The distance of each pair, once, and nothing else: a lower bound on any entropy's time."""
    import numkong

    (packed,) = states.packed

    def slab(start, stop):
        columns = numkong.hammings_pack(packed[start:stop])
        for row in range(0, stop, 1024):
            numkong.hammings_packed(packed[row : min(row + 1024, stop)], columns)

    def run(n):
        starts = range(0, n, 64)[::-1]  # the longest first, so that the threads end together
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(slab, starts, [min(start + 64, n) for start in starts]))

    return run


def int8_product(*, once):
    """Return the peer that is the int8 product of the gates alone; each pair once, or twice."""

    def prepare(states, weight, y=None, device="cpu"):
        X = as_numbers(states, "int8", device)

        @torch.inference_mode()
        def run(n):
            for rows, columns in _tiles(n, device, once=once):
                torch._int_mm(X[rows], X[columns].T)
            synchronize(device)

        return run

    return prepare


def int8_kernel(*, compiled):
    """Return the peer of `torch._int_mm`, each pair once, and its kernel values a tile at a time.

    With gates as -1 and 1, the Hamming distance is (d - product) / 2. Compiled, kernel values and
    both sums are one kernel; otherwise each call is a pass.
    """

    def sums(product, d, weight):
        kernel = ((product - d) * (0.5 * weight)).exp()
        return kernel.sum(1), kernel.sum(0)

    def sums_in_place(product, d, weight):
        kernel = product.sub_(d).mul(0.5 * weight).exp_()
        return kernel.sum(1), kernel.sum(0)

    def prepare(states, weight, y=None, device="cpu"):
        X, weight = as_numbers(states, "int8", device).mul_(2).sub_(1), float(weight)
        row_and_column_sums = torch.compile(sums, dynamic=True) if compiled else sums_in_place

        @torch.inference_mode()
        def run(n):
            masses = torch.zeros(n, dtype=torch.float64, device=device)
            for rows, columns in _tiles(n, device, once=True):
                product = torch._int_mm(X[rows], X[columns].T)
                to_rows, to_columns = row_and_column_sums(product, X.shape[1], weight)
                masses[rows] += to_rows
                if rows != columns:
                    masses[columns] += to_columns
            return _bits(np.log(n) - masses.log().mean().item())

        return run

    return prepare


def as_numbers(data, dtype, device="cpu"):
    """Return real numbers, or gates that are unpacked some rows at a time, on torch's device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ImportError("torch finds no GPU")
    if isinstance(data, np.ndarray):
        return torch.from_numpy(data).to(device, getattr(torch, dtype))
    X = torch.empty(data.shape, dtype=getattr(torch, dtype), device=device)
    places = torch.arange(7, -1, -1, dtype=torch.uint8, device=device)
    packed = torch.from_numpy(data.packed[0]).split(_UNPACKED_ROWS)
    for own, rows in zip(X.split(_UNPACKED_ROWS), packed, strict=True):
        bits = rows.to(device)[..., None].bitwise_right_shift(places).bitwise_and_(1)
        own.copy_(bits.flatten(1)[:, : own.shape[1]])
    return X


def synchronize(device):
    """Wait until the device has finished."""
    if device == "cuda":
        torch.cuda.synchronize()


def _blocks(n, itemsize, device="cpu"):
    step = max(1, _BLOCK_BYTES[device] // (itemsize * n))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _tiles(n, device, *, once):
    """Return pairs of slices; each pair of rows once, or in both orders."""
    size = _TILE[device]
    ranges = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    return [(r, c) for i, r in enumerate(ranges) for c in (ranges[i:] if once else ranges)]


def _bits(*nats):
    bits = tuple(float(value / np.log(2)) for value in nats)
    return bits if len(bits) > 1 else bits[0]


def _of_sums(sums, y):
    """Return the information from the sums of kernel values, or those over each class."""
    n = len(sums)
    mi_x = -np.log(sums.sum(axis=1) / n).mean()
    if y is None:
        return _bits(mi_x)
    own = sums[np.arange(n), y[:n]] / np.bincount(y[:n])[y[:n]]
    return _bits(mi_x, mi_x + np.log(own).mean())


# --- information of a layer: (X, weight, labels) ------------------------------------------------


def torch_softmax(n_threads, *, out):
    """Return the peer that is `torch.softmax`, into memory that exists already or does not."""

    def prepare(X, weight, y):
        torch.set_num_threads(n_threads)
        t = torch.from_numpy(X)
        into = torch.zeros_like(t) if out else None

        @torch.inference_mode()
        def run(n):
            torch.softmax(t[:n], 1, **({} if into is None else {"out": into[:n]}))

        return run

    return prepare


def scipy_softmax(X, weight, y):
    """`scipy.special.softmax`."""

    def run(n):
        softmax(X[:n], axis=1)

    return run


def torch_plane(dtype, n_threads):
    """Return the peer that is the information plane of Gibbs, as its equations read."""

    def prepare(X, weight, y):
        torch.set_num_threads(n_threads)
        t, labels = torch.from_numpy(X), torch.from_numpy(y)

        @torch.inference_mode()
        def run(n):
            log_p = torch.log_softmax(t[:n].to(getattr(torch, dtype)), 1)
            p = log_p.exp()
            given_x = -(p * log_p).sum(1).double().mean()
            sums = torch.zeros(N_CLASSES, t.shape[1], dtype=p.dtype).index_add_(0, labels[:n], p)
            counts = torch.bincount(labels[:n], minlength=N_CLASSES).double()
            given = sums.double() / counts[:, None]
            weights = counts / n
            total = torch.special.entr(weights @ given).sum()
            given_y = weights @ torch.special.entr(given).sum(1)
            return _bits(total - given_x, total - given_y)

        return run

    return prepare


def unique_rows(X, weight, y):
    """`numpy.unique` along an axis."""
    return lambda n: _of_cells(_bins(X[:n]), y[:n], axis=0)


def unique_views(X, weight, y):
    """`numpy.unique` of rows that are viewed as one item of bytes each."""

    def run(n):
        bins = _bins(X[:n])
        rows = bins.view(np.dtype((np.void, bins.itemsize * bins.shape[1]))).ravel()
        return _of_cells(rows, y[:n])

    return run


def _bins(X):
    return np.floor(X / np.float32(2)).astype(np.int32)


def _of_cells(values, codes, **axis):
    """Return the information from the cells of equal values."""
    n = len(codes)
    _, cells, sizes = np.unique(values, return_inverse=True, return_counts=True, **axis)
    pairs = np.unique(cells * N_CLASSES + codes, return_counts=True)[1]
    mi_x = np.log(n) - sizes @ np.log(sizes) / n
    classes = np.bincount(codes)
    classes = classes[classes > 0]
    given = (classes @ np.log(classes) - pairs @ np.log(pairs)) / n
    return _bits(mi_x, mi_x - given)


# --- forests: (states), and a function of the number of gates -----------------------------------


def dense_forest(states):
    """The matrix of all informations from one product, and scipy's minimum spanning tree."""
    X = as_numbers(states, "float32").numpy()

    def run(d):
        x, n = np.ascontiguousarray(X[:, :d]), len(X)
        both = (x.T @ x).astype(np.int32)
        open_, terms = both.diagonal().copy(), np.arange(n + 1.0)
        terms[1:] *= np.log(terms[1:])
        own = terms[open_] + terms[n - open_]
        cost = np.empty((d, d), np.float32)
        for start in range(0, d, 256):
            rows = slice(start, start + 256)
            here, there, pair = open_[rows, None], open_, both[rows]
            block = terms[pair] + terms[here - pair] + terms[there - pair]
            block += terms[n - here - there + pair]
            block += terms[n] - own[rows, None] - own
            cost[rows] = -block / n
        return _forest_bits(x, cost)

    return run


def scored_forest(states):
    """`mutual_info_score` of each pair, and scipy's minimum spanning tree."""
    X = as_numbers(states, "float32").numpy()

    def run(d):
        x, cost = np.ascontiguousarray(X[:, :d]), np.zeros((d, d))
        columns = [column.astype(int) for column in x.T]
        for a in range(d):
            for b in range(a + 1, d):
                cost[a, b] = -mutual_info_score(columns[a], columns[b])
        return _forest_bits(x, cost)

    return run


def _forest_bits(x, cost):
    """Return the in-sample entropy of the smoothed forest without edges that may be chance."""
    n, d = x.shape
    tree = minimum_spanning_tree(csr_array(np.triu(cost, 1)), overwrite=True).tocoo()
    kept = -tree.data > np.log(d * (d - 1) / 2) / n
    children, parents = tree.row[kept], tree.col[kept]
    open_ = x.sum(axis=0, dtype=float)
    both = np.array([x[:, a] @ x[:, b] for a, b in zip(children, parents, strict=True)], float)
    counts = np.array([n - open_, open_])
    nodes = np.log((counts + 0.5) / (n + 1))
    total = np.sum(nodes * counts)
    a, b = open_[children], open_[parents]
    counts = np.array([[n - a - b + both, b - both], [a - both, both]])
    joint = np.log((counts + 0.25) / (n + 1))
    total += np.sum((joint - nodes[:, None, children] - nodes[None, :, parents]) * counts)
    return -total / n / np.log(2)


# --- held-out densities: gates to fit and gates to judge -> mean surprisal ----------------------


def mixture(n_components, steps=60):
    """Return the peer that is a mixture of products of Bernoulli gates, by EM."""

    def surprisal(train, test):
        x, rng = train.astype(float), np.random.default_rng(0)
        rates = 0.25 + 0.5 * x[rng.choice(len(x), n_components, replace=False)]
        weights = np.full(n_components, 1 / n_components)

        def log_joint(x):
            return x @ np.log(rates / (1 - rates)).T + np.log1p(-rates).sum(1) + np.log(weights)

        for _ in range(steps):
            logs = log_joint(x)
            shares = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
            sizes = shares.sum(axis=0)
            rates = (shares.T @ x + 2 * x.mean(axis=0)) / (sizes[:, None] + 2)
            rates = rates.clip(1e-4, 1 - 1e-4)
            weights = (sizes + 0.01) / (sizes + 0.01).sum()
        return -logsumexp(log_joint(test.astype(float)), axis=1).mean() / np.log(2)

    return surprisal


def logistic(train, test):
    """A logistic regression of each gate on those before it, with the better of two penalties."""
    return min(_logistic(train, test, decay) for decay in (0.003, 0.01))


def _logistic(train, test, decay, steps=150, lr=0.02):
    a, b = (torch.from_numpy(x.astype(np.float32)) for x in (train, test))
    n, d = a.shape
    mean, rates = a.mean(0), (a.sum(0) + 0.5) / (n + 1)
    weights = torch.zeros(d, d, requires_grad=True)
    biases = torch.log(rates / (1 - rates)).requires_grad_()
    optimizer = torch.optim.Adam([weights, biases], lr)
    for step in range(steps):
        optimizer.zero_grad()
        before = weights.tril(-1)
        loss = (
            nn.functional.binary_cross_entropy_with_logits(
                (a - mean) @ before.T + biases, a, reduction="sum"
            )
            / n
        )
        (loss + decay / 2 * before.square().sum()).backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
    with torch.no_grad():
        z = (b - mean) @ weights.tril(-1).T + biases
        return nn.functional.binary_cross_entropy_with_logits(z, b, reduction="none").double().sum(
            1
        ).mean().item() / np.log(2)


def masked_convolution(train, test, window=5, epochs=30, lr=0.01):
    """A PixelCNN of one layer, by Adam: a convolution that sees the rows above, the positions to
    the left and the lower channels at the same place. Gates are (n, channels, height, width).
    """
    a, b = (torch.from_numpy(x.astype(np.float32)) for x in (train, test))
    n_channels, radius = a.shape[1], window // 2
    rates = (a.sum(0) + 0.5) / (len(a) + 1)
    mask = torch.ones(n_channels, n_channels, window, window)
    mask[:, :, radius + 1 :] = 0
    mask[:, :, radius, radius + 1 :] = 0
    mask[:, :, radius, radius] = torch.ones(n_channels, n_channels).tril(-1)
    weights = torch.zeros_like(mask, requires_grad=True)
    biases = rates.logit().requires_grad_()
    optimizer = torch.optim.Adam([weights, biases], lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, epochs)

    def losses(gates):
        z = nn.functional.conv2d(gates - rates, weights * mask, padding=radius) + biases
        return nn.functional.binary_cross_entropy_with_logits(z, gates, reduction="none")

    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(a), generator=generator).split(20):
            optimizer.zero_grad()
            losses(a[rows]).mean().backward()
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        surprisals = [losses(x).double().sum((1, 2, 3)) for x in b.split(50)]
    return torch.cat(surprisals).mean().item() / np.log(2)


def kernel_matrix_test(states, weight, y, n_permutations):
    """The p-value of a permutation test that holds the kernel matrix, in float32."""
    X = as_numbers(states, "float32")
    n_classes = y.max() + 1

    @torch.inference_mode()
    def run():
        rng, squares = np.random.RandomState(0), X.sum(1)
        kernel = torch.addmm(squares, X, X.T, alpha=-2).add_(squares[:, None]).mul_(-weight).exp_()
        orders = [y] + [rng.permutation(y) for _ in range(n_permutations)]
        sizes, given = torch.from_numpy(np.bincount(y)), []
        for start in range(0, len(orders), 100):
            codes = torch.from_numpy(np.stack(orders[start : start + 100], axis=1))  # (n, B)
            classes = nn.functional.one_hot(codes, n_classes).float()
            sums = (kernel @ classes.flatten(1)).view(classes.shape)
            own = sums.gather(2, codes[..., None])[..., 0]
            given.append((own.log().double() - sizes[codes].log()).mean(0))
        values = torch.cat(given)
        return (values >= values[0] - 1e-7).double().mean().item()

    return run


# --- networks -----------------------------------------------------------------------------------


def hooked(net, batches):
    """Return ``x > 0`` of all ReLUs as bool arrays, from forward hooks."""
    layers = [module for module in net.modules() if isinstance(module, nn.ReLU)]
    kept = [[] for _ in layers]
    handles = [
        layer.register_forward_hook(lambda _, args, __, out=out: out.append(args[0] > 0))
        for layer, out in zip(layers, kept, strict=True)
    ]
    with torch.inference_mode():
        for batch in batches:
            net(batch)
    for handle in handles:
        handle.remove()
    # a layer at a time, so that no more than one is there twice
    return [torch.cat(kept.pop(0)).flatten(1).numpy() for _ in layers]


class PlainPenalty:
    """The published training with an energy model a layer, as the paper's algorithm reads.

    Energy networks of their own, Langevin steps by autograd, and Swish written into the module.
    """

    def __init__(self, net, make_optimizer, *, n_layers, settings):
        self.net, self.optimizer = net, make_optimizer(net.parameters())
        self.settings, self.energies, self.rates, self.n_steps = settings, None, None, 0
        relus = [module for module in net.modules() if isinstance(module, nn.ReLU)][-n_layers:]
        self.relaxed = [None] * len(relus)
        for i, relu in enumerate(relus):
            relu.forward = lambda z, i=i: self._swish(z, i)

    def _swish(self, z, i):
        gates = (self.settings["gate_sharpness"] * z).sigmoid()
        self.relaxed[i] = gates if gates.ndim == 4 else gates[:, :, None, None]
        return z * gates

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
        gates = [g.detach() for g in self.relaxed]
        if self.energies is None:
            self._start(gates)
        self.rates = [0.9 * r + 0.1 * g.mean(0) for r, g in zip(self.rates, gates, strict=True)]
        self.energy_optimizer.zero_grad()
        for f, rates, data in zip(self.energies, self.rates, gates, strict=True):
            drawn = self._langevin(f, rates, data)
            (f(drawn).mean() - f(data).mean()).backward()
        nn.utils.clip_grad_value_(self.energies.parameters(), 1e-5)
        self.energy_optimizer.step()

        loss = nn.functional.cross_entropy(output, y)
        if self.n_steps % self.settings["penalty_interval"] == 0:
            for f, rates, g in zip(self.energies, self.rates, self.relaxed, strict=True):
                energy = -f(g).flatten() - _log_prior(rates, g)
                loss = loss + self.settings["lam"] * energy.mean() / g[0, 0].numel()
        self.n_steps += 1
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def epoch(self, X, y):
        """Train on batches in random order."""
        for rows in torch.randperm(len(X)).split(128):
            self.step(X[rows], y[rows])

    def _langevin(self, f, rates, gates):
        size = self.settings["langevin_step_size"]
        for _ in range(self.settings["langevin_steps"]):
            gates = gates.detach().requires_grad_()
            energy = -f(gates).sum() - _log_prior(rates, gates).sum()
            (gradient,) = torch.autograd.grad(energy, gates)
            gates = gates - size / 2 * gradient + size**0.5 * torch.randn_like(gates)
        return gates.detach()


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
