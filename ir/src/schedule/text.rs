//! A schedule as one line of text, and back.

use super::mma::PAD;
use super::{
    Accumulate, DenseGemm, DequantSchedule, GemvSchedule, LibraryGemm, MmaSchedule, Overlap,
    Producer, Raster, Schedule, ScheduleError, Split, WeightCache, WgmmaSchedule,
};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The word of a `wgmma` schedule whose blocks share activations; without it they do not.
pub(super) const MULTICAST: &str = "multicast";

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Gemv(s) => write!(
                f,
                "gemv tokens={} rows={} lanes={} warps={}x{} unroll={} split={} x={} acc={} cache={}{} dequant={}",
                s.tokens,
                s.rows,
                s.lanes,
                s.warps_n,
                s.warps_k,
                s.unroll,
                s.split,
                match (s.stage_x, s.sorted_ahead) {
                    (true, true) => "sorted",
                    (true, false) => "shared",
                    (false, _) => "global",
                },
                match s.accumulate {
                    Accumulate::Half2 => "half2",
                    Accumulate::F32 => "f32",
                },
                match s.cache {
                    WeightCache::Normal => "normal",
                    WeightCache::NoAllocate => "stream",
                },
                s.overlap,
                s.dequant
            ),
            Schedule::Mma(s) => write!(
                f,
                "mma tile={}x{}x{} warps={}x{} stages={} split={} pad={} raster={}{} dequant={}",
                s.block_m,
                s.block_n,
                s.block_k,
                s.warps_n,
                s.warps_k,
                s.stages,
                s.split,
                if s.padded { PAD } else { 0 },
                s.raster.name(),
                s.overlap,
                s.dequant
            ),
            Schedule::Wgmma(s) => write!(
                f,
                "wgmma tile={}x{}x{} groups={} stages={} split={} producer={} raster={}{}{} dequant={}",
                s.block_m,
                s.block_n,
                s.block_k,
                s.groups,
                s.stages,
                s.split,
                match s.producer {
                    Producer::Warp => "warp",
                    Producer::Group => "group",
                },
                s.raster.name(),
                match s.multicast {
                    1 => String::new(),
                    blocks => format!(" {MULTICAST}={blocks}"),
                },
                s.overlap,
                s.dequant
            ),
            Schedule::Dequant(s) => match s.gemm.own() {
                Some(own) => write!(f, "dequant slab={} gemm={own}", s.slab),
                None => {
                    let (name, term) = (LibraryGemm::NAME, s.gemm.dequant());
                    write!(f, "dequant slab={} gemm={name} dequant={term}", s.slab)
                }
            },
        }
    }
}

/// `key=value` words of a printed schedule, and the dequantization term after `dequant=`.
struct Fields<'a> {
    text: &'a str,
    words: BTreeMap<&'a str, &'a str>,
}

impl<'a> Fields<'a> {
    fn read(text: &'a str) -> Result<(&'a str, Fields<'a>), ScheduleError> {
        let fail = |why: &str| ScheduleError { why: why.into(), text: text.into() };
        let (head, dequant) =
            text.trim().split_once(" dequant=").ok_or_else(|| fail("no `dequant=`"))?;
        let mut parts = head.split_whitespace();
        let family = parts.next().ok_or_else(|| fail("no family"))?;
        let mut words = BTreeMap::from([("dequant", dequant)]);
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(|| fail(part))?;
            if words.insert(key, value).is_some() {
                return Err(fail(&format!("`{key}` twice")));
            }
        }
        Ok((family, Fields { text, words }))
    }

    fn fail<T>(&self, why: String) -> Result<T, ScheduleError> {
        Err(ScheduleError { why, text: self.text.into() })
    }

    fn word(&mut self, key: &str) -> Result<&'a str, ScheduleError> {
        match self.words.remove(key) {
            Some(word) => Ok(word),
            None => self.fail(format!("no `{key}=`")),
        }
    }

    /// `count` positive numbers separated by `x`, none absurdly large.
    fn numbers<const COUNT: usize>(&mut self, key: &str) -> Result<[u32; COUNT], ScheduleError> {
        let word = self.word(key)?;
        let parsed: Option<Vec<u32>> =
            word.split('x').map(|n| n.parse().ok().filter(|n| (1..=1 << 16).contains(n))).collect();
        match parsed.and_then(|numbers| numbers.try_into().ok()) {
            Some(numbers) => Ok(numbers),
            None => self.fail(format!("`{key}={word}` is not {COUNT} number(s) from 1 to 65536")),
        }
    }

    fn number(&mut self, key: &str) -> Result<u32, ScheduleError> {
        self.numbers::<1>(key).map(|[n]| n)
    }

    fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Result<T, ScheduleError> {
        let word = self.word(key)?;
        match choices.iter().find(|(name, _)| *name == word) {
            Some((_, value)) => Ok(*value),
            None => {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                self.fail(format!("`{key}={word}` is not one of {}", names.join(", ")))
            }
        }
    }

    fn split(&mut self) -> Result<Split, ScheduleError> {
        let word = self.word("split")?;
        match Split::parse(word) {
            Some(split) => Ok(split),
            None => {
                let why = "is none of N, N@cluster and stream:N with N from 1 to 65536";
                self.fail(format!("`split={word}` {why}"))
            }
        }
    }

    /// Whether activations are staged, and whether a step sorts them before.
    fn staging(&mut self) -> Result<(bool, bool), ScheduleError> {
        let ways =
            [("shared", (true, false)), ("sorted", (true, true)), ("global", (false, false))];
        self.choice("x", &ways)
    }

    /// Launch options: each is absent or on.
    fn overlap(&mut self) -> Result<Overlap, ScheduleError> {
        let mut found = [false; Overlap::WORDS.len()];
        for (on, key) in found.iter_mut().zip(Overlap::WORDS) {
            if self.words.contains_key(key) {
                *on = self.choice(key, &[(Overlap::ON, true)])?;
            }
        }
        Ok(Overlap::of_words(found))
    }

    fn finish(self) -> Result<(), ScheduleError> {
        match self.words.keys().next() {
            Some(key) => self.fail(format!("unknown `{key}=`")),
            None => Ok(()),
        }
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let (family, mut f) = Fields::read(text)?;
        let schedule = f.schedule(family)?;
        f.finish()?;
        Ok(schedule)
    }
}

impl Fields<'_> {
    /// The schedule of a family from its fields.
    fn schedule(&mut self, family: &str) -> Result<Schedule, ScheduleError> {
        let f = self;
        Ok(match family {
            "gemv" => {
                let [warps_n, warps_k] = f.numbers("warps")?;
                let (stage_x, sorted_ahead) = f.staging()?;
                Schedule::Gemv(GemvSchedule {
                    tokens: f.number("tokens")?,
                    rows: f.number("rows")?,
                    lanes: f.number("lanes")?,
                    warps_n,
                    warps_k,
                    unroll: f.number("unroll")?,
                    split: f.split()?,
                    stage_x,
                    sorted_ahead,
                    accumulate: f
                        .choice("acc", &[("half2", Accumulate::Half2), ("f32", Accumulate::F32)])?,
                    cache: f.choice(
                        "cache",
                        &[("normal", WeightCache::Normal), ("stream", WeightCache::NoAllocate)],
                    )?,
                    overlap: f.overlap()?,
                    dequant: f.word("dequant")?.into(),
                })
            }
            "mma" => {
                let [block_m, block_n, block_k] = f.numbers("tile")?;
                let [warps_n, warps_k] = f.numbers("warps")?;
                Schedule::Mma(MmaSchedule {
                    block_m,
                    block_n,
                    block_k,
                    warps_n,
                    warps_k,
                    stages: f.number("stages")?,
                    split: f.split()?,
                    padded: f.choice("pad", &[("16", true), ("0", false)])?,
                    raster: f.choice("raster", &Raster::NAMES)?,
                    overlap: f.overlap()?,
                    dequant: f.word("dequant")?.into(),
                })
            }
            "wgmma" => {
                let [block_m, block_n, block_k] = f.numbers("tile")?;
                Schedule::Wgmma(WgmmaSchedule {
                    block_m,
                    block_n,
                    block_k,
                    groups: f.number("groups")?,
                    stages: f.number("stages")?,
                    split: f.split()?,
                    producer: f.choice(
                        "producer",
                        &[("warp", Producer::Warp), ("group", Producer::Group)],
                    )?,
                    raster: f.choice("raster", &Raster::NAMES)?,
                    multicast: match f.words.contains_key(MULTICAST) {
                        true => f.number(MULTICAST)?,
                        false => 1,
                    },
                    overlap: f.overlap()?,
                    dequant: f.word("dequant")?.into(),
                })
            }
            "dequant" => {
                let slab = f.number("slab")?;
                let gemm = match f.word("gemm")? {
                    name @ ("mma" | "wgmma") => DenseGemm::of(f.schedule(name)?),
                    LibraryGemm::NAME => {
                        let dequant = f.word("dequant")?.into();
                        Some(DenseGemm::Library(LibraryGemm { dequant }))
                    }
                    other => {
                        let known = "is not one of mma, wgmma, library";
                        return f.fail(format!("`gemm={other}` {known}"));
                    }
                };
                match gemm {
                    Some(gemm) => Schedule::Dequant(DequantSchedule { slab, gemm }),
                    None => return f.fail("a multiplication that is none of a slab".into()),
                }
            }
            other => return f.fail(format!("unknown family `{other}`")),
        })
    }
}
