//! One warp whose registers come from memory and go back to it.

use qtune_sim::{Access, Memory, RunOptions};

use super::{at, bytes, kernel, launch};

/// Runs one warp on `inputs` registers per lane in `%r10...` and returns `outputs` registers from
/// `%r40...`, each as 32 lanes.
pub fn run(body: &str, inputs: &[[u32; 32]], outputs: usize) -> Vec<[u32; 32]> {
    let load: String = (0..inputs.len())
        .map(|i| format!("ld.global.u32 %r{}, [%rd3+{}];\n", 10 + i, 128 * i))
        .collect();
    let store: String = (0..outputs)
        .map(|i| format!("st.global.u32 [%rd3+{}], %r{};\n", 4096 + 128 * i, 40 + i))
        .collect();
    let text = kernel(&format!(
        "mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2;\n{load}{body}\n{store}"
    ));
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
