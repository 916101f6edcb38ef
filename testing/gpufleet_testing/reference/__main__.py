"""`python -m gpufleet_testing.reference [--check]`."""

import sys

from gpufleet_testing.reference.pages import main

sys.exit(main())
