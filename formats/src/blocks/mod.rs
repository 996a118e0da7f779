//! The block formats of ggml, as GGUF files hold them.
//!
//! A row of a weight is cut into blocks of 32 or 256 weights; a block holds its scales and its codes.
//! Every weight is its format's expression computed in f32, which rounds at most once. The
//! super-blocks of 256 ("K-quants") have scales of two levels: integers of few bits per 16 or 32
//! weights, and one or two f16 for the whole block that these are multiples of. Both levels are
//! parameters of the expression.
//!
//! A format is an implementation of [`Block`] and a row made of it; GGUF names the type of every
//! tensor, so one file may hold as many formats as it has layers. Rows of attention weights stand
//! in the order of the file: for the architecture `llama`, converters interleave the halves of each
//! head.

mod nonlinear;
mod round_numbers;
mod super_blocks;

pub(crate) use nonlinear::{IQ4_NL, IQ4_XS};
pub(crate) use round_numbers::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
pub(crate) use super_blocks::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};

use crate::codes::Codes;
use crate::container::{Kept, Stored};
use crate::error::FormatError;
use crate::gguf::BlockType;
use crate::linear::{ParamArray, ParamValues, QuantizedLinear, Rounding};
use crate::name::FormatName;
use crate::nibbles::{pack, PackRuns};
use crate::registry::{FormatRow, GroupNames, LayerHeader, Variant};
use crate::small_scales::{LayerNumber, SmallScales};
use crate::tensors::{first_but, Module, TensorRef, EXPORT_AGAIN, VALUE_REMEDY};
use half::f16;
use qtune_ir::{Group, ParamType};
use rayon::prelude::*;

/// One block format.
pub(crate) trait Block {
    /// Its name, but for a group size that the name repeats.
    const FAMILY: &'static str;
    /// ggml's name of it.
    const TYPE: &'static str;
    /// One line about it.
    const DOC: &'static str;
    /// One line about the bytes of a block.
    const PACKING: &'static str;
    /// Its whole name.
    const NAME: &'static str = Self::FAMILY;
    /// Weights that share their parameters, a divisor of the block's elements.
    const GROUP: u32;
    /// How its name says that.
    const GROUPS: GroupNames = GroupNames::Implied(Self::GROUP);
    /// The value of a weight.
    const VARIANT: Variant;

    /// How the codes of a block are read.
    const CODES: BlockCodes;

    /// The bits of parameter `index`, in the order of the variant's, of every quant group of a block.
    fn param(block: &[u8], index: usize, groups: &mut [u32]);
}

/// How the codes of a block are read, in the order of its weights.
pub(crate) enum BlockCodes {
    /// 4 bits, in runs of bytes whose low nibbles come before their high ones.
    Runs {
        /// The first byte of the codes, which reach to the end of the block.
        first: usize,
        /// What packs runs of their length.
        pack: PackRuns,
    },
    /// By a function that writes one code to a byte.
    Each(fn(&[u8], &mut [u8])),
}

/// The constant slices that a row of `B` refers to.
struct Row<B>(std::marker::PhantomData<B>);

impl<B: Block> Row<B> {
    const VARIANTS: &'static [Variant] = &[B::VARIANT];
    const EXAMPLES: &'static [&'static str] = &[B::NAME];
}

/// The registry row of a block format.
pub(crate) const fn row<B: Block>() -> FormatRow {
    FormatRow {
        family: B::FAMILY,
        doc: B::DOC,
        source: "ggml-common.h and ggml-quants.c of ggml 0.13; GGUF versions 2 and 3",
        packing: B::PACKING,
        names: B::NAME,
        examples: Row::<B>::EXAMPLES,
        groups: B::GROUPS,
        variants: Row::<B>::VARIANTS,
        anchors: &["weight"],
        companions: &["weight", "bias"],
        claims: |module, _| Ok(module.get("weight").is_some_and(|weight| holds::<B>(&weight))),
        inspect: |module, _| inspect::<B>(module),
        load: load::<B>,
        quantize: None,
    }
}

/// Whether a tensor is made of blocks of `B`.
fn holds<B: Block>(tensor: &TensorRef<'_>) -> bool {
    matches!(tensor.stored, Stored::Blocks(blocks) if blocks.name == B::TYPE)
}

/// See [`FormatRow::inspect`]. The matrices of stacked experts count as one, rows after rows.
fn inspect<B: Block>(module: &Module<'_>) -> Result<LayerHeader, FormatError> {
    let weight = module.require("weight", "bias")?;
    let (k, outer) = weight.shape.split_last().map_or((0, [].as_slice()), |(k, o)| (*k, o));
    let n = outer.iter().product();
    if n == 0 || k == 0 {
        let problem = format!("is {} {:?}, which has no weights", weight.stored, weight.shape);
        return Err(weight.error(problem, EXPORT_AGAIN));
    }
    module.get("bias").map_or(Ok(()), |bias| bias.check_bias(n))?;
    let grouping = B::GROUPS.printed();
    let name = FormatName { family: B::FAMILY.into(), bits: None, grouping, modifiers: Vec::new() };
    let layout = if outer.len() > 1 { "experts" } else { "blocks" };
    Ok(LayerHeader { name, layout, n, k, group: Group::Size(B::GROUP) })
}

/// The blocks of a matrix.
struct Blocks<'a> {
    bytes: &'a [u8],
    of: &'static BlockType,
    per_row: usize,
}

impl<'a> Blocks<'a> {
    fn row_bytes(&self, n: usize) -> &'a [u8] {
        let row = self.per_row * self.of.bytes;
        &self.bytes[n * row..(n + 1) * row]
    }

    fn row(&self, n: usize) -> impl Iterator<Item = &'a [u8]> {
        self.row_bytes(n).chunks_exact(self.of.bytes)
    }
}

/// See [`FormatRow::load`].
fn load<B: Block>(
    module: &Module<'_>,
    header: &LayerHeader,
) -> Result<QuantizedLinear, FormatError> {
    let weight = module.require("weight", "bias")?;
    let Stored::Blocks(of) = weight.stored else {
        let problem = format!("is {}, not {}", weight.stored, B::TYPE);
        return Err(weight.error(problem, "inspect the layer before it is loaded"));
    };
    let (n, k) = (header.n, header.k);
    let blocks = Blocks { bytes: weight.bytes, of, per_row: k / of.elements };
    let spec = row::<B>().spec(&header.name)?;
    let params = (0..spec.params.len()).map(|index| {
        let values = params::<B>(&blocks, n, index);
        check_params(&weight, &values, header.groups(), B::TYPE)?;
        Ok(ParamArray { name: spec.params[index].name.clone(), values })
    });
    Ok(QuantizedLinear {
        params: params.collect::<Result<_, FormatError>>()?,
        codes: codes::<B>(weight.keep(), of, [n, k], spec.bits),
        spec,
        n,
        k,
        bias: module.get("bias").map(|bias| bias.bias(n)).transpose()?,
        rounding: Rounding::F32,
        k_order: None,
        input_scale: None,
    })
}

/// Codes `[N, K]`.
fn codes<B: Block>(bytes: Kept, of: &'static BlockType, [n, k]: [usize; 2], bits: u8) -> Codes {
    let per_row = k / of.elements;
    Codes::stored([n, k], bits, move |first, rows, stride| {
        let blocks = Blocks { bytes: &bytes, of, per_row };
        for (n, row) in (first..).zip(rows.chunks_mut(stride)) {
            let codes = match B::CODES {
                BlockCodes::Runs { first, pack } => {
                    pack(blocks.row_bytes(n), of.bytes, first, row);
                    continue;
                }
                BlockCodes::Each(codes) => codes,
            };
            let mut of_block = [0; BLOCK_MAX];
            let of_block = &mut of_block[..of.elements];
            for (block, row) in blocks.row(n).zip(row.chunks_mut(stride / per_row)) {
                codes(block, of_block);
                pack(of_block, bits, row);
            }
        }
    })
}

/// Weights of the largest blocks.
const BLOCK_MAX: usize = 256;
/// Quant groups of the blocks that have most.
const GROUPS_MAX: usize = 16;

/// Values `[N, groups]` of one parameter.
fn params<B: Block>(blocks: &Blocks<'_>, n: usize, index: usize) -> ParamValues {
    match B::VARIANT.params[index].1 {
        ParamType::F16 | ParamType::Shared(_) => {
            ParamValues::F16(gather::<B, _>(blocks, n, index, |bits| f16::from_bits(bits as u16)))
        }
        ParamType::E4M3 => {
            let codes = gather::<B, _>(blocks, n, index, |bits| bits as u8);
            let groups = blocks.per_row * blocks.of.elements / B::GROUP as usize;
            ParamValues::Small(SmallScales::new(codes, groups, LayerNumber::Factor(1.0)))
        }
        ParamType::F32 | ParamType::E8M0 | ParamType::Resolved | ParamType::NestedScale => {
            ParamValues::F32(gather::<B, _>(blocks, n, index, f32::from_bits))
        }
        ParamType::Code(_) | ParamType::NestedCode => {
            ParamValues::Code(gather::<B, _>(blocks, n, index, |bits| bits as u8))
        }
    }
}

/// Values `[N, groups]` of one parameter, from their bits.
fn gather<B: Block, T: Clone + Default + Send>(
    blocks: &Blocks<'_>,
    n: usize,
    index: usize,
    of_bits: impl Fn(u32) -> T + Sync,
) -> Vec<T> {
    let groups = blocks.of.elements / B::GROUP as usize;
    let mut values = vec![T::default(); n * blocks.per_row * groups];
    values.par_chunks_mut(blocks.per_row * groups).enumerate().for_each(|(n, row)| {
        let blocks = blocks.row(n);
        match groups {
            1 => gather_row::<B, T, 1>(blocks, index, &of_bits, row),
            8 => gather_row::<B, T, 8>(blocks, index, &of_bits, row),
            4 => gather_row::<B, T, 4>(blocks, index, &of_bits, row),
            _ => gather_row::<B, T, GROUPS_MAX>(blocks, index, &of_bits, row),
        }
    });
    values
}

/// The values of a row whose blocks have so many quant groups: loops over few are worth little where their
/// number is not known when this is compiled.
fn gather_row<'a, B: Block, T, const GROUPS: usize>(
    blocks: impl Iterator<Item = &'a [u8]>,
    index: usize,
    of_bits: &impl Fn(u32) -> T,
    row: &mut [T],
) {
    let mut bits = [0; GROUPS];
    for (values, block) in row.chunks_exact_mut(GROUPS).zip(blocks) {
        B::param(block, index, &mut bits);
        for (value, bits) in values.iter_mut().zip(bits) {
            *value = of_bits(bits);
        }
    }
}

/// Checks that all values are finite.
fn check_params(
    weight: &TensorRef<'_>,
    values: &ParamValues,
    groups: usize,
    name: &str,
) -> Result<(), FormatError> {
    let bad = match values {
        ParamValues::F16(values) => first_but(values, |value| value.is_finite()),
        ParamValues::F32(values) => first_but(values, |value| value.is_finite()),
        ParamValues::Code(_) | ParamValues::Small(_) | ParamValues::Nested(..) => None,
    };
    match bad {
        None => Ok(()),
        Some(at) => {
            let (n, group, value) = (at / groups, at % groups, values.get(at));
            let problem =
                format!("has the {name} scale {value} for output feature {n}, quant group {group}");
            Err(weight.error(problem, VALUE_REMEDY))
        }
    }
}

/// The bits of the f16 at a byte of a block.
fn half(block: &[u8], at: usize) -> u32 {
    u32::from(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Unpacks runs of `run` low nibbles, each followed by the high nibbles of the same bytes.
pub(crate) fn nibbles(packed: &[u8], run: usize, codes: &mut [u8]) {
    for (codes, packed) in codes.chunks_exact_mut(2 * run).zip(packed.chunks_exact(run)) {
        let (low, high) = codes.split_at_mut(run);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(packed) {
            (*low, *high) = (byte & 15, byte >> 4);
        }
    }
}
