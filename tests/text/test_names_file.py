"""Class names from text, JSON and CSV files."""

import codecs
import json
import warnings

import pytest

from deop.errors import SettingError, VocabularyError
from deop.text.names_file import parse_class_names, read_class_names
from deop.text.vocabulary import Vocabulary, VocabularyWarning


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture(autouse=True)
def _no_other_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cup\ntable\n", ["cup", "table"]),
        ("cup,table", ["cup", "table"]),
        ("cup, table,\nsofa|couch, wall\n", ["cup", "table", "sofa|couch", "wall"]),
        ("# kitchen\n\n  cup \r\n   # a comment, with commas\n table#2", ["cup", "table#2"]),
        ("a red car, parked; a road", ["a red car, parked", "a road"]),
        ("a red car, parked;\nroad", ["a red car, parked", "road"]),
        ("\ufeffBär\nsofa|couch", ["Bär", "sofa|couch"]),
        ('["cup, half full", "sofa|couch"]', ["cup, half full", "sofa|couch"]),
        ("[draft] cup\ntable", ["[draft] cup", "table"]),  # is not JSON
    ],
)
def test_text(tmp_path, text, names):
    assert parse_class_names(text, "standard input") == names
    assert read_class_names(write(tmp_path, "names.txt", text)) == names
    assert Vocabulary.parse(names).synonyms == tuple(tuple(name.split("|")) for name in names)


def test_lines_are_read_like_typed_names():
    text = "a cat, black;\na dog;\nsofa | couch"
    assert Vocabulary.parse(parse_class_names(text, "x")) == Vocabulary.parse(text)


def test_some_lines_with_commas_warn():
    """A list of ADE20K has its synonyms behind commas: they become names of their own, which is said."""
    with pytest.warns(VocabularyWarning, match=r"names.txt, line 2: 'building, edifice' is read as 2 names"):
        assert parse_class_names("wall\nbuilding, edifice", "names.txt") == ["wall", "building", "edifice"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cup\n# comment\ntable\n\nCUP", "names.txt: 'CUP' is in lines 1 and 5. Remove"),
        ("sofa|couch\nbench|Couch", "'Couch' is in lines 1 and 2"),
        ("cup, table, cup", "'cup' is twice in line 1"),
        ("cup\nsofa|\n", "names.txt, line 2: 'sofa|' is blank or has a blank synonym"),
        ("cup,,table", "line 1: '' is blank"),
        ("# only a comment\n\n", "names.txt has no names"),
        ("", "has no names"),
        ("[]", "has no names"),
    ],
)
def test_texts_that_cannot_be_used(text, message):
    with pytest.raises(VocabularyError) as error:
        parse_class_names(text, "names.txt")
    assert message in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        ["cat", "sofa|couch, old"],
        [{"id": 3, "name": "cat", "isthing": True}, {"id": 1, "name": "sofa|couch, old"}],
        {"classes": [{"name": "cat"}, {"name": "sofa|couch, old"}]},
        {"info": {}, "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "sofa|couch, old"}]},
    ],
)
def test_json(tmp_path, content):
    path = write(tmp_path, "classes.json", codecs.BOM_UTF8 + json.dumps(content).encode())
    assert read_class_names(path) == ["cat", "sofa|couch, old"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "classes.json is not valid JSON"),
        ("3", "has no list of names: expected"),
        ('{"cat": 1}', "has no list of names"),
        ('["cat", 3]', "entry 2 has no name"),
        ('[{"id": 1}]', "entry 1 has no name"),
        ("[" * 100_000, "classes.json is not valid JSON"),
    ],
)
def test_json_of_another_form(tmp_path, text, message):
    with pytest.raises(SettingError, match=message):
        read_class_names(write(tmp_path, "classes.json", text))


def test_repeated_names_in_json(tmp_path):
    with pytest.raises(VocabularyError, match="'cat' is in entries 1 and 2"):
        read_class_names(write(tmp_path, "classes.json", '["cat", "cat"]'))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'id,name\n1,cat\n2,"sofa, old"\n'),
        ("a.csv", "Name;id\ncat;1\n\nsofa, old;2\n"),
        ("a.tsv", "id\tclass\n1\tcat\n2\tsofa, old\n"),
        ("a.csv", '\ufefflabel\ncat\n"sofa, old"\n'),
    ],
)
def test_tables(tmp_path, name, text):
    assert read_class_names(write(tmp_path, name, text)) == ["cat", "sofa, old"]


def test_tables_without_names(tmp_path):
    with pytest.raises(SettingError, match="has no column of names: its first row is 'cup,table'"):
        read_class_names(write(tmp_path, "a.csv", "cup,table\n"))
    with pytest.raises(VocabularyError, match="'cat' is in lines 2 and 4"):
        read_class_names(write(tmp_path, "a.csv", "name\ncat\ndog\ncat\n"))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SettingError, match=r"names\.txt: .*UTF-8"):
        read_class_names(write(tmp_path, "names.txt", "Bär".encode("latin-1")))
    with pytest.raises(SettingError, match=r"absent\.txt: No such file"):
        read_class_names(tmp_path / "absent.txt")
    with pytest.raises(SettingError, match="cannot read names from"):
        read_class_names(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path, encoding):
    assert read_class_names(write(tmp_path, "names.txt", "Bär\nsofa".encode(encoding))) == ["Bär", "sofa"]
