//! Tensor copies against a scalar model written from the manual (PTX ISA 5.5, 9.7.9.27), and what is
//! wrong with tiles and maps.

use qtune_sim::{
    run, Access, Arg, BufferId, FindingKind, Launch, Memory, OutOfBoundsFill, Report, RunOptions,
    SimError, Swizzle, TensorMapSpec, TensorType,
};

use crate::support::at;
use crate::support::recorder::parse;
use crate::support::schedules::{kinds, schedules};

/// Sections of the PTX ISA that the tests are about.
pub const SECTIONS: &[&str] = &["9.7.9", "9.7.13"];
/// All tests of the file.
pub const TESTS: &[fn()] = &[
    tiles_of_every_rank_load_with_zeros_outside_the_tensor,
    tiles_of_every_rank_store_only_what_lies_inside_the_tensor,
    every_swizzle_places_the_units_of_rows_as_the_manual_tables_do,
    element_strides_skip_elements_and_nan_fills_what_is_outside,
    tiles_are_added_to_global_memory_in_the_type_of_their_map,
    elements_of_other_sizes_are_moved_whole,
    misplaced_tiles_and_maps_are_found,
    a_copy_needs_as_many_dimensions_as_its_map,
    a_tensor_larger_than_its_buffer_is_out_of_bounds,
    maps_that_the_driver_refuses_refuse_the_launch,
    kernels_make_tensor_maps_of_their_own,
    maps_with_a_wrong_or_missing_field_are_found_when_they_are_used,
];

/// A tensor of bytes 1, 2, 3, ... with its map and the coordinates of a tile.
#[derive(Clone)]
struct Case {
    dtype: TensorType,
    dims: Vec<u64>,
    strides: Vec<u64>,
    boxes: Vec<u32>,
    steps: Vec<u32>,
    swizzle: Swizzle,
    fill: OutOfBoundsFill,
    coordinates: Vec<i32>,
}

impl Case {
    fn new(dims: &[u64], boxes: &[u32], coordinates: &[i32]) -> Case {
        let mut strides = Vec::new();
        let mut bytes = dims[0] * 2;
        for &dim in &dims[1..] {
            bytes = bytes.next_multiple_of(16);
            strides.push(bytes);
            bytes *= dim;
        }
        Case {
            dtype: TensorType::F16,
            dims: dims.to_vec(),
            strides,
            boxes: boxes.to_vec(),
            steps: vec![1; dims.len()],
            swizzle: Swizzle::None,
            fill: OutOfBoundsFill::Zero,
            coordinates: coordinates.to_vec(),
        }
    }

    fn spec(&self, buffer: BufferId) -> TensorMapSpec {
        TensorMapSpec {
            buffer,
            offset: 0,
            dtype: self.dtype,
            dims: self.dims.clone(),
            strides_bytes: self.strides.clone(),
            box_dims: self.boxes.clone(),
            element_strides: self.steps.clone(),
            swizzle: self.swizzle,
            fill: self.fill,
        }
    }

    fn tensor_bytes(&self) -> usize {
        let last = self.strides.last().copied().unwrap_or(0);
        let rows = if self.dims.len() > 1 { self.dims[self.dims.len() - 1] } else { 0 };
        (last * rows).max(self.dims[0] * self.dtype.bytes()) as usize
    }

    /// Elements that a tile holds along a dimension (cuTensorMapEncodeTiled, "elementStrides").
    fn extent(&self, axis: usize) -> u32 {
        let step = if axis == 0 { 1 } else { self.steps[axis] };
        self.boxes[axis].div_ceil(step)
    }

    fn tile_bytes(&self) -> usize {
        let elements: u32 = (0..self.dims.len()).map(|axis| self.extent(axis)).product();
        elements as usize * self.dtype.bytes() as usize
    }

    /// For every element of the tile: its byte offset in the tensor if it lies inside, and its byte
    /// offset in shared memory when the tile starts at `start`.
    fn elements(&self, start: usize) -> Vec<(Option<usize>, usize)> {
        let size = self.dtype.bytes() as usize;
        let mut all = Vec::new();
        for element in 0..self.tile_bytes() / size {
            let (mut rest, mut offset, mut inside) = (element, 0i64, true);
            for axis in 0..self.dims.len() {
                let extent = self.extent(axis) as usize;
                let step = if axis == 0 { 1 } else { i64::from(self.steps[axis]) };
                let at = i64::from(self.coordinates[axis]) + (rest % extent) as i64 * step;
                rest /= extent;
                inside &= (0..self.dims[axis] as i64).contains(&at);
                let stride = if axis == 0 { size as i64 } else { self.strides[axis - 1] as i64 };
                offset += at * stride;
            }
            let address = start + element * size;
            all.push((inside.then_some(offset as usize), swizzled(self.swizzle, address) - start));
        }
        all
    }
}

/// The place of a byte, from the tables of PTX ISA 5.5.4: the pattern is made of rows of 128 bytes,
/// and the units of a row are exchanged by the row's number.
fn swizzled(swizzle: Swizzle, address: usize) -> usize {
    let (row, unit, byte) = (address / 128, address / 16 % 8, address % 16);
    let unit = match swizzle {
        Swizzle::None => unit,
        // Pairs of units change places in every other row.
        Swizzle::B32 => {
            let swapped = [1, 0, 3, 2, 5, 4, 7, 6];
            if row % 2 == 1 {
                swapped[unit]
            } else {
                unit
            }
        }
        Swizzle::B64 => {
            let tables = [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]];
            unit / 4 * 4 + tables[row % 4][unit % 4]
        }
        Swizzle::B128 => {
            let tables = [
                [0, 1, 2, 3, 4, 5, 6, 7],
                [1, 0, 3, 2, 5, 4, 7, 6],
                [2, 3, 0, 1, 6, 7, 4, 5],
                [3, 2, 1, 0, 7, 6, 5, 4],
                [4, 5, 6, 7, 0, 1, 2, 3],
                [5, 4, 7, 6, 1, 0, 3, 2],
                [6, 7, 4, 5, 2, 3, 0, 1],
                [7, 6, 5, 4, 3, 2, 1, 0],
            ];
            tables[row % 8][unit]
        }
    };
    row * 128 + unit * 16 + byte
}

/// A kernel with an output pointer, a tensor map and one warp; `tile` is at shared address 1024.
fn with_map(body: &str) -> String {
    format!(
        ".version 8.7 .target sm_90a .address_size 64
        .visible .entry k(.param .u64 p, .param .align 64 .b8 map[128]) {{
        .reg .pred %p<16>; .reg .b32 %r<32>; .reg .b64 %rd<32>;
        .shared .align 1024 .b8 front[1024]; .shared .align 1024 .b8 tile[32768];
        .shared .align 8 .b8 bar[8];
        ld.param.u64 %rd1, [p]; mov.b64 %rd2, map; cvta.param.u64 %rd3, %rd2;
        mov.u32 %r1, %tid.x; setp.eq.u32 %p1, %r1, 0; mov.u32 %r2, tile; mov.u32 %r3, bar;
        @!%p1 bra I; mbarrier.init.shared::cta.b64 [bar], 1; fence.proxy.async;
        prefetch.tensormap [%rd3];
        I: bar.sync 0;
        {body}
        ret; }}"
    )
}

/// Copies words of the tile to global memory, or back, 128 bytes a turn.
fn copy_words(bytes: usize, each: &str) -> String {
    format!(
        "shl.b32 %r10, %r1, 2;
        N: add.u32 %r11, %r2, %r10; cvt.u64.u32 %rd10, %r10; add.u64 %rd11, %rd1, %rd10;
        {each}
        add.u32 %r10, %r10, 128; setp.lt.u32 %p2, %r10, {bytes}; @%p2 bra N;"
    )
}

fn coordinates(case: &Case) -> String {
    let list: Vec<String> = case.coordinates.iter().map(ToString::to_string).collect();
    format!("{{{}}}", list.join(", "))
}

fn load_kernel(case: &Case) -> String {
    let (bytes, rank) = (case.tile_bytes(), case.dims.len());
    let out = copy_words(bytes, "ld.shared.u32 %r12, [%r11]; st.global.u32 [%rd11], %r12;");
    with_map(&format!(
        "@!%p1 bra C; mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], {bytes};
        cp.async.bulk.prefetch.tensor.{rank}d.L2.global [%rd3, {at}];
        cp.async.bulk.tensor.{rank}d.shared::cluster.global.mbarrier::complete_tx::bytes [tile], [%rd3, {at}], [bar];
        C: W: mbarrier.try_wait.parity.shared::cta.b64 %p9, [bar], 0; @!%p9 bra W;
        {out}",
        at = coordinates(case)
    ))
}

fn store_kernel(case: &Case, copy: &str) -> String {
    let (bytes, rank) = (case.tile_bytes(), case.dims.len());
    let fill = copy_words(bytes, "ld.global.u32 %r12, [%rd11]; st.shared.u32 [%r11], %r12;");
    with_map(&format!(
        "{fill} fence.proxy.async.shared::cta; bar.sync 0; @!%p1 bra C;
        {} [%rd3, {}], [tile];
        cp.async.bulk.commit_group; cp.async.bulk.wait_group 0; C:",
        copy.replace("Nd", &format!("{rank}d")),
        coordinates(case)
    ))
}

/// Distinct bytes that are small as f16 bits too.
fn pattern(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes).map(|i| ((i * 7 + i / 251 + seed) % 120) as u8).collect()
}

struct Done {
    plain: Vec<u8>,
    tensor: Vec<u8>,
    report: Report,
}

/// Runs a kernel with a plain buffer of `tile` bytes and the tensor.
fn execute(
    text: &str,
    case: &Case,
    plain: &[u8],
    tensor: &[u8],
    options: &RunOptions,
) -> Result<Done, SimError> {
    let mut memory = Memory::new();
    let p = memory.alloc("plain", plain.len(), Access::ReadWrite)?;
    memory.write(p, 0, plain)?;
    let t = memory.alloc("tensor", tensor.len(), Access::ReadWrite)?;
    memory.write(t, 0, tensor)?;
    let launch = Launch {
        grid: [1; 3],
        block: [32, 1, 1],
        cluster: [1; 3],
        dynamic_shared_bytes: 0,
        args: vec![at(p), Arg::TensorMap(case.spec(t))],
    };
    let report = run(&parse(text)?, "k", &launch, &mut memory, options)?;
    let (plain, tensor) = (memory.read(p, 0, plain.len())?, memory.read(t, 0, tensor.len())?);
    Ok(Done { plain, tensor, report })
}

fn check_load(case: &Case) {
    let (start, size) = (1024, case.dtype.bytes() as usize);
    let tensor = pattern(case.tensor_bytes(), 1);
    let mut expected = vec![0xEE; case.tile_bytes()];
    let nan = [0xFF, 0x7F];
    for (offset, place) in case.elements(start) {
        for byte in 0..size {
            expected[place + byte] = match offset {
                Some(offset) => tensor[offset + byte],
                None if case.fill == OutOfBoundsFill::Nan => nan[byte],
                None => 0,
            };
        }
    }
    let plain = vec![0; case.tile_bytes()];
    for options in schedules() {
        let done = execute(&load_kernel(case), case, &plain, &tensor, &options).unwrap();
        assert_eq!(kinds(&done.report), [], "{:?}", done.report.findings);
        assert_eq!(done.plain, expected);
        assert_eq!(done.report.counters.bulk_bytes, case.tile_bytes() as u64);
    }
}

fn check_store(case: &Case, add: bool) {
    let (start, size) = (1024, case.dtype.bytes() as usize);
    let tensor = pattern(case.tensor_bytes(), 1);
    let tile = pattern(case.tile_bytes(), 50);
    let mut expected = tensor.clone();
    for (offset, place) in case.elements(start) {
        let Some(offset) = offset else { continue };
        let new = &tile[place..place + size];
        if add {
            let word = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
            let sum = word(&tensor[offset..]).wrapping_add(word(new));
            expected[offset..offset + 2].copy_from_slice(&sum.to_le_bytes());
        } else {
            expected[offset..offset + size].copy_from_slice(new);
        }
    }
    let copy = if add {
        "cp.reduce.async.bulk.tensor.Nd.global.shared::cta.add.tile.bulk_group"
    } else {
        "cp.async.bulk.tensor.Nd.global.shared::cta.bulk_group"
    };
    for options in schedules() {
        let done = execute(&store_kernel(case, copy), case, &tile, &tensor, &options).unwrap();
        assert_eq!(kinds(&done.report), [], "{:?}", done.report.findings);
        assert!(done.tensor == expected);
    }
}

/// Tiles inside, across and beyond the edges of tensors of every rank.
fn cases() -> Vec<Case> {
    vec![
        Case::new(&[100], &[64], &[16]),
        Case::new(&[100], &[64], &[-3]),
        Case::new(&[64, 40], &[64, 16], &[0, 8]),
        Case::new(&[100, 20], &[64, 16], &[64, 10]),
        Case::new(&[100, 20], &[64, 16], &[-7, -5]),
        Case::new(&[40, 10, 6], &[32, 4, 4], &[5, 8, 3]),
        Case::new(&[24, 6, 5, 4], &[16, 4, 2, 4], &[-1, 3, 4, 1]),
        Case::new(&[16, 4, 4, 3, 3], &[8, 4, 2, 2, 2], &[9, 1, -1, 2, 0]),
        Case::new(&[64, 40], &[64, 16], &[200, 8]),
    ]
}

#[test]
fn tiles_of_every_rank_load_with_zeros_outside_the_tensor() {
    cases().iter().for_each(check_load);
}

#[test]
fn tiles_of_every_rank_store_only_what_lies_inside_the_tensor() {
    cases().iter().for_each(|case| check_store(case, false));
}

#[test]
fn every_swizzle_places_the_units_of_rows_as_the_manual_tables_do() {
    for (swizzle, inner) in [(Swizzle::B32, 16), (Swizzle::B64, 32), (Swizzle::B128, 64)] {
        for coordinates in [[0, 0], [5, -3]] {
            let case = Case { swizzle, ..Case::new(&[100, 40], &[inner, 32], &coordinates) };
            check_load(&case);
            check_store(&case, false);
        }
    }
}

#[test]
fn element_strides_skip_elements_and_nan_fills_what_is_outside() {
    let steps = vec![1, 2, 3];
    let case = Case { steps, ..Case::new(&[64, 12, 9], &[32, 8, 7], &[40, 6, 1]) };
    check_load(&case);
    check_store(&case, false);
    check_load(&Case { fill: OutOfBoundsFill::Nan, ..case });
}

#[test]
fn tiles_are_added_to_global_memory_in_the_type_of_their_map() {
    let case = Case { dtype: TensorType::U16, ..Case::new(&[100, 20], &[64, 16], &[64, 10]) };
    check_store(&Case { swizzle: Swizzle::B128, ..case }, true);
}

#[test]
fn elements_of_other_sizes_are_moved_whole() {
    for dtype in [TensorType::U8, TensorType::F32, TensorType::S64] {
        let size = dtype.bytes();
        let mut case = Case::new(&[64, 8], &[(64 / size) as u32, 4], &[3, 6]);
        (case.dtype, case.strides) = (dtype, vec![64 * size]);
        check_load(&case);
        check_store(&case, false);
    }
}

/// Finding kinds of a load after an edit of its text.
fn found(case: &Case, from: &str, to: &str) -> Vec<FindingKind> {
    let text = load_kernel(case);
    assert!(text.contains(from), "{from}");
    let tensor = pattern(case.tensor_bytes(), 1);
    let plain = vec![0; case.tile_bytes()];
    let options = RunOptions::default();
    kinds(&execute(&text.replace(from, to), case, &plain, &tensor, &options).unwrap().report)
}

#[test]
fn misplaced_tiles_and_maps_are_found() {
    let case = Case::new(&[64, 40], &[64, 16], &[0, 8]);
    assert!(found(&case, "[tile], [%rd3", "[tile+64], [%rd3").contains(&FindingKind::Misaligned));
    assert!(found(&case, "bytes [tile]", "bytes [tile+32640]").contains(&FindingKind::OutOfBounds));
    let map = "[%rd3, {0, 8}]";
    assert!(found(&case, map, "[%rd3+64, {0, 8}]").contains(&FindingKind::OutOfBounds));
    assert!(found(&case, map, "[%rd1, {0, 8}]").contains(&FindingKind::InvalidOperand));
    assert!(found(&case, map, "[%rd3+4, {0, 8}]").contains(&FindingKind::Misaligned));
}

#[test]
fn a_copy_needs_as_many_dimensions_as_its_map() {
    let case = Case::new(&[64, 40], &[64, 16], &[0, 8]);
    let text = load_kernel(&case).replace("tensor.2d", "tensor.3d").replace("{0, 8}", "{0, 8, 0}");
    let (tensor, plain) = (pattern(case.tensor_bytes(), 1), vec![0; case.tile_bytes()]);
    let done = execute(&text, &case, &plain, &tensor, &RunOptions::default()).unwrap();
    assert!(kinds(&done.report).contains(&FindingKind::InvalidOperand));
}

#[test]
fn a_tensor_larger_than_its_buffer_is_out_of_bounds() {
    let case = Case::new(&[64, 40], &[64, 16], &[0, 30]);
    let tensor = pattern(case.tensor_bytes() - 128, 1);
    let plain = vec![0; case.tile_bytes()];
    let done =
        execute(&load_kernel(&case), &case, &plain, &tensor, &RunOptions::default()).unwrap();
    let finding = &done.report.findings[0];
    assert_eq!(
        (finding.kind, finding.buffer.as_deref()),
        (FindingKind::OutOfBounds, Some("tensor"))
    );
}

#[test]
fn maps_that_the_driver_refuses_refuse_the_launch() {
    let case = Case { strides: vec![100], ..Case::new(&[48, 4], &[48, 4], &[0, 0]) };
    let text = load_kernel(&case);
    let error = execute(&text, &case, &[0], &[0; 1024], &RunOptions::default()).err().unwrap();
    assert!(error.to_string().contains("argument 1: tensor map: stride 1 is 100 bytes"), "{error}");
}

/// Thread 0 makes a map of the tensor `t` in shared memory, the warp publishes it in `s`, and a tile
/// is loaded with it.
fn making_a_map(edit: impl Fn(&str) -> String) -> Result<(Vec<u8>, Report), SimError> {
    let replace = |field: &str, operands: &str| {
        let bits = if field == "global_address" || field == "global_stride" { 64 } else { 32 };
        format!("tensormap.replace.tile.{field}.shared::cta.b1024.b{bits} [%r5], {operands};\n")
    };
    let fields = [
        replace("global_address", "%rd2"),
        replace("rank", "1"),
        replace("box_dim", "0, 64"),
        replace("box_dim", "1, 8"),
        replace("global_dim", "0, %r6"),
        replace("global_dim", "1, 40"),
        replace("global_stride", "0, %rd4"),
        replace("element_stride", "0, 1"),
        replace("element_stride", "1, 1"),
        replace("elemtype", "6"),
        replace("interleave_layout", "0"),
        replace("swizzle_mode", "3"),
        replace("fill_mode", "1"),
    ];
    let text = format!(
        ".version 8.7 .target sm_90a .address_size 64
        .visible .entry k(.param .u64 p, .param .u64 t, .param .u64 s) {{
        .reg .pred %p<16>; .reg .b32 %r<32>; .reg .b64 %rd<32>;
        .shared .align 1024 .b8 front[1024]; .shared .align 1024 .b8 tile[1024];
        .shared .align 8 .b8 bar[8];
        ld.param.u64 %rd1, [p]; ld.param.u64 %rd2, [t]; ld.param.u64 %rd3, [s];
        mov.u32 %r1, %tid.x; setp.eq.u32 %p1, %r1, 0; mov.u32 %r2, tile; mov.u32 %r5, front;
        shl.b32 %r3, %r1, 2; add.u32 %r4, %r5, %r3; mov.u32 %r7, 0; st.shared.u32 [%r4], %r7;
        mov.u32 %r6, 100; mov.u64 %rd4, 208;
        bar.warp.sync -1; @!%p1 bra I;
        mbarrier.init.shared::cta.b64 [bar], 1; fence.proxy.async;
        {} I: bar.warp.sync -1;
        tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [%rd3], [front], 128;
        fence.proxy.tensormap::generic.release.gpu; cp.async.bulk.prefetch.L2.global [%rd3], 128;
        fence.proxy.tensormap::generic.acquire.gpu [%rd3], 128;
        bar.sync 0; @!%p1 bra C;
        mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 1024;
        cp.async.bulk.tensor.2d.shared::cta.global.mbarrier::complete_tx::bytes [tile], [%rd3, {{-2, 36}}], [bar];
        C: W: mbarrier.try_wait.parity.shared::cta.b64 %p9, [bar], 0; @!%p9 bra W;
        {} ret; }}",
        fields.concat(),
        copy_words(1024, "ld.shared.u32 %r12, [%r11]; st.global.u32 [%rd11], %r12;")
    );
    let tensor = pattern(208 * 40, 1);
    let mut memory = Memory::new();
    let p = memory.alloc("p", 1024, Access::ReadWrite)?;
    let t = memory.alloc("t", tensor.len(), Access::ReadOnly)?;
    memory.write(t, 0, &tensor)?;
    let s = memory.alloc("s", 128, Access::ReadWrite)?;
    let launch = Launch {
        grid: [1; 3],
        block: [32, 1, 1],
        cluster: [1; 3],
        dynamic_shared_bytes: 0,
        args: vec![at(p), at(t), at(s)],
    };
    let module = parse(&edit(&text))?;
    let report = run(&module, "k", &launch, &mut memory, &RunOptions::default())?;
    Ok((memory.read(p, 0, 1024)?, report))
}

#[test]
fn kernels_make_tensor_maps_of_their_own() {
    let case = Case {
        swizzle: Swizzle::B128,
        fill: OutOfBoundsFill::Nan,
        ..Case::new(&[100, 40], &[64, 8], &[-2, 36])
    };
    let tensor = pattern(208 * 40, 1);
    let mut expected = vec![0; 1024];
    for (offset, place) in case.elements(1024) {
        let value = offset.map_or([0xFF, 0x7F], |o| [tensor[o], tensor[o + 1]]);
        expected[place..place + 2].copy_from_slice(&value);
    }
    let (tile, report) = making_a_map(str::to_owned).unwrap();
    assert_eq!(kinds(&report), [], "{:?}", report.findings);
    assert_eq!(tile, expected);
}

#[test]
fn maps_with_a_wrong_or_missing_field_are_found_when_they_are_used() {
    let found = |from: &str, to: &str| {
        let (_, report) = making_a_map(|text| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        })
        .unwrap();
        kinds(&report)
    };
    let invalid = FindingKind::InvalidOperand;
    assert!(found("mov.u64 %rd4, 208", "mov.u64 %rd4, 200").contains(&invalid));
    assert!(found(
        "box_dim.shared::cta.b1024.b32 [%r5], 1, 8",
        "box_dim.shared::cta.b1024.b32 [%r5], 1, 0"
    )
    .contains(&invalid));
    assert!(found(
        "interleave_layout.shared::cta.b1024.b32 [%r5], 0",
        "interleave_layout.shared::cta.b1024.b32 [%r5], 1"
    )
    .contains(&invalid));
    assert!(found(
        "elemtype.shared::cta.b1024.b32 [%r5], 6",
        "elemtype.shared::cta.b1024.b32 [%r5], 8"
    )
    .contains(&invalid));
    assert!(found("mov.u32 %r5, front;", "mov.u32 %r5, front; add.u32 %r5, %r5, 64;")
        .contains(&FindingKind::Misaligned));
    assert!(found("st.shared.u32 [%r4], %r7;", "").contains(&FindingKind::UninitialisedShared));
    let error = making_a_map(|text| {
        text.replace(
            "global_dim.shared::cta.b1024.b32 [%r5], 1",
            "global_dim.shared::cta.b1024.b32 [%r5], 5",
        )
    });
    assert!(error.err().unwrap().to_string().contains("literal 5"));
}
