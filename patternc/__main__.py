"""`python -m patternc`: the command line. Not its job: anything else."""

from __future__ import annotations

import sys

from patternc.cli import main

sys.exit(main())
