"""The sources of text: the one that ships with Python, WikiText-2, and people's own files.

No other module reads text. A document is a string; how it becomes tokens is in tokenizers.py.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from trainer.config.data import Data, Tokenizer
from trainer.config.errors import ConfigError
from trainer.config.paths import expanded
from trainer.data import memory

KEY = "data.path"
SUFFIX = ".txt"
# Bytes of memory that a byte of prose takes while it is tokenised, measured with 8 MB: the text,
# its words as Python strings or what SentencePiece learns from, and the tokens. If each word is
# another one, it is up to three times as much.
TOKENISING = {"words": 8, "sentencepiece": 48}

WIKITEXT = (
    ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
    ("train.txt", "valid.txt", "test.txt"),
)
ARTICLE = re.compile(r"^ = [^=].*[^=] = $", re.MULTILINE)  # the heading of an article in WikiText


class Corpus(NamedTuple):
    """The documents of a data set."""

    train: list[str]
    validation: list[str]  # never learned from: only its words are in a vocabulary of all words
    test: list[str]
    divided: bool = False  # the test text is data.test_share of the text


def read(data: Data) -> Corpus:
    """Read the text that data.name and data.path select."""
    try:
        return _read(data, expanded(KEY, data.path) if data.path else None)
    except OSError as error:
        raise ConfigError(
            KEY, f"{error.filename} cannot be read ({error.strerror}); check the path"
        ) from None


def _read(data: Data, path: Path | None) -> Corpus:
    if data.name == "python-topics":
        return _divided(_python_topics(), data.test_share)
    assert path is not None  # the schema requires it
    if data.name == "wikitext2":
        return _wikitext2(path, data.tokenizer)
    if path.is_dir() and (path / "train").is_dir() and (path / "test").is_dir():
        train, test = (_documents(path / part, data.tokenizer) for part in ("train", "test"))
        return Corpus(train, [], test)
    return _divided(_documents(path, data.tokenizer), data.test_share)


def _python_topics() -> list[str]:
    """Return the texts of `help('topics')`: 79 of them, in Python 3.11, with 465 kB of English.

    They are part of the standard library, under the PSF licence. Each version of Python has its
    own, so the data's fingerprint differs between versions.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ConfigError(
            "data.name",
            "python-topics is the module pydoc_data.topics of the standard library, which this "
            "Python was installed without; use data.name=text with a file of your own",
        ) from None
    return [topics[name] for name in sorted(topics)]


def _wikitext2(folder: Path, tokenizer: Tokenizer) -> Corpus:
    for names in WIKITEXT:
        paths = [folder / name for name in names]
        if all(path.is_file() for path in paths):
            _refuse_too_large(paths, tokenizer)
            train, validation, test = map(_file, paths)
            return Corpus(_articles(train), [validation], [test])
    raise ConfigError(
        KEY,
        f"{folder} lacks {', '.join(WIKITEXT[0])} (or {', '.join(WIKITEXT[1])}); nothing is "
        "downloaded: put the files of WikiText-2 (word level) there, which Salesforce published "
        "and PyTorch's examples carry in word_language_model/data/wikitext-2",
    )


def _articles(text: str) -> list[str]:
    """Cut a text of WikiText before each heading of an article; nothing is lost."""
    begins = [heading.start() for heading in ARTICLE.finditer(text)]
    edges = [0, *(begin for begin in begins if begin), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


def _documents(path: Path, tokenizer: Tokenizer) -> list[str]:
    """Read a file, or each .txt file below a folder in the order of their paths."""
    if path.is_dir():
        found = sorted(
            folder / name
            for folder, names in _below(path)
            for name in names
            if name.endswith(SUFFIX)
        )
        if not found:
            raise ConfigError(
                KEY, f"{path} has no {SUFFIX} file; give a text file, or a folder of {SUFFIX} files"
            )
    else:
        found = [path]
    _refuse_too_large(found, tokenizer)
    return [_file(file) for file in found]


def _below(path: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder from `path` down with its files' names; links lead on, but none back."""
    seen: set[str] = set()
    for folder, _, names in os.walk(path, onerror=_stop, followlinks=True):
        if (place := os.path.realpath(folder)) in seen:
            raise ConfigError(
                KEY, f"{folder} and another path below {path} are one folder; remove the link"
            )
        seen.add(place)
        yield Path(folder), names


def _stop(error: OSError) -> None:
    raise error


def _refuse_too_large(paths: Iterable[Path], tokenizer: Tokenizer) -> None:
    """Raise if the files take more memory than there is, before any is read."""
    size = 0
    for path in paths:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
            raise ConfigError(KEY, f"{path} is not a regular file; give a text file")
        size += found.st_size
    what = f"tokenising {size / 1e9:,.1f} GB of text ({tokenizer.name})"
    memory.refuse_too_large(size * TOKENISING[tokenizer.name], what, "give a smaller text")


def _file(path: Path) -> str:
    """Read a file; lines end as Python reads them, and a mark of the byte order is no text."""
    try:
        content = path.read_bytes().decode("utf-8-sig")
        return content.replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(
            KEY,
            f"{path} is not UTF-8 text (byte {error.start}: {error.reason}); convert it, such as "
            "with iconv -t UTF-8, or remove it",
        ) from None


def _divided(documents: Sequence[str], share: float) -> Corpus:
    """Make the last `share` of the characters the test text.

    It is cut after a line or else a word, if one ends within the last hundredth before the place.
    """
    total = sum(map(len, documents))
    train, left = [], round(total * (1 - share))
    for number, document in enumerate(documents):
        if len(document) < left:
            train.append(document)
            left -= len(document)
            continue
        near = max(0, left - total // 100), left
        cut = document.rfind("\n", *near) + 1 or document.rfind(" ", *near) + 1 or left
        parts = document[:cut], document[cut:]
        test = [part for part in (parts[1], *documents[number + 1 :]) if part]
        return Corpus([*train, parts[0]] if parts[0] else train, [], test, divided=True)
    return Corpus(train, [], [], divided=True)
