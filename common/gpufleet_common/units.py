"""Units of amounts."""

from typing import Final

BYTES_PER_MIB: Final = 2**20
