//! Weight shapes of published models, as an engine that fuses q, k, v and gate, up sees them.
//!
//! Every number comes from the model's published `config.json`.

use crate::error::FormatError;
use crate::suggest::did_you_mean;
use qtune_ir::Epilogue;

/// The dimensions of a decoder-only transformer that decide its weight shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelPreset {
    /// Name on the command line.
    pub name: &'static str,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width of the MLP between `gate`/`up` and `down`.
    pub intermediate: u32,
    /// Query heads.
    pub heads: u32,
    /// Key/value heads.
    pub kv_heads: u32,
    /// Elements per head.
    pub head_dim: u32,
    /// Transformer blocks.
    pub layers: u32,
    /// Whether q, k and v have a bias (Qwen2 models).
    pub qkv_bias: bool,
    /// What lies around the multiplications of a transformer block.
    pub block: Block,
    /// GPUs that share a matrix: those cut along K give partial sums.
    pub ranks: u32,
}

/// What lies around the multiplications of a transformer block, as far as kernels can take it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Normalised ahead of attention and MLP, whose results are added to the residual stream as they
    /// are; the MLP is gated by SiLU (Llama, Mistral, Qwen).
    PreNorm,
    /// Normalised behind attention and MLP as well, before the residual stream is added; the MLP is
    /// gated by GELU (Gemma 2 and 3).
    SandwichNorm,
}

/// One weight matrix of a preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresetMatrix {
    /// `qkv`, `o`, `gate_up` or `down`.
    pub name: &'static str,
    /// Output features.
    pub n: u32,
    /// Input features.
    pub k: u32,
    /// Whether the layer adds a bias.
    pub bias: bool,
    /// What the model does with the product next and its kernel can do at once: `gate_up` is gated,
    /// its rows taken by turns, and `o` and `down` add the residual stream. Partial sums of several
    /// GPUs are left as they are.
    pub epilogue: Epilogue,
    /// Multiplications with this shape for one decoded token.
    pub calls_per_token: u32,
}

impl ModelPreset {
    /// What one of `ranks` GPUs holds under tensor parallelism (Shoeybi et al. 2019, Megatron-LM):
    /// `qkv` and `gate_up` are cut along N, `o` and `down` along K. Where there are fewer key/value
    /// heads than GPUs, each GPU keeps a copy of one.
    ///
    /// # Errors
    /// [`FormatError::UnevenShards`] when heads or MLP width do not divide.
    pub fn shard(&self, ranks: u32) -> Result<ModelPreset, FormatError> {
        let divide = |what, size: u32| match size.checked_rem(ranks) {
            Some(0) => Ok(size / ranks),
            _ => Err(FormatError::UnevenShards { model: self.name, what, size, ranks }),
        };
        let kv_heads = match self.kv_heads < ranks && ranks % self.kv_heads == 0 {
            true => 1,
            false => divide("key/value heads", self.kv_heads)?,
        };
        Ok(ModelPreset {
            intermediate: divide("MLP columns", self.intermediate)?,
            heads: divide("query heads", self.heads)?,
            kv_heads,
            ranks: self.ranks * ranks,
            ..*self
        })
    }

    /// The four fused matrices of a transformer block, in execution order.
    pub fn matrices(&self) -> [PresetMatrix; 4] {
        let matrix = |name, n, k, bias, epilogue| PresetMatrix {
            name,
            n,
            k,
            bias,
            epilogue,
            calls_per_token: self.layers,
        };
        let (gated, added) = match self.block {
            Block::PreNorm if self.ranks == 1 => (Epilogue::SiluMul, Epilogue::Residual),
            Block::PreNorm => (Epilogue::SiluMul, Epilogue::Store),
            Block::SandwichNorm => (Epilogue::Store, Epilogue::Store),
        };
        let attention = self.heads * self.head_dim;
        let qkv = attention + 2 * self.kv_heads * self.head_dim;
        [
            matrix("qkv", qkv, self.hidden, self.qkv_bias, Epilogue::Store),
            matrix("o", self.hidden, attention, false, added),
            matrix("gate_up", 2 * self.intermediate, self.hidden, false, gated),
            matrix("down", self.hidden, self.intermediate, false, added),
        ]
    }
}

/// A row of the table below: name, hidden, intermediate, (heads, kv heads, head size), layers,
/// bias of q, k, v, what lies around the products.
const fn row(
    name: &'static str,
    hidden: u32,
    intermediate: u32,
    (heads, kv_heads, head_dim): (u32, u32, u32),
    layers: u32,
    qkv_bias: bool,
    block: Block,
) -> ModelPreset {
    ModelPreset {
        name,
        hidden,
        intermediate,
        heads,
        kv_heads,
        head_dim,
        layers,
        qkv_bias,
        block,
        ranks: 1,
    }
}

/// Every preset.
pub static PRESETS: &[ModelPreset] = &[
    row("qwen2.5-32b", 5120, 27648, (40, 8, 128), 64, true, Block::PreNorm),
    row("qwen2.5-72b", 8192, 29568, (64, 8, 128), 80, true, Block::PreNorm),
    row("qwen2.5-14b", 5120, 13824, (40, 8, 128), 48, true, Block::PreNorm),
    row("qwen2.5-7b", 3584, 18944, (28, 4, 128), 28, true, Block::PreNorm),
    row("qwen3-32b", 5120, 25600, (64, 8, 128), 64, false, Block::PreNorm),
    row("qwen3-8b", 4096, 12288, (32, 8, 128), 36, false, Block::PreNorm),
    row("llama-3.1-70b", 8192, 28672, (64, 8, 128), 80, false, Block::PreNorm),
    row("llama-3.1-8b", 4096, 14336, (32, 8, 128), 32, false, Block::PreNorm),
    row("llama-2-7b", 4096, 11008, (32, 32, 128), 32, false, Block::PreNorm),
    row("mistral-7b", 4096, 14336, (32, 8, 128), 32, false, Block::PreNorm),
    row("gemma-2-9b", 3584, 14336, (16, 8, 256), 42, false, Block::SandwichNorm),
    row("gemma-3-27b", 5376, 21504, (32, 16, 128), 62, false, Block::SandwichNorm),
];

/// The preset called `name`; the error lists those that exist.
pub fn preset(name: &str) -> Result<&'static ModelPreset, FormatError> {
    let names = || PRESETS.iter().map(|preset| preset.name);
    let wanted = name.to_ascii_lowercase();
    PRESETS.iter().find(|preset| preset.name == wanted).ok_or_else(|| FormatError::UnknownPreset {
        name: name.into(),
        suggestion: did_you_mean(&wanted, names()),
        known: names().collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qwen2_5_32b_has_the_four_published_fused_shapes() {
        let matrices = preset("qwen2.5-32b").unwrap().matrices();
        let shapes = matrices.map(|m| (m.name, m.n, m.k));
        assert_eq!(
            shapes,
            [
                ("qkv", 7168, 5120),
                ("o", 5120, 5120),
                ("gate_up", 55296, 5120),
                ("down", 5120, 27648)
            ]
        );
        assert!(matrices[0].bias && !matrices[1].bias);
    }

    #[test]
    fn attention_may_be_wider_than_the_residual_stream() {
        let matrices = preset("Qwen3-32B").unwrap().matrices();
        assert_eq!((matrices[0].n, matrices[1].k), (10240, 8192));
    }

    #[test]
    fn shards_cut_two_matrices_along_n_and_two_along_k() {
        let shapes = |ranks| {
            let shard = preset("llama-3.1-70b").unwrap().shard(ranks).unwrap();
            shard.matrices().map(|m| (m.n, m.k))
        };
        assert_eq!(shapes(1), preset("llama-3.1-70b").unwrap().matrices().map(|m| (m.n, m.k)));
        assert_eq!(shapes(4), [(2560, 8192), (8192, 2048), (14336, 8192), (8192, 7168)]);
        // Eight key/value heads on sixteen GPUs: each holds one.
        assert_eq!(shapes(16)[0], ((4 + 2) * 128, 8192));
    }

    #[test]
    fn shards_that_do_not_divide_are_refused_by_name() {
        let message = preset("qwen2.5-7b").unwrap().shard(8).unwrap_err().to_string();
        assert!(message.contains("28 query heads") || message.contains("18944"), "{message}");
        assert!(preset("qwen2.5-7b").unwrap().shard(0).is_err());
    }

    #[test]
    fn presets_have_distinct_names_and_shapes_that_groups_of_128_divide() {
        for (index, one) in PRESETS.iter().enumerate() {
            assert!(PRESETS[..index].iter().all(|other| other.name != one.name));
            assert!(one.matrices().iter().all(|m| m.n % 128 == 0 && m.k % 128 == 0));
        }
    }

    #[test]
    fn epilogues_are_fused_where_nothing_comes_between() {
        let epilogues = |name, ranks| {
            preset(name).unwrap().shard(ranks).unwrap().matrices().map(|m| m.epilogue)
        };
        use Epilogue::{Residual, SiluMul, Store};
        assert_eq!(epilogues("llama-3.1-8b", 1), [Store, Residual, SiluMul, Residual]);
        assert_eq!(epilogues("llama-3.1-8b", 2), [Store, Store, SiluMul, Store]);
        assert_eq!(epilogues("gemma-2-9b", 1), [Store; 4]);
    }

    #[test]
    fn an_unknown_preset_lists_the_known_ones_and_the_nearest() {
        let message = preset("qwen2.5-32").unwrap_err().to_string();
        assert!(message.contains("did you mean `qwen2.5-32b`?"), "{message}");
        assert!(message.contains("mistral-7b"), "{message}");
    }
}
