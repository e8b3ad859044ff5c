"""Opens text files as people have them: compressed, in UTF-16, or standard input.

    path ─▶ open_text ─▶ a reader of plain bytes (UTF-16 and UTF-32 become UTF-8)

What a file is, is read from its first bytes; a name that says it is compressed is believed too, so
that a damaged file is an error and not a text without findings.
"""

from __future__ import annotations

import codecs
import errno
import importlib
import io
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, Callable, TextIO

#: First bytes of compressed files, and the suffixes of their names.
MAGICS = {
    b"\x1f\x8b": ".gz",
    b"\xfd7zXZ\0": ".xz",
    **{b"BZh%d1AY&SY" % size: ".bz2" for size in range(1, 10)},
    b"\x28\xb5\x2f\xfd": ".zst",
    b"PK\x03\x04": ".zip",
    b"7z\xbc\xaf\x27\x1c": ".7z",
    b"Rar!\x1a\x07": ".rar",
    b"\x04\x22\x4d\x18": ".lz4",
    b"\x1f\x9d": ".Z",
    b"LZIP": ".lz",
}
#: Byte order marks, the longer first: UTF-32's begins with UTF-16's.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LONGEST_START = max(map(len, [*MAGICS, *(mark for mark, _ in MARKS)]))
EXIT_OUTPUT = 74  # sysexits.h, EX_IOERR: the output could not be written
TEXT_BYTES = frozenset((*range(0x20, 0x7F), *b"\t\r\n"))  # of a text in ASCII
BLOCK_SIZE = 64 << 10  # bytes that are decoded at once


class PrefixedReader(io.RawIOBase):
    """A file whose first bytes have been read already: they come first again."""

    def __init__(self, start: bytes, file: Any) -> None:
        self._start = start
        self._file = file

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has come, at least one byte before the end."""
        data = self._start or self._file.read1(len(buffer))
        self._start = data[len(buffer) :]
        taken = data[: len(buffer)]
        buffer[: len(taken)] = taken
        return len(taken)


class DecodedReader(io.RawIOBase):
    """A text in UTF-16 or UTF-32 as UTF-8; what cannot be decoded becomes U+FFFD."""

    def __init__(self, file: Any, encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._left = b""
        self._begun = False

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has come, at least one byte before the end."""
        while not self._left:
            data = self._file.read1(BLOCK_SIZE)
            text = self._decoder.decode(data, not data)
            if not self._begun:
                text, self._begun = text.removeprefix("\ufeff"), bool(text)
            self._left = text.encode("utf-8", "replace")
            if not data and not self._left:
                return 0
        taken, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


def standard_input() -> IO[bytes]:
    """Standard input as bytes; raises OSError where it is closed."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return open(sys.stdin.fileno(), "rb", closefd=False)


class OpenText:
    """An open file's text: `read1` and iteration by lines, as of any binary file."""

    def __init__(self, text: Any, file: Any) -> None:
        self.read1 = text.read1
        self._text = text
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._text)

    def position(self) -> int:
        """How many of the file's own bytes have been read; 0 where it has no positions."""
        return self._file.tell() if self._file.seekable() else 0


@contextmanager
def open_text(path: str) -> Iterator[OpenText]:
    """A file's text as bytes, `-` is standard input; raises one of read_errors()."""
    with standard_input() if path == "-" else open(path, "rb") as file:
        yield OpenText(unpacked(file, path), file)


def unpacked(file: Any, path: str) -> Any:
    """A file's text, unpacked and decoded."""
    start = first_bytes(file)
    whole = again(file, start)
    suffix = next((MAGICS[magic] for magic in MAGICS if start.startswith(magic)), None)
    if suffix is None and not start.startswith(tuple(mark for mark, _ in MARKS)):
        suffix = next((one for one in DECOMPRESSORS if path.endswith(one)), None)
    if suffix is None:
        return as_utf8(whole, start)
    if suffix not in DECOMPRESSORS:
        raise ValueError(f"{suffix} files cannot be read; unpack it first")
    text = DECOMPRESSORS[suffix](whole)
    start = first_bytes(text)
    return as_utf8(again(text, start), start)


def again(file: Any, start: bytes) -> Any:
    """A file from its beginning, of which the first bytes have been read."""
    if isinstance(file, io.BufferedReader) and file.seekable():
        file.seek(0)
        return file
    return io.BufferedReader(PrefixedReader(start, file))


def first_bytes(file: Any) -> bytes:
    """The bytes that tell what a file is; no more than that is waited for."""
    start = b""
    known = [*MAGICS, *(mark for mark, _ in MARKS)]
    while len(start) < LONGEST_START and any(magic.startswith(start) for magic in known):
        data = file.read1(LONGEST_START - len(start)) if hasattr(file, "read1") else file.read(1)
        if not data:
            break
        start += data
    return start


def as_utf8(file: Any, start: bytes) -> Any:
    """A text as UTF-8, where a byte order mark or its first letters say it is UTF-16 or -32."""
    encoding = next((name for mark, name in MARKS if start.startswith(mark)), None)
    encoding = encoding or unmarked_encoding(start)
    return io.BufferedReader(DecodedReader(file, encoding)) if encoding else file


def unmarked_encoding(start: bytes) -> str | None:
    """The encoding of a text in UTF-16 without a mark: every other byte of ASCII letters is NUL."""
    start = start[: len(start) // 2 * 2]
    for encoding, letters, nuls in (
        ("utf-16-le", start[0::2], start[1::2]),
        ("utf-16-be", start[1::2], start[0::2]),
    ):
        if len(letters) > 1 and not any(nuls) and all(one in TEXT_BYTES for one in letters):
            return encoding
    return None


class ZipReader(io.RawIOBase):
    """The texts of a zip archive's files, one after the other, a newline between two."""

    def __init__(self, file: Any) -> None:
        if not file.seekable():
            raise ValueError("a .zip cannot be read from a pipe; name the file")
        import zipfile  # here, since few files are archives

        self._archive = zipfile.ZipFile(file)
        self._blocks = self._read()
        self._left = b""

    def _read(self) -> Iterator[bytes]:
        for member in self._archive.infolist():
            with self._archive.open(member) as file:
                start = first_bytes(file)
                text = as_utf8(again(file, start), start)
                yield from iter(partial(text.read1, BLOCK_SIZE), b"")
            yield b"\n"

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has come, at least one byte before the end."""
        data = self._left or next(self._blocks, b"")
        taken, self._left = data[: len(buffer)], data[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


def read_errors() -> tuple[type[Exception], ...]:
    """What reading such a file may raise; to be called when something was raised."""
    import zipfile  # here, since only an error needs it

    packed: list[type[Exception]] = [zlib.error, zipfile.BadZipFile]
    for module, name in (("lzma", "LZMAError"), ("compression.zstd", "ZstdError")):
        try:
            packed.append(getattr(importlib.import_module(module), name))
        except ImportError:  # an older Python, or one that was built without it
            pass
    return (OSError, EOFError, NotImplementedError, RuntimeError, ValueError, *packed)


def optional_opener(module: str, name: str, lacking: str) -> Callable[[Any], Any]:
    """Opens a file by a class of a module that this Python may lack; then `lacking` says so."""

    def open_packed(file: Any) -> Any:
        try:
            opener = getattr(importlib.import_module(module), name)
        except ImportError:
            raise ValueError(f"{lacking}; unpack it first") from None
        return opener(file)

    return open_packed


DECOMPRESSORS: dict[str, Callable[[Any], Any]] = {
    ".gz": lambda file: importlib.import_module("gzip").GzipFile(fileobj=file),
    ".xz": optional_opener("lzma", "LZMAFile", "this Python was built without lzma"),
    ".bz2": optional_opener("bz2", "BZ2File", "this Python was built without bz2"),
    ".zst": optional_opener(
        "compression.zstd", "ZstdFile", "Python 3.14 or newer reads .zst files"
    ),
    ".zip": lambda file: io.BufferedReader(ZipReader(file)),
}


def plain_size(path: str) -> int:
    """A plain file's size in bytes, for progress; 0 for standard input and compressed files."""
    if path == "-" or path.endswith(tuple(DECOMPRESSORS)):
        return 0
    return os.path.getsize(path) if os.path.isfile(path) else 0


def read_failure(path: str, error: BaseException) -> str:
    """One sentence about a file that could not be read."""
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    name = "standard input" if path == "-" else path
    return f"cannot read {name}: {why}"


def error_output() -> TextIO:
    """Standard error, or nowhere where it is closed."""
    return sys.stderr or open(os.devnull, "w", encoding="utf-8")


def with_output(command: str, write: Callable[[TextIO], int]) -> int:
    """Run what writes to standard output; where nothing can be written, one sentence says why."""
    out = sys.stdout
    try:
        if out is None:
            raise OSError(errno.EBADF, "standard output is closed")
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="backslashreplace")  # a locale without the character at hand
        status = write(out)
        out.flush()
        return status
    except BrokenPipeError:
        raise  # the reader of our output is gone, which is no error
    except OSError as error:
        sentence = f"dockeraudit {command}: cannot write its output: {error.strerror}\n"
        error_output().write(sentence)
        return EXIT_OUTPUT


def with_lines(command: str, lines: Iterable[str]) -> int:
    """Write lines to standard output, as `with_output` does."""

    def write(out: TextIO) -> int:
        out.write("".join(line + "\n" for line in lines))
        return 0

    return with_output(command, write)
