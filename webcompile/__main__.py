"""`python -m webcompile`."""

import sys

from webcompile.cli.main import main

sys.exit(main())
