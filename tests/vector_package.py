"""The conformance vectors and what the package answers to them, for the tests of both."""

from balinp.backend import NUMPY
from balinp.vectors import format, run, verify
from balinp.vectors.package import PackageAdapter

VECTORS = format.load()
SLOW = ("iteration", "fit", "epoch")  # .ci/run regenerates these too


def package(dtype="float64", backend=NUMPY, only=None):
    return run.candidate(PackageAdapter(backend, dtype).answer, VECTORS, dtype, only)


def failures(candidate, only=None):
    return {r.operation: r.diagnosis for r in verify.verify(candidate, VECTORS, only) if r.failed}
