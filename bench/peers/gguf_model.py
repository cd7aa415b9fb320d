"""Writes a Mixtral- or Llama-shaped Hugging Face folder as GGUF, the same weights bit for bit.

Only what the benchmark models need: safetensors in bfloat16 or float32, no vocabulary (the peer is
fed token ids). Queries and keys change the order of their rows, because GGUF's llama architecture
rotates neighbouring pairs where the checkpoint rotates halves.
"""

import json
import pathlib
import struct

import gguf
import numpy as np

DTYPES = {
    "F32": (np.float32, gguf.GGMLQuantizationType.F32),
    "BF16": (np.uint16, gguf.GGMLQuantizationType.BF16),
}


def read_safetensors(folder: pathlib.Path):
    """All tensors of model.safetensors as (numpy array of raw elements, format's dtype name)."""
    path = folder / "model.safetensors"
    with open(path, "rb") as file:
        header_bytes = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(header_bytes))
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + header_bytes)
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        array = data[begin:end].view(DTYPES[entry["dtype"]][0]).reshape(entry["shape"])
        tensors[name] = (array, entry["dtype"])
    return tensors


def interleave_halves(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows (head, half, i) to (head, i, half)."""
    n_out, n_in = weight.shape
    halves = weight.reshape(n_heads, 2, n_out // n_heads // 2, n_in)
    return halves.swapaxes(1, 2).reshape(n_out, n_in)


def as_floats(array: np.ndarray, dtype: str) -> np.ndarray:
    return array if dtype == "F32" else (array.astype(np.uint32) << 16).view(np.float32)


QUANTISED = {"int8": gguf.GGMLQuantizationType.Q8_0, "int4": gguf.GGMLQuantizationType.Q4_0}


def write_gguf(folder: pathlib.Path, path: pathlib.Path, weights: str = "checkpoint") -> None:
    """weights: int8 and int4 quantise experts, in the format of as many bits and groups of 32."""
    config = json.loads((folder / "config.json").read_text())
    tensors = read_safetensors(folder)
    n_heads = config["num_attention_heads"]
    n_kv_heads = config["num_key_value_heads"]
    n_experts = config.get("num_local_experts", 0)

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(n_kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config.get("rope_parameters") or config
    writer.add_rope_freq_base(rope.get("rope_theta", 10000.0))
    writer.add_rope_dimension_count(config["hidden_size"] // n_heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    if n_experts:
        writer.add_expert_count(n_experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])

    def add(name: str, array: np.ndarray, dtype: str) -> None:
        if array.ndim == 1:  # norms are float32 in GGUF
            array, dtype = as_floats(array, dtype), "F32"
        array = np.ascontiguousarray(array)
        if dtype == "F32":
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, array.view(np.uint8), raw_dtype=DTYPES[dtype][1])

    def add_mlp(name: str, array: np.ndarray, dtype: str) -> None:
        if weights == "checkpoint":
            return add(name, array, dtype)
        kind = QUANTISED[weights]
        writer.add_tensor(name, gguf.quants.quantize(as_floats(array, dtype), kind), raw_dtype=kind)

    add("token_embd.weight", *tensors["model.embed_tokens.weight"])
    add("output_norm.weight", *tensors["model.norm.weight"])
    add("output.weight", *tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"]))
    for layer in range(config["num_hidden_layers"]):
        theirs, ours = f"model.layers.{layer}.", f"blk.{layer}."
        add(ours + "attn_norm.weight", *tensors[theirs + "input_layernorm.weight"])
        add(ours + "ffn_norm.weight", *tensors[theirs + "post_attention_layernorm.weight"])
        for name, heads in (("q", n_heads), ("k", n_kv_heads)):
            weight, dtype = tensors[f"{theirs}self_attn.{name}_proj.weight"]
            add(f"{ours}attn_{name}.weight", interleave_halves(weight, heads), dtype)
        add(ours + "attn_v.weight", *tensors[theirs + "self_attn.v_proj.weight"])
        add(ours + "attn_output.weight", *tensors[theirs + "self_attn.o_proj.weight"])
        if n_experts:
            moe = theirs + "block_sparse_moe."
            add(ours + "ffn_gate_inp.weight", as_floats(*tensors[moe + "gate.weight"]), "F32")
            for name, expert_name in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
                parts = [tensors[f"{moe}experts.{e}.{expert_name}.weight"] for e in range(n_experts)]
                add_mlp(f"{ours}ffn_{name}_exps.weight", np.stack([p[0] for p in parts]), parts[0][1])
        else:
            for name in ("gate", "up", "down"):
                add_mlp(f"{ours}ffn_{name}.weight", *tensors[f"{theirs}mlp.{name}_proj.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
