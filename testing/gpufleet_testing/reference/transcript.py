"""Puts a transcript of `make demo` into docs/demo.md: `python -m gpufleet_testing.reference.transcript FILE`.

Record it on an idle machine: `NO_COLOR=1 COLUMNS=80 make demo | tee FILE`.
"""

import re
import sys
from pathlib import Path

from gpufleet_api.generate import ROOT

_BLOCK = re.compile(r"(<!-- begin transcript -->\n).*(<!-- end transcript -->)", re.DOTALL)


def render(page: str, transcript: str, home: str) -> str:
    """Returns the page with this transcript; the home folder and spaces at the ends of lines are removed."""
    lines = [line.rstrip() for line in transcript.strip().replace(home, "~").splitlines()]
    text = "\n".join(lines)
    return _BLOCK.sub(lambda block: f"{block[1]}```\n{text}\n```\n{block[2]}", page)


def main(arguments: list[str]) -> int:
    """Runs the command line."""
    page = ROOT / "docs" / "demo.md"
    transcript = Path(arguments[0]).read_text(encoding="utf-8")
    page.write_text(render(page.read_text(encoding="utf-8"), transcript, str(Path.home())), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
