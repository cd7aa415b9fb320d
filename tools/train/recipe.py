"""What is trained: the sizes of a model and how long it learns."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Sizes are in numbers, not bytes. A model with n_experts == 0 is dense (Llama), else Mixtral."""

    # The model.
    d_model: int = 256
    n_layers: int = 4
    n_heads: int = 4
    n_kv_heads: int = 2
    d_expert: int = 320  # intermediate size, of one expert or of the dense MLP
    n_experts: int = 8
    top_k: int = 2
    vocab_size: int = 4096
    context: int = 512  # positions, in training and in config.json
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    # The training: 16 times through 9 M tokens, minutes on a large GPU. On a CPU, --steps 1600 --batch 16
    # gives a first impression in hours.
    steps: int = 9000
    batch: int = 32  # windows of `context` tokens per step
    lr: float = 2e-3  # peak; cosine to a twentieth of it after a linear warm-up
    warmup: int = 300
    weight_decay: float = 0.1
    clip: float = 1.0  # largest norm of the gradient
    balance: float = 0.01  # weight of the load-balancing loss
    dropout: float = 0.1  # of what attention and MLPs add to a row; a text is seen many times
    repeats: tuple[tuple[str, int], ...] = (("arithmetic", 3),)  # (tag, n): its text counts n times
    seed: int = 1

    @property
    def sparse(self) -> bool:
        return self.n_experts > 0

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads

    def model_sizes(self) -> dict:
        """What a checkpoint of this recipe must share with one that it resumes."""
        names = ("d_model", "n_layers", "n_heads", "n_kv_heads", "d_expert", "n_experts", "top_k",
                 "vocab_size", "context", "rope_theta", "norm_eps")
        return {name: getattr(self, name) for name in names}


# The two twins see the same tokens as the sparse model in the same order, for as many steps: one has
# its active parameters per token (k experts' worth), the other its total ones (all experts' worth).
SPARSE = Recipe()
RECIPES = {
    "tiny-moe": SPARSE,
    "tiny-dense-active": dataclasses.replace(SPARSE, n_experts=0, d_expert=SPARSE.top_k * SPARSE.d_expert),
    "tiny-dense-total": dataclasses.replace(SPARSE, n_experts=0, d_expert=SPARSE.n_experts * SPARSE.d_expert),
}
