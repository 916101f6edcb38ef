"""The group of commands, which ends a command with exit code 2 and `error: ...` on stderr for bad options or input."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer._click.exceptions import NoArgsIsHelpError, UsageError  # no public names
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from gpufleet_cli.errors import InputError
from gpufleet_cli.exit_codes import BAD_INPUT
from gpufleet_cli.options.plain_values import read_plain_values
from gpufleet_cli.options.target import SAVED, Target, connection_params, take


class CommandGroup(TyperGroup):
    """Lists the commands in the order of their declaration, and maps errors to exit code 2.

    Options of the connection can be before the command, as for kubectl. `ctx` is of the copy of click that typer
    bundles.
    """

    def __init__(self, *, params: list[Any] | None = None, **attributes: Any) -> None:
        super().__init__(params=[*(params or ()), *connection_params()], **attributes)
        read_plain_values(self.params)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the options before the command."""
        with _errors():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Runs the chosen command."""
        ctx.obj = take(ctx.params, ctx.obj or Target())
        with _errors():
            return super().invoke(ctx)

    def get_help_option(self, ctx: Any) -> TyperOption | None:
        """Returns `--help`, shown without a type."""
        return _help_option(super().get_help_option(ctx))


class Command(TyperCommand):
    """A command whose help shows arguments as they are declared, and `--help` without a type."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        read_plain_values(self.params)
        for param in self.params:
            if isinstance(param, TyperArgument):
                param.__class__ = _Argument

    def get_help_option(self, ctx: Any) -> TyperOption | None:
        return _help_option(super().get_help_option(ctx))


class ClusterCommand(Command):
    """A command that reads a cluster or saved objects. `ctx.obj` is its Target."""

    def __init__(self, *, params: list[Any] | None = None, **attributes: Any) -> None:
        super().__init__(params=[*(params or ()), *connection_params()], **attributes)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command with the options that are given before and after its name."""
        ctx.obj = take(ctx.params, ctx.obj or Target())
        return super().invoke(ctx)


class LiveCommand(ClusterCommand):
    """A command that changes a cluster, or follows it: it has no option for saved objects."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.params = [param for param in self.params if param.name != SAVED]

    def invoke(self, ctx: Any) -> Any:
        """Runs the command, unless saved objects are given before its name."""
        before: Target = ctx.obj or Target()
        before.check_live(_path(ctx))
        return super().invoke(ctx)


class _Argument(TyperArgument):
    """An argument shown as its metavar, without the brackets, dots and types that typer adds."""

    def _usage_display_name(self) -> str:
        return self.metavar or super()._usage_display_name()

    def display_type_rich(self, ctx: Any) -> str | None:  # noqa: ARG002 - as typer calls it
        """Returns no type, because the name describes the value."""
        return None


def _path(ctx: Any) -> str:
    """Returns the command without the program, such as `snapshot save`."""
    name: str = ctx.info_name
    return name if ctx.parent.parent is None else f"{_path(ctx.parent)} {name}"


def _help_option(option: TyperOption | None) -> TyperOption | None:
    if option is not None:
        option.metavar = ""  # no type
        read_plain_values([option])
    return option


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except NoArgsIsHelpError:
        raise
    except UsageError as error:
        message = " ".join(error.format_message().split()).rstrip(".")
        typer.echo(f"error: {message[:1].lower()}{message[1:]}", err=True)
        if error.ctx is not None:
            typer.echo(f"Try '{error.ctx.command_path} --help'.", err=True)
        raise typer.Exit(BAD_INPUT) from error
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from error
