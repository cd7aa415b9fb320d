#!/usr/bin/env python3
"""Draws pictures for the documentation as SVG.

  python plot.py loss OUT.svg RUN_DIR...        training loss and held-out bits per byte of runs of train.py
  python plot.py batch OUT.svg COMPARE.json     speed of the first model over the others by batch size,
                                                from `gatefold compare --sequences 1,2,4,... -o json`
"""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "gatefold"  # the same picture from the same figures
import matplotlib.pyplot as plt


def loss(out: str, runs: list[str]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for run in runs:
        data = json.loads(pathlib.Path(run, "history.json").read_text())
        recipe = data["recipe"]
        tokens = recipe["batch"] * recipe["context"] / 1e6
        name = pathlib.Path(run).name
        rows = data["history"]
        left.plot([r["step"] * tokens for r in rows], [r["loss"] for r in rows], label=name)
        seen = [r for r in rows if "heldout" in r]
        right.plot([r["step"] * tokens for r in seen],
                   [sum(r["heldout"].values()) / len(r["heldout"]) for r in seen], marker="o", markersize=3, label=name)
    left.set(xlabel="million tokens", ylabel="training loss, nats per token", ylim=(None, 7))
    right.set(xlabel="million tokens", ylabel="held-out bits per byte, mean over tags (a sample)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(out, metadata={"Date": None})


def batch(out: str, files: list[str]) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.6), layout="constrained")
    for file in files:
        data = json.loads(pathlib.Path(file).read_text())
        first = data["models"][0]["model"]
        others = {}
        for row in data["against_first"]:
            others.setdefault(row["model"], []).append(row)
        for i, (name, rows) in enumerate(others.items()):
            line, = axes.plot([r["sequences"] for r in rows], [r["times_as_fast"] for r in rows], marker="o",
                              label=f"{first} over {name}")
            axes.axhline(rows[0]["ideal"], color=line.get_color(), linestyle=":", linewidth=1,
                         label=f"ratio of bytes read for one token: {rows[0]['ideal']:.2f}")
    axes.set_xscale("log", base=2)
    ticks = sorted({r["sequences"] for f in files for r in json.loads(pathlib.Path(f).read_text())["against_first"]})
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.set(xlabel="sequences decoded together", ylabel="times as fast", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[1] not in ("loss", "batch"):
        sys.exit(__doc__)
    {"loss": loss, "batch": batch}[sys.argv[1]](sys.argv[2], sys.argv[3:])
