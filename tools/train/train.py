#!/usr/bin/env python3
"""Trains a small sparse or dense language model on a folder of tagged texts.

  python train.py --recipe tiny-moe --corpus DIR --out DIR [--steps N] [--minutes N] [--device cpu|cuda]

DIR/train/TAG.txt is learnt from, DIR/heldout/TAG.txt watched. The state is saved in OUT every few
minutes and at Ctrl-C or SIGTERM; the same command goes on where it was, with the batches that would have
come. When the last step is done, OUT/model is a Hugging Face folder.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import signal
import sys
import time

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F

import bpe
import checkpoint
import corpus as corpora
import export
from model import Transformer
from recipe import RECIPES, Recipe


def learning_rate(recipe: Recipe, step: int) -> float:
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.lr * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def make_optimizer(model: Transformer, recipe: Recipe) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [dict(params=matrices, weight_decay=recipe.weight_decay), dict(params=vectors, weight_decay=0.0)]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.95), eps=1e-8, fused=True)


def mixed_precision(device: str):
    return torch.autocast(device, dtype=torch.bfloat16)


def loss_of(model, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(cross-entropy in nats per token, balance loss) of windows [B, T + 1]."""
    logits, balance = model(batch[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten()), balance


class Heldout:
    """The same few windows of every tag each time, so that one look can be compared with the next."""

    WINDOWS = 4

    def __init__(self, streams: dict[str, np.ndarray], bytes_per_token: dict[str, float], context: int):
        self._windows, self._bytes_per_token = {}, bytes_per_token
        for tag, stream in streams.items():
            starts = np.linspace(0, max(0, len(stream) - context - 1), self.WINDOWS).astype(int)
            rows = [stream[s:s + context + 1] for s in starts]
            if len(rows[0]) < context + 1:
                raise corpora.CorpusError(f"heldout tag '{tag}' has {len(stream)} tokens, a window {context + 1}")
            self._windows[tag] = torch.from_numpy(np.stack(rows).astype(np.int64))

    @torch.no_grad()
    def bits_per_byte(self, model, device: str) -> dict[str, float]:
        """By tag, of the sampled windows; `gatefold eval` measures the whole text."""
        out = {}
        model.eval()
        for tag, windows in self._windows.items():
            with mixed_precision(device):
                nats, _ = loss_of(model, windows.to(device))
            out[tag] = nats.item() / math.log(2) / self._bytes_per_token[tag]
        model.train()
        return out


class Progress:
    """One line on a terminal that is written over, or a line every few seconds."""

    def __init__(self):
        self._tty, self._shown = sys.stderr.isatty(), 0.0

    def show(self, line: str, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self._shown < (0.5 if self._tty else 15):
            return
        self._shown = now
        print(f"\r{line}\x1b[K" if self._tty else line, end="" if self._tty and not last else "\n",
              file=sys.stderr, flush=True)


def minutes_and_seconds(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def load_or_train_tokenizer(path: pathlib.Path, texts, recipe: Recipe) -> tokenizers.Tokenizer:
    if path.exists():
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as e:  # the library raises nothing narrower
            raise checkpoint.CheckpointError(f"{path}: not a tokenizer ({e}); delete it to learn a new one") from None
        if tokenizer.get_vocab_size() != recipe.vocab_size:
            raise checkpoint.CheckpointError(
                f"{path}: has {tokenizer.get_vocab_size()} tokens, the recipe {recipe.vocab_size}; use another --out")
        return tokenizer
    print("learning the tokenizer", file=sys.stderr)
    tokenizer = bpe.train(texts, recipe.vocab_size)
    temporary = path.with_suffix(".tmp")
    tokenizer.save(str(temporary))
    os.replace(temporary, path)  # whole or not at all
    return tokenizer


class Interrupt:
    """Set by SIGINT or SIGTERM; the step under way is finished and saved."""

    def __init__(self):
        self.asked = False
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, self._ask)

    def _ask(self, *_):
        self.asked = True


def train(recipe: Recipe, corpus: pathlib.Path, out: pathlib.Path, device: str, save_minutes: float,
          minutes: float | None, compile_model: bool) -> bool:
    """True when the last step is done, False when it was told to stop before."""
    out.mkdir(parents=True, exist_ok=True)
    texts = corpora.read_corpus(corpus / "train")
    heldout_texts = corpora.read_corpus(corpus / "heldout") if (corpus / "heldout").exists() else {}
    tokenizer = load_or_train_tokenizer(out / "tokenizer.json", texts, recipe)
    digest = corpora.corpus_digest(texts) + str(hash_of(tokenizer))

    streams = {tag: corpora.token_stream(d, tokenizer) for tag, d in texts.items()}
    batches = corpora.Batches(corpora.repeated(streams, recipe.repeats), recipe.context, recipe.batch, recipe.seed)
    heldout_streams = {tag: corpora.token_stream(d, tokenizer) for tag, d in heldout_texts.items()}
    heldout = Heldout(heldout_streams,
                      {tag: sum(len(d.encode()) for d in heldout_texts[tag]) / len(s)
                       for tag, s in heldout_streams.items()}, recipe.context)

    model = Transformer(recipe).to(device)
    optimizer = make_optimizer(model, recipe)
    state = checkpoint.load(out / "checkpoint.pt", recipe, digest, device)
    step, history = 0, []
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, history = state["step"], state["history"]
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, "
          f"{model.active_parameters() / 1e6:.2f} M active per token; {len(batches) / 1e6:.2f} M tokens of text, "
          f"{recipe.steps * recipe.batch * recipe.context / 1e6:.1f} M to learn from; {device}"
          + (f"; resuming at step {step}" if step else ""), file=sys.stderr)

    forward = torch.compile(loss_of, dynamic=False) if compile_model else loss_of
    interrupt, progress = Interrupt(), Progress()
    began = saved = looked = time.monotonic()
    first = step
    trained_before = history[-1]["seconds"] if history else 0.0
    smooth = None

    def save():
        checkpoint.save(out / "checkpoint.pt", recipe, digest, step, model, optimizer, history)

    while step < recipe.steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        torch.manual_seed(recipe.seed << 32 | step)  # of dropout: a resumed run drops what would have been dropped
        batch = torch.from_numpy(batches.at(step)).to(device)
        with mixed_precision(device):
            nats, balance = forward(model, batch)
        (nats + recipe.balance * balance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        nats = nats.detach()
        smooth = nats if smooth is None else 0.95 * smooth + 0.05 * nats
        step += 1
        last = step == recipe.steps
        if device == "cuda" and step % 10 and not last:
            continue  # reading a number waits for the device: let it get ahead
        loss, balance = smooth.item(), balance.item()
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {step}; a lower lr helps")

        now = time.monotonic()
        rate = (step - first) / (now - began)
        if step % 50 == 0 or last:
            history.append(dict(step=step, loss=loss, balance=balance, seconds=trained_before + now - began))
        if (now - looked > 240 or step % max(1, recipe.steps // 20) == 0 or last) and heldout_streams:
            looked = now
            bits = heldout.bits_per_byte(model, device)
            history.append(dict(step=step, loss=loss, balance=balance, seconds=trained_before + now - began,
                                heldout=bits))
            print(f"\nstep {step}: held-out bits per byte {sum(bits.values()) / len(bits):.3f} ("
                  + ", ".join(f"{tag} {b:.2f}" for tag, b in bits.items()) + ")", file=sys.stderr)
        progress.show(f"step {step}/{recipe.steps}  loss {loss:.3f}  balance {balance:.3f}  "
                      f"{rate * recipe.batch * recipe.context:.0f} tokens/s  "
                      f"left {minutes_and_seconds((recipe.steps - step) / rate)}", last)
        stop = interrupt.asked or (minutes is not None and now - began > 60 * minutes)
        if last or stop or now - saved > 60 * save_minutes:
            saved = now
            save()
        if stop and not last:
            print(f"\nstopped at step {step}; the same command goes on from there", file=sys.stderr)
            return False

    export.write(model, tokenizer, out / "model")
    with open(out / "history.json", "w", encoding="utf-8") as file:
        json.dump(dict(recipe=dataclasses.asdict(recipe), history=history), file, indent=1)
    print(f"written: {out / 'model'}", file=sys.stderr)
    return True


def hash_of(tokenizer: tokenizers.Tokenizer) -> str:
    import hashlib
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=sorted(RECIPES), required=True)
    parser.add_argument("--corpus", type=pathlib.Path, required=True, help="folder with train/ and heldout/")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="state, loss history and the model")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all cores")
    parser.add_argument("--save-minutes", type=float, default=3.0, help="between two saved states")
    parser.add_argument("--minutes", type=float, help="stop after so long; run again to go on")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    for name in ("steps", "batch", "context", "seed"):
        parser.add_argument(f"--{name}", type=int, help="instead of the recipe's")
    for name in ("lr", "dropout"):
        parser.add_argument(f"--{name}", type=float, help="instead of the recipe's")
    flags = parser.parse_args()
    if flags.threads > 0:
        torch.set_num_threads(flags.threads)
    changes = {n: getattr(flags, n) for n in ("steps", "batch", "context", "seed", "lr", "dropout")
               if getattr(flags, n) is not None}
    for name, value in changes.items():
        if name not in ("seed", "dropout") and not 0 < value < math.inf:
            parser.error(f"--{name} must be a positive number, not {value}")
    if not 0 <= changes.get("seed", 0) < 2**31:
        parser.error(f"--seed must be within 0 and {2**31 - 1}, not {flags.seed}")
    if flags.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no CUDA device here")
    if not 0 <= changes.get("dropout", 0) < 1:
        parser.error(f"--dropout must be in [0, 1), not {flags.dropout}")
    recipe = dataclasses.replace(RECIPES[flags.recipe], **changes)
    try:
        done = train(recipe, flags.corpus, flags.out, flags.device, flags.save_minutes, flags.minutes, flags.compile)
    except (ValueError, FloatingPointError, OSError) as e:
        print(f"train: {e}", file=sys.stderr)
        return 1
    return 0 if done else 130


if __name__ == "__main__":
    sys.exit(main())
