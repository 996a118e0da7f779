//! What a step ahead of a multiplication asks L2 for: the weights and group parameters that the first stages of
//! the multiplication's blocks are made of. The DRAM is busy while activations are prepared, also where a block has no
//! room beside the step's and cannot ask by itself.

use super::Lowering;
use crate::kernel::Argument;
use crate::kir::{int, var, Body, Buffer, Expr, Parameter, Space, Type};
use qtune_ir::{Schedule, Split};

/// Part of L2 that is asked for at most, as a divisor.
const PART_OF_L2: usize = 4;
/// Bytes of the pieces that buffers are counted in.
const PIECE_BYTES: usize = 16;

/// The first stages of blocks that start at even distances in the packed buffers.
#[derive(Default)]
pub(super) struct FirstStages {
    /// Thread blocks, or shares of a stream-K grid.
    runs: u32,
    buffers: Vec<Asked>,
}

/// What is asked for of a buffer, in 16-byte pieces.
struct Asked {
    argument: Argument,
    /// From the start of one block's part to that of the next.
    run: usize,
    /// Of each part, from its start.
    pieces: usize,
}

impl Asked {
    fn name(&self) -> &'static str {
        match self.argument {
            Argument::Params => "params",
            _ => "weights",
        }
    }
}

impl FirstStages {
    /// Of rings of packed weights, where the GPU copies in bulk; of `gemv`, whose blocks have few weights each and ask by
    /// themselves, nothing.
    pub fn of(cx: &Lowering, schedule: &Schedule) -> FirstStages {
        let stages = match schedule {
            Schedule::Mma(s) if cx.arch.has_bulk_copies() => s.stages,
            Schedule::Wgmma(s) => s.stages,
            _ => return FirstStages::default(),
        };
        let (tiles, steps) = (cx.layout.tiles(), cx.layout.steps());
        let runs = match schedule.split() {
            Split::Stream(shares) => shares,
            split => tiles * split.per_tile(),
        };
        // Of all steps, what the rings of all blocks hold.
        let share = f64::from(stages * runs) / f64::from(tiles * steps);
        let most = cx.arch.l2_bytes as usize / PART_OF_L2;
        let share = share.min(most as f64 / cx.layout.weight_bytes() as f64).min(1.0);
        let asked = |argument, bytes: usize| {
            let run = bytes / PIECE_BYTES / runs as usize;
            Asked { argument, run, pieces: (run as f64 * share) as usize }
        };
        let all = [
            asked(Argument::Weights, cx.layout.weight_bytes()),
            asked(Argument::Params, cx.layout.param_bytes()),
        ];
        let buffers = all.into_iter().filter(|asked| asked.pieces > 0).collect();
        FirstStages { runs, buffers }
    }

    /// The buffers, behind those that the step works on.
    pub fn arguments(&self) -> impl Iterator<Item = (Argument, Parameter)> + '_ {
        self.buffers.iter().map(|asked| {
            let (name, space) = (asked.name().into(), Space::GlobalRead);
            (asked.argument, Parameter::Buffer(Buffer { name, space, element: Type::U32x4 }))
        })
    }

    /// Asks for them by blocks of `threads` threads: one instruction for what a block of the multiplication starts with.
    pub fn ask(&self, body: &mut Body, threads: u32) {
        if self.buffers.is_empty() {
            return;
        }
        body.section("ask L2 for the first weights of what multiplies");
        let block = var("blockIdx.y") * var("gridDim.x") + var("blockIdx.x");
        let blocks = var("gridDim.x") * var("gridDim.y");
        let blocks = body.bind("blocks", Type::I32, blocks);
        let asker = body.bind("asker", Type::I32, var("thread") * blocks.clone() + block);
        let askers = body.bind("askers", Type::I32, blocks * threads);
        body.range("run", asker, self.runs, askers, |body, run| {
            for asked in &self.buffers {
                let at = Expr::address(asked.name(), run.clone() * asked.run as u32);
                let bytes = int((asked.pieces * PIECE_BYTES) as u32);
                body.call("prefetch_l2_bytes", [at, bytes]);
            }
        });
    }
}
