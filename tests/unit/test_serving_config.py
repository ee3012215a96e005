"""The settings of the service are read as strictly as those of the engine, and no message repeats a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.errors import ConfigError
from serving.config import load_serving_config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"keys: []\nport: 1\nkeys: []\n", "doubled key keys"),
        (b"prot: 8080\n", "prot: unknown setting; did you mean port"),
        (b"port: eighty\n", "port: .*got 'eighty'"),
        (b"- port: 8080\n", "not a map"),
        (b"host: \xff\n", "cannot be read"),
        (b"port: [1\n", "not valid YAML"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "serving.yaml").write_bytes(text)
    with pytest.raises(ConfigError, match=said):
        load_serving_config(tmp_path / "serving.yaml")


def test_no_message_repeats_a_key_or_a_password(tmp_path: Path) -> None:
    path = tmp_path / "serving.yaml"
    path.write_text("keys: [{name: app, sha256: hunter2}]\nstream: 'valkey://ann:hunter2@host'\n")
    with pytest.raises(ConfigError) as refused:
        load_serving_config(path)
    said = str(refused.value)
    assert "keys.0.sha256: " in said and "stream.url: " in said and "hunter2" not in said


def test_options_of_the_command_go_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "serving.yaml"
    path.write_text("port: 1\nworkers: 3\ndeadline_ms: 1e2\n")
    found = load_serving_config(path, {"port": 2, "host": None})
    assert (found.port, found.workers, found.deadline_ms, found.host) == (2, 3, 100.0, "127.0.0.1")
