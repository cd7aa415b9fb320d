"""The tagged text files of a folder, as documents, as tokens and as batches.

A corpus is a folder of TAG.txt files in UTF-8 whose documents end with a line `<|end|>`.
"""

import hashlib
import pathlib

import numpy as np

END_LINE = "<|end|>"


class CorpusError(ValueError):
    """The corpus cannot be used; the message names the file and the reason."""


def read_documents(path: pathlib.Path) -> list[str]:
    """The documents of one file, without their end lines."""
    if not path.is_file():
        raise CorpusError(f"{path}: not a file")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as e:
        line = path.read_bytes()[:e.start].count(b"\n") + 1
        raise CorpusError(f"{path}: line {line} is not UTF-8 (byte {e.start}: {e.reason})") from None
    documents, lines = [], []
    for line in text.replace("\r\n", "\n").split("\n"):
        if line == END_LINE:
            documents.append("\n".join(lines).strip("\n") + "\n")
            lines = []
        else:
            lines.append(line)
    if any(line.strip() for line in lines):
        raise CorpusError(f"{path}: the last document does not end with a line {END_LINE}")
    documents = [d for d in documents if d.strip()]
    if not documents:
        raise CorpusError(f"{path}: tag '{path.stem}' is empty")
    return documents


def read_corpus(folder: pathlib.Path) -> dict[str, list[str]]:
    """Documents by tag, tags in alphabetical order."""
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not files:
        raise CorpusError(f"{folder}: no TAG.txt files here")
    return {path.stem: read_documents(path) for path in files}


def corpus_digest(corpus: dict[str, list[str]]) -> str:
    digest = hashlib.sha256()
    for tag, documents in corpus.items():
        for part in (tag, *documents):
            digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def token_stream(documents: list[str], tokenizer) -> np.ndarray:
    """All documents one after another, each between begin and end ids. [n] uint16."""
    begin, end = tokenizer.token_to_id("<|begin|>"), tokenizer.token_to_id("<|end|>")
    parts = []
    for encoding in tokenizer.encode_batch(documents, add_special_tokens=False):
        parts.append(np.array([begin, *encoding.ids, end], dtype=np.uint16))
    return np.concatenate(parts)


def repeated(streams: dict[str, np.ndarray], repeats: tuple[tuple[str, int], ...]) -> list[np.ndarray]:
    """The streams by tag, those of tags in `repeats` (tag, n) n times."""
    times = dict(repeats)
    return [stream for tag, stream in streams.items() for _ in range(times.get(tag, 1))]


class Batches:
    """Windows at random places of all tags' tokens together.

    Batch number i depends on (seed, i) alone: training that was killed goes on with the batches that
    would have come, and twins see the same ones.
    """

    def __init__(self, streams: list[np.ndarray], context: int, batch: int, seed: int):
        self._tokens = np.concatenate(streams)
        self._context, self._batch, self._seed = context, batch, seed
        if len(self._tokens) <= context + 1:
            raise CorpusError(f"the corpus has {len(self._tokens)} tokens, fewer than one window of {context}")

    def __len__(self) -> int:
        return len(self._tokens)

    def at(self, step: int) -> np.ndarray:
        """[batch, context + 1] int64: inputs are all but the last column, targets all but the first."""
        rng = np.random.default_rng([self._seed, step])
        starts = rng.integers(0, len(self._tokens) - self._context - 1, size=self._batch)
        return np.stack([self._tokens[s:s + self._context + 1] for s in starts]).astype(np.int64)
