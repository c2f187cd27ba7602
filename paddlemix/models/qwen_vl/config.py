"""The numbers that shape a Qwen-VL, as its published config.json names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from paddlenlp.transformers import PretrainedConfig

from paddlemix.models.config_bounds import (
    EPSILON,
    HEADS,
    LAYERS,
    LENGTH,
    OF_THE_FILE,
    SHARE,
    SHARED,
    SIDE,
    TOKEN,
    WIDTH,
    check_kinds,
    check_padding,
    section,
)
from paddlemix.models.decoder import DecoderNames, DecoderShape
from paddlemix.models.fixed_values import refuse_other_values
from paddlemix.models.tower import TowerShape
from paddlemix.value_kinds import FLAG, number, whole

RESAMPLER_HEAD_DIM = 128  # of the published resampler; its number of heads follows from it

DECODER_NAMES = DecoderNames(
    embedding="wte",
    blocks="h",
    norm="ln_f",
    attention_norm="ln_1",
    attention="attn",
    feed_forward_norm="ln_2",
    projections=("c_attn",),
    output="c_proj",
    mlp=(("w1", "up"), ("w2", "gate"), ("c_proj", "down")),
)

# What the published code can be told and every checkpoint leaves as it is. Other values would make another model.
_FIXED = {"no_bias": True, "rotary_pct": 1.0, "scale_attn_weights": True, "tie_word_embeddings": False}
_FIXED |= {"emb_dropout_prob": 0.0, "attn_dropout_prob": 0.0}

_KINDS = {
    **SHARED,
    "kv_channels": WIDTH,
    "seq_length": LENGTH,
    "layer_norm_epsilon": EPSILON,
    "rotary_emb_base": number(1, 1e12),
    "use_dynamic_ntk": FLAG,
    "use_logn_attn": FLAG,
}
_VISUAL_KINDS = {
    "image_size": SIDE,
    "patch_size": SIDE,
    "width": WIDTH,
    "layers": LAYERS,
    "heads": HEADS,
    "mlp_ratio": SHARE,
    "output_dim": WIDTH,
    "n_queries": whole(1, 2**16),
    "image_start_id": TOKEN,
}
_PUBLISHED = (
    "architectures", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "kv_channels",
    "intermediate_size", "seq_length", "max_position_embeddings", "layer_norm_epsilon", "rotary_emb_base",
    "use_dynamic_ntk", "use_logn_attn", "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


@dataclass
class QWenVisionConfig:
    """The vision tower's shape; the defaults are the published ones.

    Attributes:
        image_size: pixels of an image's side.
        patch_size: pixels of a patch's side.
        width: of the tower.
        layers: transformer blocks.
        heads: attention heads of a block.
        mlp_ratio: inner width of a block's MLP over `width`.
        output_dim: width of what leaves the tower, the language model's width.
        n_queries: tokens that an image becomes, a square number.
        image_start_id: the token in front of an image's placeholders; the next id is the one behind them.
    """

    image_size: int = 448
    patch_size: int = 14
    width: int = 1664
    layers: int = 48
    heads: int = 16
    mlp_ratio: float = 4.9231
    output_dim: int = 4096
    n_queries: int = 256
    image_start_id: int = 151857

    @property
    def resampler_heads(self) -> int:
        """Attention heads of the resampler."""
        return self.output_dim // RESAMPLER_HEAD_DIM

    @classmethod
    def from_published(cls, values: Mapping[str, Any]) -> QWenVisionConfig:
        """Take the known keys of a published `visual` section."""
        check_kinds(values, _VISUAL_KINDS, section="visual.")
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known and value is not None})


class QWenConfig(PretrainedConfig):
    """The whole model's shape; the defaults are the published ones.

    `seq_length` is what the model was trained on: longer inputs get dynamic NTK and log-n attention. A null
    in a config.json says nothing.
    """

    model_type = "qwen"

    def __init__(self, **values: Any) -> None:
        check_kinds(values, _KINDS)
        self._hold(**{key: one for key, one in values.items() if one is not None})

    def _hold(
        self,
        vocab_size: int = 151936,
        hidden_size: int = 4096,
        num_hidden_layers: int = 32,
        num_attention_heads: int = 32,
        kv_channels: int = 128,
        intermediate_size: int = 22016,
        seq_length: int = 2048,
        max_position_embeddings: int = 8192,
        layer_norm_epsilon: float = 1e-6,
        rotary_emb_base: float = 10000,
        use_dynamic_ntk: bool = True,
        use_logn_attn: bool = True,
        initializer_range: float = 0.02,
        visual: dict[str, Any] | QWenVisionConfig | None = None,
        **kwargs: Any,
    ) -> None:
        """Hold the values, and check that they fit one another."""
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.kv_channels = kv_channels
        self.intermediate_size = intermediate_size
        self.seq_length = seq_length
        self.max_position_embeddings = max_position_embeddings
        self.layer_norm_epsilon = layer_norm_epsilon
        self.rotary_emb_base = rotary_emb_base
        self.use_dynamic_ntk = use_dynamic_ntk
        self.use_logn_attn = use_logn_attn
        self.initializer_range = initializer_range
        if not isinstance(visual, QWenVisionConfig):
            said = section({"visual": visual}, "visual")
            visual = QWenVisionConfig.from_published({"output_dim": hidden_size, **said})
        self.visual = visual
        refuse_other_values(kwargs, {name: (built,) for name, built in _FIXED.items()})
        said = {name: kwargs[name] for name in OF_THE_FILE if name in kwargs}
        super().__init__(**{"architectures": ["QWenLMHeadModel"], **said, **_FIXED})
        self._check()

    @property
    def head_dim(self) -> int:
        """Width of one attention head of the language model."""
        return self.kv_channels

    @property
    def decoder_shape(self) -> DecoderShape:
        """The numbers of the language model."""
        return DecoderShape(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.mlp_size,
            layers=self.num_hidden_layers,
            heads=self.num_attention_heads,
            kv_heads=self.num_attention_heads,
            head_dim=self.head_dim,
            norm_epsilon=self.layer_norm_epsilon,
            names=DECODER_NAMES,
        )

    @property
    def tower_shape(self) -> TowerShape:
        """The numbers of the vision tower."""
        visual, hidden = self.visual, self.hidden_size
        patch_values = 3 * visual.patch_size**2
        return TowerShape(
            blocks=visual.layers,
            full_blocks=visual.layers,
            window=0,
            heads=visual.heads,
            width=visual.width,
            inner=int(visual.width * visual.mlp_ratio),
            patch_values=patch_values,
            group=visual.n_queries,
            patches_of_group=(visual.image_size // visual.patch_size) ** 2,
            # cut patches, and what they are with places
            embedding_inputs=patch_values + visual.width,
            # patches, widened, normed, with places, as keys and values; queries, what they gather, three layers of it
            aligner_of_patch=visual.width + 5 * hidden,
            aligner_of_token=5 * hidden,
            aligner_matrices=hidden * (visual.width + 5 * hidden),
            adds_places=True,
        )

    @property
    def mlp_size(self) -> int:
        """Inner width of a block's MLP: `intermediate_size` counts both of its inner projections."""
        return self.intermediate_size // 2

    def to_dict(self, saving_file: bool = False) -> dict[str, Any]:
        """Return all values as JSON knows them; PaddleNLP prints and logs a config through this.

        Args:
            saving_file: PaddleNLP's, leave out what it does not store.

        Returns:
            The attributes by name, the vision tower's as a dict.
        """
        return {**super().to_dict(saving_file=saving_file), "visual": asdict(self.visual)}

    def to_published(self) -> dict[str, Any]:
        """Write the config.json of the published checkpoints."""
        values = {name: getattr(self, name) for name in _PUBLISHED}
        return {**values, **_FIXED, "model_type": self.model_type, "visual": asdict(self.visual)}

    def _check(self) -> None:
        if self.num_attention_heads * self.kv_channels != self.hidden_size:
            raise ValueError(
                f"config.json: `num_attention_heads` {self.num_attention_heads} times `kv_channels` {self.kv_channels} "
                f"is not `hidden_size` {self.hidden_size}."
            )
        check_padding(self.pad_token_id, self.vocab_size)
        if self.kv_channels % 2 or self.intermediate_size < 2:
            raise ValueError(
                f"config.json: `kv_channels` is {self.kv_channels} and `intermediate_size` {self.intermediate_size}; "
                "expected an even width of heads, and at least 2."
            )
        visual = self.visual
        if visual.output_dim != self.hidden_size:
            raise ValueError(
                f"config.json: `visual.output_dim` {visual.output_dim} differs from `hidden_size` {self.hidden_size}; "
                "the vision tower must end at the language model's width."
            )
        if visual.width % visual.heads or visual.output_dim % RESAMPLER_HEAD_DIM:
            raise ValueError(
                f"config.json: `visual.width` {visual.width} must be a multiple of `visual.heads` {visual.heads}, and "
                f"`visual.output_dim` {visual.output_dim} of a resampler head's {RESAMPLER_HEAD_DIM}."
            )
        if visual.image_size % visual.patch_size:
            raise ValueError(
                f"config.json: `visual.image_size` {visual.image_size} must be a multiple of `visual.patch_size` "
                f"{visual.patch_size}."
            )
        if round(visual.n_queries**0.5) ** 2 != visual.n_queries:
            raise ValueError(f"config.json: `visual.n_queries` is {visual.n_queries}; expected a square number.")
