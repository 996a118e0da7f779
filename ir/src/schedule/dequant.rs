//! Schedules of the `dequant` family: which rows are dequantized at a time, and how they are
//! multiplied.

use super::{
    check_width, groups_in, require, LibraryGemm, MmaSchedule, Overlap, Raster, Rejected, Schedule,
    Split, WgmmaSchedule, CHUNK_K,
};
use crate::{Arch, Problem, WeightSpec};

/// Tokens for which the cost of a dequantization term is counted: a weight is dequantized once,
/// however many tokens follow, so that only its own instructions count.
pub(super) const TERM_TOKENS: u32 = 8;
/// k of a lane's pair of fragments, or two groups of half as many.
const HALF_CHUNK_K: u32 = CHUNK_K / 2;

/// How a slab of dequantized weights is multiplied: by the schedule of a tensor-core family, whose
/// weights are 16-bit floats, or by a library.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DenseGemm {
    /// `mma.sync`.
    Mma(MmaSchedule),
    /// `wgmma`.
    Wgmma(WgmmaSchedule),
    /// cuBLASLt.
    Library(LibraryGemm),
}

impl DenseGemm {
    /// The multiplication that `schedule` describes; `None` if its family does not multiply on
    /// tensor cores.
    pub fn of(schedule: Schedule) -> Option<DenseGemm> {
        match schedule {
            Schedule::Mma(s) => Some(DenseGemm::Mma(s)),
            Schedule::Wgmma(s) => Some(DenseGemm::Wgmma(s)),
            Schedule::Gemv(_) | Schedule::Dequant(_) => None,
        }
    }

    /// The same as a schedule, whose `dequant` is the term by which the slab was dequantized; `None` for
    /// a library's, which no function of ours computes.
    pub fn own(&self) -> Option<Schedule> {
        match self {
            DenseGemm::Mma(s) => Some(Schedule::Mma(s.clone())),
            DenseGemm::Wgmma(s) => Some(Schedule::Wgmma(s.clone())),
            DenseGemm::Library(_) => None,
        }
    }

    /// The dequantization term.
    pub fn dequant(&self) -> &str {
        match self {
            DenseGemm::Mma(s) => &s.dequant,
            DenseGemm::Wgmma(s) => &s.dequant,
            DenseGemm::Library(s) => &s.dequant,
        }
    }

    /// The same with another dequantization term.
    pub fn with_dequant(&self, term: &str) -> DenseGemm {
        let mut new = self.clone();
        match &mut new {
            DenseGemm::Mma(s) => s.dequant = term.into(),
            DenseGemm::Wgmma(s) => s.dequant = term.into(),
            DenseGemm::Library(s) => s.dequant = term.into(),
        }
        new
    }

    /// Rows and tokens of an output tile: of a thread block, or of what is sampled of a library's output.
    pub fn tile(&self) -> (u32, u32) {
        match self {
            DenseGemm::Mma(s) => (s.block_n, s.block_m),
            DenseGemm::Wgmma(s) => (s.block_n, s.block_m),
            DenseGemm::Library(_) => (LibraryGemm::ROWS, LibraryGemm::TOKENS),
        }
    }

    /// Threads of a block that multiplies, or of one that dequantizes for a library.
    pub fn threads(&self) -> u32 {
        self.own().map_or(LibraryGemm::THREADS, |own| own.threads())
    }

    /// The order of output tiles.
    pub fn raster(&self) -> Raster {
        self.own().map_or(Raster::Tokens, |own| own.raster())
    }

    /// k rounded up to whole stages.
    pub fn padded_k(&self, k: u32) -> u32 {
        k.next_multiple_of(self.block_k())
    }

    fn block_k(&self) -> u32 {
        match self {
            DenseGemm::Mma(s) => s.block_k,
            DenseGemm::Wgmma(s) => s.block_k,
            DenseGemm::Library(_) => LibraryGemm::STAGE_K,
        }
    }
}

/// A `dequant` schedule: two kernels take turns. The first dequantizes a slab of rows into a buffer
/// that L2 holds, in the order in which the second reads it; the second multiplies. Where a library does
/// that, the slab is a row-major matrix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DequantSchedule {
    /// Output rows of a slab: a multiple of the multiplication's `block_n`.
    pub slab: u32,
    /// The multiplication, and the dequantization term.
    pub gemm: DenseGemm,
}

impl DequantSchedule {
    /// Slabs of a matrix of `n` rows.
    pub fn slabs(&self, n: u32) -> u32 {
        n.div_ceil(self.slab)
    }

    /// Row tiles of a slab.
    pub fn slab_tiles(&self) -> u32 {
        self.slab / self.gemm.tile().0
    }

    /// Bytes of one dequantized slab.
    pub fn slab_bytes(&self, k: u32) -> u64 {
        u64::from(self.slab) * u64::from(self.padded_k(k)) * 2
    }

    /// k per stage of the multiplication, and of the packed weights.
    pub fn block_k(&self) -> u32 {
        self.gemm.block_k()
    }

    /// k rounded up to whole stages.
    pub fn padded_k(&self, k: u32) -> u32 {
        self.gemm.padded_k(k)
    }

    /// Quant groups that a stage touches, as far as they are stored apart.
    pub fn groups_per_stage(&self, spec: &WeightSpec, k: u32) -> u32 {
        groups_in(self.gemm.block_k(), spec, k)
    }

    /// The multiplication of a slab by itself, over weights as [`WeightSpec::dense`] has them:
    /// nothing is left to dequantize. `None` where a library multiplies.
    pub fn multiplication(&self) -> Option<Schedule> {
        self.gemm.with_dequant("").own()
    }

    /// Bytes of dynamic shared memory of the multiplication: it needs no table.
    pub fn shared_bytes(&self, problem: &Problem) -> u32 {
        let own = self.multiplication();
        own.map_or(0, |own| own.shared_bytes(problem, &WeightSpec::dense()))
    }

    pub(super) fn check(
        &self,
        p: &Problem,
        spec: &WeightSpec,
        arch: &Arch,
    ) -> Result<(), Rejected> {
        check_width("dequant", spec)?;
        match (&self.gemm, self.multiplication()) {
            (DenseGemm::Library(library), _) => library.check(p, arch)?,
            (_, Some(own)) => self.check_own(&own, p, arch)?,
            (_, None) => {}
        }
        let block_n = self.gemm.tile().0;
        require(self.slab > 0 && self.slab % block_n == 0, || {
            format!("a slab of {} rows and row tiles of {block_n}", self.slab)
        })?;
        let (group, block_k) = (spec.group.run(p.k), self.gemm.block_k());
        let nested = group == p.k || group % block_k == 0 || block_k % group == 0;
        require(nested, || format!("quant group {group} and k tile {block_k}"))?;
        let parts = group % HALF_CHUNK_K == 0 || group * 2 == HALF_CHUNK_K;
        require(parts || group == p.k, || {
            format!("quant group {group} is no multiple or half of {HALF_CHUNK_K}")
        })?;
        let whole = self.gemm.dequant().is_empty() || self.gemm.dequant().starts_with("(sum");
        require(whole, || {
            "the term scales sums of products: there are none while a slab is dequantized".into()
        })
    }

    /// What one of our own multiplications of a slab has to be.
    fn check_own(&self, gemm: &Schedule, p: &Problem, arch: &Arch) -> Result<(), Rejected> {
        gemm.check(p, &WeightSpec::dense(), arch)?;
        require(gemm.split() == Split::NONE, || {
            format!("split {} of K: a slab has blocks enough without", gemm.split())
        })?;
        require(gemm.overlap() == Overlap::NONE, || {
            "pdl and prefetch: each launch of a slab waits for the one before it".into()
        })?;
        let shared = gemm.multicast() > 1;
        require(!shared, || "multicast: the last slab may have any number of row tiles".into())?;
        // Of shorter stages ptxas says that it serializes the multiplies (C7513: fragments written
        // while a multiply may read them); kernels with stages of 128 compile without that.
        let short = matches!(gemm, Schedule::Wgmma(_)) && self.gemm.block_k() % 128 != 0;
        require(!short, || {
            format!("stages of {} k: wgmma takes floats in stages of 128", self.gemm.block_k())
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::tile::tests::{awq, h200, problem};
    use crate::Schedule;

    const SLABS: &str =
        "dequant slab=512 gemm=wgmma tile=128x256x128 groups=2 stages=2 split=1 producer=group \
         raster=tokens dequant=(sum x)";

    #[test]
    fn a_slab_is_whole_tiles_dequantized_before_anything_is_added() {
        let check = |text: &str| {
            let schedule: Schedule = text.parse().unwrap();
            schedule.check(&problem(5120, 5120, 1024), &awq(), &h200())
        };
        check(SLABS).unwrap();
        let refusal = |from: &str, to: &str| {
            assert_ne!(SLABS.replace(from, to), SLABS);
            check(&SLABS.replace(from, to)).unwrap_err().reason
        };
        assert!(refusal("slab=512", "slab=384").contains("a slab of 384 rows"));
        assert!(refusal("split=1", "split=2").contains("split 2 of K"));
        assert!(refusal("256x128", "256x64").contains("stages of 64 k"));
        assert!(refusal("(sum x)", "(* s (sum x))").contains("scales sums"));
        assert!(
            refusal("128x256x128", "12x256x128").contains("12 tokens"),
            "floats take the same shapes"
        );
    }
}
