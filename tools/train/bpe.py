"""A byte-level BPE tokenizer learnt from a corpus.

Every byte is a token, so every input can be written; digits stand alone, so that arithmetic sees places.
"""

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

# Words with their leading blank, single digits, runs of marks, runs of blanks: the expression of Qwen2.
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ["<|begin|>", "<|end|>"]  # ids 0 and 1


def train(corpus: dict[str, list[str]], vocab_size: int, quiet: bool = False) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(WORDS), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIAL, show_progress=not quiet,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator((d for documents in corpus.values() for d in documents), trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(f"the corpus yields {tokenizer.get_vocab_size()} tokens, not {vocab_size}: it is too small")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B:1",
        special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))])
    return tokenizer
