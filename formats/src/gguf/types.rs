//! The types that a tensor can have.

use crate::container::Stored;
use crate::safetensors::ElementType;

/// A type of blocks along the innermost dimension.
#[derive(Debug, PartialEq, Eq)]
pub struct BlockType {
    /// As ggml calls it: `Q4_K`.
    pub name: &'static str,
    /// Elements of one block.
    pub elements: usize,
    /// Bytes of one block.
    pub bytes: usize,
}

/// Numbers of the plain types in a file.
const ELEMENTS: [(u32, ElementType); 8] = [
    (0, ElementType::F32),
    (1, ElementType::F16),
    (24, ElementType::I8),
    (25, ElementType::I16),
    (26, ElementType::I32),
    (27, ElementType::I64),
    (28, ElementType::F64),
    (30, ElementType::Bf16),
];

/// Numbers of the block types in a file. Those that only exist in memory (`Q8_1`, `Q8_K`) and those
/// that were taken out of ggml are not files' business.
static BLOCKS: [(u32, BlockType); 24] = [
    (2, block("Q4_0", 32, 18)),
    (3, block("Q4_1", 32, 20)),
    (6, block("Q5_0", 32, 22)),
    (7, block("Q5_1", 32, 24)),
    (8, block("Q8_0", 32, 34)),
    (10, block("Q2_K", 256, 84)),
    (11, block("Q3_K", 256, 110)),
    (12, block("Q4_K", 256, 144)),
    (13, block("Q5_K", 256, 176)),
    (14, block("Q6_K", 256, 210)),
    (16, block("IQ2_XXS", 256, 66)),
    (17, block("IQ2_XS", 256, 74)),
    (18, block("IQ3_XXS", 256, 98)),
    (19, block("IQ1_S", 256, 50)),
    (20, block("IQ4_NL", 32, 18)),
    (21, block("IQ3_S", 256, 110)),
    (22, block("IQ2_S", 256, 82)),
    (23, block("IQ4_XS", 256, 136)),
    (29, block("IQ1_M", 256, 56)),
    (34, block("TQ1_0", 256, 54)),
    (35, block("TQ2_0", 256, 66)),
    (39, block("MXFP4", 32, 17)),
    (40, block("NVFP4", 64, 36)),
    (41, block("Q1_0", 128, 18)),
];

const fn block(name: &'static str, elements: usize, bytes: usize) -> BlockType {
    BlockType { name, elements, bytes }
}

/// The type that a file calls `number`.
pub(super) fn stored(number: u32) -> Option<Stored> {
    let element = ELEMENTS.iter().find(|(known, _)| *known == number);
    let blocks = || BLOCKS.iter().find(|(known, _)| *known == number);
    match element {
        Some((_, element)) => Some(Stored::Elements(*element)),
        None => blocks().map(|(_, blocks)| Stored::Blocks(blocks)),
    }
}

impl Stored {
    /// Elements and bytes of the smallest run that is stored for itself.
    pub(super) fn unit(self) -> (usize, usize) {
        match self {
            Stored::Elements(element) => (1, element.bytes()),
            Stored::Blocks(blocks) => (blocks.elements, blocks.bytes),
        }
    }
}
