"""`python -m gpufleet_e2e.demo`."""

import sys

from gpufleet_e2e.demo.cli import main

sys.exit(main())
