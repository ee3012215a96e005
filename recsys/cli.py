"""The command line `laotie`: it dispatches, shows results and turns errors into exit codes; commands live elsewhere.

A package offers commands through the entry-point group `laotie.commands`: a function `register(app: typer.Typer)`.

    exit 0  done                        exit 3    input refused
    exit 1  a bug, or the disk failed   exit 4    a gate failed
    exit 2  usage or config             exit 130  interrupted

Results go to stdout, everything else to stderr. Heavy imports belong inside the commands: `--help` must stay fast.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from recsys import __version__
from recsys.errors import LaotieError
from recsys.progress import Progress, progress_bar

ENTRY_POINTS: Final = "laotie.commands"
_INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 141
_ANYWHERE: Final = ("--debug", "--quiet")
_EXTRA_OF: Final = {"torch": "train", "implicit": "train", "lightgbm": "train", "optuna": "tune"}

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
KOption = Annotated[int, typer.Option("-k", min=1, help="Answers per request.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Same seed, same result.")]
EventsArgument = Annotated[Path, typer.Argument(metavar="EVENTS", exists=True, help="Folder of event tables.")]
OutFileOption = Annotated[
    Path, typer.Option("--out", dir_okay=False, callback=lambda out: in_a_folder(out), help="File to write.")
]
BundleOption = Annotated[Path, typer.Option("--bundle", help="A bundle, or a folder of bundles (then its CURRENT).")]


@dataclasses.dataclass(frozen=True)
class GlobalOptions:
    """What every command understands; commands find it with `options_of(ctx)`."""

    debug: bool = False
    quiet: bool = False


class ErrorsToExitCodes(TyperGroup):
    """Runs a command and turns whatever it raises into one clear message and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `--debug` and `--quiet` also when they are written after the command."""
        end = args.index("--") if "--" in args else len(args)
        ours = [arg for arg in args[:end] if arg in _ANYWHERE]
        return super().parse_args(ctx, ours + [arg for arg in args[:end] if arg not in _ANYWHERE] + args[end:])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except LaotieError as error:
            return _fail(ctx, str(error), error.exit_code)
        except KeyboardInterrupt:
            return _fail(ctx, "interrupted; what was served before is untouched", _INTERRUPTED)
        except BrokenPipeError:
            _drop_stdout()
            raise typer.Exit(_BROKEN_PIPE) from None
        except ModuleNotFoundError as error:
            extra = _EXTRA_OF.get((error.name or "").partition(".")[0])
            if extra is None:
                return _fail(ctx, _bug(error), 1)
            return _fail(ctx, f"{error.name} is not installed; hint: pip install 'laotie[{extra}]'", 2)
        except OSError as error:
            return _fail(ctx, f"the system refused: {error}", 1)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if hasattr(error, "format_message"):  # usage errors: typer shows them itself, exit 2
                raise
            return _fail(ctx, _bug(error), 1)


def show(result: object, *, as_json: bool) -> None:
    """Print a command's result on stdout.

    A result may be plain data, a dataclass, a pydantic model, or an object with `document()` (plain data, for `--json`)
    and, if people should see something better than that data indented, `text()`. None prints nothing, or `null`.
    """
    if as_json:
        import orjson

        option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
        _write(orjson.dumps(_plain(result), option=option, default=str))
    elif isinstance(result, str):
        _write(result.encode() + b"\n")
    elif hasattr(result, "text"):
        _write(str(result.text()).encode() + b"\n")
    elif result is not None:
        _write(("\n".join(_lines(_plain(result))) + "\n").encode())


def in_a_folder(out: Path | None) -> Path | None:
    """A file to write, its folder made before the work begins: nothing is lost in the end for the want of one."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    return out


def progress_of(ctx: typer.Context) -> AbstractContextManager[Progress]:
    """Progress bars on stderr for this command, silent under `--quiet` or when stderr is no terminal."""
    return progress_bar(quiet=options_of(ctx).quiet)


def options_of(ctx: typer.Context) -> GlobalOptions:
    """The options of the command line that are no command's own."""
    return ctx.obj if isinstance(ctx.obj, GlobalOptions) else GlobalOptions()


def build_app() -> typer.Typer:
    """The application with the commands of every installed package, in the order of the entry points' names."""
    app = typer.Typer(
        name="laotie",
        cls=ErrorsToExitCodes,
        help="Ranks live rooms by the relationship between a viewer and a host.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain help is twice as fast, and a plain message survives in a log
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        ctx: typer.Context,
        debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logs.")] = False,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; log errors only.")] = False,
        version: Annotated[  # noqa: ARG001 -- its callback does the work
            bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
        ] = False,
    ) -> None:
        ctx.obj = GlobalOptions(debug=debug, quiet=quiet)
        level = logging.DEBUG if debug else logging.ERROR if quiet else logging.WARNING
        logging.basicConfig(
            level=level, stream=sys.stderr, format="laotie: %(levelname)s %(name)s: %(message)s", force=True
        )

    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name, reverse=True):
        try:
            entry.load()(app)
        except ImportError as error:
            typer.echo(f"laotie: commands of '{entry.name}' are missing: {error}", err=True)
    return app


def main() -> None:
    """Entry point of `laotie`."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait sleep, so a busy machine is not kept busier
    try:
        build_app()()
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _drop_stdout()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"laotie {__version__}")
        raise typer.Exit


def _fail(ctx: typer.Context, message: str, code: int) -> None:
    if options_of(ctx).debug:
        traceback.print_exc(file=sys.stderr)
    typer.echo(f"laotie: {message}", err=True)
    raise typer.Exit(code)


def _bug(error: Exception) -> str:
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"internal error: {what[:500]}; hint: this is a bug of laotie; --debug shows where"


def _drop_stdout() -> None:
    """The reader of our output has gone: what is still buffered goes nowhere, quietly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(raw: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(raw)
    sys.stdout.buffer.flush()


def _plain(result: Any) -> Any:
    for method in ("document", "model_dump"):
        if hasattr(result, method):
            return getattr(result, method)()
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return dataclasses.asdict(result)
    return result


def _lines(data: Any, indent: str = "") -> list[str]:
    """Nested data, one value per line, inner data indented."""
    if isinstance(data, Mapping):
        pairs = [(str(key), value) for key, value in data.items()]
    elif isinstance(data, list | tuple):
        pairs = [("-", value) for value in data]
    else:
        return [f"{indent}{data}"]
    lines = []
    for key, value in pairs:
        label = key if key == "-" else f"{key}:"
        if isinstance(value, Mapping | list | tuple) and value:
            lines += [f"{indent}{label}", *_lines(value, indent + "  ")]
        else:
            shown = "none" if value is None or isinstance(value, Mapping | list | tuple) else value
            lines.append(f"{indent}{label} {shown}")
    return lines
