"""A password that a command is given is neither printed nor stored, wherever it was given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.commands.main import main
from pipelines.config.secrets import without_secrets
from tests.paths import REPOSITORY

SECRET = "Hunter2-pass/word"
NAME = "Hunter2"


@pytest.mark.parametrize(
    "text",
    [
        "http://user:Hunter2@host:5000/path",
        "http://user:Hunter2@x@host",
        "https://Hunter2@host/path",
        "'machine.tracking_uri=https://user:Hunter2@host' steps=3",
        "https://host/list.csv?size=3&X-Amz-Signature=Hunter2&more=1",
        "s3://bucket/list?secret_key=Hunter2",
        "vlp evaluate --api-token Hunter2 plugins.password=Hunter2",
        "Authorization: Bearer Hunter2Hunter2",
    ],
)
def test_secrets_are_hidden_and_nothing_else(text: str) -> None:
    shown = without_secrets(text)
    assert NAME not in shown
    assert "***" in shown
    for kept in ("host", "list", "size=3", "more=1", "steps=3", "bucket", "evaluate"):
        assert (kept in shown) == (kept in text)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000/#/experiments/1?a=x@y",
        "tokenizer.name=clip_bpe training.length.visible_tokens=5 --tokens 3 key=value",
        "sqlite:////tmp/mlflow.db",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_secrets(text) == text


def test_values_of_the_environment_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    assert without_secrets(f"refused: {SECRET}!") == "refused: ***!"


def test_no_store_and_no_output_holds_a_password(shards: Path, tmp_path: Path) -> None:
    """A command that is given one in the address of a server, which is not there, and by the environment."""
    command = [sys.executable, "-m", "pipelines", "docfreq", f"shards={shards}", "tokenizer.name=clip_bpe"]
    settings = [f"machine.tracking_uri=http://user:{NAME}@127.0.0.1:9", "machine.data_workers=0"]
    done = subprocess.run(
        [*command, *settings, "-o", "made"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "MLFLOW_TRACKING_TOKEN": f"{NAME}-is-long"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert NAME not in done.stdout + done.stderr
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert [file for file in files if NAME.encode() in file.read_bytes()] == []
    (journal,) = tmp_path.rglob("journal.jsonl")
    assert '"mlflow.source.name": ' in journal.read_text()
    assert "machine.tracking_uri=http://***@127.0.0.1:9" in journal.read_text()
    assert "cannot deliver to http://***@127.0.0.1:9 now" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("ui", f"machine.tracking_uri=http://user:{NAME}@host"),
        ("docfreq", f"shards=s3://key:{NAME}@bucket/shards", "-o", "x"),
        ("docfreq", f"shards={NAME}://user:{NAME}@bucket/shards", "-o", "x"),
        ("settings", "mask", f"http://user:{NAME}@host"),
    ],
)
def test_no_message_repeats_a_password(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 2
    assert f":{NAME}@" not in result.output


def test_a_traceback_repeats_no_password() -> None:
    code = "import sys; from pipelines.config.secrets import print_failure; sys.excepthook = print_failure; "
    done = subprocess.run(
        [sys.executable, "-c", f"{code}raise OSError('http://user:' + 'Hunt' + 'er2@host is gone')"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert "OSError: http://***@host is gone" in done.stderr
    assert NAME not in done.stderr


def test_a_job_is_not_given_a_password() -> None:
    """The cluster shows its command to everyone."""
    arguments = ["submit", "run", f"machine.tracking_uri=http://user:{NAME}@host"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "://***@host" in result.output
    assert NAME not in result.output
