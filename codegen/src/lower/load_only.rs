//! The load-only twin of a schedule: the same thread blocks read the same packed bytes once, and
//! compute nothing. Its time is the roof of a shape on a card, as far as reading goes.

use super::CodegenError;
use crate::kernel::{Argument, Entry, Kernel, Role};
use crate::kir::{self, call, hex, int, var, Body, Buffer, Expr, Parameter, Program, Space, Type};
use crate::layout::Layout;
use qtune_ir::tile::occupancy::grid_blocks;
use qtune_ir::{Arch, Problem, Schedule, Split, WeightSpec};

/// 16-byte loads that a thread has on their way.
const AHEAD: u32 = 8;
/// Bytes of one load.
const PIECE_BYTES: usize = 16;
/// What the words read are compared with, so that no load is dead code.
const UNLIKELY: u32 = 0x5eed_c0de;

/// Generates the load-only twin of `schedule`'s kernel for one token: it reads what
/// [`Argument::Weights`] and [`Argument::Params`] hold (of the latter all but the last 15 bytes at
/// most) and writes nothing worth reading.
///
/// # Errors
/// As [`crate::generate`].
pub fn load_only(
    problem: &Problem,
    spec: &WeightSpec,
    schedule: &Schedule,
    arch: &Arch,
) -> Result<Kernel, CodegenError> {
    schedule.check(problem, spec, arch)?;
    super::check_index_range(problem, schedule)?;
    let problem = Problem { m: 1, ..problem.clone() };
    // Of a kernel that dequantizes ahead, what multiplies stands for both, if it is ours: it reads the same bytes.
    let schedule = match schedule {
        Schedule::Dequant(s) => s.gemm.own().unwrap_or_else(|| schedule.clone()),
        other => other.clone(),
    };
    load_only_again(&problem, spec, &schedule, arch)
}

/// Generates a load-only twin from what it says of itself, its own problem and schedule. The schedule may
/// be no legal one for a kernel: of one that dequantizes ahead it is the part that multiplies.
///
/// # Errors
/// Where the weights cannot be laid out for the schedule, or the text is refused.
pub fn load_only_again(
    problem: &Problem,
    spec: &WeightSpec,
    schedule: &Schedule,
    arch: &Arch,
) -> Result<Kernel, CodegenError> {
    let layout = Layout::new(problem, spec, schedule)?;
    let params = layout.param_bytes() / PIECE_BYTES;
    let arguments = [Argument::Weights, Argument::Params, Argument::Output, Argument::Tokens];
    let arguments: Vec<Argument> =
        arguments.into_iter().filter(|a| *a != Argument::Params || params > 0).collect();
    let name = super::entry_name(problem, schedule).replacen("qtune_", "qtune_load_only_", 1);
    let blocks = grid_blocks(problem, schedule);
    let twin = Twin { layout: &layout, schedule, blocks };
    let program = Program {
        header: super::header(problem, schedule, arch),
        name: name.clone(),
        threads: schedule.threads(),
        resident: None,
        cluster: [1; 3],
        parameters: arguments.iter().map(|a| parameter(*a)).collect(),
        constants: Vec::new(),
        shared: Vec::new(),
        shared_bytes: 0,
        shared_align: 16,
        body: twin.body(params),
    };
    kir::verify(&program, arch.capability)?;
    let role = Role::Multiply;
    let threads = program.threads;
    let entry = Entry { role, name, arguments, threads, shared_bytes: 0, library: None };
    Ok(Kernel {
        source: kir::write(&[program]),
        entries: vec![entry],
        layout,
        problem: problem.clone(),
        schedule: schedule.clone(),
    })
}

/// Everything is read in pieces of 16 bytes, whatever it means; a word may be written.
fn parameter(argument: Argument) -> Parameter {
    let (name, space, element) = match argument {
        Argument::Weights => ("weights", Space::GlobalRead, Type::U32x4),
        Argument::Params => ("params", Space::GlobalRead, Type::U32x4),
        Argument::Tokens => return Parameter::Scalar("tokens".into(), Type::I32),
        _ => ("out", Space::GlobalWrite, Type::U32),
    };
    Parameter::Buffer(Buffer { name: name.into(), space, element })
}

struct Twin<'a> {
    layout: &'a Layout,
    schedule: &'a Schedule,
    /// Thread blocks of the launch with one token.
    blocks: u64,
}

impl Twin<'_> {
    fn body(&self, params: usize) -> Vec<kir::Stmt> {
        let mut body = Body::new();
        body.comment("each block reads its share of the packed bytes");
        match self.schedule.split() {
            Split::Stream(_) => body.bind("block", Type::I32, var("blockIdx.x")),
            Split::Blocks(splits) | Split::Cluster(splits) => {
                let row_tile = body.bind("row_tile", Type::I32, self.row_tile());
                body.bind("block", Type::I32, row_tile * splits + var("blockIdx.z"))
            }
        };
        body.zeros("any", Type::U32, &[4]);
        self.read(&mut body, "weights", self.layout.weight_bytes() / PIECE_BYTES);
        if params > 0 {
            self.read(&mut body, "params", params);
        }
        body.section("never, but the compiler cannot know");
        let word = |w: u32| Expr::at("any", [int(w)]);
        let all = word(0).equals(hex(UNLIKELY)).and(word(1).equals(hex(UNLIKELY)));
        let all = all.and(word(2).equals(hex(UNLIKELY))).and(word(3).equals(hex(UNLIKELY)));
        body.when(all, |body| body.store("out", int(0), word(0)));
        body.finish()
    }

    fn row_tile(&self) -> Expr {
        match self.schedule.raster() {
            qtune_ir::Raster::Rows => var("blockIdx.x"),
            qtune_ir::Raster::Tokens => var("blockIdx.y"),
        }
    }

    /// Reads the block's share of the `pieces` of a buffer, several loads ahead of their use.
    fn read(&self, body: &mut Body, buffer: &str, pieces: usize) {
        let threads = self.schedule.threads();
        let share = pieces.div_ceil(self.blocks as usize);
        body.section(format!("{buffer}: {pieces} pieces of 16 bytes, {share} to a block"));
        let from = var("block") * share as u32;
        let end = from.clone() + share as u32;
        let pieces = int(pieces as u32);
        let end = kir::select(end.clone().less(pieces.clone()), end, pieces);
        let end = body.bind(format!("{buffer}_end"), Type::I32, end);
        let first = from + var("threadIdx.x");
        body.range("piece", first, end.clone(), threads * AHEAD, |body, piece| {
            body.zeros("words", Type::U32, &[AHEAD, 4]);
            body.unrolled("ahead", AHEAD, |body, ahead| {
                let at = piece + ahead.clone() * threads;
                body.when(at.clone().less(end), |body| {
                    let value = call("load_stream", [Expr::address(buffer, at)]);
                    let places = (0..4u32).map(|w| Expr::at("words", [ahead.clone(), int(w)]));
                    body.unpack(places.collect(), Type::U32x4, value);
                });
            });
            body.unrolled("ahead", AHEAD, |body, ahead| {
                for word in 0..4u32 {
                    let place = Expr::at("any", [int(word)]);
                    let read = Expr::at("words", [ahead.clone(), int(word)]);
                    body.assign(place.clone(), place ^ read);
                }
            });
        });
    }
}
