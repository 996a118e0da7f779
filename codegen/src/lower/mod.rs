//! Lowering: problem + schedule -> kernel IR -> text. One file per family, and what they share:
//! the octets of codes of any width ([`octet`]), the dequantization term ([`term`], [`uniform`]) with its
//! codebooks ([`table`], [`vectors`]) and the factor of a layer ([`factor`]), the parameters of fragment rows ([`rows`]), or of columns ([`columns`]), and
//! their levels ([`levels`], [`nested`]), the shares of stream-K ([`stream`]), the blocks that registers must suffice for ([`resident`]),
//! the reduction and output ([`output`]), the order of activations ([`sort`]), their codes
//! ([`quantize`], [`eight_bit`]) and rotations ([`rotate`]), and what such steps ask for meanwhile ([`first`]).

mod columns;
mod dequant;
mod eight_bit;
mod factor;
mod first;
mod gemv;
mod levels;
mod load_only;
mod mma;
mod nested;
mod octet;
mod output;
mod overlap;
mod quantize;
mod resident;
mod rotate;
mod rows;
mod sort;
mod stream;
mod table;
mod term;
mod uniform;
mod vectors;
mod wgmma;

pub use load_only::{load_only, load_only_again};

use crate::kernel::{Argument, Entry, Kernel, Role};
use crate::kir::{self, var, Body, Buffer, Expr, Parameter, Program, Space, Type};
use crate::layout::{Layout, F32_EXPONENT};
use crate::SlabProduct;
use first::FirstStages;
use nested::ScaleMap;
use qtune_ir::dequant::{Context, DequantError};
use qtune_ir::{
    Arch, CodePacking, DType, Epilogue, Overlap, ParamType, Problem, Rejected, Schedule, Sorting,
    Split, WeightSpec,
};
use table::SharedTable;

pub(crate) use dequant::slab_parts;
pub(crate) use quantize::{code_bytes, grid as quantize_grid, scale_bytes};
pub(crate) use sort::grid as sort_grid;

/// Why no kernel was generated.
#[derive(Debug, thiserror::Error)]
pub enum CodegenError {
    /// The schedule is not legal for this problem and arch: the caller's choice.
    #[error("schedule refused: {0}")]
    Rejected(#[from] Rejected),
    /// The schedule's dequantization term cannot be lowered: the caller's choice.
    #[error("dequantization term refused: {0}")]
    Term(#[from] DequantError),
    /// The generator built something its own verifier rejects: our fault.
    #[error(transparent)]
    Generator(#[from] kir::KirError),
}

/// Version of the generator: part of every cache fingerprint. A change of generated text or of
/// packed layouts raises it, so that older winners miss.
pub const GENERATOR_VERSION: u32 = 8;

/// Generates the kernel of `schedule` for `problem`.
///
/// # Errors
/// [`CodegenError`]; nothing is compiled here.
pub fn generate(
    problem: &Problem,
    spec: &WeightSpec,
    schedule: &Schedule,
    arch: &Arch,
) -> Result<Kernel, CodegenError> {
    schedule.check(problem, spec, arch)?;
    check_index_range(problem, schedule)?;
    let layout = Layout::new(problem, spec, schedule)?;
    let context = schedule.context(problem, spec);
    let table_offset = schedule.table_offset(problem, spec);
    let scale_map = schedule.map_offset(problem, spec).map(|offset| ScaleMap { offset });
    let overlap = schedule.overlap();
    let sorting = schedule.sorting(spec);
    let paired = schedule.in_pairs(problem, spec);
    let rotated = (sorting == Sorting::Rotation).then(|| product(problem));
    // What multiplies codes of 8 bits is a main loop over pairs of them.
    let (problem_of_loop, spec_of_loop, loop_schedule) = match &paired {
        Some(pairs) => (&pairs.problem, &pairs.spec, &pairs.schedule),
        None => (rotated.as_ref().unwrap_or(problem), spec, schedule),
    };
    let cx = Lowering {
        arch,
        problem: problem_of_loop,
        spec: spec_of_loop,
        layout: &layout,
        context,
        table_offset,
        scale_map,
        overlap,
        sorting,
    };
    let parts = match loop_schedule {
        Schedule::Dequant(s) => dequant::lower(&cx, s)?,
        _ => vec![cx.part(loop_schedule)?],
    };
    let (mut programs, mut entries) = (Vec::new(), Vec::new());
    for part in with_other_steps(&cx, problem, loop_schedule, parts) {
        let name = entry_name(problem, schedule) + part.suffix();
        entries.push(part.entry(&name));
        if part.library.is_some() {
            continue;
        }
        let waits = overlap.pdl && part.role == Role::Multiply;
        let mut header = header(problem, schedule, arch);
        // Every family's text counts k in its own elements.
        header.extend(paired.as_ref().map(|_| "K:        pairs of 8-bit codes".to_string()));
        let program = part.program(cx.problem, name, header);
        kir::verify(&program, arch.capability)?;
        if waits {
            kir::verify_dependent(&program, &overlap::EARLY)?;
        }
        programs.push(program);
    }
    Ok(Kernel {
        source: kir::write(&programs),
        entries,
        layout,
        problem: problem.clone(),
        schedule: schedule.clone(),
    })
}

/// The steps of a launch in order: what prepares activations for `parts`, these, and what undoes a rotation.
fn with_other_steps(
    cx: &Lowering,
    problem: &Problem,
    schedule: &Schedule,
    mut parts: Vec<Part>,
) -> Vec<Part> {
    let align = parts[0].shared_align;
    let first = FirstStages::of(cx, schedule);
    if cx.has_codes() {
        parts.insert(0, quantize::part(cx, problem, (schedule, &first), align));
    }
    match cx.sorting {
        Sorting::Step => parts.insert(0, sort::part(cx, &first, align)),
        Sorting::Rotation => {
            parts.insert(0, rotate::inputs(problem, align));
            parts.push(rotate::outputs(problem, align));
        }
        Sorting::None | Sorting::Prologue => {}
    }
    parts
}

/// What is multiplied of a problem whose products are rotated: f32, to which nothing is done.
pub(crate) fn product(problem: &Problem) -> Problem {
    Problem { out: DType::F32, bias: false, epilogue: Epilogue::Store, ..problem.clone() }
}

/// Kernels index with 32-bit signed integers.
fn check_index_range(problem: &Problem, schedule: &Schedule) -> Result<(), Rejected> {
    let (tile_n, tile_m) = schedule.tile();
    let rows = u64::from(problem.n.next_multiple_of(tile_n));
    let tokens = u64::from(problem.m.next_multiple_of(tile_m));
    let largest = [
        (tokens * u64::from(problem.k), "activations"),
        (rows * u64::from(problem.k) / 4, "weights"),
        (rows * tokens * u64::from(schedule.split().per_tile()), "outputs"),
        (stream_steps(problem, schedule), "steps of all tiles"),
    ];
    for (elements, what) in largest {
        if elements > i32::MAX as u64 {
            let reason = format!("{elements} {what} are more than 32-bit indices reach");
            return Err(Rejected { reason });
        }
    }
    Ok(())
}

/// Steps that the blocks of a stream-K grid number through.
fn stream_steps(problem: &Problem, schedule: &Schedule) -> u64 {
    match schedule.split() {
        Split::Blocks(_) | Split::Cluster(_) => 0,
        Split::Stream(_) => {
            schedule.output_tiles(problem, problem.m) * u64::from(schedule.steps(problem.k))
        }
    }
}

fn header(problem: &Problem, schedule: &Schedule, arch: &Arch) -> Vec<String> {
    vec![
        format!("qtune {} (generator {GENERATOR_VERSION})", env!("CARGO_PKG_VERSION")),
        format!("problem:  {}", problem.at(arch)),
        format!("schedule: {schedule}"),
    ]
}

/// A C identifier that tells a profile reader what ran.
fn entry_name(problem: &Problem, schedule: &Schedule) -> String {
    let family = schedule.family().name();
    let text = format!("qtune_{family}_{problem}");
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// What every lowering needs to know.
struct Lowering<'a> {
    arch: &'a Arch,
    problem: &'a Problem,
    spec: &'a WeightSpec,
    layout: &'a Layout,
    context: Context,
    /// Byte of dynamic shared memory at which the term's table starts, if it has one.
    table_offset: u32,
    /// The map of nested scales, where the kernel makes them.
    scale_map: Option<ScaleMap>,
    overlap: Overlap,
    /// Who puts the activations into the order of the columns.
    sorting: Sorting,
}

/// A lowered body: statements, shared views, named constants.
type Lowered = (Vec<kir::Stmt>, Vec<Buffer>, Vec<(String, i64)>);

/// One function of a kernel.
struct Part {
    role: Role,
    arguments: Vec<Argument>,
    /// The arguments in kernel IR.
    parameters: Vec<Parameter>,
    threads: u32,
    /// See [`Program::resident`].
    resident: Option<u32>,
    /// See [`Program::cluster`].
    cluster: [u32; 3],
    shared_bytes: u32,
    shared_align: u32,
    lowered: Lowered,
    /// See [`Entry::library`]: there is no text of such a part.
    library: Option<SlabProduct>,
}

impl Part {
    /// What its name has behind that of the kernel.
    fn suffix(&self) -> &'static str {
        match self.role {
            Role::Sort => "_sort",
            Role::Quantize => "_codes",
            Role::Turn => "_turn",
            Role::Finish => "_finish",
            Role::Dequantize => "_slab",
            Role::Multiply if self.library.is_some() => "_library",
            Role::Multiply => "",
        }
    }

    fn entry(&self, name: &str) -> Entry {
        Entry {
            role: self.role,
            name: name.into(),
            arguments: self.arguments.clone(),
            threads: self.threads,
            shared_bytes: self.shared_bytes,
            library: self.library,
        }
    }

    fn program(self, problem: &Problem, name: String, header: Vec<String>) -> Program {
        let (body, shared, constants) = self.lowered;
        let sizes = [("N".into(), problem.n.into()), ("K".into(), problem.k.into())];
        Program {
            header,
            name,
            threads: self.threads,
            resident: self.resident,
            cluster: self.cluster,
            parameters: self.parameters,
            constants: sizes.into_iter().chain(constants).collect(),
            shared,
            shared_bytes: self.shared_bytes,
            shared_align: self.shared_align,
            body,
        }
    }
}

impl Lowering<'_> {
    /// The function that multiplies.
    fn part(&self, schedule: &Schedule) -> Result<Part, CodegenError> {
        let lowered = match schedule {
            Schedule::Gemv(s) => gemv::lower(self, s)?,
            Schedule::Mma(s) => mma::lower(self, s)?,
            Schedule::Wgmma(s) => wgmma::lower(self, s)?,
            Schedule::Dequant(s) => return dequant::multiplication(self, s),
        };
        // Floats need no table.
        let schedule = match self.spec.is_dense() {
            true => schedule.with_dequant(""),
            false => schedule.clone(),
        };
        let arguments = self.arguments(&schedule);
        let shared_bytes = schedule.shared_bytes(self.problem, self.spec);
        Ok(Part {
            role: Role::Multiply,
            parameters: arguments.iter().map(|a| self.parameter(*a)).collect(),
            arguments,
            threads: schedule.threads(),
            resident: resident::blocks(self, &schedule, shared_bytes),
            cluster: schedule.cluster(),
            shared_bytes,
            shared_align: match &schedule {
                // 128-byte swizzle repeats every 1024 bytes.
                Schedule::Wgmma(_) => 1024,
                _ => 16,
            },
            lowered,
            library: None,
        })
    }

    /// The arguments of the function that multiplies.
    fn arguments(&self, schedule: &Schedule) -> Vec<Argument> {
        let split = schedule.split().in_global();
        let mapped = matches!(schedule, Schedule::Wgmma(_));
        let dense = self.is_slab();
        let rotated = self.sorting == Sorting::Rotation;
        let prepared = self.sorting == Sorting::Step || self.has_codes() || rotated;
        let all = [
            (Argument::Weights, !dense),
            (Argument::Slab, dense),
            (Argument::Params, !self.spec.params.is_empty() || self.has_codes()),
            (Argument::Table, self.has_table()),
            (Argument::Activations, !mapped && !prepared),
            (Argument::ActivationMap, mapped && !prepared),
            (Argument::Places, self.sorting == Sorting::Prologue),
            (Argument::Prepared, !mapped && prepared),
            (Argument::PreparedMap, mapped && prepared),
            (Argument::TokenScales, self.has_codes()),
            (Argument::Bias, self.problem.bias),
            (Argument::Residual, self.problem.epilogue == Epilogue::Residual),
            (Argument::Output, !rotated),
            (Argument::Products, rotated),
            (Argument::Partials, split),
            (Argument::Counters, split),
            (Argument::Next, self.overlap.prefetch),
            (Argument::NextLines, self.overlap.prefetch),
            (Argument::Tokens, true),
            (Argument::FirstTile, dense),
        ];
        all.into_iter().filter(|(_, needed)| *needed).map(|(argument, _)| argument).collect()
    }

    /// Whether the kernel reads numbers that the layer brings.
    fn has_table(&self) -> bool {
        self.vectors().is_some() || self.has_factor() || self.scale_map.is_some()
    }

    /// Whether the weights are those of a slab that another step has dequantized.
    fn is_slab(&self) -> bool {
        self.spec.is_dense() && !self.has_codes()
    }

    /// Binds `row_tile`, and the place of its weights in what this step reads: a slab starts at its
    /// own first row tile.
    fn bind_row_tile(&self, body: &mut Body, block: &str) {
        let tile = match self.is_slab() {
            true => var("first_tile") + body.bind("slab_tile", Type::I32, var(block)),
            false => var(block),
        };
        body.bind("row_tile", Type::I32, tile);
    }

    /// Index of a stage of this block's row tile among those of the weights.
    fn stage_index(&self, step: &Expr) -> Expr {
        let tile = if self.is_slab() { "slab_tile" } else { "row_tile" };
        var(tile) * var("STEPS") + step.clone()
    }

    fn parameter(&self, argument: Argument) -> Parameter {
        let out = store_type(self.problem.out);
        let (name, space, element) = match argument {
            Argument::Weights => {
                // Rings copy 16 bytes at a time, `gemv` loads straight into registers.
                let element = match self.layout.is_gemv() {
                    true => load_type(self.packing()),
                    false => Type::U32x4,
                };
                ("weights", Space::GlobalRead, element)
            }
            Argument::Params => ("params", Space::GlobalRead, self.params_element()),
            Argument::Table if self.scale_map.is_some() => return nested::parameter(),
            Argument::Table if self.has_factor() => return factor::parameter(),
            Argument::Table => return vectors::parameter(self),
            Argument::Activations | Argument::Prepared => ("x", Space::GlobalRead, Type::U32x4),
            Argument::TokenScales => {
                let pairs = self.scales_groups();
                let element = if pairs { Type::U32x2 } else { Type::F32 };
                ("token_scales", Space::GlobalRead, element)
            }
            Argument::Places => ("places", Space::GlobalRead, Type::U32x4),
            Argument::Bias => ("bias", Space::GlobalRead, out),
            Argument::Residual => ("residual", Space::GlobalRead, out),
            Argument::Output | Argument::Products => ("out", Space::GlobalWrite, out),
            Argument::InputFactors | Argument::OutputFactors => {
                ("factors", Space::GlobalRead, Type::U16)
            }
            Argument::Partials => ("partials", Space::GlobalWrite, Type::F32),
            Argument::Counters => ("counters", Space::GlobalWrite, Type::U32),
            Argument::Next => ("next_matrix", Space::GlobalRead, Type::U32x4),
            Argument::NextLines => return Parameter::Scalar("next_lines".into(), Type::I32),
            Argument::ActivationMap | Argument::PreparedMap => {
                return Parameter::TensorMap("x".into())
            }
            Argument::Slab if self.is_slab() => ("weights", Space::GlobalRead, Type::U32x4),
            Argument::Slab => ("slab", Space::GlobalWrite, Type::U32x4),
            Argument::Tokens => return Parameter::Scalar("tokens".into(), Type::I32),
            Argument::FirstTile => return Parameter::Scalar("first_tile".into(), Type::I32),
        };
        Parameter::Buffer(Buffer { name: name.into(), space, element })
    }

    /// How the weights fill words.
    fn packing(&self) -> CodePacking {
        match self.spec.is_dense() {
            true => CodePacking::FLOATS,
            false => self.layout.packing(),
        }
    }

    /// The ring's packed weights as the loads of a piece take them, in its own view where a load is
    /// not 16 bytes.
    fn lane_words(&self, offset: u32) -> Option<Buffer> {
        let element = load_type(self.packing());
        let space = Space::Shared { offset };
        (element != Type::U32x4).then(|| Buffer { name: "ring_words".into(), space, element })
    }

    /// The name of the view of [`Lowering::lane_words`].
    fn lane_view(&self) -> &'static str {
        match load_type(self.packing()) {
            Type::U32x4 => "ring_weights",
            _ => "ring_words",
        }
    }

    /// Loads of a slab: the pieces of a warp's lanes, which lie together.
    fn slab_loads(&self) -> u32 {
        32 * self.packing().loads()
    }

    /// Loads a piece into the words that `place` gives. `value(distance)` is the load that lies this
    /// far from the lane's first.
    fn load_piece(
        &self,
        body: &mut Body,
        place: impl Fn(u32) -> Expr,
        value: impl Fn(u32) -> Expr,
    ) {
        let packing = self.packing();
        let width = packing.load_words();
        for load in 0..packing.loads() {
            let places = (0..width).map(|word| place(load * width + word));
            body.unpack(places.collect(), load_type(packing), value(32 * load));
        }
    }

    /// The table in shared memory that a term reads, if any.
    fn shared_table(&self, plan: &term::Plan) -> Option<SharedTable> {
        let (table, entries) = plan.shared_entries().filter(|_| !self.spec.is_dense())?;
        Some(SharedTable { table, offset: self.table_offset, entries })
    }

    /// `gemv` loads what a lane's rows have, the end of a product of codes an entry; rings copy 16 bytes at a
    /// time.
    fn params_element(&self) -> Type {
        match (self.layout.loads(), self.layout.scales_at_end()) {
            (Some(loads), _) => entry_type(loads.bytes as usize),
            (None, true) => entry_type(self.layout.entry_bytes()),
            (None, false) => Type::U32x4,
        }
    }

    /// Words of the entry in which the parameters of one row and group lie.
    fn param_values(&self, words: &[Expr], entry: usize) -> Vec<(String, Expr)> {
        let mut offset = entry * self.layout.entry_bytes();
        let mut values = Vec::new();
        for field in self.layout.fields() {
            let word = words[offset / 4].clone();
            let low = offset % 4 == 0;
            let value = match field.dtype {
                ParamType::F32 | ParamType::Resolved | ParamType::NestedScale => {
                    kir::call("bits_f32", [word])
                }
                ParamType::E4M3 => factor::value(self, word, offset as u32 % 4),
                ParamType::E8M0 => power_of_two(byte_of(word, offset as u32 % 4)),
                // It is in no entry.
                ParamType::NestedCode => kir::float(f64::NAN),
                ParamType::F16 | ParamType::Code(_) | ParamType::Shared(_) => {
                    kir::call(if low { "h2_low" } else { "h2_high" }, [word])
                }
            };
            values.push((field.name.clone(), value));
            offset += field.dtype.packed_bytes() as usize;
        }
        values
    }
}

/// A byte of a word.
fn byte_of(word: Expr, byte: u32) -> Expr {
    let word = if byte == 0 { word } else { word >> (8 * byte) };
    word & kir::hex(0xff)
}

/// The power of two with this exponent, biased as in f32.
fn power_of_two(exponent: Expr) -> Expr {
    kir::call("bits_f32", [exponent << F32_EXPONENT])
}

/// The type of one load of a piece.
fn load_type(packing: CodePacking) -> Type {
    entry_type(4 * packing.load_words() as usize)
}

/// `index` and a constant distance from it.
fn beyond(index: Expr, distance: u32) -> Expr {
    match distance {
        0 => index,
        _ => index + distance,
    }
}

/// The type that loads `bytes` at once.
fn entry_type(bytes: usize) -> Type {
    match bytes {
        0..=1 => Type::U8,
        2 => Type::U16,
        3..=4 => Type::U32,
        5..=8 => Type::U32x2,
        _ => Type::U32x4,
    }
}

fn store_type(dtype: DType) -> Type {
    match dtype {
        DType::F16 | DType::Bf16 => Type::U16,
        DType::F32 => Type::F32,
    }
}
