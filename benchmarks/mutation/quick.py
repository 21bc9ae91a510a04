"""The quick part of a mutation run: mutants, one name per line of input, against the conformance tool and a few tests.

Runs in mutmut's folder ``mutants``. Each mutant gets a fork of this process, which has everything imported and has run
nothing; there the conformance tool stops at the first broken identity, and what it finds sound meets the tests given as
arguments. Prints "NAME<tab>exit status" per mutant: 0 means that it lived.
"""

import contextlib
import io
import os
import signal
import sys
from importlib import import_module
from math import isnan

import pytest

LIMIT = 120  # seconds of wall clock for one mutant
FAILED = 70  # exit status when not the mutant but this script is at fault


def broken(seed: int = 0) -> bool:
    """Whether the conformance tool finds the package wrong; it is left at the first wrong ratio."""
    core, tool = import_module("balinp"), import_module("balinp.testing.conformance")
    for check in tool.checks():
        for _, _, ratio in tool._measured(check, core, seed):
            if isnan(ratio) or not ratio < tool.THRESHOLD:
                return True
    return False


def status(tests: list[str]) -> int:
    """1 when the mutant that the environment names is killed, 0 when it lives."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if broken():
            return 1
        return int(pytest.main(["-x", "-p", "mutation_profile", "--hypothesis-profile=mutation", *tests]))


def forked(name: str, tests: list[str]) -> int:
    """``status`` of the mutant in a fork; 24, as mutmut has it, when it takes too long."""
    child = os.fork()
    if child == 0:
        os.environ["MUTANT_UNDER_TEST"] = name
        signal.alarm(LIMIT)
        code = FAILED
        with contextlib.suppress(BaseException):  # the tool and pytest catch what a mutant raises
            code = status(tests)
        os._exit(code)
    result = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if result in (FAILED, 3, 4, 5):  # pytest: internal error, usage error, no tests
        raise SystemExit(f"{name or 'no mutant'}: the tests could not be run (exit status {result})")
    return 24 if result == -signal.SIGALRM else result


def main() -> None:
    sys.path.insert(0, os.getcwd())
    import_module("balinp.testing.conformance")
    import_module("mutation_profile")
    tests = sys.argv[1:]
    if forked("", tests) != 0:
        raise SystemExit("the tests fail without a mutant")
    for line in sys.stdin:
        print(f"{line.strip()}\t{forked(line.strip(), tests)}", flush=True)
    if forked("", tests) != 0:
        raise SystemExit("the tests no longer pass without a mutant: this run is void")


if __name__ == "__main__":
    main()
