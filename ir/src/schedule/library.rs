//! The multiplication of a slab by cuBLASLt.

use super::{require, Rejected};
use crate::{Arch, DType, Epilogue, Problem};

/// A slab that cuBLASLt multiplies: a row-major matrix of 16-bit floats. How it does that is its own
/// matter and no choice of the schedule; what is left of one is the way to the slab.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LibraryGemm {
    /// The dequantization term (see [`crate::dequant`]).
    pub dequant: String,
}

impl LibraryGemm {
    /// The word of a schedule line that names it.
    pub const NAME: &'static str = "library";
    /// Rows of a row tile: of the packed weights, and of what is sampled of the output.
    pub const ROWS: u32 = 64;
    /// Tokens of a tile of what is sampled of the output: the library multiplies all tokens at once.
    pub const TOKENS: u32 = 256;
    /// k of a stage of the packed weights: the least that holds whole pieces, so that the most group
    /// sizes fit.
    pub const STAGE_K: u32 = 64;
    /// Threads of a block that dequantizes.
    pub const THREADS: u32 = 256;

    /// Whether the library can multiply slabs of this problem on `arch`.
    pub(super) fn check(&self, p: &Problem, arch: &Arch) -> Result<(), Rejected> {
        require(arch.library, || {
            "gemm=library needs cuBLASLt (libcublasLt) on the device, which does not have it".into()
        })?;
        let types = match p.act {
            DType::F16 => [DType::F16, DType::F32],
            DType::Bf16 => [DType::Bf16, DType::F32],
            DType::F32 => return Err(Rejected { reason: "gemm=library multiplies no f32".into() }),
        };
        require(types.contains(&p.out), || {
            format!("gemm=library makes no {} of {} activations", p.out, p.act)
        })?;
        require(p.epilogue != Epilogue::SiluMul, || {
            "gemm=library cannot join pairs of rows: it has no gated epilogue".into()
        })?;
        // The library reads rows at multiples of 16 bytes with its fast kernels alone.
        require(p.k % 8 == 0, || format!("gemm=library takes rows of 8 weights, not {}", p.k))
    }
}

#[cfg(test)]
mod tests {
    use crate::tile::tests::{awq, h200, problem};
    use crate::{Arch, Epilogue, Schedule};

    const LIBRARY: &str = "dequant slab=512 gemm=library dequant=(sum x)";

    fn with_library() -> Arch {
        Arch { library: true, ..h200() }
    }

    #[test]
    fn the_line_prints_and_parses_back() {
        let schedule: Schedule = LIBRARY.parse().unwrap();
        assert_eq!(schedule.to_string(), LIBRARY);
        assert_eq!(schedule.tile(), (64, 256));
        let dimensions = schedule.dimensions();
        assert!(dimensions.contains(&("gemm".into(), "library".into())), "{dimensions:?}");
    }

    #[test]
    fn it_is_legal_where_the_device_has_the_library_and_refused_by_name_elsewhere() {
        let schedule: Schedule = LIBRARY.parse().unwrap();
        let p = problem(5120, 5120, 1024);
        schedule.check(&p, &awq(), &with_library()).unwrap();
        let refused = schedule.check(&p, &awq(), &h200()).unwrap_err().reason;
        assert!(refused.contains("libcublasLt"), "{refused}");
        assert_eq!(with_library().fingerprint(), h200().fingerprint());
    }

    #[test]
    fn what_the_library_cannot_do_is_refused() {
        let check = |text: &str, p: &crate::Problem| {
            let schedule: Schedule = text.parse().unwrap();
            schedule.check(p, &awq(), &with_library()).unwrap_err().reason
        };
        let p = problem(5120, 5120, 1024);
        let ragged = LIBRARY.replace("512", "96");
        assert!(check(&ragged, &p).contains("a slab of 96 rows"));
        let scaled = LIBRARY.replace("(sum x)", "(* s (sum x))");
        assert!(check(&scaled, &p).contains("scales sums"));
        let gated = p.clone().with_epilogue(Epilogue::SiluMul).unwrap();
        assert!(check(LIBRARY, &gated).contains("gated"));
        let mixed = crate::Problem { out: crate::DType::Bf16, ..p };
        assert!(check(LIBRARY, &mixed).contains("bf16"));
    }
}
