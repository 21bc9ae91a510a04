"""Seconds until a test NLL is reached: BALI against what one would pick instead, in one process on the same rows.

Run, in an environment of its own (pip install torch==2.13.0 laplace-torch scikit-learn, and this package):
    OPENBLAS_NUM_THREADS=1 python benchmarks/peers.py [--data FOLDER] [--seeds 3] [--sets yacht friedman ...]

Regressions, 90 % of the rows train, inputs and targets standardised by the training rows, one hidden layer of 50 ReLU
units: yacht (308 rows, 6 inputs), Friedman's first function (1 000 rows, 10 inputs, noise 1), diabetes (442, 10) and,
from FOLDER as for examples/, boston, energy and wine. Every method learns its noise variance; NLL is in nats a row in
the units of the standardised target.

- BALI core: one ``fit`` with the default settings. BALI estimator: BALIRegressor with its defaults, eight fits.
- Bayes by Backprop (PyTorch): mean-field normal weights, local reparametrisation, prior N(0, 1), Adam 0.01, batches of
  64, 1 000 epochs; 20 draws for the prediction.
- Bayes by Backprop, searched: the same with the prior N(0, 1/(τ·fan-in)), τ of 0.1, 0.3 and 1, and the epochs, by the
  NLL of a fifth of its training rows; then fitted to them all. The search is in none of its seconds.
- MAP + KFAC Laplace (PyTorch, laplace-torch): Adam 0.01, batches of 64, 500 epochs, weight decay as a prior of
  precision 1; all weights, Kronecker factors; prior precision and noise by 100 steps on the marginal likelihood.
- Deep ensemble (PyTorch): five such networks with a learnt noise variance, a mixture.
- MLPRegressor (scikit-learn): its defaults but hidden_layer_sizes=(50,), max_iter=2000; noise from training residuals.
- Gaussian process (scikit-learn): constant · RBF with a length per input + white noise, by marginal likelihood.

Times are processor time, one thread. Only training counts: measuring a test NLL on the way stops the clock. BALI core
and Bayes by Backprop are looked at on the way: every iteration, every ten epochs; their seconds are until they first
reach what is asked. The others are asked at their end alone. "Sooner" is the peer's seconds to its own end NLL (plus
0.01) over the BALI core's seconds to the same; 0 where the core never gets there; "than its end" has the seconds of the
peer's whole run in the place of those until it was first there. The fixed NLLs of yacht and Friedman's were chosen
once, before the table was made; the other sets have none.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import laplace
import numpy as np
import torch
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.neural_network import MLPRegressor

import balinp
from balinp import MLP, BALIRegressor, Gaussian, fit, predict_linearized

Trace = list[tuple[float, float]]  # (seconds, test NLL) on the way, the last at the end
Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
HIDDEN, FIXED = 50, {"yacht": -1.0, "friedman": 0.0}
SETS = ("yacht", "friedman", "diabetes")
OF_FOLDER = ("boston", "energy", "wine")
YACHT = Path(__file__).parent.parent / "examples" / "data" / "yacht.csv"


def data(name: str, seed: int, folder: Path | None) -> Data:
    """Standardised training and test rows of one split."""
    if name == "yacht":
        table = np.loadtxt(YACHT, delimiter=",", skiprows=1)
        x, y = table[:, :-1], table[:, -1]
    elif name == "friedman":
        x, y = make_friedman1(1000, noise=1.0, random_state=seed)
    elif name == "diabetes":
        x, y = load_diabetes(return_X_y=True)
    else:
        assert folder is not None
        with np.load(folder / f"uci_{name}.npz", allow_pickle=False) as file:
            x, y = file["X"].astype(float), file["y"].astype(float)
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = np.split(order, [round(0.9 * len(x))])
    x = (x - x[train].mean(0)) / x[train].std(0)
    y = (y - y[train].mean()) / y[train].std()
    return x[train], y[train], x[test], y[test]


def normal_nll(y: np.ndarray, mean: np.ndarray, variance: np.ndarray | float) -> float:
    """Mean −log N(y | mean, variance) in nats."""
    return float(np.mean((y - mean) ** 2 / variance + np.log(2 * math.pi * variance)) / 2)


class Clock:
    """Processor seconds of training; ``look`` takes a test NLL with the clock stopped."""

    def __init__(self) -> None:
        self.path: Trace = []
        self._spent, self._start = 0.0, time.process_time()

    def look(self, nll: Callable[[], float]) -> None:
        """Note the seconds so far and the test NLL now."""
        self._spent += time.process_time() - self._start
        self.path.append((self._spent, nll()))
        self._start = time.process_time()


def bali_core(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int) -> Trace:
    clock, generator = Clock(), np.random.default_rng(seed)

    def look(state, record) -> None:
        def nll() -> float:
            p = predict_linearized(state, x_test)
            return normal_nll(y_test, p.mean[:, 0], p.covariance[:, 0, 0])

        clock.look(nll)

    fit(x, y[:, None], MLP((x.shape[1], HIDDEN, 1)), Gaussian(np.ones(1)), generator, callbacks=look)
    return clock.path


def bali_estimator(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int) -> Trace:
    clock = Clock()
    model = BALIRegressor(random_state=seed).fit(x, y)
    mean, std = model.predict(x_test, return_std=True)
    clock.look(lambda: normal_nll(y_test, mean, std**2))
    return clock.path


class MeanField(torch.nn.Module):
    """A layer with independent normal weights; its outputs are drawn, not its weights (local reparametrisation)."""

    def __init__(self, inputs: int, outputs: int, prior_precision: float):
        super().__init__()
        self.prior_precision = prior_precision
        self.mean = torch.nn.Parameter(torch.randn(inputs + 1, outputs) * (2 / inputs) ** 0.5)
        self.log_std = torch.nn.Parameter(torch.full((inputs + 1, outputs), -3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
        std = (x**2 @ torch.exp(2 * self.log_std) + 1e-12).sqrt()
        return x @ self.mean + std * torch.randn_like(std)

    def kl(self) -> torch.Tensor:
        tau = self.prior_precision
        return (tau * (self.mean**2 + torch.exp(2 * self.log_std)) - 2 * self.log_std - math.log(tau) - 1).sum() / 2


def tensors(x: np.ndarray, y: np.ndarray) -> torch.utils.data.TensorDataset:
    return torch.utils.data.TensorDataset(*(torch.tensor(a, dtype=torch.float32) for a in (x, y[:, None])))


def epochs(rows: torch.utils.data.TensorDataset, count: int, step: Callable, parameters: list, look: Callable) -> None:
    """Adam over shuffled batches of 64; ``look(epoch)`` after each epoch."""
    x, y = rows.tensors
    optimiser = torch.optim.Adam(parameters, lr=0.01)
    for epoch in range(1, count + 1):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            step(x[batch], y[batch]).backward()
            optimiser.step()
        look(epoch)


def loss_of(h: torch.Tensor, y: torch.Tensor, log_noise: torch.Tensor) -> torch.Tensor:
    return ((y - h) ** 2 / log_noise.exp() + log_noise).mean() / 2


def bayes_by_backprop(
    x: np.ndarray,
    y: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    seed: int,
    precisions: tuple[float, float] = (1.0, 1.0),
    count: int = 1000,
) -> Trace:
    torch.manual_seed(seed)
    clock, total, inputs = Clock(), len(x), torch.tensor(x_test, dtype=torch.float32)
    first, last = MeanField(x.shape[1], HIDDEN, precisions[0]), MeanField(HIDDEN, 1, precisions[1])
    network, log_noise = torch.nn.Sequential(first, torch.nn.ReLU(), last), torch.zeros(1, requires_grad=True)

    def step(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return loss_of(network(a), b, log_noise) + (first.kl() + last.kl()) / total

    def nll() -> float:
        with torch.no_grad():
            draws = np.stack([network(inputs).numpy()[:, 0] for _ in range(20)])
            return normal_nll(y_test, draws.mean(0), draws.var(0) + float(log_noise.exp()))

    def look(epoch: int) -> None:
        if epoch % 10 == 0:
            clock.look(nll)

    epochs(tensors(x, y), count, step, [*network.parameters(), log_noise], look)
    return clock.path


def searched_bayes_by_backprop(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int
) -> Trace:
    order = np.random.default_rng(seed).permutation(len(x))
    kept, held = np.split(order, [round(0.8 * len(x))])
    best = (math.inf, (1.0, 1.0), 1000)
    for tau in (0.1, 0.3, 1.0):
        precisions = (tau * (x.shape[1] + 1), tau * (HIDDEN + 1))
        inner = bayes_by_backprop(x[kept], y[kept], x[held], y[held], seed, precisions)
        best = min(best, *((nll, precisions, 10 * i) for i, (_, nll) in enumerate(inner, 1)))
    return bayes_by_backprop(x, y, x_test, y_test, seed, *best[1:])


def plain_network(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """A network trained to the posterior's mode, and its log noise variance."""
    torch.manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 1))
    log_noise = torch.zeros(1, requires_grad=True)

    def step(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        decay = sum((p**2).sum() for p in network.parameters()) / 2
        return loss_of(network(a), b, log_noise) + decay / len(x)

    epochs(tensors(x, y), 500, step, [*network.parameters(), log_noise], lambda epoch: None)
    return network, log_noise.detach()


def kfac_laplace(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int) -> Trace:
    clock = Clock()
    network, _ = plain_network(x, y, seed)
    la = laplace.Laplace(network, "regression", subset_of_weights="all", hessian_structure="kron")
    la.fit(torch.utils.data.DataLoader(tensors(x, y), batch_size=64))
    log_prior, log_sigma = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.Adam([log_prior, log_sigma], lr=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        (-la.log_marginal_likelihood(log_prior.exp(), log_sigma.exp())).backward()
        optimiser.step()
    mean, variance = la(torch.tensor(x_test, dtype=torch.float32))
    variance = variance.detach().numpy()[:, 0, 0] + float(la.sigma_noise.detach()) ** 2
    clock.look(lambda: normal_nll(y_test, mean.detach().numpy()[:, 0], variance))
    return clock.path


def deep_ensemble(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int) -> Trace:
    clock, inputs = Clock(), torch.tensor(x_test, dtype=torch.float32)
    members = [plain_network(x, y, 100 * seed + i) for i in range(5)]

    def nll() -> float:
        with torch.no_grad():
            logs = [
                -((y_test - net(inputs).numpy()[:, 0]) ** 2 / (v := float(s.exp())) + math.log(2 * math.pi * v)) / 2
                for net, s in members
            ]
        return -float(np.mean(np.logaddexp.reduce(logs, axis=0) - math.log(len(members))))

    clock.look(nll)
    return clock.path


def mlp_regressor(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int) -> Trace:
    clock = Clock()
    model = MLPRegressor(hidden_layer_sizes=(HIDDEN,), max_iter=2000, random_state=seed).fit(x, y)
    noise = float(np.mean((y - model.predict(x)) ** 2))
    clock.look(lambda: normal_nll(y_test, model.predict(x_test), noise))
    return clock.path


def gaussian_process(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int) -> Trace:
    clock = Clock()
    kernel = ConstantKernel() * RBF(np.ones(x.shape[1])) + WhiteKernel()
    model = GaussianProcessRegressor(kernel, random_state=seed).fit(x, y)
    mean, std = model.predict(x_test, return_std=True)  # the white noise is in it
    clock.look(lambda: normal_nll(y_test, mean, std**2))
    return clock.path


METHODS = {
    "BALI core, one fit": bali_core,
    "BALI estimator, all its fits": bali_estimator,
    "Bayes by Backprop": bayes_by_backprop,
    "Bayes by Backprop, searched": searched_bayes_by_backprop,
    "MAP + KFAC Laplace": kfac_laplace,
    "deep ensemble of 5": deep_ensemble,
    "MLPRegressor": mlp_regressor,
    "Gaussian process": gaussian_process,
}


def reached(path: Trace, nll: float) -> float:
    """Seconds until a test NLL of ``nll`` or less; infinity if never."""
    return next((seconds for seconds, value in path if value <= nll), math.inf)


def row(name: str, paths: list[Trace], core: list[Trace], fixed: float | None) -> str:
    """One line of the table: medians over the splits."""
    seconds, nll = (np.median([path[-1][i] for path in paths]) for i in (0, 1))
    arrivals = [reached(c, p[-1][1] + 0.01) for p, c in zip(paths, core)]
    sooner = [reached(p, p[-1][1] + 0.01) / arrival for p, arrival in zip(paths, arrivals)]
    than_end = [p[-1][0] / arrival for p, arrival in zip(paths, arrivals)]
    missed = sum(s == 0 for s in sooner)
    ratio = f"{np.median(sooner):.2g}" + (f" ({missed} of {len(paths)} never)" if missed else "")
    line = f"| {name} | {seconds:.2f} | {nll:.3f} | {ratio} | {np.median(than_end):.2g}, least {min(than_end):.2g} |"
    if fixed is None:
        return line
    at_fixed = np.median([reached(path, fixed) for path in paths])
    fixed_ratio = np.median([reached(p, fixed) / reached(c, fixed) for p, c in zip(paths, core)])
    return f"{line} {'never' if math.isinf(at_fixed) else f'{at_fixed:.2f} ({fixed_ratio:.2g})'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", nargs="+", choices=[*SETS, *OF_FOLDER])
    options = parser.parse_args()
    if options.data is None and set(options.sets or ()) & set(OF_FOLDER):
        parser.error(f"--sets {' '.join(options.sets)}: {', '.join(OF_FOLDER)} are in a folder; give it with --data")
    warnings.simplefilter("ignore")  # of convergence, from every side
    torch.set_num_threads(1)
    libraries = ", ".join(f"{n} {version(n)}" for n in ("numpy", "scipy", "scikit-learn", "torch", "laplace-torch"))
    print(f"balinp {balinp.__version__}, {libraries}, python {platform.python_version()}")
    print(f"processor seconds, one thread; medians of {options.seeds} splits (seeds 0 to {options.seeds - 1})")
    for name in options.sets or [*SETS, *(OF_FOLDER if options.data else ())]:
        fixed = FIXED.get(name)
        last = "" if fixed is None else f" seconds to {fixed:g} (over core's) |"
        print(f"\n{name}\n\n| method | seconds | end NLL | core sooner by | than its end |{last}")
        print("|---|---|---|---|---|" + ("---|" if last else ""))
        found: dict[str, list[Trace]] = {}
        for method, run in METHODS.items():
            found[method] = [run(*data(name, seed, options.data), seed) for seed in range(options.seeds)]
            print(row(method, found[method], found["BALI core, one fit"], fixed), flush=True)


if __name__ == "__main__":
    main()
