//! Operands of the tensor-core instructions.

use super::{PredicateSource, Slot};

/// Format of a matrix element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Element {
    F16,
    Bf16,
    Tf32,
    E4m3,
    E5m2,
    /// The 6- and 4-bit formats in 8-bit containers, as `.kind::f8f6f4` takes them.
    E3m2,
    E2m3,
    E2m1,
    /// 4-bit floats, eight to a register.
    PackedE2m1,
    S8,
    U8,
    S4,
    U4,
}

impl Element {
    /// Bits that an element takes in a register or in shared memory.
    pub(crate) fn bits(self) -> usize {
        match self {
            Element::Tf32 => 32,
            Element::F16 | Element::Bf16 => 16,
            Element::PackedE2m1 | Element::S4 | Element::U4 => 4,
            _ => 8,
        }
    }

    /// Elements of a 32-bit register.
    pub(crate) fn per_register(self) -> usize {
        32 / self.bits()
    }
}

/// Accumulator format of a matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MmaAccumulator {
    F32,
    F16,
    S32 { saturate: bool },
}

impl MmaAccumulator {
    /// Registers that hold 16 rows of 8 columns.
    pub(crate) fn registers(self) -> usize {
        if self == MmaAccumulator::F16 {
            2
        } else {
            4
        }
    }
}

/// Which byte of which lanes of a register scales an operand (`.block_scale`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScaleSource {
    pub data: Slot,
    /// Registers with the number of the first byte and of the lane (or pair of lanes) in a quad.
    pub byte: Slot,
    pub thread: Slot,
}

/// Scales of both operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MmaScales {
    /// Scales along K: 1, 2 or 4.
    pub per_row: u8,
    /// `ue4m3` instead of `ue8m0`.
    pub e4m3: bool,
    pub a: ScaleSource,
    pub b: ScaleSource,
}

/// An `mma.sync` of 16 (or 8) rows by 8 columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mma {
    pub a_type: Element,
    pub b_type: Element,
    pub accumulator: MmaAccumulator,
    /// Rows of A: 8 or 16.
    pub rows: u8,
    /// K of the shape: 4 to 64.
    pub k: u8,
    pub scales: Option<MmaScales>,
    pub d: [Slot; 4],
    pub a: [Slot; 4],
    pub b: [Slot; 2],
    pub c: [Slot; 4],
}

/// An `mma.sync` on f64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MmaF64 {
    /// Rows of A: 8 or 16.
    pub rows: u8,
    /// K of the shape: 4, 8 or 16.
    pub k: u8,
    pub d: [Slot; 4],
    pub a: [Slot; 8],
    pub b: [Slot; 4],
    pub c: [Slot; 4],
}

/// Where a `wgmma` finds A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WgmmaLeft {
    Registers([Slot; 4]),
    /// 64-bit register with a descriptor; `transposed` is M-major.
    Shared {
        descriptor: Slot,
        transposed: bool,
    },
}

/// A `wgmma.mma_async` of 64 rows, 16 of them by each warp. K is always 32 bytes of elements.
///
/// The accumulators are the registers that the instruction writes, see
/// [`crate::program::Instruction::operands_start`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wgmma {
    pub a_type: Element,
    pub b_type: Element,
    pub accumulator: MmaAccumulator,
    /// Columns: 8 to 256.
    pub n: u16,
    pub a: WgmmaLeft,
    /// 64-bit register with B's descriptor.
    pub b: Slot,
    /// B is N-major.
    pub b_transposed: bool,
    /// False: the old accumulators are not added.
    pub scale_d: PredicateSource,
    pub negate_a: bool,
    pub negate_b: bool,
}
