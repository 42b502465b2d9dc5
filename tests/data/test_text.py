"""Text and its tokens: what is read, what is refused in a line, and what a tokenizer keeps."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config.data import Data, SentencePiece, Words
from trainer.config.errors import ConfigError
from trainer.data import memory, text, tokenizers
from trainer.data.fingerprint import of_text
from trainer.data.text import Corpus

PROSE = "The cat sat on the mat .\nThe dog did not .\n\n" * 40 + "A zebra came .\n"
MODEL = tokenizers.trained([PROSE], 300)


def own(path, **more) -> Data:
    return Data(**{"name": "text", "path": str(path), **more})


def refusal(data: Data) -> str:
    with pytest.raises(ConfigError) as caught:
        text.read(data)
    message = str(caught.value)
    assert "\n" not in message and message.startswith("data.path: ")
    return message


def test_python_has_a_text_of_its_own():
    corpus = text.read(Data(name="python-topics"))
    assert len(corpus.train) > 50 and corpus.test
    every = corpus.train + corpus.test
    assert 300_000 < sum(map(len, every)) < 2_000_000
    share = sum(map(len, corpus.test)) / sum(map(len, every))
    assert share == pytest.approx(0.1, abs=0.001)


@given(
    documents=st.lists(st.text("ab \n", max_size=300), min_size=1, max_size=8),
    share=st.floats(0.01, 0.99),
)
def test_dividing_loses_nothing_and_keeps_to_the_share(documents, share):
    corpus = text._divided(documents, share)
    assert "".join(corpus.train + corpus.test) == (whole := "".join(documents))
    # a hundredth for the end of a line, half a character of rounding
    assert abs(sum(map(len, corpus.test)) - share * len(whole)) <= len(whole) / 100 + 0.5 + 1e-6


def test_a_heading_does_not_become_the_training_text():
    body = "word " * 2000
    corpus = text._divided([f"Title\n{body}"], 0.1)
    assert corpus.train[0].endswith("word ") and len(corpus.test[0]) == pytest.approx(1000, abs=101)


def test_the_test_text_begins_with_a_line(tmp_path):
    (tmp_path / "a.txt").write_text(PROSE * 3)
    corpus = text.read(own(tmp_path / "a.txt", test_share=0.3))
    assert corpus.train[0].endswith("\n") and corpus.train[0] + corpus.test[0] == PROSE * 3


def test_a_folder_is_its_files_in_order(tmp_path):
    root, files = tmp_path / "text", (("b.txt", "two"), ("a.txt", "one"), ("e.md", "no"))
    for name, content in (*files, ("../linked/d.txt", "three")):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(content)
    (root / "c").symlink_to(tmp_path / "linked")
    corpus = text.read(own(root, test_share=0.01))
    assert "".join(corpus.train + corpus.test) == "onetwothree"
    assert len(corpus.train) == 3


def test_a_folder_may_be_divided_already(tmp_path):
    for part, content in (("train", "learn"), ("test", "judge")):
        (tmp_path / part).mkdir()
        (tmp_path / part / "a.txt").write_text(content)
    assert text.read(own(tmp_path)) == Corpus(["learn"], [], ["judge"])
    assert text.read(Data(name="python-topics")).divided


@pytest.mark.parametrize(
    "content", [b"one\r\n\r\ntwo\n", b"one\r\rtwo\r", b"\xef\xbb\xbfone\n\ntwo\n"]
)
def test_lines_end_in_one_way_and_a_mark_of_the_byte_order_is_no_text(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    corpus = text.read(own(tmp_path, test_share=0.4))
    assert "".join(corpus.train + corpus.test) == "one\n\ntwo\n"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("names", text.WIKITEXT)
def test_wikitext_is_read_under_both_names(tmp_path, names, end):
    train = " \n = Title = \n \n words \n = = Part = = \n more \n = Other = \n end \n"
    for name, content in zip(names, (train, "valid \n", "test \n"), strict=True):
        (tmp_path / name).write_text(content, newline=end)
    corpus = text.read(Data(name="wikitext2", path=str(tmp_path)))
    assert [len(corpus.train), corpus.validation, corpus.test] == [3, ["valid \n"], ["test \n"]]
    assert "".join(corpus.train) == train and corpus.train[2].startswith(" = Other = ")


def test_wikitext_is_never_downloaded(tmp_path):
    message = refusal(Data(name="wikitext2", path=str(tmp_path)))
    assert "wiki.train.tokens" in message and "train.txt" in message and "nothing is" in message


def test_what_is_no_text_is_refused_in_a_line(tmp_path):
    assert "cannot be read (No such file" in refusal(own(tmp_path / "none.txt"))
    assert "has no .txt file" in refusal(own(tmp_path))
    (tmp_path / "image.txt").write_bytes(b"fine\n\xff\xd8\xff\xe0 not")
    assert "image.txt is not UTF-8 text (byte 5" in refusal(own(tmp_path))
    (tmp_path / "image.txt").unlink()
    os.mkfifo(tmp_path / "pipe.txt")
    assert "is not a regular file" in refusal(own(tmp_path))
    (tmp_path / "again").symlink_to(tmp_path)
    assert "again and another path below" in refusal(own(tmp_path))


@pytest.mark.parametrize("path", ["~nosuchuser/x", "zero\0", "half\ud800"])
def test_what_cannot_be_a_path_is_refused_in_a_line(path):
    assert "cannot be a path (" in refusal(own(path))
    with pytest.raises(ConfigError, match=r"^data.tokenizer.model: .* cannot be a path \("):
        tokenizers.tokenise(SentencePiece(model=path), Corpus(["a"], [], ["b"]))


def test_a_file_without_permission_is_refused_in_a_line(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("x")

    def denied(path):  # root may read everything
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(text.Path, "read_bytes", denied)
    assert "a.txt cannot be read (Permission denied)" in refusal(own(tmp_path))


def test_a_text_beyond_memory_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "a.txt", "wb") as file:
        file.truncate(1 << 40)  # a hole
    assert "give a smaller text" in refusal(own(tmp_path))


def test_each_tokenizer_and_each_rank_of_the_machine_takes_its_memory(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text(PROSE)
    monkeypatch.setattr(memory, "_limits", lambda: [40 * len(PROSE)])
    text.read(own(tmp_path))
    assert "text (sentencepiece) would take 0.0 GB of this machine's" in refusal(
        own(tmp_path, tokenizer={"name": "sentencepiece"})
    )
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "6")
    assert "would take 0.0 GB for each of 6 ranks of this machine's" in refusal(own(tmp_path))


@pytest.mark.parametrize(
    ("line", "name"),
    [("0::/own/pod", "memory.max"), ("4:memory:/own/pod", "memory/memory.limit_in_bytes")],
)
def test_a_control_group_may_grant_less_memory(tmp_path, monkeypatch, line, name):
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_CGROUP", tmp_path / "cgroup")
    assert list(memory._limits()) == []
    (tmp_path / "cgroup").write_text(f"9:cpu:/elsewhere\n{line}\n")
    path = Path(name)
    for folder, limit in (("own/pod", "max"), ("own", "300"), ("", "500")):
        place = tmp_path / path.parent / folder / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{limit}\n")
    assert list(memory._limits()) == [300, 500]


# ---------------------------------------------------------------------------------------------
# tokens


def words_of(corpus: Corpus, size: int | None = None) -> tokenizers.Tokens:
    return tokenizers.tokenise(Words(size=size), corpus)


def test_words_are_numbered_as_in_the_papers_code(tmp_path):
    corpus = Corpus(["the cat\n\nthe dog\n"], ["a mouse"], ["the end\n"])
    found = words_of(corpus)
    expected: dict[str, int] = {}  # its dictionary: line by line, <eos> at the end of each
    ids = []
    for part in (*corpus.train, *corpus.validation, *corpus.test):
        path = tmp_path / "part"
        path.write_text(part)
        with path.open(encoding="utf8") as file:
            for line in file:
                ids += [expected.setdefault(w, len(expected)) for w in [*line.split(), "<eos>"]]
    assert found.vocabulary == list(expected)
    assert found.train[0].tolist() == ids[:7] and found.test[0].tolist() == ids[-3:]


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=80), st.integers(3, 12))
def test_a_limited_vocabulary_keeps_the_most_frequent_words(words, size):
    found = words_of(Corpus([" ".join(words)], [], ["a z"]), size)
    kept = found.vocabulary[2:]
    counts = Counter(words)
    assert found.vocabulary[:2] == ["<eos>", "<unk>"] and len(kept) == min(size - 2, len(counts))
    assert all(counts[k] >= counts[o] for k in kept for o in counts if o not in kept)
    back = [found.vocabulary[token] for token in found.train[0]]
    assert back == [word if word in kept else "<unk>" for word in words] + ["<eos>"]
    assert found.vocabulary[found.test[0][1]] == "<unk>"


def test_pieces_give_back_every_text():
    for sample in (PROSE, "  two  blanks", "tab\tand\n\nlines", "äöü 漢字 🙂", "\x00 zero"):
        assert MODEL.decode(MODEL.encode(sample)) == sample
    assert MODEL.get_piece_size() == 300


@settings(max_examples=25)
@given(st.text(st.characters(exclude_characters="▁", exclude_categories=("Cs",)), max_size=60))
def test_pieces_lose_nothing(sample):
    # ▁ is the library's own sign for a blank
    assert MODEL.decode(MODEL.encode(sample)) == sample


def test_training_pieces_twice_gives_the_same_model():
    assert tokenizers.trained([PROSE], 310).serialized_model_proto() == (
        tokenizers.trained([PROSE], 310).serialized_model_proto()
    )


def test_documents_begin_with_the_sign_for_it(tmp_path):
    path = tmp_path / "own.model"
    path.write_bytes(MODEL.serialized_model_proto())
    found = tokenizers.tokenise(SentencePiece(model=str(path)), Corpus(["The cat"], [], ["A dog"]))
    assert found.vocabulary[found.train[0][0]] == found.vocabulary[found.test[0][0]] == "<s>"
    assert found.vocabulary == [MODEL.id_to_piece(n) for n in range(300)]


def test_a_vocabulary_larger_than_the_text_is_refused_in_a_line():
    with pytest.raises(ConfigError, match=r"data.tokenizer.size: 5000 tokens cannot be trained"):
        tokenizers.tokenise(SentencePiece(size=5000), Corpus(["one line"], [], ["x"]))


@pytest.mark.parametrize("content", ["", "\n", "\0\0\n", "▅\n"])
def test_a_text_of_nothing_is_refused_in_a_line(content):
    with pytest.raises(ConfigError) as caught:
        tokenizers.tokenise(SentencePiece(size=300), Corpus([content], [], ["x"]))
    assert str(caught.value) == (
        "data.tokenizer.size: 300 tokens cannot be trained on this text; give more text, or "
        "another size"
    )


@pytest.mark.parametrize("reserved", ["▅", "\0"])
def test_a_line_with_a_character_of_the_library_is_learned_from(reserved):
    line = "zqzq" + reserved
    pieces = tokenizers.trained([f"{line}\n" * 200 + PROSE], 300)
    assert "zqzq" in pieces.encode("zqzq", out_type=str)
    assert pieces.decode(pieces.encode(line)) == line


def test_a_line_of_any_length_is_learned_from():
    line = PROSE.replace("\n", " ")
    model = tokenizers.trained([line * 50], 300)
    assert len(model.encode("the mat . The dog")) < 10


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "is not a file; give the path of a .model file"),
        (b"no model", "is not a model of SentencePiece; give the path of a .model file"),
        (b"", "is not a model of SentencePiece; give the path of a .model file"),
        (b"x" * 101, "is larger than any model of SentencePiece; give the path of one"),
    ],
)
def test_what_is_no_model_is_refused_in_a_line(tmp_path, monkeypatch, content, problem):
    monkeypatch.setattr(tokenizers, "MOST_BYTES_OF_A_MODEL", 100)
    path = tmp_path / "own.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        tokenizers.tokenise(SentencePiece(model=str(path)), Corpus(["a"], [], ["b"]))
    assert str(caught.value) == f"data.tokenizer.model: {path} {problem}"


def test_the_fingerprint_sees_each_byte_and_each_token():
    def tokens(vocabulary, *train):
        return tokenizers.Tokens([np.array(ids, np.int32) for ids in train], [], vocabulary)

    corpus, found = Corpus(["one\n", "two"], [], ["three"]), tokens(["a", "b"], [0, 1], [1])
    seen = {
        of_text(corpus, found),
        of_text(corpus, tokens(["a", "c"], [0, 1], [1])),
        of_text(corpus, tokens(["a", "b"], [0, 0], [1])),
        of_text(corpus, tokens(["a", "b"], [0], [1, 1])),
        of_text(Corpus(["one ", "two"], [], ["three"]), found),
        of_text(Corpus(["one", "\ntwo"], [], ["three"]), found),
        of_text(Corpus(["one\n", "two", "three"], [], []), found),
    }
    assert len(seen) == 7
    assert of_text(corpus, found) in seen
