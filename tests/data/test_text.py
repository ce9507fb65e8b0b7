from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nodebench.data import text
from nodebench.data.files import FILES
from nodebench.data.text import CHARACTERS, encode
from nodebench.errors import DataError
from tests.support.fake_datasets import WRITERS, ag_news, csv_file, labels, loaded, texts, write

TRICKY = [
    "",
    "a",
    "The Quick Brown FOX",
    "İstanbul'da İki",
    "straße ΣΑΣ ﬁn \U0001f600 日本 ÿ é e\u0301",
    "typographic ’ˆ˜‘ and plain '^~`",
    'say ""hi"" and "bye"',
    "two\nlines\r\nand\ttabs \\ back\\slash \\n",
    " leading, trailing; $%&*()[]{}<>=+|/_#@ ",
    "x" * 1013,
    "Y" * 1014,
    "z" * 1014 + "cut",
    "İ" * 800,  # in lower case twice as long
    "NA",
    "nan",
    "1e3",
    "\u2018\u2019\u2017\u201a\uffff\u0000",
]


def plainly(string: str) -> list[int]:
    """The codes as the study describes them, one character after the other."""
    codes = [
        CHARACTERS.index(character) + 1 if character in CHARACTERS else 68
        for character in string.lower()[:1014]
    ]
    return codes + [0] * (1014 - len(codes))


def test_the_known_characters_are_those_of_the_study() -> None:
    assert len(CHARACTERS) == len(set(CHARACTERS)) == 67
    assert CHARACTERS[:36] == "abcdefghijklmnopqrstuvwxyz0123456789"
    assert CHARACTERS[-1] == " "
    assert {"’", "ˆ", "˜", "‘"} < set(CHARACTERS)
    assert not set("'^~`@\n\\") & set(CHARACTERS)
    assert text.SYMBOLS == 69


@pytest.mark.parametrize("rows", [1, 4, 4096])
def test_texts_are_encoded_as_a_loop_over_characters_would(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "ROWS", rows)
    codes = encode(TRICKY)
    assert codes.dtype == np.uint8
    assert codes.shape == (len(TRICKY), 1014)
    for string, row in zip(TRICKY, codes.tolist(), strict=True):
        assert row == plainly(string), string


def test_a_csv_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    strings = [string for string in TRICKY if "\u0000" not in string]
    rows = [(str(i % 4 + 1), 'Title, "with" all\n', s) for i, s in enumerate(strings)]
    (tmp_path / "some.csv").write_bytes(csv_file(rows))
    found, targets = text.read_csv(tmp_path / "some.csv")
    assert found == strings
    assert targets.tolist() == [i % 4 for i in range(len(strings))]


@pytest.mark.parametrize("name", ["agnews", "agnews-small"])
def test_ag_news_gives_codes_and_classes(name: str, tmp_path: Path) -> None:
    data = loaded(tmp_path, name=name, **WRITERS[name](tmp_path, train=60, test=40))
    assert (data.classes, data.symbols, data.input_shape) == (4, 69, (1014,))
    assert data.class_names == ("World", "Sports", "Business", "Sci/Tech")
    assert (data.mean, data.std, data.augment) == ((), (), ())
    for split, part, size in (("train", data.train, 60), ("test", data.test, 40)):
        assert part.inputs.dtype == torch.uint8
        assert part.inputs.tolist() == [plainly(string) for string in texts(split, size)]
        assert part.targets.dtype == torch.int64
        assert part.targets.tolist() == labels(size, 4).tolist()


def test_length_cuts_every_text(tmp_path: Path) -> None:
    settings = {"name": "agnews", **WRITERS["agnews"](tmp_path)}
    whole, cut = loaded(tmp_path, **settings), loaded(tmp_path, **settings, length=17)
    assert cut.input_shape == (17,)
    assert torch.equal(cut.train.inputs, whole.train.inputs[:, :17])
    assert torch.equal(cut.test.inputs, whole.test.inputs[:, :17])


def test_subsets_of_texts_are_balanced(tmp_path: Path) -> None:
    settings = {"name": "agnews", **WRITERS["agnews"](tmp_path)}
    data = loaded(tmp_path, **settings, train_size=20, val_size=12, test_size=8)
    assert data.validation is not None
    for part, each in ((data.train, 5), (data.validation, 3), (data.test, 2)):
        assert torch.bincount(part.targets).tolist() == [each] * 4


def test_a_truncated_or_altered_csv_is_refused(tmp_path: Path) -> None:
    settings = {"name": "agnews", **WRITERS["agnews"](tmp_path)}
    path = tmp_path / FILES["agnews"].folder / "train.csv"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for content in (whole[:-200], b"".join(lines[:-1]), whole.replace(b'"1"', b'"2"', 1)):
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged") as caught:
            loaded(tmp_path, **settings)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'"5","t","d"\n', "classes other than 1 to 4"),
        (b'"0","t","d"\n', "classes other than 1 to 4"),
        (b'"class","t","d"\n', "no rows of class, title, description"),
        (b'"1","t"\n', "no rows of class, title, description"),
        (b'"1","t","\xff\xfe"\n', "no rows of class, title, description"),
        (b"", "no rows of class, title, description"),
    ],
)
def test_files_of_another_form_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    files = {"train.csv": content, "test.csv": b'"1","t","d"\n'}
    settings = write(tmp_path / FILES["agnews"].folder, files)
    with pytest.raises(DataError, match=said):
        loaded(tmp_path, name="agnews", **settings)


# --------------------------------------------------------------------------------------- cache


def cached(root: Path) -> list[Path]:
    return sorted((root / FILES["agnews"].folder).glob("*.npz"))


def fresh(root: Path, **settings: object) -> torch.Tensor:
    """Loaded as by a new process."""
    text._splits.cache_clear()
    return loaded(root, name="agnews", **settings).train.inputs


def test_codes_are_kept_beside_the_data_by_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = WRITERS["agnews"](tmp_path)
    first = fresh(tmp_path, **settings)
    assert [path.name for path in cached(tmp_path)] == [
        f"{split}-{settings['checksums'][f'{split}.csv']}-codes1.npz" for split in ("test", "train")
    ]
    monkeypatch.setattr(text, "read_csv", None)  # not needed again
    assert torch.equal(fresh(tmp_path, **settings), first)


def test_other_files_are_encoded_anew(tmp_path: Path) -> None:
    for size in (20, 24):
        settings = ag_news("agnews", tmp_path, train=size)
        assert len(fresh(tmp_path, **settings)) == size
    assert len(cached(tmp_path)) == 3


def test_a_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    settings = WRITERS["agnews"](tmp_path)
    first = fresh(tmp_path, **settings)
    path = cached(tmp_path)[1]
    whole = path.read_bytes()
    middle = whole.index(b"\0" * 100) + 50  # in the codes' padding
    altered = whole[:middle] + b"\1" + whole[middle + 1 :]
    for content in (b"", b"nothing", whole[:middle], altered):
        path.write_bytes(content)
        assert torch.equal(fresh(tmp_path, **settings), first)
        assert path.read_bytes() != content


def test_a_folder_that_is_marked_read_only_gets_no_cache_not_even_from_root(
    tmp_path: Path,
) -> None:
    settings = WRITERS["agnews"](tmp_path)
    folder = tmp_path / FILES["agnews"].folder
    folder.chmod(0o555)
    for _ in range(2):
        assert len(fresh(tmp_path, **settings)) == 60
    assert cached(tmp_path) == []
    folder.chmod(0o755)


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = WRITERS["agnews"](tmp_path)

    def refuse(*_arguments: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(text, "write", refuse)
    assert len(fresh(tmp_path, **settings)) == 60
    assert cached(tmp_path) == []
