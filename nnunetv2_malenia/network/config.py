"""What shapes the network: stored in `plans["malenia"]["network"]`, read by training and prediction alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

NUM_ASPECTS = 8
# what intensities define: near the lesion density, density variation and surface; of the whole patch enhancement
EVIDENCE_ASPECTS = ((2, 3, 5), (4,))
SPECIFIC_FEATURES = 7


@dataclass(frozen=True)
class MaleniaConfig:
    """Sizes and switches of the parts that Malenia adds to an nnU-Net backbone.

    num_tokens: N, learned mask tokens. token_dim: D, a multiple of 6 (3-D sine encoding) and of num_heads.
    embedding_dim: E, width of the space shared by aspect embeddings and projected phrases.
    num_scales: decoder levels that the tokens read and are supervised at, counted from the finest (3 in the paper).
    max_feature_voxels: the finest of these levels has at most this many voxels a patch.
    num_fusion_layers: deep-fusion layers of the text branch; 0 leaves it to the dense match alone.
    text_weight: share of the text branch in the ensemble; 0 is the mask branch alone, 1 the text branch alone.
    temperature: softmax divisor of MP-NCE, and of the odds that the match reads.
    evidence: read EVIDENCE_ASPECTS from intensities, not from learned features, which let an organ stand for the
    attributes that its lesions had in training.
    extremes: the evidence near the lesion holds its extremes too, for density, its variation and surface as well, and
    specific features are read from it.
    """

    num_tokens: int = 16
    token_dim: int = 96
    num_heads: int = 4
    embedding_dim: int = 32
    num_scales: int = 3
    max_feature_voxels: int = 32768
    num_fusion_layers: int = 3
    text_weight: float = 0.8
    temperature: float = 0.1
    evidence: bool = True
    extremes: bool = False

    def __post_init__(self) -> None:
        if self.token_dim % 6 or self.token_dim % self.num_heads:
            raise ValueError(f"token_dim {self.token_dim} must be a multiple of 6 and of num_heads {self.num_heads}")
        if self.num_scales < 1:
            raise ValueError(f"num_scales {self.num_scales} must be at least 1")
        if not 0 <= self.text_weight <= 1:
            raise ValueError(f"text_weight {self.text_weight} must lie in [0, 1]")
        if self.extremes and not self.evidence:
            raise ValueError("extremes are a part of evidence; switch both on, or extremes off")

    @classmethod
    def from_dict(cls, values: dict) -> MaleniaConfig:
        """Read `plans["malenia"]["network"]`; raises ValueError on a key that this version does not know."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f'plans["malenia"]["network"] has unknown keys {sorted(unknown)}; update nnunetv2_malenia')
        return cls(**values)

    def to_dict(self) -> dict:
        return asdict(self)
