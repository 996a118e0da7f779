//! Machine code (SASS): classified instructions and the loops they form.
//!
//! PTX tells what a kernel computes; only the machine code tells what it costs, because ptxas folds
//! address arithmetic, merges instructions and unrolls. [`Program::decode`] splits a kernel's text
//! into [`Instruction`]s with a [`Class`] each and finds its [`Loop`]s with their counts. That is
//! enough for instructions per weight, spills, the width of loads and the estimator's terms.
//!
//! Switch tables (`BRX`) end a block without successors: the code generator emits none.

mod class;
mod decode;
mod flow;
mod opcode;
#[cfg(test)]
mod tests;

pub use class::{Class, Counts};
pub use decode::{Flow, Guard, Instruction, INSTRUCTION_BYTES};
pub use flow::Loop;

use crate::cubin::CubinError;

/// First generation with the 128-bit encoding that is understood here.
const FIRST_SM: u32 = 75;

/// Longer than any kernel by orders of magnitude; damaged code must not cost minutes.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// The decoded code of one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Every instruction, padding included, in address order.
    pub instructions: Vec<Instruction>,
    /// Natural loops: outer loops before the loops in them.
    pub loops: Vec<Loop>,
    /// Whether control can reach each instruction. Padding behind the last exit is out of reach,
    /// and so are subroutines, which are entered by calls alone.
    reachable: Vec<bool>,
}

impl Program {
    /// Decodes `text` (a kernel's `.text` section) for compute capability `sm`, 90 for `sm_90a`.
    ///
    /// Unknown instructions are not an error: they have [`Class::Other`] and are counted as such.
    ///
    /// # Errors
    /// [`CubinError::TextLength`] if the text is not made of whole instructions or is longer than
    /// 1 MiB, [`CubinError::UnknownEncoding`] for GPUs before sm_75, [`CubinError::BadValue`] for
    /// code with more loops than compilers make.
    pub fn decode(text: &[u8], sm: u32) -> Result<Program, CubinError> {
        if sm < FIRST_SM {
            return Err(CubinError::UnknownEncoding { sm });
        }
        if text.is_empty() || text.len() % 16 != 0 || text.len() > MAX_TEXT_BYTES {
            return Err(CubinError::TextLength { len: text.len() });
        }
        let instructions: Vec<Instruction> = text
            .chunks_exact(16)
            .enumerate()
            .map(|(i, bytes)| {
                let mut word = [0; 16];
                word.copy_from_slice(bytes);
                Instruction::decode(i as u32 * INSTRUCTION_BYTES, word, sm)
            })
            .collect();
        let flow::Analysis { reachable, loops } = flow::analyse(&instructions)?;
        Ok(Program { instructions, loops, reachable })
    }

    /// The instructions that control can reach and some lane executes.
    pub fn live(&self) -> impl Iterator<Item = &Instruction> + '_ {
        let reachable = self.instructions.iter().zip(&self.reachable);
        reachable.filter(|(i, &reachable)| reachable && !i.is_workaround()).map(|(i, _)| i)
    }

    /// Counts over the whole kernel, each instruction once.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.live().for_each(|instruction| counts.add_one(instruction.class));
        counts
    }

    /// The instructions of loop `index`, in address order, those of inner loops included.
    ///
    /// # Panics
    /// If there is no such loop.
    pub fn loop_instructions(&self, index: usize) -> impl Iterator<Item = &Instruction> + '_ {
        let body = &self.loops[index];
        self.live().filter(move |instruction| body.contains(instruction.pc))
    }

    /// Warp instructions that one warp executes in loops, given `trips[i]`: how often the body of
    /// loop `i` runs per entry of that loop (a fraction where warps differ). Loops nest, so an
    /// inner loop's instructions count once per trip of every loop around it. Times 32 lanes and
    /// the number of warps, over the weights they consume, this is lane-instructions per weight.
    ///
    /// # Panics
    /// If `trips` has not one entry per loop.
    pub fn executed_in_loops(&self, trips: &[f64]) -> f64 {
        assert_eq!(trips.len(), self.loops.len(), "one trip count per loop");
        // Outer loops come first, so the parent's product is there.
        let mut products: Vec<f64> = Vec::with_capacity(trips.len());
        let mut executed = 0.0;
        for (inner, &trips) in self.loops.iter().zip(trips) {
            let product = trips * inner.parent.map_or(1.0, |outer| products[outer]);
            executed += product * f64::from(inner.own.total());
            products.push(product);
        }
        executed
    }

    /// The loop that does most of the arithmetic, the innermost of equals: the main loop of a
    /// generated kernel. Tensor instructions decide, then packed halves, then single precision.
    pub fn main_loop(&self) -> Option<usize> {
        let work = |l: &Loop| {
            let tensor = l.own.sum(&[Class::Tensor, Class::TensorGroup]);
            (tensor, l.own.get(Class::Half2), l.own.get(Class::Fp32))
        };
        let best = self.loops.iter().map(work).max().filter(|&best| best > (0, 0, 0))?;
        self.loops.iter().rposition(|l| work(l) == best)
    }
}
