import pytest

from nodebench.errors import Diverged, TrackingError, masked
from nodebench.store import Store
from tests.support.tiny_sweeps import tiny


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:secret@head:5000/ml", "http://me:***@head:5000/ml"),
        ("http://me:se/cr@et@head", "http://me:***@head"),
        ("https://a-token@head", "https://***@head"),
        ("postgresql+psycopg2://me:s%40cret@head/ml", "postgresql+psycopg2://me:***@head/ml"),
        ("postgresql://postgres:postgres@h/x", "postgresql://***:***@h/x"),
        ("postgresql://head/ml?user=me&password=secret", None),
        ("sqlite:////me@home/mlflow.db", "sqlite:////me@home/mlflow.db"),
        ("http://head/@me", "http://head/@me"),
    ],
)
def test_an_address_is_shown_without_its_password(monkeypatch, uri, shown):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    shown = shown or "postgresql://head/ml?user=me&password=***"
    assert masked(f"at `{uri}`: no") == f"at `{shown}`: no"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    if "/cr@" not in uri and "postgres:postgres" not in uri:
        assert masked(f"at `{uri}`: no") == f"at `{shown}`: no"


def test_a_password_is_masked_wherever_it_is_quoted(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s%40cret@head")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    quoted = "user 'me' with 's@cret' or s%40cret; Bearer t0ken; secretive t0kens"
    assert masked(quoted) == "user 'me' with '***' or ***; Bearer ***; secretive t0kens"


def test_no_error_log_or_traceback_of_ours_has_a_password(tmp_path):
    text, hidden = "at http://me:secret@head/ml", "at http://me:***@head/ml"
    assert str(TrackingError(text)) == str(Diverged(text)) == hidden
    folder = Store(tmp_path / "runs").folder("aa")
    folder.create(tiny(tmp_path).trials[0])
    folder.log(text)
    folder.write_error(text)
    assert folder.log_file.read_text().endswith(f"{hidden}\n")
    assert (folder.path / "error.txt").read_text() == hidden
