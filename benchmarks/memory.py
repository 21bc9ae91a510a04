"""Peak memory of a full-batch fit and a prediction of rows in a memory-mapped file, for several numbers of rows.

Run: python benchmarks/memory.py [--rows N ...] [--folder FOLDER]   (needs 2 GB on disk for the default 10 million rows)

Memory is RssAnon of /proc/self/status, sampled every 10 ms by a thread: what the process allocated. The pages of the
mapped file (RssFile) are the kernel's to take back at any time and are printed apart. Every number of rows has a
process of its own, so that none inherits another's peak. Linux only.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import scipy
from tqdm import tqdm

import balinp
from balinp import BALIRegressor, ConvergenceWarning

FEATURES, WIDTH, ITERATIONS, DRAWS, SEED = 50, 50, 3, 10, 0
WRITTEN = 100_000  # rows made and written at once
MIB = 2**20


def status() -> tuple[float, float]:
    """(RssAnon, RssFile) of this process in MiB."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    anonymous, mapped = (int(fields[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile"))
    return anonymous, mapped


class Peak:
    """The largest values of ``status`` inside the ``with``; before: RssAnon at its start."""

    def __enter__(self) -> Peak:
        self.before, self.anonymous, self.mapped = status()[0], 0.0, 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._end.wait(0.01):
            anonymous, mapped = status()
            self.anonymous, self.mapped = max(self.anonymous, anonymous), max(self.mapped, mapped)

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def write(folder: Path, rows: int) -> None:
    """x.npy (rows, FEATURES) and y.npy (rows,) in float32: Friedman's first function of the first five columns."""
    generator = np.random.default_rng(SEED)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (rows, FEATURES))
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", np.float32, (rows,))
    for start in range(0, rows, WRITTEN):
        u = generator.random((min(WRITTEN, rows - start), FEATURES), np.float32)
        x[start : start + len(u)] = u
        signal = 10 * np.sin(np.pi * u[:, 0] * u[:, 1]) + 20 * (u[:, 2] - 0.5) ** 2 + 10 * u[:, 3] + 5 * u[:, 4]
        y[start : start + len(u)] = signal + generator.standard_normal(len(u), np.float32)
    x.flush()
    y.flush()


def measure(folder: Path) -> dict[str, float]:
    """Fit and predict the file in ``folder``; MiB and seconds."""
    x, y = (np.load(folder / name, mmap_mode="r") for name in ("x.npy", "y.npy"))
    model = BALIRegressor(
        hidden_widths=(WIDTH,), batch_size=None, max_iterations=ITERATIONS, draws=DRAWS, random_state=SEED
    )
    warnings.simplefilter("ignore", ConvergenceWarning)
    start = time.perf_counter()
    with Peak() as fit, tqdm(total=ITERATIONS, desc=f"fit {len(x):,} rows", unit="iteration") as bar:
        model.fit(x, y, callbacks=lambda state, record: bar.update() and None)
    middle = time.perf_counter()
    with Peak() as prediction:
        mean = model.predict(x)
    end = time.perf_counter()
    assert mean.shape == (len(x),)
    return {
        "fit": fit.anonymous - fit.before,
        "mapped": fit.mapped,
        "predict": prediction.anonymous - prediction.before,
        "seconds": (middle - start) / (2 * ITERATIONS),
        "prediction": end - middle,
        "loss": model.history_[-1].train_nll,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 3_000_000, 10_000_000])
    parser.add_argument("--folder", type=Path, default=None, help="where the file goes, temporarily")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(measure(options.child)))
        return
    print(
        f"balinp {balinp.__version__}, numpy {np.__version__}, scipy {scipy.__version__}, python "
        f"{platform.python_version()}, {platform.machine()}, {platform.system()}; seed {SEED}; float32, {FEATURES} "
        f"features, widths {FEATURES}-{WIDTH}-1, "
        f"{ITERATIONS} full-batch iterations after as many that find the inputs' relevance, then predict with "
        f"{DRAWS} draws\n"
    )
    print("MiB of RssAnon (what the process allocated) above that before the call, its largest value:\n")
    print("| rows | X on disk, MiB | fit | predict | mapped pages resident (reclaimable) | s/iteration | s predict |")
    print("|---|---|---|---|---|---|---|")
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            write(Path(name), rows)
            command = [sys.executable, __file__, "--child", name]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(
            f"| {rows:,} | {rows * FEATURES * 4 / MIB:,.0f} | {found['fit']:.0f} | {found['predict']:.0f} | "
            f"{found['mapped']:,.0f} | {found['seconds']:.2f} | {found['prediction']:.1f} |",
            flush=True,
        )
    print(
        "\npredict returns one number per row, 4 bytes here, and holds its parts once more while it joins them; that, "
        "and nothing else,\ngrows with the rows. The seconds include the checks and scales before the first iteration."
    )


if __name__ == "__main__":
    main()
