//! PTX that Triton wrote (see `corpus/README.md`): right results and no finding under any schedule.

mod support;

use half::{bf16, f16};
use qtune_sim::{
    run, Access, Arg, AsyncSchedule, Launch, Memory, Module, OutOfBoundsFill, RunOptions, Swizzle,
    TensorMapSpec, TensorType, WarpOrder,
};
use support::{at, bytes, Random};

const BOTH: &[&str] = &["sm_80", "sm_90a"];
const HOPPER: &[&str] = &["sm_90a"];

/// A kernel argument with what it holds before the launch.
enum Given {
    In(Vec<u8>),
    /// Bytes of a buffer that starts undefined.
    Out(usize),
    InOut(Vec<u8>),
    I32(i32),
    F32(f32),
    /// A host descriptor of a matrix of f16, given as tile and shape: a tensor map, and then, as
    /// Triton passes it, shape and strides.
    Matrix(Box<Given>, [u32; 2], [usize; 2]),
}

/// A kernel with its launch.
struct Case {
    name: &'static str,
    targets: &'static [&'static str],
    grid: [u32; 3],
    args: Vec<Given>,
}

impl Case {
    /// Runs under all schedules and gives `check` the contents of all buffers, in order.
    fn check(&self, check: impl Fn(&[Vec<u8>])) {
        for target in self.targets {
            for schedule in [AsyncSchedule::Lazy, AsyncSchedule::Eager] {
                for warp_order in [WarpOrder::Forward, WarpOrder::Reversed, WarpOrder::Seeded(3)] {
                    let options = RunOptions { schedule, warp_order, ..RunOptions::default() };
                    check(&self.outputs(target, &options));
                }
            }
        }
    }

    fn outputs(&self, target: &str, options: &RunOptions) -> Vec<Vec<u8>> {
        let what =
            format!("{}.{target} {:?} {:?}", self.name, options.schedule, options.warp_order);
        let file =
            format!("{}/tests/corpus/{}.{target}.ptx", env!("CARGO_MANIFEST_DIR"), self.name);
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let module = Module::parse(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let entry = module.entries().next().expect("a kernel").to_owned();
        let mut memory = Memory::new();
        let (mut args, mut buffers) = (Vec::new(), Vec::new());
        for given in &self.args {
            push(given, &mut memory, &mut args, &mut buffers);
        }
        // Scratch memory of the launcher and of the profiler, which these kernels do not use.
        args.extend([Arg::U64(0), Arg::U64(0)]);
        let launch = Launch {
            grid: self.grid,
            block: [number_after(&text, ".reqntid "), 1, 1],
            cluster: [1, 1, 1],
            dynamic_shared_bytes: number_after(&text, "// dynamic shared bytes: "),
            args,
        };
        let report = run(&module, &entry, &launch, &mut memory, options)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert!(findings.is_empty(), "{what}: {findings:#?}");
        buffers.into_iter().map(|id| memory.read(id, 0, memory.size(id)).unwrap()).collect()
    }
}

fn push(
    given: &Given,
    memory: &mut Memory,
    args: &mut Vec<Arg>,
    buffers: &mut Vec<qtune_sim::BufferId>,
) {
    let mut buffer = |bytes: usize, access, contents: Option<&Vec<u8>>| {
        let id = memory.alloc(&format!("argument {}", args.len()), bytes, access).unwrap();
        if let Some(contents) = contents {
            memory.write(id, 0, contents).unwrap();
        }
        buffers.push(id);
        at(id)
    };
    let arg = match given {
        Given::In(contents) => buffer(contents.len(), Access::ReadOnly, Some(contents)),
        Given::Out(bytes) => buffer(*bytes, Access::ReadWrite, None),
        Given::InOut(contents) => buffer(contents.len(), Access::ReadWrite, Some(contents)),
        Given::I32(value) => Arg::I32(*value),
        Given::F32(value) => Arg::F32(*value),
        Given::Matrix(contents, tile, shape) => {
            return push_matrix(contents, *tile, *shape, memory, args, buffers);
        }
    };
    args.push(arg);
}

fn push_matrix(
    contents: &Given,
    tile: [u32; 2],
    [rows, columns]: [usize; 2],
    memory: &mut Memory,
    args: &mut Vec<Arg>,
    buffers: &mut Vec<qtune_sim::BufferId>,
) {
    push(contents, memory, args, buffers);
    let Some(Arg::Buffer { id: buffer, .. }) = args.pop() else { panic!("a matrix is a buffer") };
    args.push(Arg::TensorMap(TensorMapSpec {
        buffer,
        offset: 0,
        dtype: TensorType::F16,
        dims: vec![columns as u64, rows as u64],
        strides_bytes: vec![2 * columns as u64],
        box_dims: vec![tile[1], tile[0]],
        element_strides: vec![1, 1],
        swizzle: Swizzle::B64,
        fill: OutOfBoundsFill::Zero,
    }));
    args.extend([rows, columns].map(|size| Arg::I32(size as i32)));
    args.extend([columns, 1].map(|stride| Arg::I64(stride as i64)));
}

/// The decimal number that follows `key`.
fn number_after(text: &str, key: &str) -> u32 {
    let rest = text.split_once(key).unwrap_or_else(|| panic!("no `{key}`")).1;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().expect("a number")
}

/// `count` multiples of 1/64 between -1 and 1.
fn small(seed: u64, count: usize) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.small()).collect()
}

fn halves(values: &[f32]) -> Vec<u8> {
    bytes(values, |v| f16::from_f32(v).to_le_bytes())
}

fn from_halves(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f64()).collect()
}

fn from_floats(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()).collect()
}

fn from_integers(bytes: &[u8]) -> Vec<i32> {
    bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Checks the norm of the difference against that of what is expected.
fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let error = norm(&mut found.iter().zip(expected).map(|(f, e)| f - e));
    let error = error / norm(&mut expected.iter().copied());
    assert!(error <= tolerance, "relative error {error}");
}

/// C[M,N] = A[M,K] * B[K,N] on functions of row and column.
fn product(
    [m, n, k]: [usize; 3],
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    let element = |at: usize| (0..k).map(|k| a(at / n, k) * b(k, at % n)).sum();
    (0..m * n).map(element).collect()
}

fn sizes([m, n, k]: [usize; 3]) -> [Given; 3] {
    [m, n, k].map(|size| Given::I32(size as i32))
}

/// A product of f16 matrices through pointers, by a kernel with these tiles.
fn half_product(
    name: &'static str,
    targets: &'static [&'static str],
    grid: [u32; 3],
    shape @ [m, n, k]: [usize; 3],
) {
    let (a, b) = (small(1, m * k), small(2, k * n));
    let mut args = vec![Given::In(halves(&a)), Given::In(halves(&b)), Given::Out(2 * m * n)];
    args.extend(sizes(shape));
    let expected = product(shape, |m, i| a[m * k + i].into(), |i, j| b[i * n + j].into());
    Case { name, targets, grid, args }
        .check(|buffers| assert_close(&from_halves(&buffers[2]), &expected, 1e-3));
}

#[test]
fn products_of_half_precision_matrices_of_odd_sizes() {
    half_product("matmul_f16", BOTH, [2, 2, 1], [72, 48, 80]);
}

#[test]
fn a_product_by_clusters_of_two_thread_blocks() {
    half_product("matmul_cluster", HOPPER, [4, 2, 1], [160, 80, 64]);
}

#[test]
fn products_of_bytes_are_exact() {
    let shape @ [m, n, k] = [72, 48, 96];
    let mut random = Random::new(3);
    let mut codes = |count: usize| -> Vec<u8> { (0..count).map(|_| random.next() as u8).collect() };
    let (a, b) = (codes(m * k), codes(n * k));
    let value = |byte: u8| f64::from(byte as i8);
    let expected = product(shape, |m, i| value(a[m * k + i]), |i, n| value(b[n * k + i]));
    let mut args = vec![Given::In(a), Given::In(b), Given::Out(4 * m * n)];
    args.extend(sizes(shape));
    Case { name: "matmul_i8", targets: BOTH, grid: [2, 2, 1], args }.check(|buffers| {
        let found: Vec<f64> = from_integers(&buffers[2]).into_iter().map(f64::from).collect();
        assert_eq!(found, expected);
    });
}

#[test]
fn products_of_eight_bit_floats() {
    let shape @ [m, n, k] = [72, 48, 96];
    let mut random = Random::new(4);
    // Below the NaN, of either sign.
    let mut codes = |count: usize| -> Vec<u8> {
        (0..count).map(|_| (random.next() & 0x80 | (random.next() % 0x60)) as u8).collect()
    };
    let (a, b) = (codes(m * k), codes(n * k));
    // An e4m3 is an f16 with the exponent's bias 8 lower and 7 bits fewer.
    let value = |byte: u8| {
        let bits = u16::from(byte & 0x80) << 8 | u16::from(byte & 0x7F) << 7;
        f16::from_bits(bits).to_f64() * 256.0
    };
    let expected = product(shape, |m, i| value(a[m * k + i]), |i, n| value(b[n * k + i]));
    let mut args = vec![Given::In(a), Given::In(b), Given::Out(4 * m * n)];
    args.extend(sizes(shape));
    Case { name: "matmul_e4m3", targets: HOPPER, grid: [2, 2, 1], args }
        .check(|buffers| assert_close(&from_floats(&buffers[2]), &expected, 1e-4));
}

#[test]
fn products_with_four_bit_weights() {
    let (shape @ [m, n, k], group) = ([72, 64, 96], 32);
    let mut random = Random::new(5);
    let packed: Vec<u32> = (0..k / 8 * n).map(|_| random.next() << 1 ^ random.next()).collect();
    let scale = |at: usize| (1 + at % 7) as f32 / 16.0;
    let scales: Vec<f32> = (0..k / group * n).map(scale).collect();
    let a = small(6, m * k);
    let weight = |k: usize, column: usize| {
        let code = packed[k / 8 * n + column] >> (k % 8 * 4) & 15;
        (f64::from(code) - 8.0) * f64::from(scales[k / group * n + column])
    };
    let expected = product(shape, |m, i| a[m * k + i].into(), weight);
    let mut args = vec![
        Given::In(halves(&a)),
        Given::In(bytes(&packed, u32::to_le_bytes)),
        Given::In(halves(&scales)),
        Given::Out(2 * m * n),
    ];
    args.extend(sizes(shape));
    Case { name: "matmul_int4", targets: BOTH, grid: [2, 2, 1], args }
        .check(|buffers| assert_close(&from_halves(&buffers[3]), &expected, 1e-3));
}

/// A product of f16 matrices through tensor maps of tiles of 64 x 32 of the result.
fn mapped_product(
    (name, targets): (&'static str, &'static [&'static str]),
    grid: [u32; 3],
    shape @ [m, n, k]: [usize; 3],
    more: impl IntoIterator<Item = Given>,
) {
    let (a, b) = (small(7, m * k), small(8, k * n));
    let expected = product(shape, |m, i| a[m * k + i].into(), |i, j| b[i * n + j].into());
    let matrix = |given, tile, shape| Given::Matrix(Box::new(given), tile, shape);
    let mut args = vec![
        matrix(Given::In(halves(&a)), [64, 32], [m, k]),
        matrix(Given::In(halves(&b)), [32, 32], [k, n]),
        matrix(Given::Out(2 * m * n), [64, 32], [m, n]),
        Given::I32(k as i32),
    ];
    args.extend(more);
    Case { name, targets, grid, args }
        .check(|buffers| assert_close(&from_halves(&buffers[2]), &expected, 1e-3));
}

#[test]
fn products_through_tensor_maps() {
    mapped_product(("matmul_descriptors", HOPPER), [2, 2, 1], [100, 40, 72], []);
}

#[test]
fn a_product_whose_warps_have_roles() {
    // Two tiles for each of two thread blocks, over a result of two by two tiles.
    let rows = Given::I32(2);
    mapped_product(("matmul_specialized", HOPPER), [2, 1, 1], [128, 64, 96], [rows]);
}

#[test]
fn slices_of_a_product_add_up_in_any_order_and_in_turn() {
    let shape @ [m, n, k] = [64, 64, 192];
    let (a, b) = (small(9, m * k), small(10, k * n));
    let expected = product(shape, |m, i| a[m * k + i].into(), |i, j| b[i * n + j].into());
    let inputs = || vec![Given::In(halves(&a)), Given::In(halves(&b))];
    let sizes = || [n, k].map(|size| Given::I32(size as i32));
    let mut args = inputs();
    args.push(Given::InOut(vec![0; 4 * m * n]));
    args.extend(sizes());
    Case { name: "split_k", targets: BOTH, grid: [2, 2, 3], args }
        .check(|buffers| assert_close(&from_floats(&buffers[2]), &expected, 1e-6));
    let mut args = inputs();
    args.extend([Given::Out(4 * m * n), Given::InOut(vec![0; 4 * 4])]);
    args.extend(sizes());
    Case { name: "ordered_split_k", targets: BOTH, grid: [2, 2, 3], args }.check(|buffers| {
        assert_close(&from_floats(&buffers[2]), &expected, 1e-6);
        assert_eq!(from_integers(&buffers[3]), [3; 4]);
    });
}

#[test]
fn causal_attention() {
    let (heads, length, d) = (2, 128, 32);
    let [q, k, v] = [11, 12, 13].map(|seed| small(seed, heads * length * d));
    let scale = 1.0 / f64::from(d as u32).sqrt();
    let mut expected = Vec::new();
    for at in 0..heads * length {
        let (head, row) = (at / length * length, at % length);
        let score = |column: usize| {
            let pairs = (0..d).map(|i| q[at * d + i] * k[(head + column) * d + i]);
            (pairs.map(f64::from).sum::<f64>() * scale).exp()
        };
        let scores: Vec<f64> = (0..=row).map(score).collect();
        let total: f64 = scores.iter().sum();
        expected.extend((0..d).map(|i| {
            let value = |column: usize| f64::from(v[(head + column) * d + i]);
            scores.iter().enumerate().map(|(c, score)| score * value(c)).sum::<f64>() / total
        }));
    }
    let mut args: Vec<Given> = [&q, &k, &v].map(|x| Given::In(halves(x))).into();
    args.push(Given::Out(2 * q.len()));
    args.extend([Given::I32(length as i32), Given::F32((scale * std::f64::consts::LOG2_E) as f32)]);
    Case { name: "attention", targets: BOTH, grid: [2, heads as u32, 1], args }
        .check(|buffers| assert_close(&from_halves(&buffers[3]), &expected, 2e-3));
}

#[test]
fn softmax_and_norm_of_rows() {
    let (rows, n) = (3, 400);
    let x = small(14, rows * n);
    let expected: Vec<f64> = x
        .chunks_exact(n)
        .flat_map(|row| {
            let total: f64 = row.iter().map(|&v| f64::from(v).exp()).sum();
            row.iter().map(move |&v| f64::from(v).exp() / total)
        })
        .collect();
    let args =
        vec![Given::In(bytes(&x, f32::to_le_bytes)), Given::Out(4 * x.len()), Given::I32(n as i32)];
    Case { name: "softmax", targets: BOTH, grid: [rows as u32, 1, 1], args }
        .check(|buffers| assert_close(&from_floats(&buffers[1]), &expected, 1e-6));

    let weight = small(15, n);
    let expected: Vec<f64> = x
        .chunks_exact(n)
        .flat_map(|row| {
            let squares: f64 = row.iter().map(|&v| f64::from(v * v)).sum();
            let factor = 1.0 / (squares / n as f64 + 1e-5).sqrt();
            row.iter().zip(&weight).map(move |(&v, &w)| f64::from(v) * factor * f64::from(w))
        })
        .collect();
    let args = vec![
        Given::In(bytes(&x, |v| bf16::from_f32(v).to_le_bytes())),
        Given::In(bytes(&weight, f32::to_le_bytes)),
        Given::Out(2 * x.len()),
        Given::I32(n as i32),
        Given::F32(1e-5),
    ];
    Case { name: "rms_norm", targets: BOTH, grid: [rows as u32, 1, 1], args }.check(|buffers| {
        let halves = buffers[2].chunks_exact(2);
        let found: Vec<f64> = halves.map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f64()).collect();
        assert_close(&found, &expected, 4e-3);
    });
}

#[test]
fn scans_maxima_and_sorted_rows() {
    let columns = 64;
    let x = small(16, 16 * columns);
    let contents = bytes(&x, f32::to_le_bytes);
    let mut sums: Vec<f64> = x.iter().map(|&v| v.into()).collect();
    (columns..x.len()).for_each(|at| sums[at] += sums[at - columns]);
    let first_largest = |row: &[f32]| {
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        row.iter().position(|&v| v == largest).unwrap_or_default() as i32
    };
    let where_largest: Vec<i32> = x.chunks_exact(columns).map(first_largest).collect();
    let args = vec![Given::In(contents.clone()), Given::Out(contents.len()), Given::Out(4 * 16)];
    Case { name: "scan_and_reduce", targets: BOTH, grid: [1, 1, 1], args }.check(|buffers| {
        assert_eq!(from_floats(&buffers[1]), sums);
        assert_eq!(from_integers(&buffers[2]), where_largest);
    });

    let mut sorted = x[..4 * columns].to_vec();
    sorted.chunks_exact_mut(columns).for_each(|row| row.sort_by(f32::total_cmp));
    let sorted: Vec<f64> = sorted.into_iter().map(f64::from).collect();
    let contents = contents[..4 * 4 * columns].to_vec();
    let args = vec![Given::In(contents.clone()), Given::Out(contents.len())];
    Case { name: "sort_rows", targets: BOTH, grid: [1, 1, 1], args }
        .check(|buffers| assert_eq!(from_floats(&buffers[1]), sorted));
}

#[test]
fn a_histogram_counts_everything_once() {
    let (n, bins) = (1200, 32);
    let mut random = Random::new(17);
    let values: Vec<i32> = (0..n).map(|_| (random.next() % bins) as i32).collect();
    let count = |bin: i32| values.iter().filter(|&&value| value == bin).count() as i32;
    let expected: Vec<i32> = (0..bins as i32).map(count).collect();
    let args = vec![
        Given::In(bytes(&values, i32::to_le_bytes)),
        Given::InOut(vec![0; 4 * bins as usize]),
        Given::I32(n),
    ];
    Case { name: "histogram", targets: BOTH, grid: [3, 1, 1], args }
        .check(|buffers| assert_eq!(from_integers(&buffers[1]), expected));
}

/// First word of Philox 4x32 with ten rounds (Salmon, Moraes, Dror, Shaw 2011).
fn philox(seed: u32, counter: u32) -> u32 {
    let (mut c, mut key) = ([counter, 0, 0, 0], [seed, 0]);
    for _ in 0..10 {
        let product = |factor: u32, c: u32| u64::from(factor) * u64::from(c);
        let (p, q) = (product(0xD251_1F53, c[0]), product(0xCD9E_8D57, c[2]));
        c = [
            (q >> 32) as u32 ^ c[1] ^ key[0],
            q as u32,
            (p >> 32) as u32 ^ c[3] ^ key[1],
            p as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    c[0]
}

#[test]
fn random_bits_are_those_of_the_published_generator() {
    let expected: Vec<i32> = (0..512).map(|i| philox(1232, i) as i32).collect();
    let args = vec![Given::Out(4 * 512), Given::I32(1232)];
    Case { name: "random_bits", targets: BOTH, grid: [2, 1, 1], args }
        .check(|buffers| assert_eq!(from_integers(&buffers[0]), expected));
}

#[test]
fn sines_of_small_and_of_huge_arguments() {
    let x: Vec<f64> = (0..112).map(|i| f64::from(i - 50) * 10f64.powi(i % 16)).collect();
    let expected: Vec<f64> = x.iter().map(|x| x.sin()).collect();
    let args = vec![
        Given::In(bytes(&x, f64::to_le_bytes)),
        Given::Out(8 * x.len()),
        Given::I32(x.len() as i32),
    ];
    Case { name: "sine", targets: BOTH, grid: [1, 1, 1], args }.check(|buffers| {
        let bits = buffers[1].chunks_exact(8).map(|b| b.try_into().expect("eight bytes"));
        let found: Vec<f64> = bits.map(f64::from_le_bytes).collect();
        assert_close(&found, &expected, 1e-15);
    });
}
