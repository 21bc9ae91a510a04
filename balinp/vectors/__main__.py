"""``python -m balinp.vectors``: the same as ``balinp vectors``."""

import sys

from ..cli import main

if __name__ == "__main__":
    sys.exit(main(["vectors", *sys.argv[1:]]))
