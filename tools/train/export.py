"""Writes a trained model as a Hugging Face folder."""

import json
import pathlib

import torch
from safetensors.torch import save_file

from model import Transformer


def config(model: Transformer) -> dict:
    r = model.recipe
    common = dict(
        vocab_size=r.vocab_size, hidden_size=r.d_model, num_hidden_layers=r.n_layers, num_attention_heads=r.n_heads,
        num_key_value_heads=r.n_kv_heads, head_dim=r.head_dim, intermediate_size=r.d_expert, hidden_act="silu",
        max_position_embeddings=r.context, rms_norm_eps=r.norm_eps, rope_theta=r.rope_theta,
        attention_dropout=0.0, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, torch_dtype="bfloat16")
    if r.sparse:
        return dict(architectures=["MixtralForCausalLM"], model_type="mixtral", num_local_experts=r.n_experts,
                    num_experts_per_tok=r.top_k, sliding_window=None, **common)
    return dict(architectures=["LlamaForCausalLM"], model_type="llama", attention_bias=False, mlp_bias=False, **common)


def tensors(model: Transformer) -> dict[str, torch.Tensor]:
    out = {}
    for name, p in model.state_dict().items():
        p = p.detach().cpu().to(torch.bfloat16)
        if model.recipe.sparse and ".mlp." in name:
            name = name.replace(".mlp.", ".block_sparse_moe.")
            stem, last = name.rsplit(".", 1)
            if last in ("w1", "w2", "w3"):
                for e in range(model.recipe.n_experts):
                    out[f"model.{stem}.experts.{e}.{last}.weight"] = p[e].contiguous()
                continue
        out[f"model.{name}"] = p.contiguous()
    return out


def write(model: Transformer, tokenizer, folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)

    def write_json(name, value):
        (folder / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    write_json("config.json", config(model))
    write_json("generation_config.json", dict(
        bos_token_id=0, eos_token_id=1, do_sample=True, temperature=0.7, top_p=0.95,
        max_length=model.recipe.context))
    write_json("tokenizer_config.json", dict(
        tokenizer_class="PreTrainedTokenizerFast", bos_token="<|begin|>", eos_token="<|end|>",
        add_bos_token=True, add_eos_token=False, clean_up_tokenization_spaces=False,
        model_max_length=model.recipe.context))
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    save_file(tensors(model), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # the library writes it for its owner alone
