//! One `wgmma` as a kernel: operands laid out after PTX ISA 9.7.15.5, independently of the
//! simulator's own address arithmetic, and the product it must give.

use qtune_sim::{Access, Finding, Memory, RunOptions};

pub use super::formats::*;
use super::{at, bytes, f16, input, launch, Random};

/// How an operand lies in shared memory.
#[derive(Clone, Copy, PartialEq)]
pub enum Layout {
    /// Bytes of a pattern row (16 is no swizzle).
    KMajor(usize),
    MnMajor(usize),
}

/// An operand of `rows` rows whose tile in memory is `steps` instructions long in K; `step` is
/// the one that is multiplied.
pub struct Operand {
    format: Format,
    layout: Layout,
    rows: usize,
    steps: usize,
    pub step: usize,
    /// Values by row, then k of the whole tile.
    pub values: Vec<f32>,
}

impl Operand {
    pub fn tile_k(&self) -> usize {
        self.format.k() * self.steps
    }

    fn value(&self, row: usize, k: usize) -> f32 {
        self.values[row * self.tile_k() + self.step * self.format.k() + k]
    }

    fn put(&self, image: &mut [u8], at: usize, value: f32) {
        let size = self.format.bits / 8;
        image[at..at + size].copy_from_slice(&self.format.code(value).to_le_bytes()[..size]);
    }

    /// Places the tile in an image of shared memory at `start`; returns its descriptor.
    fn place(&self, image: &mut [u8], start: usize) -> u64 {
        let size = self.format.bits / 8;
        for row in 0..self.rows {
            for k in 0..self.tile_k() {
                let offset = match self.layout {
                    Layout::KMajor(width) => self.k_major(width, row, k * size),
                    Layout::MnMajor(width) => self.mn_major(width, row, k),
                };
                self.put(image, start + offset, self.values[row * self.tile_k() + k]);
            }
        }
        self.descriptor(start)
    }

    /// Rows of `width` bytes, eight to an atom, chunks exchanged within the atom by row.
    fn k_major(&self, width: usize, row: usize, byte: usize) -> usize {
        let (atom, r, chunk, rest) = (row / 8, row % 8, byte / 16, byte % 16);
        if width == 16 {
            // Core matrices of 8 x 16 bytes: neighbours in K first.
            let per_group = self.tile_k() * self.format.bits / 128;
            return (atom * per_group + chunk) * 128 + r * 16 + rest;
        }
        atom * 8 * width + r * width + (chunk ^ exchange(width, r)) * 16 + rest
    }

    /// For each k a row of `width` bytes along M or N, eight k to an atom; atoms follow one
    /// another along K first.
    fn mn_major(&self, width: usize, row: usize, k: usize) -> usize {
        let per_row = width / 2;
        let (chunk, rest) = (row % per_row / 8, row % 8 * 2);
        let atoms_k = self.tile_k() / 8;
        let atom = row / per_row * atoms_k + k / 8;
        atom * 8 * width + k % 8 * width + (chunk ^ exchange(width, k % 8)) * 16 + rest
    }

    fn descriptor(&self, start: usize) -> u64 {
        let step_bytes = 32 * self.step;
        let atoms_k = self.tile_k() / 8;
        let (advance, leading, stride) = match self.layout {
            Layout::KMajor(16) => {
                (4 * step_bytes * 2, 128, self.tile_k() * self.format.bits / 128 * 128)
            }
            Layout::KMajor(width) => (step_bytes, 16, 8 * width),
            Layout::MnMajor(16) => (self.step * 256, 128, atoms_k * 128),
            Layout::MnMajor(width) => (self.step * 16 * width, atoms_k * 8 * width, 8 * width),
        };
        let width = match self.layout {
            Layout::KMajor(width) | Layout::MnMajor(width) => width,
        };
        let code = [(16, 0), (128, 1), (64, 2), (32, 3)].iter().find(|(w, _)| *w == width);
        let code: u64 = code.expect("a width").1;
        let field = |bytes: usize| (bytes / 16) as u64;
        field(start + advance) | field(leading) << 16 | field(stride) << 32 | code << 62
    }
}

/// What the chunk number is exchanged with in row `r` of an atom.
fn exchange(width: usize, r: usize) -> usize {
    match width {
        128 => r,
        64 => r / 2,
        32 => r / 4,
        _ => 0,
    }
}

/// One product.
pub struct Case {
    pub a: Operand,
    pub b: Operand,
    pub a_in_registers: bool,
    pub accumulator: &'static str,
    pub signs: [i32; 2],
    /// `scale-d`.
    pub keep: bool,
}

impl Case {
    pub fn new(a: Format, b: Format, n: usize, layouts: [Layout; 2], seed: u64) -> Case {
        let mut random = Random::new(seed);
        let mut operand = |format: Format, rows: usize, layout: Layout| {
            let steps = match layout {
                Layout::KMajor(16) | Layout::MnMajor(_) => 2,
                Layout::KMajor(width) => width / 32,
            };
            let count = rows * format.k() * steps;
            let values = (0..count).map(|_| format.integer(random.next())).collect();
            Operand { format, layout, rows, steps, step: steps - 1, values }
        };
        Case {
            a: operand(a, 64, layouts[0]),
            b: operand(b, n, layouts[1]),
            a_in_registers: false,
            accumulator: if a.bits == 8 && !a.name.starts_with('e') { "s32" } else { "f32" },
            signs: [1, 1],
            keep: true,
        }
    }

    fn n(&self) -> usize {
        self.b.rows
    }

    /// Accumulator registers of a thread.
    pub fn registers(&self) -> usize {
        if self.accumulator == "f16" {
            self.n() / 4
        } else {
            self.n() / 2
        }
    }

    pub fn instruction(&self) -> String {
        let list = |from: usize, count: usize| -> String {
            (from..from + count).map(|r| format!("%r{r}")).collect::<Vec<_>>().join(", ")
        };
        let (k, n) = (self.a.format.k(), self.n());
        let a =
            if self.a_in_registers { format!("{{{}}}", list(300, 4)) } else { "%rd10".to_owned() };
        let mut extra = String::new();
        if self.accumulator != "s32" {
            extra = format!(", {}, {}", self.signs[0], self.signs[1]);
        }
        if self.a.format.bits == 16 {
            let transposed = |o: &Operand| usize::from(matches!(o.layout, Layout::MnMajor(_)));
            if !self.a_in_registers {
                extra += &format!(", {}", transposed(&self.a));
            }
            extra += &format!(", {}", transposed(&self.b));
        }
        format!(
            "wgmma.mma_async.sync.aligned.m64n{n}k{k}.{}.{}.{} {{{}}}, {a}, %rd11, %p1{extra};",
            self.accumulator,
            self.a.format.name,
            self.b.format.name,
            list(400, self.registers())
        )
    }

    /// Accumulator before the product.
    fn old(&self, row: usize, column: usize) -> f32 {
        if self.keep {
            (row % 5) as f32 - (column % 3) as f32
        } else {
            0.0
        }
    }

    pub fn expected(&self, row: usize, column: usize) -> f32 {
        let sign = (self.signs[0] * self.signs[1]) as f32;
        let product = |k: usize| self.a.value(row, k) * self.b.value(column, k);
        self.old(row, column) + sign * (0..self.a.format.k()).map(product).sum::<f32>()
    }

    /// A register of a thread as elements of D: rows and columns.
    fn places(&self, thread: usize, register: usize) -> Vec<(usize, usize)> {
        let (warp, g, t) = (thread / 32, thread % 32 / 4, thread % 4);
        let packed = self.accumulator == "f16";
        let per_group = if packed { 2 } else { 4 };
        let (group, r) = (register / per_group, register % per_group);
        let (half, columns) = if packed { (r, 0..2) } else { (r / 2, r % 2..r % 2 + 1) };
        columns.map(|c| (16 * warp + g + 8 * half, 8 * group + 2 * t + c)).collect()
    }

    pub fn accumulator_bits(
        &self,
        thread: usize,
        register: usize,
        value: impl Fn(usize, usize) -> f32,
    ) -> u32 {
        let values: Vec<f32> =
            self.places(thread, register).into_iter().map(|(r, c)| value(r, c)).collect();
        match self.accumulator {
            "f16" => u32::from(f16(values[0])) | u32::from(f16(values[1])) << 16,
            "s32" => values[0] as i32 as u32,
            _ => values[0].to_bits(),
        }
    }

    /// A's fragment of PTX ISA figures 9.7.15.5.1: four registers a thread.
    fn fragment(&self, thread: usize, register: usize) -> u32 {
        let (warp, g, t) = (thread / 32, thread % 32 / 4, thread % 4);
        let per = 32 / self.a.format.bits;
        let row = 16 * warp + g + 8 * (register % 2);
        (0..per).fold(0, |word, i| {
            let k = per * t + i + 4 * per * (register / 2);
            word | self.a.format.code(self.a.value(row, k)) << (self.a.format.bits * i)
        })
    }
}

/// Bytes of shared memory of every case.
pub const SHARED: usize = 3 << 14;
/// Where B starts.
pub const B_START: usize = 1 << 14;

/// The kernel: copies an image to shared memory, loads accumulators and fragments, multiplies.
fn kernel(case: &Case, descriptors: [u64; 2], body: &str) -> String {
    let registers = case.registers();
    let load: String = (0..registers)
        .map(|r| format!("ld.global.u32 %r{}, [%rd5+{}];\n", 400 + r, 512 * r))
        .collect();
    let fragments: String = (0..4)
        .map(|r| format!("ld.global.u32 %r{}, [%rd5+{}];\n", 300 + r, 512 * (registers + r)))
        .collect();
    let store: String = (0..registers)
        .map(|r| format!("st.global.u32 [%rd6+{}], %r{};\n", 512 * r, 400 + r))
        .collect();
    format!(
        ".version 8.7\n.target sm_90a\n.address_size 64\n\
         .extern .shared .align 1024 .b8 smem[];\n\
         .visible .entry k(.param .u64 image, .param .u64 in, .param .u64 out)\n{{\n\
         .reg .pred %p<9>; .reg .b32 %r<600>; .reg .b64 %rd<20>;\n\
         ld.param.u64 %rd1, [image]; ld.param.u64 %rd2, [in]; ld.param.u64 %rd3, [out];\n\
         mov.u32 %r1, %tid.x; mul.wide.u32 %rd4, %r1, 4; add.s64 %rd5, %rd2, %rd4; add.s64 %rd6, %rd3, %rd4;\n\
         shl.b32 %r2, %r1, 4; cvt.u64.u32 %rd7, %r2; add.s64 %rd7, %rd1, %rd7;\n\
         COPY: ld.global.v4.u32 {{%r3, %r4, %r5, %r6}}, [%rd7]; st.shared.v4.u32 [%r2], {{%r3, %r4, %r5, %r6}};\n\
         add.s32 %r2, %r2, 2048; add.s64 %rd7, %rd7, 2048; setp.lt.u32 %p2, %r2, {SHARED}; @%p2 bra COPY;\n\
         fence.proxy.async.shared::cta; bar.sync 0;\n\
         {load}{fragments}mov.u64 %rd10, {}; mov.u64 %rd11, {}; setp.eq.u32 %p1, {}, 1;\n{body}\n{store}ret;\n}}\n",
        descriptors[0], descriptors[1], u32::from(case.keep),
    )
}

pub fn execute(case: &Case, body: &str) -> (Vec<u32>, Vec<Finding>) {
    let mut image = vec![0u8; SHARED];
    let descriptors = [case.a.place(&mut image, 0), case.b.place(&mut image, B_START)];
    let registers = case.registers();
    let mut values = Vec::new();
    for r in 0..registers {
        values.extend((0..128).map(|t| case.accumulator_bits(t, r, |r, c| case.old(r, c))));
    }
    for r in 0..4 {
        values.extend((0..128).map(|t| case.fragment(t, r)));
    }
    let mut memory = Memory::new();
    let image = input(&mut memory, "image", &image);
    let input = input(&mut memory, "in", &bytes(&values, u32::to_le_bytes));
    let output = memory.alloc("out", 512 * registers, Access::ReadWrite).unwrap();
    let text = kernel(case, descriptors, body);
    let shape = ([1, 1, 1], [128, 1, 1], SHARED as u32);
    let args = vec![at(image), at(input), at(output)];
    let report = launch(&text, shape, args, &mut memory, &RunOptions::default())
        .unwrap_or_else(|error| panic!("{}: {error}", case.instruction()));
    let bytes = memory.read(output, 0, 512 * registers).unwrap();
    let words = bytes.chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().unwrap()));
    (words.collect(), report.findings)
}
