"""``python -m repoman.cli``: the command without its script."""

import sys

from repoman.cli.main import main

sys.exit(main())
