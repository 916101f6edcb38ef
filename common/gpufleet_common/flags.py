"""Command line flags in one style: each flag has a help text with its default and, for numbers, its limits."""

import argparse
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from gpufleet_common.logs import FORMATS, LEVELS

_MIN_SECONDS = 0.01
_MAX_PORT = 65_535

_LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_RESOURCE = re.compile(rf"{_LABEL}([.]{_LABEL})*/[A-Za-z0-9]([A-Za-z0-9._-]{{0,61}}[A-Za-z0-9])?")
"""A domain has no underscore, so no two resources share the file name of a socket."""
_MAX_RESOURCE_LENGTH = 128
_NAME = re.compile(r"[A-Za-z0-9._/*-]+")
_HOST = re.compile(r"[^:\[\]]*|\[[^\[\]]+\]")


class FlagParser(argparse.ArgumentParser):
    """Parses a command line. A wrong one ends the process with status 2 and two lines on stderr."""

    def error(self, message: str) -> NoReturn:
        """Exits with the message. The usage has too many flags to be shown with each error."""
        self.exit(2, f"{self.prog}: error: {message}\nTry '{self.prog} --help'.\n")

    def flag(self, flag: str, default: object, description: str, **options: Any) -> None:
        """Adds a flag.

        Args:
            flag: `--name`.
            default: Shown in the help; None, an empty string and False are not.
            description: A phrase without a period.
            options: As of `add_argument`.
        """
        shown = f" (default: {str(default).replace('%', '%%')})" if default not in (None, "", False) else ""
        self.add_argument(flag, default=default, help=description + shown, **options)

    def seconds(self, flag: str, default: float, most: float, description: str) -> None:
        """Adds a duration in seconds, from 0.01 to `most`."""
        self.flag(flag, f"{default:g}", f"{description}; at most {most:g}", type=seconds(most), metavar="SECONDS")

    def names(self, flag: str, default: tuple[str, ...], description: str, metavar: str) -> None:
        """Adds a comma-separated list without duplicates, as a tuple; an empty text gives an empty one."""
        self.flag(flag, ",".join(default), f"{description}, separated by commas", type=_names, metavar=metavar)

    def resources(self, whole: str, shared: str, slots: int, most_slots: int) -> None:
        """Adds the flags that agent and operator must agree on: both resources, and the slots of a shared device."""
        self.flag("--resource", whole, "extended resource of a whole device", type=extended_resource, metavar="NAME")
        self.flag(
            "--shared-resource",
            shared,
            "extended resource of one slot of a shared device; empty: sharing is disabled",
            type=optional(extended_resource),
            metavar="NAME",
        )
        self.flag("--shared-slots", slots, "slots of each shared device", type=whole_number(most_slots), metavar="N")

    def process(self, listen: str, log_level: str, log_format: str) -> None:
        """Adds the flags of every long-running process: where it listens, how it logs, and its version."""
        self.flag("--listen", listen, "address of /metrics, /healthz and /readyz", type=address, metavar="HOST:PORT")
        self.flag("--log-level", log_level, "least severe event that is logged", choices=LEVELS)
        self.flag("--log-format", log_format, "format of log lines on stderr", choices=FORMATS)
        self.add_argument("--version", action=_VersionAction, help="show the version and exit")


class _VersionAction(argparse.Action):
    """Prints the version of the installed package and exits."""

    def __init__(self, option_strings: list[str], **options: Any) -> None:
        super().__init__(
            option_strings, **{**options, "dest": argparse.SUPPRESS, "default": argparse.SUPPRESS}, nargs=0
        )

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version  # noqa: PLC0415 - not needed to run, and it takes memory

        sys.stdout.write(f"{parser.prog} {version('gpufleet')}\n")
        parser.exit()


def invalid(text: str, requirement: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"invalid value: {text!r}: {requirement}")


def seconds(most: float) -> Callable[[str], float]:
    """Returns a converter for seconds from 0.01 to `most`."""

    def convert(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = float("nan")
        if not _MIN_SECONDS <= found <= most:  # NaN fails, too
            raise invalid(text, f"must be a number of seconds from {_MIN_SECONDS} to {most:g}")
        return found

    return convert


def whole_number(most: int) -> Callable[[str], int]:
    """Returns a converter for whole numbers from 1 to `most`."""

    def convert(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            found = 0
        if not 1 <= found <= most:
            raise invalid(text, f"must be a whole number from 1 to {most}")
        return found

    return convert


def _names(text: str) -> tuple[str, ...]:
    """Converts a comma-separated list."""
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    wrong = next((name for name in found if not _NAME.fullmatch(name)), None)
    if wrong is not None:
        raise invalid(wrong, "must consist of letters, digits and the characters - _ . / *")
    return found


def extended_resource(text: str) -> str:
    """Converts the name of an extended resource."""
    if not _RESOURCE.fullmatch(text) or len(text) > _MAX_RESOURCE_LENGTH:
        raise invalid(text, "must be an extended resource such as example.com/gpu")
    if text.startswith("requests.") or "kubernetes.io/" in text:
        raise invalid(text, "is reserved for Kubernetes")
    return text


def optional(convert: Callable[[str], str]) -> Callable[[str], str]:
    """Returns a converter that also accepts an empty string."""
    return lambda text: convert(text) if text else ""


def address(text: str) -> tuple[str, int]:
    """Converts `HOST:PORT`. An IPv6 host is in brackets; an empty one means all interfaces."""
    host, colon, port = text.rpartition(":")
    if not colon or not _HOST.fullmatch(host) or not port.isdecimal() or int(port) > _MAX_PORT:
        raise invalid(text, "must be HOST:PORT")
    return host.strip("[]"), int(port)
