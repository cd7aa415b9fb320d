#!/usr/bin/env python3
"""Writes the golden checkpoints of variants: random numbers, and what transformers makes of them.

  python make_golden.py OUT_DIR [NAME ...]

Needs torch, transformers 5 and safetensors. README.md says what each tensor of ref.safetensors is.
"""

import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file

SIZES = dict(vocab_size=256, hidden_size=64, num_hidden_layers=3, num_attention_heads=8,
             num_key_value_heads=2, intermediate_size=80, max_position_embeddings=512,
             rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, attn_implementation="eager")
MIXTRAL = dict(SIZES, intermediate_size=40, num_local_experts=6)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)

VARIANTS = {
    # Mistral 7B: keys and values of the last positions only, heads wider than d_model / n_heads.
    "mistral_window": lambda: transformers.MistralConfig(
        **SIZES, head_dim=24, sliding_window=37, rope_parameters=dict(rope_type="default", rope_theta=10000.0)),
    "mixtral_window": lambda: transformers.MixtralConfig(
        **MIXTRAL, num_experts_per_tok=3, sliding_window=16,
        rope_parameters=dict(rope_type="default", rope_theta=1e6)),
    "mixtral_tied": lambda: transformers.MixtralConfig(
        **MIXTRAL, num_experts_per_tok=1, head_dim=16, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="linear", factor=2.5, rope_theta=5e4)),
    "llama_biases": lambda: transformers.LlamaConfig(
        **SIZES, attention_bias=True, mlp_bias=True, head_dim=10,
        rope_parameters=dict(rope_type="linear", factor=3.0, rope_theta=10000.0)),
    "llama_yarn": lambda: transformers.LlamaConfig(
        **dict(SIZES, num_key_value_heads=8), tie_word_embeddings=True,
        rope_parameters=dict(YARN, rope_theta=10000.0)),
}
LENGTHS = (1, 17, 200)
GREEDY_TOKENS = 32


def randomise(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(7)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if "norm" in name:
            p.data = 1 + 0.1 * noise
        elif "embed" in name or "lm_head" in name:
            p.data = noise
        else:
            p.data = noise * (p.shape[-1] ** -0.5 if p.dim() > 1 else 0.3)


def routing_hook(reference: dict, name: str):
    def hook(_module, _inputs, outputs):
        # (logits, weights, indices), by weight, descending
        reference[f"{name}.topk_weight"] = outputs[1].float().contiguous()
        reference[f"{name}.topk_idx"] = outputs[2].long().contiguous()
    return hook


@torch.no_grad()
def compute_reference(model: torch.nn.Module) -> dict:
    reference = {}
    generator = torch.Generator().manual_seed(11)
    for n in LENGTHS:
        ids = torch.randint(3, model.config.vocab_size, (1, n), generator=generator)
        hooks = [layer.mlp.gate.register_forward_hook(routing_hook(reference, f"len{n}.layer{i}"))
                 for i, layer in enumerate(model.model.layers) if hasattr(layer.mlp, "gate")]
        logits = model(ids).logits[0].float()
        for hook in hooks:
            hook.remove()
        top = logits.topk(2).values
        reference[f"len{n}.input_ids"] = ids[0]
        reference[f"len{n}.last_logits"] = logits[-1].clone()
        reference[f"len{n}.argmax"] = logits.argmax(-1)
        reference[f"len{n}.margin"] = top[:, 0] - top[:, 1]
        tokens, margins = ids, []
        for _ in range(GREEDY_TOKENS):
            last = model(tokens).logits[0, -1].float()
            top = last.topk(2).values
            margins.append(top[0] - top[1])
            tokens = torch.cat([tokens, last.argmax()[None, None]], dim=1)
        reference[f"len{n}.greedy"] = tokens[0, n:].clone()
        reference[f"len{n}.greedy_margin"] = torch.stack(margins)
    return reference


def main() -> None:
    out, names = pathlib.Path(sys.argv[1]), sys.argv[2:] or list(VARIANTS)
    for name in names:
        config = VARIANTS[name]()
        model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
        randomise(model)
        model.tie_weights()
        # float16 is the one weight type that no published reference folder has.
        model.half()
        model.save_pretrained(out / name)
        (out / name / "generation_config.json").unlink(missing_ok=True)
        # Loaded again: half() has rounded the model's rotation frequencies, too.
        model = transformers.AutoModelForCausalLM.from_pretrained(
            out / name, dtype=torch.float32, attn_implementation="eager").eval()
        reference = compute_reference(model)
        save_file({k: v.contiguous() for k, v in reference.items()}, out / name / "ref.safetensors",
                  metadata={"compute": "float32", "transformers": transformers.__version__})
        print(name, "smallest greedy margin",
              min(reference[f"len{n}.greedy_margin"].min().item() for n in LENGTHS))


if __name__ == "__main__":
    main()
