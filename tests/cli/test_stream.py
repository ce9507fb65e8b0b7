"""No print ends a run: encodings, closed and full outputs; and files are UTF-8 whatever is set."""

import ast
import io
import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

import nodebench
from nodebench.cli.stream import Stream
from nodebench.store import Store
from tests.support.cli_process import NODEBENCH, command
from tests.support.fake_results import finish
from tests.support.tiny_sweeps import tiny, write_tiny

RUN = ("run", "tiny.yaml", "--inline", "--no-track", "--no-report")
TRAIN = [*NODEBENCH, *RUN]


def shell(folder, text, **environment):
    """A command line, `$N` in which is nodebench."""
    text = text.replace("$N", " ".join(NODEBENCH)).replace("$RUN", " ".join(TRAIN))
    return subprocess.run(
        ["bash", "-c", text], cwd=folder, env={**os.environ, **environment}, capture_output=True,
        text=True, errors="replace", check=False,
    )  # fmt: skip


def is_trained(folder, **fields):
    """Whether every trial of the sweep has a result."""
    results = Store(folder / "runs").results()
    return all(trial.id in results for trial in tiny(folder, **fields).trials)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "euc_jp"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_what_an_encoding_lacks_is_a_question_mark(tmp_path, environment):
    write_tiny(tmp_path)
    done = shell(tmp_path, "$RUN", **environment)
    assert done.returncode == 0, done.stderr
    assert "[1/1] plainode ? s0: finished" in done.stdout
    assert is_trained(tmp_path)


def test_a_report_is_utf8_whatever_the_locale(tmp_path):
    finish(tiny(tmp_path, about="größer · α"), Store(tmp_path / "runs"))
    other = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = shell(tmp_path, "$N report tiny.yaml", **other)
    assert done.returncode == 0, done.stderr
    assert "größer · α" in (tmp_path / "reports/tiny/README.md").read_text(encoding="utf-8")
    assert done.stderr == ""  # no terminal


@pytest.mark.parametrize(
    "line",
    [
        "$RUN > /dev/full 2>&1",
        "$RUN >&- 2>&- <&-",
    ],
)
def test_a_run_goes_on_whatever_becomes_of_its_output(tmp_path, line):
    write_tiny(tmp_path, seeds=[0, 1])
    done = shell(tmp_path, line)
    assert (done.returncode, done.stderr) == (0, "")
    assert is_trained(tmp_path, seeds=[0, 1])


def full_disk():
    return open("/dev/full", "w")


def pipe_without_a_reader():
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w")


@pytest.mark.parametrize("output", [full_disk, pipe_without_a_reader])
def test_a_run_goes_on_though_nobody_gets_what_it_prints(tmp_path, output):
    write_tiny(tmp_path, seeds=[0, 1])
    done = command(tmp_path, *RUN, stdout=output())
    assert (done.returncode, done.stderr) == (0, "")
    assert is_trained(tmp_path, seeds=[0, 1])


@pytest.mark.parametrize("verb", ["plan tiny.yaml", "plan tiny.yaml --json", "schema", "--help"])
def test_what_only_prints_says_that_it_could_not(tmp_path, verb):
    write_tiny(tmp_path)
    done = shell(tmp_path, f"$N {verb} > /dev/full")
    assert (done.returncode, done.stderr) == (2, "`stdout`: No space left on device\n")


def test_who_has_read_enough_is_no_reason_to_complain(tmp_path):
    write_tiny(tmp_path, seeds=list(range(2000)))
    done = shell(tmp_path, "$N plan tiny.yaml | head -n 1")
    assert done.stderr == ""
    assert done.stdout.endswith("plainode · s0\n")


def test_a_file_never_gets_what_a_closed_output_was_to_have(tmp_path):
    code = (
        "from nodebench.cli.stream import take_over; take_over();"
        "file = open('file', 'w'); print('spoken', flush=True); assert file.fileno() > 2"
    )
    python = NODEBENCH[0]
    done = subprocess.run(
        ["bash", "-c", f'{python} -c "{code}" <&- >&- 2>&-'], cwd=tmp_path, check=False
    )
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == ""


def test_a_stream_that_is_needed_raises_and_another_forgets():
    for is_needed in (True, False):
        with open("/dev/full", "wb", buffering=0) as full:
            stream = Stream(full, encoding="ascii", errors="replace", write_through=True)
            stream.is_needed = is_needed
            if is_needed:
                with pytest.raises(OSError, match="No space left") as caught:
                    stream.write("·")
                assert caught.value.filename == "stdout"
            stream.write("·")  # leads nowhere from the first failure on
            stream.flush()


def test_a_stream_that_own_code_has_closed_ends_nothing():
    stream = Stream(io.BytesIO(), encoding="utf-8", errors="replace")
    stream.close()
    assert stream.write("spoken") == 6
    stream.flush()


def test_half_a_character_is_printed_too():
    written = io.BytesIO()
    stream = Stream(written, encoding="utf-8", errors="replace")
    stream.write("caf\udce9")
    stream.flush()
    assert written.getvalue() == b"caf?"


TEXT_CALLS = {"open", "read_text", "write_text"}
ALWAYS_BINARY = ("os", "Image", "archive")
"""What has an `open` that knows no text: a zip archive's, for one."""


def is_text_without_encoding(call: ast.Call) -> bool:
    """Whether a call opens a file as text, in an encoding that it does not name."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    keywords = {keyword.arg for keyword in call.keywords}
    plain = [a.value for a in call.args if isinstance(a, ast.Constant)]
    if name == "open" and getattr(getattr(call.func, "value", None), "id", "") in ALWAYS_BINARY:
        return False
    is_binary = any(re.fullmatch(r"[rwax]b\+?", str(value)) for value in plain)
    if "text" in keywords and name in ("run", "Popen"):
        return "encoding" not in keywords
    encodes = "encoding" in keywords or (name == "read_text" and plain == ["utf-8"])
    return name in TEXT_CALLS and not is_binary and not encodes


def test_every_file_that_is_read_or_written_as_text_names_its_encoding():
    found = []
    for path in Path(nodebench.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        found += [f"{path.name}:{c.lineno}" for c in calls if is_text_without_encoding(c)]
    assert found == []


def test_a_plan_in_json_is_plain_text_in_any_encoding(tmp_path):
    write_tiny(tmp_path, about="größer")
    done = shell(tmp_path, "$N plan tiny.yaml --json", PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout)["trials"][0]["label"] == "plainode · s0"


def test_writing_a_report_is_said_on_a_terminal_until_it_is_written(tmp_path):
    finish(tiny(tmp_path), Store(tmp_path / "runs"))
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*NODEBENCH, "report", "tiny.yaml"],
        cwd=tmp_path, env={**os.environ, "TERM": "xterm"}, stdout=subprocess.PIPE, stderr=theirs,
        text=True, check=True,
    )  # fmt: skip
    os.close(theirs)
    assert b"writing the report" in os.read(ours, 65536)
    os.close(ours)
    assert done.stdout == "reports/tiny/README.md\n"


def test_a_terminal_that_hangs_up_ends_nothing(tmp_path):
    write_tiny(tmp_path, seeds=[0, 1])
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        TRAIN, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    assert os.read(ours, 1)  # it has begun to speak
    os.close(ours)
    assert running.wait(timeout=200) == 0
    assert is_trained(tmp_path, seeds=[0, 1])
