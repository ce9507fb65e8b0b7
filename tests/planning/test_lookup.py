import pytest

from nodebench.errors import InputError, SweepError
from nodebench.planning.lookup import load_sweep, sweep_path
from tests.support.tiny_sweeps import write_tiny


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with sweeps of the user's: here, in another folder, and in a report's."""
    monkeypatch.chdir(tmp_path)
    for name in ("sweeps", "mine", "reports/norms-small"):
        (tmp_path / name).mkdir(parents=True)
    write_tiny(tmp_path, "layers")
    write_tiny(tmp_path / "mine", "norms")
    write_tiny(tmp_path / "sweeps", "widths")
    write_tiny(tmp_path / "reports" / "norms-small", "sweep")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("quikstart", "quickstart"),
        ("sweeps/quikstart.yaml", "quickstart"),
        ("QUICKSTART", "quickstart"),
        ("width", "widths"),
        ("sweeps/width.yaml", "widths"),
        ("layer.yaml", "layers.yaml"),
        ("layer", "layers.yaml"),
        ("mine/norm.yaml", "mine/norms.yaml"),
        ("reports/norm-smal", "reports/norms-small"),
    ],
)
def test_the_most_similar_sweep_is_suggested(folder, given, meant):
    with pytest.raises(SweepError) as caught:
        sweep_path(given)
    assert f"Did you mean `{meant}`?" in str(caught.value)


def test_a_file_of_an_absolute_path_is_compared_by_its_own_name(folder):
    with pytest.raises(SweepError, match=f"Did you mean `{folder}/mine/norms.yaml`"):
        sweep_path(folder / "mine" / "normz.yaml")
    with pytest.raises(SweepError, match="`nodebench sweeps` lists all"):
        sweep_path(folder / "mine" / "xyz.yaml")


@pytest.mark.parametrize("text", ["a" * 5000, "a/" * 3000, "nul\0byte/x", "", "\n"])
def test_a_text_that_is_no_path_is_no_sweep(folder, text):
    with pytest.raises(SweepError):
        sweep_path(text + "?")


def test_a_sweep_as_a_mapping_is_refused_with_what_is_allowed():
    with pytest.raises(
        InputError, match=r"file, the folder .*found a value of type `dict`.*safe_d"
    ):
        load_sweep({"name": "t"})
