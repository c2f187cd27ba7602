"""The numbers that shape a Qwen2-VL, as its published config.json names them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from paddlenlp.transformers import PretrainedConfig

from paddlemix.bounded_json import shown
from paddlemix.models.config_bounds import (
    EPSILON,
    HEADS,
    LAYERS,
    LENGTH,
    NAMES,
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
from paddlemix.models.decoder import DecoderShape
from paddlemix.models.fixed_values import QWEN2_LANGUAGE, refuse_acting_windows, refuse_other_values
from paddlemix.models.layers.rope_scaling import ScaledFrequencies, check_scaling, published_scaling, scaled_frequencies
from paddlemix.models.nested_config import flat_values
from paddlemix.models.tower import TowerShape
from paddlemix.value_kinds import FLAG, OBJECT, Kind, list_of, number, whole

if TYPE_CHECKING:
    from typing_extensions import Self

# For these the top level of a config.json counts.
_OF_THE_WHOLE = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id", "vision_token_id")
# What later releases of transformers call them as well.
_TOWER_NAMES = {"num_attention_heads": "num_heads", "num_hidden_layers": "depth"}
_KEY_HEADS = "num_key_value_heads"
_SIDES = ("patch_size", "temporal_patch_size")
_KINDS = {
    **SHARED,
    _KEY_HEADS: HEADS,
    "rms_norm_eps": EPSILON,
    "rope_theta": number(1, 1e12),
    "rope_scaling": OBJECT,
    "head_dim": WIDTH,
    "use_sliding_window": FLAG,
    "sliding_window": LENGTH,
    "max_window_layers": whole(0, 2**31 - 1),
    "layer_types": NAMES,
    **dict.fromkeys(_OF_THE_WHOLE, TOKEN),
}
_SECTION = list_of(whole(0, 2**20), longest=3)
_TOWER_ROPE = {"rope_theta": (10000,), "rope_type": ("axial", "default")}


@dataclass
class PatchTowerConfig:
    """What the configs of Qwen2-VL's tower and of its kin have in common.

    Attributes:
        depth: transformer blocks.
        num_heads: attention heads of a block.
        in_channels: colour channels.
        patch_size: pixels of a patch's side.
        spatial_merge_size: patches of a merged token's side.
        temporal_patch_size: frames a patch spans.
        output_key: the key that has the width of what leaves the merger.
        activation: of the blocks' MLPs, as the file names it.
        kinds: of the values, by key.
    """

    depth: int = 32
    num_heads: int = 16
    in_channels: int = 3
    patch_size: int = 14
    spatial_merge_size: int = 2
    temporal_patch_size: int = 2

    output_key: ClassVar[str]
    activation: ClassVar[str]
    kinds: ClassVar[Mapping[str, Kind]] = {
        "depth": LAYERS,
        "num_heads": HEADS,
        "in_channels": whole(1, 64),
        "patch_size": SIDE,
        "spatial_merge_size": whole(1, 64),
        "temporal_patch_size": whole(1, 64),
    }

    @property
    def width(self) -> int:
        """Of what runs past the blocks."""
        raise NotImplementedError

    @property
    def inner_size(self) -> int:
        """Inner width of a block's MLP."""
        raise NotImplementedError

    @property
    def output_size(self) -> int:
        """Width of what leaves the merger, which is the language model's."""
        return getattr(self, self.output_key)

    @property
    def patch_values(self) -> int:
        """Numbers in one patch: channels x frames x height x width."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @classmethod
    def from_published(cls, values: Mapping[str, Any], *, output_size: int) -> Self:
        """Take the known keys of a published `vision_config`; the rest describes the reference's own code.

        Args:
            values: of the file.
            output_size: width of what leaves the merger, where they do not say it.

        Returns:
            The config.

        Raises:
            ValueError: they ask for what is not built in.
        """
        said = {key: one for key, one in values.items() if one is not None}
        check_kinds(said, {"rope_parameters": OBJECT}, section="vision_config.")
        said = {**{name: said[other] for other, name in _TOWER_NAMES.items() if other in said}, **said}
        said |= {name: _one_side(name, said[name]) for name in _SIDES if name in said}
        refuse_other_values(said, {"hidden_act": (cls.activation,)}, section="vision_config.")
        refuse_other_values(said, {"in_chans": (said.get("in_channels", 3),)}, section="vision_config.")
        refuse_other_values(said.get("rope_parameters") or {}, _TOWER_ROPE, section="vision_config.rope_parameters.")
        check_kinds(said, cls.kinds, section="vision_config.")
        known = {field.name for field in fields(cls)}
        return cls(**{cls.output_key: output_size, **{key: one for key, one in said.items() if key in known}})


@dataclass
class Qwen2VLVisionConfig(PatchTowerConfig):
    """The vision tower's shape; the defaults are those of every published size.

    Attributes:
        embed_dim: width of the tower.
        hidden_size: width of what leaves the merger, the language model's width.
        mlp_ratio: inner width of a block's MLP over `embed_dim`.
        output_key: the key that has the width of what leaves the merger.
        activation: of the blocks' MLPs, as the file names it.
        kinds: of the values, by key.
    """

    embed_dim: int = 1280
    hidden_size: int = 3584
    mlp_ratio: float = 4

    output_key: ClassVar[str] = "hidden_size"
    activation: ClassVar[str] = "quick_gelu"
    kinds: ClassVar[Mapping[str, Kind]] = {
        **PatchTowerConfig.kinds,
        "embed_dim": WIDTH,
        "hidden_size": WIDTH,
        "mlp_ratio": SHARE,
    }

    @property
    def width(self) -> int:
        """Of what runs past the blocks."""
        return self.embed_dim

    @property
    def inner_size(self) -> int:
        """Inner width of a block's MLP."""
        return int(self.embed_dim * self.mlp_ratio)


class Qwen2VLConfig(PretrainedConfig):
    """The whole model's shape; the defaults are those of the 7B model.

    Reads the flat config.json of the published checkpoints and the nested one (`text_config`) of later writers, with
    `rope_scaling` and `rope_theta` or, newer still, `rope_parameters` that hold both; writes the flat one, which every
    release of transformers reads. A null in either says nothing.
    """

    model_type = "qwen2_vl"
    # What a kin has of its own.
    architecture: ClassVar[str] = "Qwen2VLForConditionalGeneration"
    vision_class: ClassVar[type[PatchTowerConfig]] = Qwen2VLVisionConfig
    context: ClassVar[int] = 32768  # `max_position_embeddings` of the published models

    def __init__(self, **values: Any) -> None:
        known = inspect.signature(self._hold).parameters
        flat = flat_values(values, known=known, of_the_whole=_OF_THE_WHOLE)
        if _KEY_HEADS not in flat and any(_KEY_HEADS in level for level in (values, values.get("text_config") or {})):
            # The one null that says something: as many as heads of queries.
            flat[_KEY_HEADS] = flat.get("num_attention_heads", known["num_attention_heads"].default)
        check_kinds(flat, _KINDS)
        refuse_other_values(flat, QWEN2_LANGUAGE)
        head_dim = flat.pop("head_dim", None)
        self._hold(**flat)
        refuse_other_values({"head_dim": head_dim}, {"head_dim": (self.head_dim,)})
        refuse_acting_windows(flat, layers=self.num_hidden_layers, context=self.max_position_embeddings)

    def _hold(
        self,
        vocab_size: int = 152064,
        hidden_size: int = 3584,
        intermediate_size: int = 18944,
        num_hidden_layers: int = 28,
        num_attention_heads: int = 28,
        num_key_value_heads: int = 4,
        max_position_embeddings: int | None = None,
        rms_norm_eps: float = 1e-6,
        rope_theta: float = 1e6,
        rope_scaling: dict[str, Any] | None = None,
        initializer_range: float = 0.02,
        tie_word_embeddings: bool = False,
        image_token_id: int = 151655,
        video_token_id: int = 151656,
        vision_start_token_id: int = 151652,
        vision_end_token_id: int = 151653,
        vision_config: dict[str, Any] | PatchTowerConfig | None = None,
        **kwargs: Any,
    ) -> None:
        """Hold the values of the flat form, and check that they fit one another."""
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.max_position_embeddings = max_position_embeddings or self.context
        self.rms_norm_eps = rms_norm_eps
        self.rope_theta = rope_theta
        self.rope_scaling = rope_scaling or {"type": "mrope", "mrope_section": [16, 24, 24]}
        self.initializer_range = initializer_range
        self.image_token_id = image_token_id
        self.video_token_id = video_token_id
        self.vision_start_token_id = vision_start_token_id
        self.vision_end_token_id = vision_end_token_id
        if not isinstance(vision_config, PatchTowerConfig):
            vision = section({"vision_config": vision_config}, "vision_config")
            vision_config = self.vision_class.from_published(vision, output_size=hidden_size)
        self.vision_config = vision_config
        said = {name: kwargs[name] for name in OF_THE_FILE if kwargs.get(name) is not None}
        architectures = said.pop("architectures", None) or [self.architecture]
        super().__init__(tie_word_embeddings=tie_word_embeddings, architectures=architectures, **said)
        self._check()

    @property
    def head_dim(self) -> int:
        """Width of one attention head of the language model."""
        return self.hidden_size // self.num_attention_heads

    @property
    def decoder_shape(self) -> DecoderShape:
        """The numbers of the language model."""
        return DecoderShape(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            layers=self.num_hidden_layers,
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            norm_epsilon=self.rms_norm_eps,
            # As in the published code.
            padding_id=self.pad_token_id,
        )

    @property
    def tower_shape(self) -> TowerShape:
        """The numbers of the vision tower."""
        vision = self.vision_config
        window = vision.width * vision.spatial_merge_size**2
        return TowerShape(
            blocks=vision.depth,
            full_blocks=vision.depth,
            window=0,
            heads=vision.num_heads,
            width=vision.width,
            inner=vision.inner_size,
            patch_values=vision.patch_values,
            group=1,
            patches_of_group=vision.spatial_merge_size**2,
            embedding_inputs=0,
            # what the norm reads and gives, the first layer gives, its activation gives
            aligner_of_patch=4 * vision.width,
            aligner_of_token=0,
            aligner_matrices=window * (window + self.hidden_size),
            gated=vision.activation == "silu",
        )

    @property
    def rotary(self) -> ScaledFrequencies:
        """How positions turn the pairs of a head."""
        return scaled_frequencies(
            self.rope_scaling, self.rope_theta, self.head_dim, context=self.max_position_embeddings
        )

    @property
    def mrope_section(self) -> list[int]:
        """How many of a head's rotated pairs turn with time, height and width."""
        return list(self.rope_scaling["mrope_section"])

    def to_dict(self, saving_file: bool = False) -> dict[str, Any]:
        """Return all values as JSON knows them; PaddleNLP prints and logs a config through this.

        Args:
            saving_file: PaddleNLP's, leave out what it does not store.

        Returns:
            The attributes by name, the vision tower's as a dict.
        """
        return {**super().to_dict(saving_file=saving_file), "vision_config": asdict(self.vision_config)}

    def to_published(self) -> dict[str, Any]:
        """Write the flat config.json of the published checkpoints."""
        names = [
            "architectures",
            "bos_token_id",
            "eos_token_id",
            "pad_token_id",
            "hidden_size",
            "image_token_id",
            "initializer_range",
            "intermediate_size",
            "max_position_embeddings",
            "num_attention_heads",
            "num_hidden_layers",
            "num_key_value_heads",
            "rms_norm_eps",
            "rope_theta",
            "tie_word_embeddings",
            "video_token_id",
            "vision_end_token_id",
            "vision_start_token_id",
            "vocab_size",
        ]
        values = {name: getattr(self, name) for name in names}
        values["rope_scaling"] = published_scaling(self.rope_scaling)
        vision = {
            "model_type": self.model_type,
            **asdict(self.vision_config),
            "hidden_act": self.vision_config.activation,
        }
        return {**values, "hidden_act": "silu", "model_type": self.model_type, "vision_config": vision}

    def _check(self) -> None:
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"config.json: `hidden_size` {self.hidden_size}, `num_attention_heads` {self.num_attention_heads} and "
                f"`num_key_value_heads` {self.num_key_value_heads} must each be a multiple of the next."
            )
        check_scaling(self.rope_scaling, context=self.max_position_embeddings)
        refuse_other_values(self.rope_scaling, {"mrope_interleaved": (False,)}, section="rope_scaling.")
        check_padding(self.pad_token_id, self.vocab_size)
        check_kinds(self.rope_scaling, {"mrope_section": _SECTION}, section="rope_scaling.")
        if "mrope_section" not in self.rope_scaling:
            raise ValueError(
                f"config.json: `rope_scaling` is {shown(self.rope_scaling)}; expected a `mrope_section` in it, which "
                "says how many of a head's pairs turn with time, height and width."
            )
        if sum(self.mrope_section) * 2 != self.head_dim:
            raise ValueError(
                f"config.json: `rope_scaling.mrope_section` {self.mrope_section} adds up to {sum(self.mrope_section)}; "
                f"half of a head's width is {self.head_dim / 2:g}."
            )
        if len(self.mrope_section) != 3 or self.head_dim % 2:
            raise ValueError(
                f"config.json: `rope_scaling.mrope_section` is {self.mrope_section}, of heads of {self.head_dim}; "
                "expected three numbers, for time, height and width, and an even width."
            )
        vision = self.vision_config
        if vision.width % vision.num_heads or vision.width // vision.num_heads % 4:
            raise ValueError(
                f"config.json: the width {vision.width} of `vision_config` must be a multiple of `num_heads` "
                f"{vision.num_heads} by a multiple of four, since each head's numbers turn with height and width."
            )
        if vision.output_size != self.hidden_size:
            raise ValueError(
                f"config.json: `vision_config.{vision.output_key}` {vision.output_size} differs from "
                f"`hidden_size` {self.hidden_size}; the merger must end at the language model's width."
            )


def _one_side(name: str, value: Any) -> Any:
    """Read a list of equal sides, as later writers have it, as the one number that they are."""
    if not isinstance(value, (list, tuple)):
        return value
    check_kinds({name: list(value)}, {name: list_of(SIDE, longest=3)}, section="vision_config.")
    if len(set(value)) != 1:
        raise ValueError(f"config.json: `vision_config.{name}` is {shown(value)}; only equal sides are built in.")
    return value[0]
