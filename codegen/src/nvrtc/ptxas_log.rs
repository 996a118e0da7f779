//! Reads the statistics that `ptxas -v` writes into NVRTC's log.
//!
//! ```text
//! ptxas info    : Compiling entry function 'kernel' for 'sm_90a'
//! ptxas info    : Function properties for kernel
//!     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
//! ptxas info    : Used 40 registers, used 1 barriers, 2048 bytes smem
//! ```

use serde::{Deserialize, Serialize};

/// What ptxas says of one kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PtxasUsage {
    /// The entry function's name.
    pub kernel: String,
    /// 32-bit registers per thread.
    pub registers: u32,
    /// Bytes of local memory per thread: spilled registers and local arrays.
    pub stack_bytes: u32,
    /// Bytes written by spills, per thread.
    pub spill_store_bytes: u32,
    /// Bytes read back by spills, per thread.
    pub spill_load_bytes: u32,
    /// Static shared memory per thread block, in bytes.
    pub shared_bytes: u32,
}

/// The statistics of every kernel in a compile log, in the log's order. Lines that are not
/// statistics are passed over.
pub fn parse_ptxas_log(log: &str) -> Vec<PtxasUsage> {
    let mut kernels: Vec<PtxasUsage> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            kernels.push(PtxasUsage { kernel, ..PtxasUsage::default() });
            continue;
        }
        let Some(current) = kernels.last_mut() else { continue };
        if line.contains("bytes stack frame") {
            current.stack_bytes = number_before(line, "bytes stack frame");
            current.spill_store_bytes = number_before(line, "bytes spill stores");
            current.spill_load_bytes = number_before(line, "bytes spill loads");
        } else if line.contains(" registers") {
            current.registers = number_before(line, "registers");
            current.shared_bytes = number_before(line, "bytes smem");
        }
    }
    kernels
}

/// The line that says that ptxas gave up what the text asks for, if it did: multiplies of a
/// warpgroup that wait for each other, registers that are not handed over. The code is correct, but
/// not the code that was ranked.
pub fn performance_loss(log: &str) -> Option<&str> {
    log.lines().find(|line| line.contains("Potential Performance Loss"))
}

/// The whole number right before `unit` in `line`, 0 if the unit is not there.
fn number_before(line: &str, unit: &str) -> u32 {
    let before = line.split_once(unit).map_or("", |(before, _)| before);
    before.split_whitespace().next_back().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ptxas_gives_up_is_found() {
        let log = "ptxas info    : (C7515) Potential Performance Loss: wgmma.mma_async \
            instructions are serialized due to non wgmma instructions defining accumulator \
            registers of a wgmma between start and end of the pipeline stage\n\
            ptxas info    : Used 62 registers, used 2 barriers\n";
        assert!(performance_loss(log).is_some_and(|line| line.contains("C7515")));
        assert_eq!(performance_loss("ptxas info    : Used 62 registers\n"), None);
    }

    #[test]
    fn every_kernel_of_a_log_is_read_and_other_lines_are_passed_over() {
        let log = "k.cu(3): warning #177-D: variable \"x\" was declared but never referenced\n\
            ptxas info    : 16 bytes gmem, 64 bytes cmem[3]\n\
            ptxas info    : Compiling entry function '_Z1aPf' for 'sm_80'\n\
            ptxas info    : Function properties for _Z1aPf\n    \
            1056 bytes stack frame, 2100 bytes spill stores, 2104 bytes spill loads\n\
            ptxas info    : Used 255 registers, used 1 barriers, 2048 bytes smem\n\
            ptxas info    : Compiling entry function 'b' for 'sm_80'\n\
            ptxas info    : Function properties for b\n    \
            0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
            ptxas info    : Used 8 registers, used 0 barriers\n";
        let expected = [
            PtxasUsage {
                kernel: "_Z1aPf".into(),
                registers: 255,
                stack_bytes: 1056,
                spill_store_bytes: 2100,
                spill_load_bytes: 2104,
                shared_bytes: 2048,
            },
            PtxasUsage { kernel: "b".into(), registers: 8, ..PtxasUsage::default() },
        ];
        assert_eq!(parse_ptxas_log(log), expected);
    }
}
