"""docs/demo.md holds a transcript of the demo."""

from gpufleet_api.generate import ROOT
from gpufleet_testing.reference.transcript import render


def test_transcript_is_put_between_the_marks() -> None:
    page = "# Demo\n<!-- begin transcript -->\nold\n<!-- end transcript -->\n"
    text = render(page, "\n$ cat /home/me/x   \nok\n", "/home/me")
    assert text == "# Demo\n<!-- begin transcript -->\n```\n$ cat ~/x\nok\n```\n<!-- end transcript -->\n"


def test_page_has_all_steps() -> None:
    page = (ROOT / "docs/demo.md").read_text(encoding="utf-8")
    assert [f"[{step}/13]" for step in range(1, 14) if f"[{step}/13] " not in page] == []
    assert "every check passed; all sources agree" in page
