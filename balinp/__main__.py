"""``python -m balinp`` is the command ``balinp``."""

import sys

from .cli import main

sys.exit(main())
