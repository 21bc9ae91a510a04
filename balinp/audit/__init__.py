"""The chain formula → derivation → code → test → mutant, checked by a machine: ``balinp audit``.

statements: derivations/ read; source, markers, mutants: what code and tests say of them; execution: what the tests
really run; shapes, shape_cases: docstrings against calls; numeric, cores: the identities on fresh instances; audit:
all of it; command, page: how it is shown.
"""
