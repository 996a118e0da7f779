//! One warp whose registers come from memory and go back to it.

use qtune_sim::{Access, Memory, RunOptions};

use super::{at, bytes, kernel, launch};

/// Runs one warp on `inputs` registers per lane in `%r10...` and returns `outputs` registers from
/// `%r40...`, each as 32 lanes.
pub fn run(body: &str, inputs: &[[u32; 32]], outputs: usize) -> Vec<[u32; 32]> {
    run_on("sm_100a", body, inputs, outputs)
}

/// [`run`] for another target.
pub fn run_on(target: &str, body: &str, inputs: &[[u32; 32]], outputs: usize) -> Vec<[u32; 32]> {
    let load: String = (0..inputs.len())
        .map(|i| format!("ld.global.u32 %r{}, [%rd3+{}];\n", 10 + i, 128 * i))
        .collect();
    let store: String = (0..outputs)
        .map(|i| format!("st.global.u32 [%rd3+{}], %r{};\n", 4096 + 128 * i, 40 + i))
        .collect();
    let text = kernel(&format!(
        "mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2;\n{load}{body}\n{store}"
    ))
    .replace("sm_100a", target);
    let mut memory = Memory::new();
    let p = memory.alloc("p", 8192, Access::ReadWrite).unwrap();
    for (i, values) in inputs.iter().enumerate() {
        memory.write(p, 128 * i, &bytes(values, u32::to_le_bytes)).unwrap();
    }
    let shape = ([1, 1, 1], [32, 1, 1], 2048);
    let report = launch(&text, shape, vec![at(p)], &mut memory, &RunOptions::default()).unwrap();
    assert!(report.findings.is_empty(), "{body}: {:#?}", report.findings);
    let word = |at: usize| u32::from_le_bytes(memory.read(p, at, 4).unwrap().try_into().unwrap());
    (0..outputs).map(|i| std::array::from_fn(|l| word(4096 + 128 * i + 4 * l))).collect()
}

/// Runs `body` once for each word of the inputs, with the word in `%r10` (the second input's in
/// `%r11`); returns the words that it leaves in `%r40`.
pub fn map(body: &str, first: &[u32], second: &[u32]) -> Vec<u32> {
    let text = format!(
        ".version 8.7\n.target sm_100a\n.address_size 64\n\
         .visible .entry k(.param .u64 a, .param .u64 b, .param .u64 d)\n{{\n\
         .reg .pred %p<9>; .reg .b8 %b<9>; .reg .b16 %rs<9>; .reg .b32 %r<64>; .reg .f32 %f<9>;\n\
         .reg .b64 %rd<16>; .reg .f64 %fd<9>;\n\
         ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; ld.param.u64 %rd3, [d];\n\
         mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mad.lo.u32 %r1, %r2, 256, %r1;\n\
         mul.wide.u32 %rd4, %r1, 4; add.s64 %rd1, %rd1, %rd4; add.s64 %rd2, %rd2, %rd4;\n\
         add.s64 %rd3, %rd3, %rd4; ld.global.u32 %r10, [%rd1]; ld.global.u32 %r11, [%rd2];\n\
         mov.b32 %f1, %r10; mov.b32 %f2, %r11;\n{body}\nst.global.u32 [%rd3], %r40;\nret;\n}}\n"
    );
    let padded = first.len().next_multiple_of(256);
    let mut memory = Memory::new();
    let mut buffer = |name: &str, words: &[u32]| {
        let mut words = words.to_vec();
        words.resize(padded, 0);
        let id = memory.alloc(name, 4 * padded, Access::ReadWrite).unwrap();
        memory.write(id, 0, &bytes(&words, u32::to_le_bytes)).unwrap();
        id
    };
    let [a, b, d] = [("a", first), ("b", second), ("d", &[])].map(|(n, words)| buffer(n, words));
    let shape = ([(padded / 256) as u32, 1, 1], [256, 1, 1], 0);
    let args = vec![at(a), at(b), at(d)];
    let report = launch(&text, shape, args, &mut memory, &RunOptions::default())
        .unwrap_or_else(|error| panic!("{body}: {error}"));
    assert!(report.findings.is_empty(), "{body}: {:#?}", report.findings);
    let found = memory.read(d, 0, 4 * first.len()).unwrap();
    found.chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect()
}
