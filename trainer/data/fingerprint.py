"""The fingerprint of a data set: whether a run that resumes has the data that it began with.

It depends on the samples and their order, not on the path or the format of the files. The tokens
of a text, and what each stands for, are a part of its data.
"""

import hashlib

import numpy as np
from torch import Tensor

from trainer.data.load import Dataset
from trainer.data.text import Corpus
from trainer.data.tokenizers import Tokens


def fingerprint(data: Dataset) -> str:
    """Return the SHA-256 of all samples; of images that stay in files, of their names.

    Looking at each file would take minutes for a million of them on a network volume.
    """
    digest = hashlib.sha256()
    for part in (data.x_train, data.y_train, data.x_test, data.y_test):
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype} {tuple(part.shape)}\n".encode())
            digest.update(np.ascontiguousarray(part.numpy()).data)
        else:
            digest.update(repr(part.files.classes).encode())
            digest.update(np.ascontiguousarray(part.files.labels).data)
            digest.update(part.files.names)
    return digest.hexdigest()


def of_text(corpus: Corpus, tokens: Tokens) -> str:
    """Return the SHA-256 of all documents, of what each token stands for, and of all tokens."""
    digest = hashlib.sha256()
    for part in (corpus.train, corpus.validation, corpus.test, tokens.vocabulary):
        for text in (str(len(part)), *part):
            content = text.encode(errors="surrogatepass")
            digest.update(b"%d " % len(content) + content)
    for ids in (*tokens.train, *tokens.test):
        digest.update(b"%d " % len(ids) + ids.tobytes())
    return digest.hexdigest()
