#!/usr/bin/env python3
"""python3 -m unittest train_test; exits with 77 where PyTorch and tokenizers are not installed."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

try:
    import numpy as np
    import safetensors.torch
    import tokenizers
    import torch
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

import bpe
import checkpoint
import corpus
import export
import train
from model import SparseMlp, Transformer
from recipe import RECIPES, Recipe

SMALL = Recipe(d_model=32, n_layers=2, n_heads=2, n_kv_heads=1, d_expert=16, n_experts=4, top_k=2, vocab_size=300,
               context=32, steps=6, batch=2, warmup=2, lr=3e-3)


def write_corpus(folder: pathlib.Path) -> pathlib.Path:
    for part in ("train", "heldout"):
        (folder / part).mkdir(parents=True)
        for tag in ("numbers", "words"):
            documents = []
            for i in range(40):
                words = [str(i * j) if tag == "numbers" else chr(97 + (i * j) % 26) * (j % 5 + 1) for j in range(30)]
                documents.append(" ".join(words) + "\n<|end|>\n")
            (folder / part / f"{tag}.txt").write_text("".join(documents), encoding="utf-8")
    return folder


def run(recipe: Recipe, folder: pathlib.Path, out: pathlib.Path, **kwargs) -> bool:
    settings = dict(device="cpu", save_minutes=100, minutes=None, compile_model=False) | kwargs
    with contextlib.redirect_stderr(io.StringIO()):
        return train.train(recipe, folder, out, **settings)


class CorpusTest(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def refuse(self, content: bytes, message: str):
        (self.dir / "tag.txt").write_bytes(content)
        with self.assertRaisesRegex(corpus.CorpusError, message):
            corpus.read_corpus(self.dir)

    def test_documents_end_with_their_line(self):
        (self.dir / "b.txt").write_text("one\n\ntwo\n<|end|>\nthree <|end|>\n<|end|>\n")
        (self.dir / "a.txt").write_text("x\n<|end|>\n")
        self.assertEqual(corpus.read_corpus(self.dir), {"a": ["x\n"], "b": ["one\n\ntwo\n", "three <|end|>\n"]})

    def test_bad_files_are_named_with_the_reason(self):
        self.refuse(b"fine\n\xff\n<|end|>\n", r"tag.txt: line 2 is not UTF-8")
        self.refuse(b"\n<|end|>\n", r"tag 'tag' is empty")
        self.refuse(b"", r"tag 'tag' is empty")
        self.refuse(b"x\n<|end|>\nrest", r"does not end with a line <\|end\|>")
        with self.assertRaisesRegex(corpus.CorpusError, "no TAG.txt files"):
            corpus.read_corpus(self.dir / "absent")

    def test_batches_depend_on_seed_and_step_alone(self):
        stream = np.arange(1000, dtype=np.uint16)
        one = corpus.Batches([stream], context=8, batch=4, seed=5)
        again = corpus.Batches([stream], context=8, batch=4, seed=5)
        one.at(0)
        np.testing.assert_array_equal(one.at(7), again.at(7))
        self.assertEqual(one.at(7).shape, (4, 9))
        self.assertFalse((one.at(7) == one.at(8)).all())
        with self.assertRaisesRegex(corpus.CorpusError, "fewer than one window"):
            corpus.Batches([stream], context=1000, batch=1, seed=1)


    def test_a_repeated_tag_counts_so_many_times(self):
        streams = {"a": np.array([1]), "b": np.array([2])}
        counted = np.concatenate(corpus.repeated(streams, (("b", 3), ("absent", 2))))
        self.assertEqual(counted.tolist(), [1, 2, 2, 2])


class TokenizerTest(unittest.TestCase):
    def test_every_byte_can_be_written_and_digits_stand_alone(self):
        tokenizer = bpe.train({"t": ["hello there 1234 hello\n"] * 5}, 265, quiet=True)
        for text in ("hello 987", "日本語 \U0001F600 \x00\x7f", "  spaces\n\n\ttabs"):
            ids = tokenizer.encode(text).ids
            self.assertEqual(ids[0], 0)  # begin of sequence
            self.assertEqual(tokenizer.decode(ids), text)
        self.assertEqual(len(tokenizer.encode("1234", add_special_tokens=False).ids), 4)

    def test_a_corpus_that_is_too_small_is_refused(self):
        with self.assertRaisesRegex(ValueError, "too small"):
            bpe.train({"t": ["a"]}, 4096, quiet=True)


class ModelTest(unittest.TestCase):
    def test_twins_have_the_parameters_they_are_named_for(self):
        sizes = {name: Transformer(recipe) for name, recipe in RECIPES.items()}
        count = {name: sum(p.numel() for p in m.parameters()) for name, m in sizes.items()}
        gates = SMALL.n_experts and RECIPES["tiny-moe"].n_layers * 8 * RECIPES["tiny-moe"].d_model
        self.assertEqual(count["tiny-dense-total"], count["tiny-moe"] - gates)
        self.assertEqual(count["tiny-dense-active"], sizes["tiny-moe"].active_parameters() - gates)
        self.assertLess(2 * count["tiny-moe"], 20_000_000 - 400_000)  # bytes in bfloat16; a tokenizer beside it

    def test_sparse_mlp_is_the_sum_over_chosen_experts(self):
        torch.manual_seed(1)
        mlp = SparseMlp(SMALL)
        for p in mlp.parameters():
            torch.nn.init.normal_(p, std=0.2)
        x = torch.randn(2, 3, SMALL.d_model)
        rows = x.view(6, -1)
        top, chosen = (rows @ mlp.gate.weight.T).topk(2)
        each, masked = (way(rows, chosen, top.softmax(dim=-1)) for way in (mlp.chosen_experts, mlp.all_experts_masked))
        torch.testing.assert_close(each, masked, atol=1e-5, rtol=1e-5)
        out, balance = mlp(x)
        for b in range(2):
            for t in range(3):
                row = x[b, t]
                logits = mlp.gate.weight @ row
                weights, chosen = logits.topk(2)
                expected = sum(w * (mlp.w2[e] @ (torch.nn.functional.silu(mlp.w1[e] @ row) * (mlp.w3[e] @ row)))
                               for w, e in zip(weights.softmax(0), chosen))
                torch.testing.assert_close(out[b, t], expected, atol=1e-5, rtol=1e-5)
        self.assertGreaterEqual(balance.item(), 0.9)


class TrainTest(unittest.TestCase):
    def setUp(self):
        torch.set_num_threads(1)
        self.dir = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.corpus = write_corpus(self.dir / "corpus")

    def weights(self, out):
        return safetensors.torch.load_file(out / "model" / "model.safetensors")

    def test_writes_a_hugging_face_folder(self):
        for sparse in (True, False):
            recipe = SMALL if sparse else dataclasses.replace(SMALL, n_experts=0)
            out = self.dir / f"out-{sparse}"
            self.assertTrue(run(recipe, self.corpus, out))
            config = json.loads((out / "model" / "config.json").read_text())
            self.assertEqual(config["architectures"], ["MixtralForCausalLM" if sparse else "LlamaForCausalLM"])
            tensors = self.weights(out)
            name = "block_sparse_moe.experts.3.w2" if sparse else "mlp.down_proj"
            self.assertEqual(tuple(tensors[f"model.layers.1.{name}.weight"].shape), (32, 16))
            self.assertTrue(all(t.dtype == torch.bfloat16 for t in tensors.values()))
            for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
                self.assertTrue((out / "model" / file).exists())
            history = json.loads((out / "history.json").read_text())["history"]
            self.assertEqual(set(history[-1]["heldout"]), {"numbers", "words"})

    def test_goes_on_as_if_it_had_never_stopped(self):
        self.assertTrue(run(SMALL, self.corpus, self.dir / "whole"))
        parts = self.dir / "parts"
        for _ in range(20):  # a step each
            if run(SMALL, self.corpus, parts, minutes=0):
                break
        a, b = self.weights(self.dir / "whole"), self.weights(parts)
        for name in a:
            self.assertTrue(torch.equal(a[name], b[name]), name)

    def test_a_tokenizer_cut_short_is_named(self):
        out = self.dir / "out"
        self.assertTrue(run(SMALL, self.corpus, out))
        whole = (out / "tokenizer.json").read_text()
        (out / "tokenizer.json").write_text(whole[:len(whole) // 2])
        with self.assertRaisesRegex(checkpoint.CheckpointError, "tokenizer.json: not a tokenizer"):
            run(SMALL, self.corpus, out)

    def test_heldout_texts_shorter_than_a_window_are_named(self):
        (self.corpus / "heldout" / "words.txt").write_text("a b\n<|end|>\n")
        with self.assertRaisesRegex(corpus.CorpusError, "heldout tag 'words' has [0-9]+ tokens, a window 33"):
            run(SMALL, self.corpus, self.dir / "out")

    def test_goes_on_after_a_kill(self):
        out = self.dir / "killed"
        code = ("import sys, pathlib; sys.path.insert(0, sys.argv[1]); import dataclasses, torch, train, train_test;"
                "torch.set_num_threads(1);"
                "train.train(dataclasses.replace(train_test.SMALL, steps=100000), pathlib.Path(sys.argv[2]),"
                "            pathlib.Path(sys.argv[3]), 'cpu', 0, None, False)")
        process = subprocess.Popen([sys.executable, "-B", "-c", code, str(HERE), str(self.corpus), str(out)],
                                   stderr=subprocess.DEVNULL)
        try:
            deadline = 60
            while not (out / "checkpoint.pt").exists() and deadline > 0 and process.poll() is None:
                deadline -= 0.05
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        recipe = dataclasses.replace(SMALL, steps=100000)
        digest = torch.load(out / "checkpoint.pt", weights_only=True)["corpus"]
        state = checkpoint.load(out / "checkpoint.pt", recipe, digest, "cpu")
        self.assertGreater(state["step"], 0)

    def test_refuses_a_checkpoint_of_another_shape(self):
        out = self.dir / "out"
        run(SMALL, self.corpus, out, minutes=0)
        with self.assertRaisesRegex(checkpoint.CheckpointError, "d_expert is 16 there and 24 here"):
            run(dataclasses.replace(SMALL, d_expert=24), self.corpus, out)
        with self.assertRaisesRegex(checkpoint.CheckpointError, "lr is 0.003 there and 0.1 here"):
            run(dataclasses.replace(SMALL, lr=0.1), self.corpus, out)
        (self.corpus / "train" / "more.txt").write_text("more\n<|end|>\n")
        with self.assertRaisesRegex(checkpoint.CheckpointError, "another corpus"):
            run(SMALL, self.corpus, out)
        (out / "checkpoint.pt").write_bytes(b"not a checkpoint")
        with self.assertRaisesRegex(checkpoint.CheckpointError, "not a checkpoint of this program"):
            run(SMALL, self.corpus, out)


if __name__ == "__main__":
    unittest.main()
