//! What one stored weight means, independent of any file: bits, quant groups, group parameters
//! and the dequantization expression.

use crate::{Activations, CodePacking, VectorCodes, PAIR_CODES};
use std::fmt;

/// Which weights share their group parameters: consecutive input features (k) of one output row, or rows
/// of one input feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Group {
    /// `Size(g)`: columns `g*i .. g*i+g` form quant group `i`; the last one may be short.
    Size(u32),
    /// One group per output channel: the whole row.
    Channel,
    /// `Rows(g)`: every column of a row has parameters of its own, and rows `g*i .. g*i+g` share them. N is a multiple
    /// of `g`. Codes have their rows in an order of their own: see [`Group::feature`].
    Rows(u32),
}

impl Group {
    /// The group size in elements of k for a row of length `k`.
    pub fn size(self, k: u32) -> u32 {
        match self {
            Group::Size(g) => g.min(k),
            Group::Channel => k,
            Group::Rows(_) => 1,
        }
    }

    /// k over which products may be added before parameters apply, for a row of length `k`: a quant group; all of
    /// it where no two columns have the same parameters, which then apply to each weight.
    pub fn run(self, k: u32) -> u32 {
        match self {
            Group::Rows(_) => k,
            Group::Size(_) | Group::Channel => self.size(k),
        }
    }

    /// Consecutive rows that share parameters.
    pub fn rows(self) -> u32 {
        match self {
            Group::Rows(rows) => rows,
            Group::Size(_) | Group::Channel => 1,
        }
    }

    /// Rows of parameters that `rows` consecutive rows of codes have; the first one starts with a row of parameters, or
    /// all of them share one.
    pub fn param_rows(self, rows: u32) -> u32 {
        rows.div_ceil(self.rows())
    }

    /// The output feature of a row of codes, of `n`. Rows that share parameters are features `n/g` apart:
    /// the matrix was cut into columns after its rows had been put one behind the other.
    pub fn feature(self, row: u32, n: u32) -> u32 {
        match self {
            Group::Rows(rows) => row % rows * (n / rows) + row / rows,
            Group::Size(_) | Group::Channel => row,
        }
    }

    /// Number of quant groups in a row of length `k`.
    pub fn count(self, k: u32) -> u32 {
        k.div_ceil(self.size(k))
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Group::Size(g) => write!(f, "g{g}"),
            Group::Channel => f.write_str("ch"),
            Group::Rows(g) => write!(f, "{g} rows"),
        }
    }
}

/// How a group parameter is stored in the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum ParamType {
    /// A 16-bit float.
    F16,
    /// A 32-bit float.
    F32,
    /// An unsigned integer of this many bits (a zero-point).
    Code(u8),
    /// A 16-bit float that this many consecutive quant groups share (a scale of scales). Decoded
    /// layers and packed arrays repeat it for every group.
    Shared(u8),
    /// A power of two, as its biased exponent of 8 bits. Kernels have no use for those below the normal
    /// numbers of f32: they count as zero.
    E8M0,
    /// A float of 8 bits (e4m3) without a sign, times or over a number that the whole layer shares. In terms and in decoded
    /// layers it is the f32 that this makes. Kernels have the float, and multiply whatever is linear in it by
    /// the number of the layer at the end.
    E4M3,
    /// The f32 that a [`ParamType::NestedCode`] and a [`ParamType::NestedScale`] of the same group make with
    /// the layer's map. It takes no bits of a checkpoint.
    Resolved,
    /// The number of a value in the layer's map of 256: see [`NestedMap`].
    NestedCode,
    /// The f32 that multiplies this value; 256 consecutive quant groups of the whole matrix, counted along
    /// its rows, share one. Decoded layers repeat it for every group.
    NestedScale,
}

/// How a layer turns [`ParamType::NestedCode`] and [`ParamType::NestedScale`] into scales: scales that are
/// quantized themselves, as double quantization has them (Dettmers et al., "QLoRA", NeurIPS 2023).
#[derive(Clone, Debug, PartialEq)]
pub struct NestedMap {
    values: [f32; NESTED_CODES],
    offset: f32,
}

/// Values of a [`NestedMap`].
pub const NESTED_CODES: usize = 256;
/// Consecutive quant groups that share a [`ParamType::NestedScale`].
pub const NESTED_GROUPS: u32 = 256;
/// Numbers of a [`NestedMap`] as kernels read it: the values, then the offset.
pub const NESTED_NUMBERS: usize = NESTED_CODES + 1;

impl NestedMap {
    /// The map of these values by code; `offset` is added to every scale.
    pub fn new(values: [f32; NESTED_CODES], offset: f32) -> NestedMap {
        NestedMap { values, offset }
    }

    /// The scale of a code: a product and a sum, each rounded to f32.
    pub fn scale(&self, code: u8, scale: f32) -> f32 {
        self.values[usize::from(code)] * scale + self.offset
    }

    /// The values, then the offset, as bytes of little-endian f32.
    pub fn bytes(&self) -> Vec<u8> {
        let numbers = self.values.iter().chain([&self.offset]);
        numbers.flat_map(|number| number.to_le_bytes()).collect()
    }
}

impl ParamType {
    /// Bits that a checkpoint needs for one value per quant group, without padding.
    pub fn bits(self) -> u32 {
        match self {
            ParamType::F16 => 16,
            ParamType::F32 => 32,
            ParamType::Code(bits) => bits.into(),
            ParamType::Shared(groups) => 16u32.div_ceil(groups.max(1).into()),
            ParamType::E8M0 | ParamType::E4M3 | ParamType::NestedCode => 8,
            ParamType::NestedScale => 32 / NESTED_GROUPS,
            ParamType::Resolved => 0,
        }
    }

    /// Bytes that one value takes in qtune's packed parameter array. Integer codes up to 2^11 are
    /// exact in f16, which the kernels can convert without a table; of a power of two, the exponent of f32; a float of 8 bits is packed as it is.
    pub fn packed_bytes(self) -> u32 {
        match self {
            ParamType::E8M0 | ParamType::E4M3 | ParamType::NestedCode => 1,
            ParamType::F16 | ParamType::Code(_) | ParamType::Shared(_) => 2,
            ParamType::F32 | ParamType::Resolved | ParamType::NestedScale => 4,
        }
    }

    /// Whether entries of the packed parameter array hold it. What scales are made of lies beside them,
    /// where kernels make the scales.
    pub fn in_entries(self) -> bool {
        !matches!(self, ParamType::NestedCode | ParamType::NestedScale)
    }
}

/// One value per row of parameters and quant group, named as in the dequantization expression.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Param {
    /// The symbol in the expression, `s` or `z` for instance.
    pub name: String,
    /// How it is stored.
    pub dtype: ParamType,
}

/// The values that codes of a lookup format stand for, by code. All are finite; -0 and 0 are two values.
///
/// Where codes name vectors, every layer brings the values, and a format says only how they are named.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Codebook {
    values: Vec<f32>,
    vectors: Option<VectorCodes>,
}

impl Codebook {
    /// The codebook of `values`, one per code.
    ///
    /// # Panics
    /// If a value is not finite.
    pub fn new(values: &[f32]) -> Codebook {
        assert!(values.iter().all(|value| value.is_finite()), "values of a codebook are finite");
        Codebook { values: values.to_vec(), vectors: None }
    }

    /// Codebooks of vectors that a layer brings.
    pub fn of_vectors(vectors: VectorCodes) -> Codebook {
        Codebook { values: Vec::new(), vectors: Some(vectors) }
    }

    /// The same codebook where each code stands for one of `values`, as far as evaluating expressions
    /// goes: the numbers that the vectors of some weights have.
    ///
    /// # Panics
    /// As [`Codebook::new`].
    pub fn with_values(&self, values: &[f32]) -> Codebook {
        Codebook { vectors: self.vectors, ..Codebook::new(values) }
    }

    /// How codes name vectors, where they do.
    pub fn vectors(&self) -> Option<VectorCodes> {
        self.vectors
    }

    /// The values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

impl PartialEq for Codebook {
    fn eq(&self, other: &Codebook) -> bool {
        let bits =
            |codebook: &Codebook| codebook.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        self.vectors == other.vectors && bits(self) == bits(other)
    }
}

impl Eq for Codebook {}

impl std::hash::Hash for Codebook {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.values.iter().for_each(|value| value.to_bits().hash(state));
        self.vectors.hash(state);
    }
}

/// Everything the compiler knows about a quantization format.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct WeightSpec {
    /// The format's name in qtune's grammar, `awq-g128` for instance.
    pub name: String,
    /// Bits per code.
    pub bits: u8,
    /// Which weights share parameters.
    pub group: Group,
    /// Group parameters in the order in which they are packed.
    pub params: Vec<Param>,
    /// The weight as an expression of the code `q` and the parameters, such as `(* (- q z) s)`:
    /// see [`crate::dequant`] for the language.
    pub expr: String,
    /// What `(lookup i)` or `(vector q)` in the expression reads; empty if it looks nothing up.
    #[serde(default)]
    pub codebook: Codebook,
    /// Whether the columns of a layer are stored in an order of its own, sorted by quant group
    /// (`act-order`), so that activations have to be sorted alike.
    #[serde(default)]
    pub act_order: bool,
    /// How activations are multiplied with the weights.
    #[serde(default)]
    pub activations: Activations,
}

/// Bits of a weight that is no longer quantized.
const DENSE_BITS: u8 = 16;

impl WeightSpec {
    /// Weights that have been dequantized: 16-bit floats of the activations' type, without
    /// parameters. What the multiplication of a [`crate::DequantSchedule`] reads.
    pub fn dense() -> WeightSpec {
        WeightSpec {
            name: "dense".into(),
            bits: DENSE_BITS,
            group: Group::Channel,
            params: Vec::new(),
            expr: "q".into(),
            codebook: Codebook::default(),
            act_order: false,
            activations: Activations::Floats,
        }
    }

    /// Weights as the main loop sees them that multiplies codes of 8 bits: like [`WeightSpec::dense`],
    /// with two codes in the place of a float, and scales where they apply to sums of quant groups.
    pub fn pairs(&self) -> WeightSpec {
        let pairs = WeightSpec {
            name: "pairs".into(),
            activations: self.activations,
            ..WeightSpec::dense()
        };
        match self.group {
            Group::Size(size) if self.activations.are_grouped() => {
                let group = Group::Size(size / PAIR_CODES);
                WeightSpec { group, params: self.params.clone(), ..pairs }
            }
            _ => pairs,
        }
    }

    /// Whether the weights are those of [`WeightSpec::dense`] or [`WeightSpec::pairs`]: nothing is left
    /// to do for them before they are multiplied.
    pub fn is_dense(&self) -> bool {
        self.bits == DENSE_BITS
    }

    /// How a lane's weights fill words, `None` if kernels do not read that width.
    pub fn packing(&self) -> Option<CodePacking> {
        match self.is_dense() {
            true => Some(CodePacking::FLOATS),
            false => CodePacking::of(self.bits),
        }
    }

    /// Whether weights lie between rotations of the inputs and of the outputs, which are computed apart from
    /// the multiplication.
    pub fn is_rotated(&self) -> bool {
        self.codebook.vectors().is_some_and(VectorCodes::is_rotated)
    }

    /// Whether scales are themselves multiples of scales that several groups share.
    pub fn has_two_levels(&self) -> bool {
        self.params.iter().any(|param| matches!(param.dtype, ParamType::Shared(_)))
    }

    /// Whether a code stands for a number: two floats of 8 bits do not, and no checkpoint is loaded that
    /// has them.
    pub fn is_number(&self, code: u8) -> bool {
        const NAN: u8 = 0x7f;
        code & NAN != NAN || !self.expr.contains("(e4m3 ")
    }

    /// Whether a layer brings a number that all of its weights are multiples of, see [`ParamType::E4M3`].
    pub fn has_layer_factor(&self) -> bool {
        self.params.iter().any(|param| param.dtype == ParamType::E4M3)
    }

    /// Bytes of one (row, group) entry of the packed parameter array, where it holds the parameters
    /// themselves.
    pub fn packed_param_bytes(&self) -> u32 {
        let in_entries = self.params.iter().map(|p| p.dtype).filter(|dtype| dtype.in_entries());
        in_entries.map(ParamType::packed_bytes).sum()
    }

    /// Whether scales are quantized themselves: see [`NestedMap`].
    pub fn has_nested_scales(&self) -> bool {
        self.params.iter().any(|param| param.dtype == ParamType::NestedCode)
    }

    /// The least number of bytes that hold the weights of an `n` x `k` matrix: codes and group
    /// parameters, bit-packed without padding. Weight traffic is judged against this.
    pub fn compulsory_bytes(&self, n: u32, k: u32) -> u64 {
        let codes = n as u64 * k as u64 * self.bits as u64;
        let groups = u64::from(self.group.param_rows(n)) * u64::from(self.group.count(k));
        let params: u64 = self.params.iter().map(|p| p.dtype.bits() as u64).sum();
        (codes + groups * params).div_ceil(8)
    }
}
