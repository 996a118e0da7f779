//! The weights under test: real ones from a checkpoint, or procedural ones that look like them.

use crate::random;
use crate::VerifyError;
use half::f16;
use qtune_formats::{ParamValues, QuantizedLinear, Rotation, SmallScales, Vectors};
use qtune_ir::dequant::{e4m3, e4m3_nearest};
use qtune_ir::{
    vector_code, vector_shares, DType, NestedMap, ParamType, Problem, WeightSpec, NESTED_GROUPS,
};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Where codes, group parameters and bias come from.
#[derive(Clone, Copy, Debug)]
pub enum WeightSource<'a> {
    /// Procedural: uniform codes, scales of 0.002 to 0.03, zero-points around the middle, vectors like
    /// a bell. Any
    /// part of a matrix of any size costs only that part.
    Synthetic {
        /// Decides every value.
        seed: u64,
    },
    /// A layer of a checkpoint.
    Real(&'a QuantizedLinear),
}

/// Range of synthetic scales, as 4-bit models of 7B to 70B parameters have them.
const SCALES: Range<f64> = 0.002..0.03;

/// The activation that becomes the largest code with the scale that a synthetic layer brings: bell-shaped ones of
/// variance 1 are past it now and then.
const SYNTHETIC_LARGEST: f32 = 3.0;

/// Tells synthetic codebooks from what else a seed decides.
const VECTORS: u64 = 0x0ec7;
/// Tells factors of synthetic rotations likewise.
const FACTORS: u64 = 0x0fac;
/// Tells the order of synthetic columns from what else a seed decides.
const ORDER: u64 = 0x0ac7;

/// A source together with the sizes it fills.
#[derive(Clone, Debug)]
pub(crate) struct Weights<'a> {
    source: WeightSource<'a>,
    spec: &'a WeightSpec,
    n: u32,
    k: u32,
    out: DType,
    bias: bool,
    /// What codes name that name vectors.
    vectors: Option<Arc<Vectors>>,
    /// Of a format whose layers have factors of all weights, those of even rows and of odd ones.
    factors: Option<[f32; 2]>,
    /// What codes of nested scales stand for.
    nested_map: Option<Arc<NestedMap>>,
    /// Of a format whose layers bring the scale of their activations.
    activation_scale: Option<f32>,
}

/// The logical weights of one row tile.
#[derive(Clone, Debug)]
pub(crate) struct RowTile {
    /// Index of the row tile in the packed buffers.
    pub index: u32,
    /// Output features that exist.
    pub rows: Range<u32>,
    /// Codes `[rows, K]`.
    codes: Vec<u8>,
    /// Parameters `[rows of parameters, groups, params]`.
    params: Vec<f32>,
    /// Rows that share a row of parameters.
    sharing: u32,
    k: usize,
    groups: usize,
    param_count: usize,
    factors: Option<[f32; 2]>,
}

impl<'a> Weights<'a> {
    /// # Errors
    /// [`VerifyError::Weights`] if a checkpoint's layer is not what the problem says.
    pub fn new(
        source: WeightSource<'a>,
        spec: &'a WeightSpec,
        problem: &Problem,
    ) -> Result<Weights<'a>, VerifyError> {
        if let WeightSource::Real(layer) = source {
            let sizes = layer.n == problem.n as usize && layer.k == problem.k as usize;
            let sizes = sizes && layer.k_order.is_some() == spec.act_order;
            let same = layer.spec.params == spec.params && layer.spec.group == spec.group;
            let same = same && (layer.input_scale.is_some() || !spec.activations.are_static());
            if !sizes || !same || layer.spec.codebook != spec.codebook {
                let reason = format!(
                    "the layer is {} {}x{}, the problem {} {}x{}",
                    layer.spec.name, layer.n, layer.k, spec.name, problem.n, problem.k
                );
                return Err(VerifyError::Weights { reason });
            }
        }
        let Problem { n, k, out, bias, .. } = *problem;
        let vectors = match source {
            WeightSource::Real(layer) => layer.codes.vectors().cloned(),
            WeightSource::Synthetic { seed } => spec.codebook.vectors().map(|codes| {
                let value = |at| f16::from_f32(random::bell(random::at(seed ^ VECTORS, at, 0)));
                let values: Vec<f16> = (0..codes.values() as u32).map(value).collect();
                let vectors = Vectors::new(codes, values);
                Arc::new(match codes.is_rotated() {
                    true => vectors.between(synthetic_rotation(seed, n, k)),
                    false => vectors,
                })
            }),
        };
        let factors = match source {
            _ if !spec.has_layer_factor() => None,
            WeightSource::Real(layer) => small_scales(layer).map(SmallScales::factors),
            WeightSource::Synthetic { .. } => Some(SYNTHETIC_FACTORS),
        };
        let nested_map = match source {
            WeightSource::Real(layer) => layer.nested_map().cloned(),
            WeightSource::Synthetic { .. } => spec.has_nested_scales().then(synthetic_map),
        };
        let nested_map = nested_map.map(Arc::new);
        let activation_scale = match source {
            _ if !spec.activations.are_static() => None,
            WeightSource::Real(layer) => layer.input_scale,
            WeightSource::Synthetic { .. } => Some(SYNTHETIC_LARGEST / spec.activations.top()),
        };
        Ok(Weights {
            source,
            spec,
            n,
            k,
            out,
            bias,
            vectors,
            factors,
            nested_map,
            activation_scale,
        })
    }

    /// The numbers that kernels get beside codes and parameters: see [`QuantizedLinear::table`].
    pub fn table(&self) -> Vec<u8> {
        if let Some(scale) = self.activation_scale {
            return scale.to_le_bytes().into();
        }
        match (&self.vectors, &self.nested_map, self.factors) {
            (Some(vectors), ..) => vectors.bytes(),
            (_, Some(map), _) => map.bytes(),
            (.., factors) => factors.into_iter().flatten().flat_map(f32::to_le_bytes).collect(),
        }
    }

    /// The scale of codes of activations, where the layer brings it.
    pub fn activation_scale(&self) -> Option<f32> {
        self.activation_scale
    }

    /// The codebooks that codes name vectors of, where they do.
    pub fn vectors(&self) -> Option<&Vectors> {
        self.vectors.as_deref()
    }

    /// The logical weights of row tile `index` of `tile_rows` rows.
    pub fn row_tile(&self, index: u32, tile_rows: u32) -> RowTile {
        let rows = (index * tile_rows).min(self.n)..((index + 1) * tile_rows).min(self.n);
        let groups = self.spec.group.count(self.k) as usize;
        let param_count = self.spec.params.len();
        let k = self.k as usize;
        let mut codes = vec![0; rows.len() * k];
        let sharing = self.spec.group.rows();
        let param_rows = rows.start / sharing..rows.end.div_ceil(sharing);
        let mut params = vec![0.0; param_rows.len() * groups * param_count];
        let per_row = (groups * param_count).max(1);
        self.fill_codes(rows.clone(), &mut codes);
        params.par_chunks_mut(per_row).zip(param_rows).for_each(|(row, n)| {
            for (at, value) in row.iter_mut().enumerate() {
                *value = self.param(n, (at / param_count) as u32, at % param_count);
            }
            row.chunks_mut(param_count).for_each(|params| self.resolve(params));
        });
        let factors = self.factors;
        RowTile { index, rows, codes, params, sharing, k, groups, param_count, factors }
    }

    /// Writes the codes of rows, one per byte.
    fn fill_codes(&self, rows: Range<u32>, codes: &mut [u8]) {
        let each = codes.par_chunks_mut(self.k as usize).zip(rows.clone());
        match self.source {
            WeightSource::Real(layer) => {
                let mut scratch = Vec::new();
                let block = rows.start as usize..rows.end as usize;
                let block = layer.codes.block(block, &mut scratch);
                each.for_each(|(row, n)| block.unpack_row(n as usize, row));
            }
            WeightSource::Synthetic { seed } => each.for_each(|(row, n)| self.draw(seed, n, row)),
        }
    }

    /// The codes of a row that no checkpoint has.
    fn draw(&self, seed: u64, n: u32, row: &mut [u8]) {
        let mask = ((1u32 << self.spec.bits) - 1) as u8;
        for (chunk, codes) in row.chunks_mut(8).enumerate() {
            let bytes = random::at(seed, n, chunk as u32).to_le_bytes();
            for (code, byte) in codes.iter_mut().zip(bytes) {
                *code = byte & mask;
                // The nearest code is a number.
                *code -= u8::from(!self.spec.is_number(*code));
            }
            if let Some(vectors) = &self.vectors {
                let shares = vector_shares(vector_code(codes) & vectors.codes().mask());
                codes.copy_from_slice(&shares[..codes.len()]);
            }
        }
    }

    /// The parameter of a quant group, of row `n` of parameters.
    fn param(&self, n: u32, group: u32, index: usize) -> f32 {
        match self.source {
            WeightSource::Real(layer) => {
                let at = n as usize * layer.groups() + group as usize;
                layer.params[index].values.get(at) as f32
            }
            WeightSource::Synthetic { seed } => {
                let dtype = self.spec.params[index].dtype;
                let (n, group) = match dtype {
                    // All that share it have the same.
                    ParamType::Shared(groups) => (n, group - group % u32::from(groups)),
                    ParamType::NestedScale => {
                        let groups = u64::from(self.spec.group.count(self.k));
                        let flat = u64::from(n) * groups + u64::from(group);
                        (0, (flat / u64::from(NESTED_GROUPS)) as u32)
                    }
                    _ => (n, group),
                };
                let bits = random::at(seed ^ (index as u64 + 1) << 32, n, group);
                match dtype {
                    ParamType::E4M3 => synthetic_small_scale(n, bits),
                    _ => synthetic_param(dtype, bits),
                }
            }
        }
    }

    /// Makes the scale of a group of what it is made of, where that was drawn.
    fn resolve(&self, params: &mut [f32]) {
        let (WeightSource::Synthetic { .. }, Some(map)) = (self.source, &self.nested_map) else {
            return;
        };
        let of = |dtype| self.spec.params.iter().position(|param| param.dtype == dtype);
        let [scale, code, shared] =
            [ParamType::Resolved, ParamType::NestedCode, ParamType::NestedScale].map(of);
        if let (Some(scale), Some(code), Some(shared)) = (scale, code, shared) {
            params[scale] = map.scale(params[code] as u8, params[shared]);
        }
    }

    /// The input feature of each column, of a format with act-order.
    pub fn features(&self) -> Option<Vec<u32>> {
        match self.source {
            _ if !self.spec.act_order => None,
            WeightSource::Real(layer) => layer.k_order.clone(),
            WeightSource::Synthetic { seed } => {
                Some(random::permutation(seed ^ ORDER, self.k, self.group() as u32))
            }
        }
    }

    /// Elements of k per quant group.
    pub fn group(&self) -> usize {
        self.spec.group.size(self.k) as usize
    }

    /// The bias of output feature `n`, as the output type holds it; 0 for a problem without one.
    pub fn bias(&self, n: u32) -> f32 {
        if !self.bias {
            return 0.0;
        }
        let value = match self.source {
            WeightSource::Real(layer) => {
                layer.bias.as_ref().map_or(0.0, |bias| f64::from(bias[n as usize]))
            }
            WeightSource::Synthetic { seed } => {
                f64::from(random::bell(random::at(seed ^ 0xb1a5, n, 0)))
            }
        };
        self.out.round(value) as f32
    }
}

/// Factors of synthetic layers, with which the greatest scales of 8 bits are the greatest of all.
const SYNTHETIC_FACTORS: [f32; 2] = [0.03 / 448.0, 0.02 / 448.0];

/// A scale that is a float of 8 bits times the factor of its row.
fn synthetic_small_scale(n: u32, bits: u64) -> f32 {
    let factor = SYNTHETIC_FACTORS[n as usize % 2];
    let scale = synthetic_param(ParamType::F32, bits) / factor;
    e4m3(e4m3_nearest(scale)) as f32 * factor
}

/// The scales of a layer whose number is apart.
fn small_scales(layer: &QuantizedLinear) -> Option<&SmallScales> {
    layer.params.iter().find_map(|param| match &param.values {
        ParamValues::Small(scales) => Some(scales),
        _ => None,
    })
}

/// Values of both signs, denser around zero, as the library's have them.
fn synthetic_map() -> NestedMap {
    let value = |code: usize| (code as f32 / 127.5 - 1.0).powi(3);
    NestedMap::new(std::array::from_fn(value), (SCALES.start + SCALES.end) as f32 / 2.0)
}

/// Random signs, and magnitudes that are not one, since a factor may be more than a sign.
fn synthetic_rotation(seed: u64, n: u32, k: u32) -> Rotation {
    let factors = |side: u32, count: u32| -> Vec<f16> {
        let factor = |feature| {
            let bits = random::at(seed ^ FACTORS, side, feature);
            let magnitude = 0.75 + 0.5 * random::unit(bits);
            f16::from_f64(if bits & 1 == 1 { -magnitude } else { magnitude })
        };
        (0..count).map(factor).collect()
    };
    Rotation { inputs: factors(0, k), outputs: factors(1, n) }
}

/// A parameter as models have them. Zero-points cluster around the middle of their range but reach
/// both ends, where off-by-one mistakes show.
fn synthetic_param(dtype: ParamType, bits: u64) -> f32 {
    let scale = SCALES.start + (SCALES.end - SCALES.start) * random::unit(bits);
    match dtype {
        ParamType::F16 | ParamType::Shared(_) => f16::from_f64(scale).to_f32(),
        ParamType::E8M0 => scale.log2().round().exp2() as f32,
        ParamType::F32 | ParamType::E4M3 | ParamType::Resolved => scale as f32,
        ParamType::NestedCode => (bits >> 56) as f32,
        // The greatest value of a map is one.
        ParamType::NestedScale => ((scale - SCALES.start) / 2.0) as f32,
        ParamType::Code(width) => {
            let top = ((1u32 << width) - 1) as f32;
            let middle = 2.0f32.powi(i32::from(width) - 1);
            (middle + random::bell(bits) * middle * 0.4).round().clamp(0.0, top)
        }
    }
}

impl RowTile {
    /// Rows whose parameters the tile has, the first of each that shares them.
    pub fn param_rows(&self) -> impl Iterator<Item = u32> {
        let first = self.rows.start / self.sharing * self.sharing;
        (first..self.rows.end).step_by(self.sharing as usize)
    }

    /// Which of [`Self::param_rows`] has the parameters of row `n`.
    pub fn param_row(&self, n: u32) -> usize {
        (n / self.sharing - self.rows.start / self.sharing) as usize
    }

    /// Quant groups per row.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// All codes of row `n`.
    pub fn row_codes(&self, n: u32) -> &[u8] {
        let at = (n - self.rows.start) as usize * self.k;
        &self.codes[at..at + self.k]
    }

    /// The parameters of a row's quant group, in the spec's order.
    pub fn row_params(&self, n: u32, group: u32) -> &[f32] {
        let entry = self.param_row(n) * self.groups + group as usize;
        &self.params[entry * self.param_count..][..self.param_count]
    }

    /// The values of each parameter, `[rows of parameters, groups]`, as they are packed: those of a layer with a factor without
    /// it, but for a rounding.
    pub fn param_columns(&self) -> Vec<Vec<f32>> {
        let column = |param| self.params.iter().skip(param).step_by(self.param_count).copied();
        let Some(factors) = self.factors else {
            return (0..self.param_count).map(|param| column(param).collect()).collect();
        };
        let row = |at: usize| self.rows.start as usize + at / self.groups;
        let packed = |(at, value): (usize, f32)| value / factors[row(at) % 2];
        (0..self.param_count).map(|param| column(param).enumerate().map(packed).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> (Problem, WeightSpec) {
        let problem = "w4a16.awq-g32.f16-f16.n40.k96.m1+bias".parse().unwrap();
        (problem, qtune_formats::resolve("awq-g32").unwrap())
    }

    #[test]
    fn synthetic_weights_do_not_depend_on_the_tiling() {
        let (problem, spec) = problem();
        let weights = Weights::new(WeightSource::Synthetic { seed: 3 }, &spec, &problem).unwrap();
        let (whole, part) = (weights.row_tile(0, 40), weights.row_tile(2, 16));
        assert_eq!(part.rows, 32..40);
        for n in part.rows.clone() {
            assert_eq!(whole.row_codes(n), part.row_codes(n));
            assert_eq!(whole.row_params(n, 2), part.row_params(n, 2));
        }
    }

    #[test]
    fn nested_scales_are_made_of_codes_and_what_consecutive_groups_share() {
        // Rows of 27 groups: the groups that share a float end anywhere in a row.
        let problem = "w4a16.nf4-b64-dq.f16-f16.n40.k1728.m1".parse().unwrap();
        let spec = qtune_formats::resolve("nf4-b64-dq").unwrap();
        let weights = Weights::new(WeightSource::Synthetic { seed: 3 }, &spec, &problem).unwrap();
        let (tile, map) = (weights.row_tile(0, 40), weights.nested_map.as_deref().unwrap());
        let params = |flat: u32| tile.row_params(flat / 27, flat % 27);
        assert!((0..40 * 27).all(|flat| {
            let &[scale, code, shared] = params(flat) else { return false };
            let alike = shared == params(flat / 256 * 256)[2];
            let within = scale > 0.0 && f64::from(scale) < SCALES.end;
            alike && within && scale == map.scale(code as u8, shared)
        }));
        assert_ne!(params(255)[2], params(256)[2]);
    }

    #[test]
    fn synthetic_parameters_look_like_a_models() {
        let (problem, spec) = problem();
        let weights = Weights::new(WeightSource::Synthetic { seed: 3 }, &spec, &problem).unwrap();
        let tile = weights.row_tile(0, 40);
        let zeros: std::collections::BTreeSet<u32> =
            (0..40).map(|n| tile.row_params(n, 0)[1] as u32).collect();
        assert!(zeros.len() > 5 && zeros.iter().all(|z| *z < 16), "{zeros:?}");
        assert!((0..40).all(|n| SCALES.contains(&f64::from(tile.row_params(n, 1)[0]))));
        let codes: std::collections::BTreeSet<u8> = tile.row_codes(0).iter().copied().collect();
        assert_eq!(codes.len(), 16);
    }
}
