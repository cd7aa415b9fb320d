"""A decoder-only transformer in PyTorch: Mixtral's layers where it has experts, Llama's where not.

Shapes: B windows, T positions, D = d_model, E experts, F = d_expert, H heads of head_dim.
"""

import torch
import torch.nn.functional as F
from torch import nn

from recipe import Recipe


def rope_tables(recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, [context, head_dim / 2]."""
    half = recipe.head_dim // 2
    inverse = recipe.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.outer(torch.arange(recipe.context, dtype=torch.float64), inverse)
    return angles.cos().float(), angles.sin().float()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotates the halves (i, i + head_dim / 2) of x [B, H, T, head_dim], as Hugging Face lays them out."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, recipe: Recipe):
        super().__init__()
        self._heads, self._kv_heads, self._head_dim = recipe.n_heads, recipe.n_kv_heads, recipe.head_dim
        d, kv = recipe.d_model, recipe.n_kv_heads * recipe.head_dim
        self.q_proj = nn.Linear(d, d, bias=False)
        self.k_proj = nn.Linear(d, kv, bias=False)
        self.v_proj = nn.Linear(d, kv, bias=False)
        self.o_proj = nn.Linear(d, d, bias=False)

    def forward(self, x, cos, sin):
        b, t, d = x.shape

        def heads(y, n):
            return y.view(b, t, n, self._head_dim).transpose(1, 2)

        q = rotate(heads(self.q_proj(x), self._heads), cos, sin)
        k = rotate(heads(self.k_proj(x), self._kv_heads), cos, sin)
        v = heads(self.v_proj(x), self._kv_heads)
        group = self._heads // self._kv_heads
        k, v = (y.repeat_interleave(group, dim=1) for y in (k, v))
        out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(b, t, d))


class DenseMlp(nn.Module):
    def __init__(self, recipe: Recipe):
        super().__init__()
        self.gate_proj = nn.Linear(recipe.d_model, recipe.d_expert, bias=False)
        self.up_proj = nn.Linear(recipe.d_model, recipe.d_expert, bias=False)
        self.down_proj = nn.Linear(recipe.d_expert, recipe.d_model, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x)), x.new_zeros(())


class SparseMlp(nn.Module):
    """top_k of E experts per row, weighted by the softmax over the chosen logits."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        self._n, self._k = recipe.n_experts, recipe.top_k
        d, f = recipe.d_model, recipe.d_expert
        self.gate = nn.Linear(d, self._n, bias=False)
        self.w1 = nn.Parameter(torch.empty(self._n, f, d))  # gate
        self.w3 = nn.Parameter(torch.empty(self._n, f, d))  # up
        self.w2 = nn.Parameter(torch.empty(self._n, d, f))  # down

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(rows.float(), self.gate.weight)
        top, chosen = logits.topk(self._k, dim=-1)
        weights = top.softmax(dim=-1)

        experts = self.all_experts_masked if x.is_cuda else self.chosen_experts
        out = experts(rows, chosen, weights)

        # Load balancing as in the Switch and Mixtral papers: E * sum over experts of
        # (share of rows that chose it) * (mean probability it was given). 1 when all are used alike.
        share = (chosen.flatten()[:, None] == torch.arange(self._n, device=x.device)).float().mean(dim=0)
        balance = self._n * (share * logits.softmax(dim=-1).mean(dim=0)).sum()
        return out.view_as(x).to(x.dtype), balance

    def chosen_experts(self, rows, chosen, weights):
        """Each row at its experts alone: least arithmetic, many small products. [N, D] float32."""
        flat = chosen.reshape(-1)
        order = flat.argsort(stable=True)
        token = order // self._k
        inputs = rows[token].split(torch.bincount(flat, minlength=self._n).tolist())
        outputs = [F.linear(F.silu(F.linear(part, self.w1[e])) * F.linear(part, self.w3[e]), self.w2[e])
                   for e, part in enumerate(inputs)]
        weighed = torch.cat(outputs).float() * weights.reshape(-1)[order, None]
        return torch.zeros_like(rows, dtype=torch.float32).index_add_(0, token, weighed)

    def all_experts_masked(self, rows, chosen, weights):
        """The same, as one wide MLP in which experts that were not chosen weigh nothing. On a GPU a small
        model spends its time on launches and on waiting for counts, not on arithmetic."""
        n, f, d = self.w1.shape
        mask = torch.zeros(len(rows), n, device=rows.device).scatter(1, chosen, weights)
        h = F.silu(F.linear(rows, self.w1.view(n * f, d))) * F.linear(rows, self.w3.view(n * f, d))
        h = (h.view(-1, n, f) * mask[:, :, None].to(h.dtype)).view(-1, n * f)
        return F.linear(h, self.w2.transpose(0, 1).reshape(d, n * f)).float()


class Block(nn.Module):
    def __init__(self, recipe: Recipe):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(recipe.d_model, eps=recipe.norm_eps)
        self.self_attn = Attention(recipe)
        self.post_attention_layernorm = nn.RMSNorm(recipe.d_model, eps=recipe.norm_eps)
        self.mlp = SparseMlp(recipe) if recipe.sparse else DenseMlp(recipe)
        self._dropout = recipe.dropout

    def forward(self, x, cos, sin):
        x = x + self._drop(self.self_attn(self.input_layernorm(x), cos, sin))
        y, balance = self.mlp(self.post_attention_layernorm(x))
        return x + self._drop(y), balance

    def _drop(self, y):
        return F.dropout(y, self._dropout, self.training)


class Transformer(nn.Module):
    """The head shares its weights with the embedding."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.recipe = recipe
        self.embed_tokens = nn.Embedding(recipe.vocab_size, recipe.d_model)
        self.layers = nn.ModuleList(Block(recipe) for _ in range(recipe.n_layers))
        self.norm = nn.RMSNorm(recipe.d_model, eps=recipe.norm_eps)
        cos, sin = rope_tables(recipe)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._initialise()

    def _initialise(self):
        generator = torch.Generator().manual_seed(self.recipe.seed)
        into_residual = ("o_proj.weight", "down_proj.weight", "w2")
        for name, p in self.named_parameters():
            if "norm" in name:
                continue
            std = 0.02
            if name.endswith(into_residual):
                std /= (2 * self.recipe.n_layers) ** 0.5
            with torch.no_grad():
                p.normal_(0, std, generator=generator)

    def forward(self, ids):
        """ids [B, T] -> (logits [B, T, vocab], mean balance loss over layers)."""
        t = ids.shape[1]
        cos, sin = self.cos[:t], self.sin[:t]
        x = self.embed_tokens(ids)
        balances = []
        for layer in self.layers:
            x, balance = layer(x, cos, sin)
            balances.append(balance)
        return F.linear(self.norm(x), self.embed_tokens.weight), torch.stack(balances).mean()

    def active_parameters(self) -> int:
        """Parameters that one token multiplies with, the head counted once."""
        total = sum(p.numel() for p in self.parameters())
        if not self.recipe.sparse:
            return total
        r = self.recipe
        return total - r.n_layers * (r.n_experts - r.top_k) * 3 * r.d_model * r.d_expert
