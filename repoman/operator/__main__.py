"""``python -m repoman.operator``."""

import sys

from repoman.operator import main

sys.exit(main())
