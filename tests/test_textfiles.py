"""Texts as people have them: compressed, in UTF-16, in pieces; and files that cannot be read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import sys
import zipfile

import pytest

from _dockeraudit.textfiles import (
    first_bytes,
    open_text,
    plain_size,
    read_errors,
    read_failure,
    unmarked_encoding,
    unpacked,
)

TEXT = "".join(f"line {number}: höllo wörld 漢字\n" for number in range(3000))


def zipped(**files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def whole(file):
    return b"".join(iter(lambda: file.read1(65536), b""))


def read(path):
    with open_text(str(path)) as file:
        return whole(file)


PLAIN = TEXT.encode()
FORMS = {
    "plain": PLAIN,
    "plain.log": PLAIN,
    "empty": b"",
    "a.gz": gzip.compress(PLAIN),
    "gzip without its suffix": gzip.compress(PLAIN),
    "a.xz": lzma.compress(PLAIN),
    "xz without its suffix": lzma.compress(PLAIN),
    "a.lzma.xz": lzma.compress(PLAIN, lzma.FORMAT_ALONE),
    "a.bz2": bz2.compress(PLAIN),
    "bz2 without its suffix": bz2.compress(PLAIN, 1),
    "utf-16": TEXT.encode("utf-16"),
    "utf-16-be with a mark": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "utf-16-le without a mark": TEXT.encode("utf-16-le"),
    "utf-16-be without a mark": TEXT.encode("utf-16-be"),
    "utf-32": TEXT.encode("utf-32"),
    "utf-16 in gzip.gz": gzip.compress(TEXT.encode("utf-16")),
    "two members.gz": gzip.compress(PLAIN[:1000]) + gzip.compress(PLAIN[1000:]),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_text_comes_out_whatever_it_was_packed_in(tmp_path, name):
    (tmp_path / name).write_bytes(FORMS[name])
    assert read(tmp_path / name) == (b"" if name == "empty" else PLAIN)


def test_every_file_of_a_zip_is_read(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped(a=PLAIN, b=TEXT.encode("utf-16")))
    assert read(tmp_path / "a.zip") == PLAIN + b"\n" + PLAIN + b"\n"


@pytest.mark.parametrize("name", ["plain", "a.gz", "utf-16"])
def test_a_pipe_gives_the_same_however_it_is_cut(name):
    class Pipe(io.BytesIO):
        def read1(self, size=-1):
            return super().read1(min(size, rng.randrange(1, 9)))

        def seekable(self):
            return False

    rng = random.Random(4)
    assert whole(unpacked(Pipe(FORMS[name]), "-")) == PLAIN


def test_no_more_than_the_first_bytes_that_matter_are_waited_for():
    class Typing(io.BytesIO):
        def read1(self, size=-1):
            asked.append(size)
            return super().read1(1)

    asked = []
    assert first_bytes(Typing(b"hi")) == b"h" and len(asked) == 1


@pytest.mark.parametrize(
    "name, data, why",
    [
        ("damaged.gz", b"no gzip at all", "Not a gzipped file"),
        ("cut.gz", gzip.compress(os.urandom(100_000))[:-500], "end-of-stream"),
        ("cut.xz", lzma.compress(PLAIN)[:-50], "end-of-stream"),
        ("empty.xz", b"", "end-of-stream"),
        ("damaged.bz2", b"BZh91AY&SY" + b"x" * 100, "Invalid data"),
        ("x", b"7z\xbc\xaf\x27\x1c0000", ".7z files cannot be read"),
        ("x.rar", b"Rar!\x1a\x07\x01\0", ".rar files cannot be read"),
        ("x.lz4", b"\x04\x22\x4d\x18xx", ".lz4 files cannot be read"),
        ("x.Z", b"\x1f\x9dxxxx", ".Z files cannot be read"),
        ("x.zip", b"PK\x03\x04xxxx", "not a zip file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, data, why):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(read_errors()) as caught:
        read(tmp_path / name)
    sentence = read_failure(name, caught.value)
    assert sentence.startswith(f"cannot read {name}: ") and why in sentence


def test_zstd_is_read_where_python_can_and_named_where_it_cannot(tmp_path):
    try:
        from compression import zstd  # Python 3.14
    except ImportError:
        (tmp_path / "a.zst").write_bytes(b"\x28\xb5\x2f\xfdxxxx")
        with pytest.raises(ValueError, match=r"Python 3\.14 or newer reads \.zst"):
            read(tmp_path / "a.zst")
        return
    (tmp_path / "a.zst").write_bytes(zstd.compress(PLAIN))
    assert read(tmp_path / "a.zst") == PLAIN


def test_a_python_without_lzma_says_so(tmp_path, monkeypatch):
    (tmp_path / "a.xz").write_bytes(FORMS["a.xz"])
    monkeypatch.setitem(sys.modules, "lzma", None)
    with pytest.raises(ValueError, match="built without lzma; unpack it first"):
        read(tmp_path / "a.xz")


def test_a_zip_from_a_pipe_is_not_held_in_memory():
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    with pytest.raises(ValueError, match="from a pipe"):
        unpacked(Pipe(zipped(a=PLAIN)), "-")


@pytest.mark.parametrize(
    "start, encoding",
    [
        (b"a\0b\0c\0", "utf-16-le"), (b"\0a\0b", "utf-16-be"), (b"a\0", None), (b"", None),
        (b"M\0\x03\0\x04\0", None), (b"\x01\0\0\0\0\0\0\x08", None), (b"ab\0c", None),
    ],
)  # fmt: skip
def test_only_text_is_taken_for_utf_16_without_a_mark(start, encoding):
    assert unmarked_encoding(start) == encoding


def test_a_missing_file_a_folder_and_standard_input_are_named(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(OSError) as caught:
            read(path)
        assert str(path) in read_failure(str(path), caught.value)
    assert read_failure("-", OSError("x")) == "cannot read standard input: x"


def test_a_position_is_one_on_disk(tmp_path):
    (tmp_path / "a.gz").write_bytes(FORMS["a.gz"])
    with open_text(str(tmp_path / "a.gz")) as file:
        whole(file)
        assert file.position() == len(FORMS["a.gz"])
    (tmp_path / "plain").write_bytes(PLAIN)
    assert plain_size(str(tmp_path / "plain")) == len(PLAIN) and plain_size("-") == 0
