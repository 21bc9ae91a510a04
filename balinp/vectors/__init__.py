"""Conformance vectors: every step of the method as inputs and expected outputs in plain JSON, for ports anywhere.

    balinp vectors lint                       are the files what docs/vectors.md says they are?
    balinp vectors generate --check           do they come out of the 50-digit reference, byte for byte?
    balinp vectors run --adapter MODULE       answer them with a Python adapter, write a candidate
    balinp vectors verify CANDIDATE.json      is what a port has answered right? reads only JSON

v1/*.json: one operation a file. ``format``: reading and writing them; ``compare``: the one comparison; ``verify``,
``run``, ``lint``, ``generate``: the four commands; ``package``: balinp itself as a candidate; ``reference``, ``cases``:
where the files come from (mpmath, extra ``test``).
"""
