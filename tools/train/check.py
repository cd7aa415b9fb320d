#!/usr/bin/env python3
"""Compares Gatefold with Hugging Face transformers on one model folder.

  python check.py MODEL_DIR TEXT_FILE... [--gatefold build/release/bin/gatefold] [--tokens 256]

Both read the same weights and compute in float32. The first tokens of each text are given to both: the
logits after the last token must agree within 2e-3, and the token ids must be the same.
"""

import argparse
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import torch
import transformers

TOLERANCE = 2e-3


def gatefold_logits(gatefold: str, model: pathlib.Path, ids: list[int]) -> torch.Tensor:
    with tempfile.TemporaryDirectory() as folder:
        out, tokens = pathlib.Path(folder, "logits"), pathlib.Path(folder, "ids.json")
        tokens.write_text(str(ids))
        subprocess.run([gatefold, "score", "--model", model, "--tokens-file", tokens, "--logits-out", out,
                        "-o", "json"], check=True, capture_output=True)
        raw = out.read_bytes()
    return torch.tensor(struct.unpack(f"<{len(raw) // 4}f", raw))


def gatefold_ids(gatefold: str, model: pathlib.Path, text: str) -> list[int]:
    done = subprocess.run([gatefold, "tokenize", "--model", model, "-o", "json"], input=text.encode(), check=True,
                          capture_output=True)
    return json.loads(done.stdout)["token_ids"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("texts", type=pathlib.Path, nargs="+")
    parser.add_argument("--gatefold", default="build/release/bin/gatefold")
    parser.add_argument("--tokens", type=int, default=256)
    flags = parser.parse_args()

    tokenizer = transformers.AutoTokenizer.from_pretrained(flags.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(flags.model, dtype=torch.float32).eval()
    failed = False
    for path in flags.texts:
        text = path.read_text(encoding="utf-8")[:20000]
        ids = tokenizer(text)["input_ids"]
        same_ids = gatefold_ids(flags.gatefold, flags.model, text) == ids
        ids = ids[:flags.tokens]
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits[0, -1]
        difference = (gatefold_logits(flags.gatefold, flags.model, ids) - expected).abs().max().item()
        good = same_ids and difference <= TOLERANCE
        failed |= not good
        print(f"{path.name}: token ids {'equal' if same_ids else 'DIFFER'}, logits within {difference:.1e}"
              + ("" if good else "  FAILED"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
