"""A tree of lines of text."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextTree:
    """`style` is one of rich's, such as `bold red`."""

    text: str
    children: tuple["TextTree", ...] = ()
    style: str = ""
