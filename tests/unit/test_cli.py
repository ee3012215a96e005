"""The command line: exit codes, one clear message, results on stdout only."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
import pytest
import typer
from typer.testing import CliRunner

from recsys import __version__
from recsys.cli import ErrorsToExitCodes, build_app, show
from recsys.errors import BundleRefused, ConfigError, GateFailed, InputRefused, LaotieError
from recsys.progress import part, progress_bar, silent

LAOTIE = [sys.executable, "-c", "from recsys.cli import main; main()"]

FAKE = """
import sys, time, typer
from recsys import cli
app = cli.build_app()
@app.command()
def sleep():
    print("ready", flush=True)
    time.sleep(60)
@app.command()
def chatter():
    for number in range(100_000):
        cli.show({"line": number}, as_json=False)
cli.build_app = lambda: app
cli.main()
"""


def failing(error: BaseException) -> typer.Typer:
    app = build_app()

    @app.command()
    def fail(times: Annotated[int, typer.Option(min=1)] = 1) -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (LaotieError("odd", where="here", hint="do this"), 1, "laotie: odd; where: here; hint: do this"),
        (ConfigError("wrong setting"), 2, "laotie: wrong setting"),
        (InputRefused("no table"), 3, "laotie: no table"),
        (BundleRefused("broken"), 3, "laotie: broken"),
        (GateFailed("not published"), 4, "laotie: not published"),
        (KeyboardInterrupt(), 130, "laotie: interrupted"),
        (
            ZeroDivisionError("division\nby zero"),
            1,
            "laotie: internal error: ZeroDivisionError: division by zero; hint",
        ),
        (ModuleNotFoundError("No module", name="torch.nn"), 2, "pip install 'laotie[train]'"),
        (ModuleNotFoundError("No module named 'x'", name="x"), 1, "internal error"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
    ],
)
def test_errors_become_one_message_and_a_code(error: BaseException, code: int, message: str) -> None:
    result = CliRunner().invoke(failing(error), ["fail"])
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize("args", [["--debug", "fail"], ["fail", "--debug"]])
def test_debug_shows_the_traceback(args: list[str]) -> None:
    result = CliRunner().invoke(failing(ZeroDivisionError("x")), args)
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


@pytest.mark.parametrize(
    "args", [["fail", "--times", "0"], ["fail", "--nonsense"], ["nonsense"], ["fail", "--", "--debug"], ["fail", "x"]]
)
def test_usage_errors_exit_2(args: list[str]) -> None:
    result = CliRunner().invoke(failing(LaotieError("not reached")), args)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_group_is_ours() -> None:
    assert build_app().info.cls is ErrorsToExitCodes


def test_help_and_version() -> None:
    runner = CliRunner()
    assert runner.invoke(build_app(), ["--version"]).stdout == f"laotie {__version__}\n"
    text = runner.invoke(build_app(), ["--help"]).stdout
    registered = ("validate", "simulate", "build", "rollback", "lookup", "replay", "evaluate", "demand", "demo")
    assert all(command in text for command in registered)


def test_every_command_explains_itself() -> None:
    app = build_app()
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        result = CliRunner().invoke(app, [name, "--help"])
        assert result.exit_code == 0, name
        assert "Usage:" in result.stdout


@dataclass
class Point:
    x: int
    inner: dict[str, Any]


class Told:
    def document(self) -> dict[str, int]:
        return {"a": 1}

    def text(self) -> str:
        return "one a, 老铁"


@pytest.mark.parametrize(
    ("result", "document", "text"),
    [
        (Point(1, {"y": [1, {"z": None}], "e": []}), {"x": 1, "inner": {"y": [1, {"z": None}], "e": []}}, None),
        (Told(), {"a": 1}, "one a, 老铁\n"),
        (None, None, ""),
        ({"k": 0.5, 3: "v"}, {"k": 0.5, "3": "v"}, "k: 0.5\n3: v\n"),
    ],
)
def test_show(capfdbinary: pytest.CaptureFixture[bytes], result: object, document: object, text: str | None) -> None:
    show(result, as_json=True)
    assert orjson.loads(capfdbinary.readouterr().out) == document
    show(result, as_json=False)
    shown = capfdbinary.readouterr().out.decode()
    if text is None:
        text = "x: 1\ninner:\n  y:\n    - 1\n    -\n      z: none\n  e: none\n"
    assert shown == text


def test_rollback_by_command(tmp_path: Path) -> None:
    run = subprocess.run([*LAOTIE, "rollback", str(tmp_path), "--json"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (3, "")
    assert run.stderr.startswith("laotie: no bundle is published here; where: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["validate", "absent"], 2),
        (["build", ".", "--out", "b", "--as-of", "tomorrow"], 2),
        (["build", ".", "--out", "b", "--set", "ties.user_buckets=3"], 2),
        (["build", "."], 2),
        (["lookup", "--bundle", "absent", "--user", "1"], 3),
        (["lookup", "--bundle", ".", "--user", "1"], 3),
        (["lookup", "--bundle", ".", "--user", "1", "-k", "0"], 2),
        (["lookup", "--bundle", ".", "--user", "1", "--at", "noon"], 2),
        (["replay", "--bundle", ".", "--events", "absent", "--requests", "absent", "--out", "o"], 2),
        (["bench-rebuy", "absent", "--as-of", "2010-09-01", "--out", "o"], 2),
    ],
)
def test_bad_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(build_app(), args)
    assert result.exit_code == code, result.stderr
    assert "Traceback" not in result.stderr
    assert "internal error" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_is_130() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FAKE, "sleep"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "laotie: interrupted; what was served before is untouched\n"


def test_a_broken_pipe_is_quiet() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FAKE, "chatter"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_progress_is_silent_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as progress:
        progress("ties", 0.5)
    assert progress is silent
    assert capfd.readouterr() == ("", "")


def test_progress_shows_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        with progress_bar() as progress:
            progress("ties", 0.5)
            part(progress, "models", 0.5, 1.0)("inner", 1.0)
            progress("ties", 7.0)
        with progress_bar(quiet=True) as quiet:
            assert quiet is silent
    time.sleep(0.05)
    shown = os.read(leader, 65_536).decode()
    os.close(leader)
    assert "ties" in shown
    assert "100%" in shown
    assert "inner" not in shown
