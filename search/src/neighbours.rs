//! The neighbours of a schedule that rungs 2 to 5 of the ladder try: pure functions over its fields.
//!
//! They may be illegal or have a term that does not fit: the ladder checks. Tiles stay powers of two
//! times their unit, so that every neighbour is a nest that the tiling rules derive.

use qtune_ir::{
    Accumulate, DenseGemm, DequantSchedule, GemvSchedule, LibraryGemm, MmaSchedule, Overlap,
    Producer, Raster, Schedule, Split, WeightCache, WgmmaSchedule,
};

/// Rungs of the ladder above the sketches.
pub(crate) const RUNGS: [u8; 4] = [2, 3, 4, 5];

/// What a launch has: tokens of the bucket, rows of the matrix, and SMs of the GPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub tokens: u32,
    pub rows: u32,
    pub sms: u32,
}

impl Extent {
    /// Blocks per output tile with which the grid fills the GPU once, and twice, as nearly as whole
    /// splits do.
    fn filling(self, (rows, tokens): (u32, u32)) -> impl Iterator<Item = u32> {
        let tiles = self.rows.div_ceil(rows) * self.tokens.div_ceil(tokens);
        [1, 2].into_iter().map(move |waves| waves * self.sms / tiles).filter(|split| *split > 1)
    }
}

/// The neighbours that rung `rung` tries. Rung 4 also tries every dequantization term of each, the
/// schedule itself included.
pub(crate) fn neighbours(schedule: &Schedule, rung: u8, extent: Extent) -> Vec<Schedule> {
    let mut all = fields(schedule, rung, extent);
    if rung == 5 {
        all.extend(dependent(schedule));
    }
    all
}

/// With programmatic dependent launch, or without where it had it. What L2 is asked for ahead is
/// the caller's to know: no timing of a kernel by itself can tell.
fn dependent(schedule: &Schedule) -> Option<Schedule> {
    let overlap = schedule.overlap();
    let turned = schedule.with_overlap(Overlap { pdl: !overlap.pdl, ..overlap });
    (turned != *schedule).then_some(turned)
}

/// The neighbours in the fields of a family.
fn fields(schedule: &Schedule, rung: u8, extent: Extent) -> Vec<Schedule> {
    let tokens = extent.tokens;
    match schedule {
        Schedule::Gemv(s) => {
            let found = match rung {
                2 => gemv_shape(s),
                3 => gemv_memory(s),
                4 => gemv_arithmetic(s),
                _ => gemv_depth(s, extent),
            };
            found.into_iter().map(Schedule::Gemv).collect()
        }
        Schedule::Mma(s) => {
            let found = match rung {
                2 => mma_shape(s),
                3 => mma_memory(s, tokens),
                4 => Vec::new(),
                _ => mma_depth(s, extent),
            };
            found.into_iter().map(Schedule::Mma).collect()
        }
        Schedule::Wgmma(s) => {
            let found = match rung {
                2 => wgmma_shape(s),
                3 => wgmma_memory(s, tokens),
                4 => Vec::new(),
                _ => wgmma_depth(s, extent),
            };
            found.into_iter().map(Schedule::Wgmma).collect()
        }
        Schedule::Dequant(s) => dequantized(s, rung, extent),
    }
}

/// The neighbours of the multiplication, at the shape rung the library's in its place, and at the depth rung
/// those of the slab: twice and half the rows, and all rows at once.
fn dequantized(s: &DequantSchedule, rung: u8, extent: Extent) -> Vec<Schedule> {
    let own = s.gemm.own();
    let gemms = own.iter().flat_map(|own| fields(own, rung, extent)).filter_map(DenseGemm::of);
    let library = LibraryGemm { dequant: s.gemm.dequant().into() };
    let library = own.as_ref().filter(|_| rung == 2).map(|_| DenseGemm::Library(library));
    let gemms = gemms.chain(library).map(|gemm| DequantSchedule { gemm, ..s.clone() });
    let slabs = scaled(s.slab).map(|slab| DequantSchedule { slab, ..s.clone() });
    let slabs = slabs.filter(|_| rung == 5);
    gemms.chain(slabs).map(Schedule::Dequant).collect()
}

/// The double and, where it is whole, the half.
fn scaled(value: u32) -> impl Iterator<Item = u32> {
    [Some(2 * value), (value % 2 == 0).then_some(value / 2)].into_iter().flatten()
}

/// One more and, where it stays positive, one less.
fn stepped(value: u32) -> impl Iterator<Item = u32> {
    [Some(value + 1), (value > 1).then(|| value - 1)].into_iter().flatten()
}

fn gemv_shape(s: &GemvSchedule) -> Vec<GemvSchedule> {
    let warps_n = scaled(s.warps_n).map(|warps_n| GemvSchedule { warps_n, ..s.clone() });
    let warps_k = scaled(s.warps_k).map(|warps_k| GemvSchedule { warps_k, ..s.clone() });
    let rows = scaled(s.rows).map(|rows| GemvSchedule { rows, ..s.clone() });
    let lanes = scaled(s.lanes).map(|lanes| GemvSchedule { lanes, ..s.clone() });
    let turned = GemvSchedule { warps_n: s.warps_k, warps_k: s.warps_n, ..s.clone() };
    warps_n.chain(warps_k).chain(rows).chain(lanes).chain([turned]).collect()
}

fn gemv_memory(s: &GemvSchedule) -> Vec<GemvSchedule> {
    let cache = match s.cache {
        WeightCache::Normal => WeightCache::NoAllocate,
        WeightCache::NoAllocate => WeightCache::Normal,
    };
    let staged = GemvSchedule { stage_x: !s.stage_x, sorted_ahead: false, ..s.clone() };
    let sorted = GemvSchedule { sorted_ahead: !s.sorted_ahead, ..s.clone() };
    let sorted = s.stage_x.then_some(sorted);
    [GemvSchedule { cache, ..s.clone() }, staged].into_iter().chain(sorted).collect()
}

fn gemv_arithmetic(s: &GemvSchedule) -> Vec<GemvSchedule> {
    let accumulate = match s.accumulate {
        Accumulate::Half2 => Accumulate::F32,
        Accumulate::F32 => Accumulate::Half2,
    };
    vec![GemvSchedule { accumulate, ..s.clone() }]
}

fn gemv_depth(s: &GemvSchedule, extent: Extent) -> Vec<GemvSchedule> {
    let unroll = scaled(s.unroll).map(|unroll| GemvSchedule { unroll, ..s.clone() });
    let split = splits(s.split, extent.filling((s.block_n(), s.tokens)));
    unroll.chain(split.into_iter().map(|split| GemvSchedule { split, ..s.clone() })).collect()
}

fn mma_shape(s: &MmaSchedule) -> Vec<MmaSchedule> {
    let warps_n = scaled(s.warps_n).map(|warps_n| MmaSchedule { warps_n, ..s.clone() });
    let warps_k = scaled(s.warps_k).map(|warps_k| MmaSchedule { warps_k, ..s.clone() });
    let block_n = scaled(s.block_n).map(|block_n| MmaSchedule { block_n, ..s.clone() });
    let block_k = scaled(s.block_k).map(|block_k| MmaSchedule { block_k, ..s.clone() });
    let turned = MmaSchedule { warps_n: s.warps_k, warps_k: s.warps_n, ..s.clone() };
    warps_n.chain(warps_k).chain(block_n).chain(block_k).chain([turned]).collect()
}

fn mma_memory(s: &MmaSchedule, tokens: u32) -> Vec<MmaSchedule> {
    let raster = turned(s.raster);
    let mut found = vec![MmaSchedule { padded: !s.padded, ..s.clone() }];
    // With a single token tile every order of blocks is the same.
    if tokens > s.block_m {
        found.push(MmaSchedule { raster, ..s.clone() });
    }
    found
}

fn mma_depth(s: &MmaSchedule, extent: Extent) -> Vec<MmaSchedule> {
    let stages = scaled(s.stages).chain(stepped(s.stages));
    let stages = stages.map(|stages| MmaSchedule { stages, ..s.clone() });
    let filling = extent.filling((s.block_n, s.block_m));
    let split = splits(s.split, filling).into_iter().chain([streamed(s.split, extent.sms)]);
    stages.chain(split.map(|split| MmaSchedule { split, ..s.clone() })).collect()
}

/// More and fewer blocks of a split of the same kind, as many as fill the GPU, and as many that meet
/// elsewhere. Clusters are powers of two: those fill the GPU's groups of SMs.
fn splits(split: Split, filling: impl Iterator<Item = u32>) -> Vec<Split> {
    let blocks = split.per_tile();
    if split.cluster().is_some() {
        return scaled(blocks).map(Split::Cluster).chain([Split::Blocks(blocks)]).collect();
    }
    let near = scaled(blocks).chain(stepped(blocks)).chain(filling).map(Split::Blocks);
    let paired = blocks > 1 && blocks.is_power_of_two();
    near.chain(paired.then_some(Split::Cluster(blocks))).collect()
}

/// Stream-K with a block per SM; one more per SM where it is stream-K already.
fn streamed(split: Split, sms: u32) -> Split {
    Split::Stream(split.stream().map_or(sms, |blocks| blocks + sms))
}

fn turned(raster: Raster) -> Raster {
    match raster {
        Raster::Rows => Raster::Tokens,
        Raster::Tokens => Raster::Rows,
    }
}

fn wgmma_shape(s: &WgmmaSchedule) -> Vec<WgmmaSchedule> {
    let groups = scaled(s.groups).chain(stepped(s.groups));
    let groups = groups.map(|groups| WgmmaSchedule { groups, ..s.clone() });
    let block_n = scaled(s.block_n).map(|block_n| WgmmaSchedule { block_n, ..s.clone() });
    let block_k = scaled(s.block_k).map(|block_k| WgmmaSchedule { block_k, ..s.clone() });
    groups.chain(block_n).chain(block_k).collect()
}

fn wgmma_memory(s: &WgmmaSchedule, tokens: u32) -> Vec<WgmmaSchedule> {
    let multicast = scaled(s.multicast).map(|multicast| WgmmaSchedule { multicast, ..s.clone() });
    // With a single token tile every order of blocks is the same.
    let several = tokens > s.block_m;
    let raster = several.then(|| WgmmaSchedule { raster: turned(s.raster), ..s.clone() });
    multicast.chain(raster).collect()
}

fn wgmma_depth(s: &WgmmaSchedule, extent: Extent) -> Vec<WgmmaSchedule> {
    let stages = scaled(s.stages).chain(stepped(s.stages));
    let stages = stages.map(|stages| WgmmaSchedule { stages, ..s.clone() });
    let filling = extent.filling((s.block_n, s.block_m));
    let split = splits(s.split, filling).into_iter().chain([streamed(s.split, extent.sms)]);
    let split = split.map(|split| WgmmaSchedule { split, ..s.clone() });
    let producer = match s.producer {
        Producer::Warp => Producer::Group,
        Producer::Group => Producer::Warp,
    };
    stages.chain(split).chain([WgmmaSchedule { producer, ..s.clone() }]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENT: Extent = Extent { tokens: 64, rows: 5120, sms: 132 };

    const SCHEDULES: [&str; 4] = [
        "gemv tokens=1 rows=2 lanes=16 warps=4x2 unroll=2 split=2 x=shared acc=half2 cache=stream \
         dequant=(sum x)",
        "mma tile=16x64x256 warps=1x4 stages=4 split=2 pad=16 raster=rows dequant=(sum x)",
        "mma tile=16x64x256 warps=1x4 stages=4 split=stream:264 pad=16 raster=rows \
         dequant=(sum x)",
        "wgmma tile=16x128x128 groups=2 stages=4 split=2 producer=warp raster=rows dequant=(sum x)",
    ];

    /// The words of a schedule that are not among those of another.
    fn changed(new: &Schedule, old: &str) -> Vec<String> {
        let old: Vec<&str> = old.split(' ').collect();
        let new = new.to_string();
        new.split(' ').filter(|word| !old.contains(word)).map(String::from).collect()
    }

    #[test]
    fn a_neighbour_differs_in_the_fields_of_its_rung_alone() {
        let of_rung = |rung| match rung {
            2 => ["rows", "lanes", "warps", "tile", "groups"].as_slice(),
            3 => ["cache", "x", "raster", "pad", "multicast"].as_slice(),
            4 => ["acc"].as_slice(),
            _ => ["unroll", "split", "stages", "producer", "pdl"].as_slice(),
        };
        for text in SCHEDULES {
            let schedule: Schedule = text.parse().unwrap();
            for rung in RUNGS {
                for neighbour in neighbours(&schedule, rung, EXTENT) {
                    let changed = changed(&neighbour, text);
                    let [field] = &changed[..] else { panic!("rung {rung}: {changed:?}") };
                    let name = field.split('=').next().unwrap();
                    assert!(of_rung(rung).contains(&name), "rung {rung} changed {field}");
                }
            }
        }
    }

    #[test]
    fn every_field_but_tokens_has_a_rung() {
        for (text, count) in SCHEDULES.iter().zip([9, 7, 7, 8]) {
            let schedule: Schedule = text.parse().unwrap();
            let all = RUNGS.into_iter().flat_map(|rung| neighbours(&schedule, rung, EXTENT));
            let words = all.flat_map(|neighbour| changed(&neighbour, text));
            let name = |word: String| word.split('=').next().unwrap_or_default().to_string();
            let names: std::collections::BTreeSet<String> = words.map(name).collect();
            assert_eq!(names.len(), count, "{text}: {names:?}");
        }
    }
}
