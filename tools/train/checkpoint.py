"""Training state on disk, written whole or not at all."""

import os
import pathlib

import torch

from recipe import Recipe


class CheckpointError(ValueError):
    """The checkpoint cannot be resumed; the message says why and what to do."""


def save(path: pathlib.Path, recipe: Recipe, corpus: str, step: int, model, optimizer, history: list) -> None:
    temporary = path.with_suffix(".tmp")
    state = dict(sizes=recipe.model_sizes(), recipe=vars(recipe), corpus=corpus, step=step, model=model.state_dict(),
                 optimizer=optimizer.state_dict(), history=history)
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load(path: pathlib.Path, recipe: Recipe, corpus: str, device) -> dict | None:
    """The state to resume from, or None where there is none yet."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        sizes, trained_as, seen = state["sizes"], state["recipe"], state["corpus"]
    except Exception as e:  # torch raises many kinds for a broken file
        raise CheckpointError(f"{path}: not a checkpoint of this program ({e}); delete it to start over") from None
    wanted = recipe.model_sizes()
    different = [f"{k} is {sizes.get(k)} there and {v} here" for k, v in wanted.items() if sizes.get(k) != v]
    different += [f"{k} is {trained_as.get(k)} there and {v} here" for k, v in vars(recipe).items()
                  if k not in wanted and trained_as.get(k) != v]
    if seen != corpus:
        different.append("it was trained on another corpus or tokenizer")
    if different:
        raise CheckpointError(f"{path}: cannot resume: {'; '.join(different)}. "
                              "Use the recipe it was made with, or another --out")
    return state
