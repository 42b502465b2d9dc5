"""Tokens of a text: its words, or parts of words by SentencePiece.

No other module knows a tokenizer's library. A tokenizer is a function of the training text and the
settings alone, so that each rank may make its own, without an exchange: counts are integers,
ties are broken by order, and SentencePiece's byte pair encoding is trained by one thread.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from trainer.config.data import SentencePiece, Tokenizer, Words
from trainer.config.errors import ConfigError
from trainer.config.paths import expanded
from trainer.data.text import Corpus

KEY = "data.tokenizer.model"
EOS, UNKNOWN = "<eos>", "<unk>"

Ids = npt.NDArray[np.int32]  # tokens, (n,)

MOST_BYTES_OF_A_MODEL = 1 << 26  # LLaMA-2's has half a million
LONGEST_LINE = 4096  # characters of a line that SentencePiece learns from; longer ones are cut
LONGEST_PIECE = 16  # characters of a token, SentencePiece's default
# SentencePiece skips each line that contains its own sign for what it does not know, and learns
# nothing from a text of zeros.
UNLEARNED = str.maketrans("", "", "\u2585\0")


class Tokens(NamedTuple):
    """The documents of a data set as tokens, and what each token stands for."""

    train: list[Ids]
    test: list[Ids]
    vocabulary: list[str]


def tokenise(chosen: Tokenizer, corpus: Corpus) -> Tokens:
    """Return the corpus as tokens."""
    return _TOKENIZERS[chosen.name](chosen, corpus)


# ---------------------------------------------------------------------------------------------
# words


def lines(document: str) -> list[str]:
    """Return the lines of a text as Python reads them from a file."""
    found = document.split("\n")
    return found if found[-1] else found[:-1]


def _words(document: str) -> Iterator[str]:
    for line in lines(document):
        yield from line.split()
        yield EOS


def by_words(chosen: Words, corpus: Corpus) -> Tokens:
    """Number the words: all of them as they first appear, or the most frequent ones."""
    if chosen.size is None:
        numbers: dict[str, int] = {}
        for document in (*corpus.train, *corpus.validation, *corpus.test):
            for word in _words(document):
                numbers.setdefault(word, len(numbers))
    else:
        counts = Counter(word for document in corpus.train for word in _words(document))
        counts.pop(EOS, None)
        counts.pop(UNKNOWN, None)
        frequent = [word for word, _ in counts.most_common(chosen.size - 2)]  # ties: the first one
        numbers = {word: number for number, word in enumerate((EOS, UNKNOWN, *frequent))}
    other = numbers.get(UNKNOWN, -1)  # without a limit, no word is another one

    def ids(documents: Sequence[str]) -> list[Ids]:
        return [
            np.fromiter((numbers.get(word, other) for word in _words(document)), np.int32)
            for document in documents
        ]

    return Tokens(ids(corpus.train), ids(corpus.test), list(numbers))


# ---------------------------------------------------------------------------------------------
# SentencePiece


def by_pieces(chosen: SentencePiece, corpus: Corpus) -> Tokens:
    """Encode each document with a model that is read, or trained on the training text.

    Each document begins with the sign for that, if the model has one (as LLaMA's does).
    """
    if chosen.model is None:
        model = trained(corpus.train, chosen.size)
    else:
        model = _loaded(expanded(KEY, chosen.model))
    begin = [model.bos_id()] if model.bos_id() >= 0 else []

    def ids(documents: Sequence[str]) -> list[Ids]:
        return [np.array(begin + model.encode(text), np.int32) for text in documents]

    return Tokens(ids(corpus.train), ids(corpus.test), _pieces(model))


def _pieces(model: SentencePieceProcessor) -> list[str]:
    return [model.id_to_piece(place) for place in range(model.get_piece_size())]


def trained(documents: Iterable[str], size: int) -> SentencePieceProcessor:
    """Train byte pair encoding on a text, with LLaMA's settings.

    Its tokens give back any text, but for U+2581, the library's sign for a blank: it becomes one.
    """
    content = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_sentences(documents),
            model_writer=content,
            vocab_size=size,
            model_type="bpe",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            character_coverage=0.9995,
            max_sentence_length=4 * LONGEST_LINE,  # in bytes
            max_sentencepiece_length=LONGEST_PIECE,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        why = " ".join(str(error).rpartition("] ")[2].split())
        raise ConfigError(
            "data.tokenizer.size",
            f"{size} tokens cannot be trained on this text{why and f' ({why[-160:]})'}; give more "
            "text, or another size",
        ) from None
    return SentencePieceProcessor(model_proto=content.getvalue())


def _sentences(documents: Iterable[str]) -> Iterator[str]:
    for document in documents:
        for line in lines(document):
            for begin in range(0, len(line), LONGEST_LINE):
                if part := line[begin : begin + LONGEST_LINE].translate(UNLEARNED):
                    yield part


def _loaded(path: Path) -> SentencePieceProcessor:
    try:
        if not path.is_file():
            raise ConfigError(KEY, f"{path} is not a file; give the path of a .model file")
        if path.stat().st_size > MOST_BYTES_OF_A_MODEL:
            raise ConfigError(
                KEY, f"{path} is larger than any model of SentencePiece; give the path of one"
            )
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            KEY, f"{path} cannot be read ({error.strerror}); check the path"
        ) from None
    try:
        model = SentencePieceProcessor(model_proto=content)
        if _pieces(model):  # the library takes an empty file, which has none
            return model
    except (RuntimeError, ValueError):  # the latter: a piece that is not UTF-8
        pass
    raise ConfigError(
        KEY, f"{path} is not a model of SentencePiece; give the path of a .model file"
    )


_TOKENIZERS: dict[str, Callable[[Any, Corpus], Tokens]] = {
    "words": by_words,
    "sentencepiece": by_pieces,
}
