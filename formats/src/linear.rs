//! A quantized linear layer: logical codes and group parameters, free of any file's packing.

use crate::codes::Codes;
use crate::small_scales::SmallScales;
use crate::vectors::Vectors;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use qtune_ir::dequant::CodeTable;
use qtune_ir::{NestedMap, WeightSpec};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// The values of one group parameter, logical `[N, K/G]`, or `[N/G, K]` where rows share them, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum ParamValues {
    /// 16-bit floats.
    F16(Vec<f16>),
    /// 32-bit floats.
    F32(Vec<f32>),
    /// Unsigned integers, one per byte.
    Code(Vec<u8>),
    /// 8-bit floats that a number of the layer multiplies.
    Small(SmallScales),
    /// Numbers of values in the layer's map of scales.
    Nested(Vec<u8>, Arc<NestedMap>),
}

impl ParamValues {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            ParamValues::F16(values) => values.len(),
            ParamValues::F32(values) => values.len(),
            ParamValues::Code(values) | ParamValues::Nested(values, _) => values.len(),
            ParamValues::Small(scales) => scales.codes().len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Value `index`, exactly.
    pub fn get(&self, index: usize) -> f64 {
        match self {
            ParamValues::F16(values) => values[index].to_f64(),
            ParamValues::F32(values) => values[index].into(),
            ParamValues::Code(values) | ParamValues::Nested(values, _) => values[index].into(),
            ParamValues::Small(scales) => scales.get(index).into(),
        }
    }

    /// The values of a range as they are packed: exactly, but before a number of the layer multiplies them.
    pub fn packed(&self, range: Range<usize>) -> Vec<f32> {
        match self {
            ParamValues::F16(values) => {
                let mut converted = vec![0.0; range.len()];
                values[range].convert_to_f32_slice(&mut converted);
                converted
            }
            ParamValues::F32(values) => values[range].to_vec(),
            ParamValues::Code(values) | ParamValues::Nested(values, _) => {
                values[range].iter().map(|code| (*code).into()).collect()
            }
            ParamValues::Small(scales) => scales.small(range),
        }
    }
}

/// One group parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamArray {
    /// The symbol in the dequantization expression: `s`, `z`, `t`.
    pub name: String,
    /// Its values.
    pub values: ParamValues,
}

/// How a format's own library rounds a dequantized weight: from the exact value of the expression,
/// in one step or in two, or operation by operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To f16.
    F16,
    /// To f32.
    F32,
    /// To f32, and the result to f16.
    F32ThenF16,
    /// To f32, and the result to bf16.
    F32ThenBf16,
    /// The result of every operation of the expression to f32.
    F32Steps,
    /// The result of every operation of the expression as [`Rounding::F32ThenF16`].
    F16Steps,
    /// The result of every operation of the expression as [`Rounding::F32ThenBf16`].
    Bf16Steps,
}

impl Rounding {
    /// `exact` rounded, each step to nearest even.
    pub fn round(self, exact: f64) -> f32 {
        match self {
            Rounding::F32 | Rounding::F32Steps => exact as f32,
            Rounding::F16 => f16::from_f32(round_to_odd(exact)).to_f32(),
            Rounding::F32ThenF16 | Rounding::F16Steps => f16::from_f32(exact as f32).to_f32(),
            Rounding::F32ThenBf16 | Rounding::Bf16Steps => bf16::from_f32(exact as f32).to_f32(),
        }
    }
}

/// `exact` as f32, inexact results with an odd last bit. f32 has more than two bits beyond f16, so
/// rounding such a value to f16 gives what rounding `exact` itself would: the odd bit keeps it off
/// the ties (Boldo and Melquiond, "When double rounding is odd", 2004). Needed because a plain
/// conversion in two steps rounds twice.
fn round_to_odd(exact: f64) -> f32 {
    let nearest = exact as f32;
    if f64::from(nearest) == exact || !nearest.is_finite() {
        return nearest;
    }
    let away = f64::from(nearest).abs() > exact.abs();
    let toward_zero = nearest.to_bits() - u32::from(away);
    f32::from_bits(toward_zero | 1)
}

/// One quantized linear layer.
#[derive(Clone, Debug)]
pub struct QuantizedLinear {
    /// What a weight means: bits, groups, parameters, expression.
    pub spec: WeightSpec,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Codes `[N, K]`, the rows in the order of [`qtune_ir::Group::feature`].
    pub codes: Codes,
    /// Group parameters `[N, K/G]`, or `[N/G, K]` where rows share them, in the order of `spec.params`.
    pub params: Vec<ParamArray>,
    /// Bias `[N]`, added to the output; f32 holds the values of every type it is stored in.
    pub bias: Option<Vec<f32>>,
    /// How the format's own library rounds a weight.
    pub rounding: Rounding,
    /// The input feature of each column of `codes`, where they are not in order (`act-order`): the
    /// columns are sorted by quant group, so that groups are runs. Activations must be gathered in
    /// this order before they meet the codes.
    pub k_order: Option<Vec<u32>>,
    /// The scale of the layer's activations, where the checkpoint brings one that is in use: see
    /// [`QuantizedLinear::activation_scale`].
    pub input_scale: Option<f32>,
}

impl QuantizedLinear {
    /// Input features per quant group.
    pub fn group_size(&self) -> usize {
        match self.spec.group {
            qtune_ir::Group::Size(size) => (size as usize).min(self.k),
            qtune_ir::Group::Channel => self.k,
            qtune_ir::Group::Rows(_) => 1,
        }
    }

    /// Quant groups per row of parameters.
    pub fn groups(&self) -> usize {
        self.k.div_ceil(self.group_size())
    }

    /// The scale that codes of all activations have, of formats whose layers bring it.
    pub fn activation_scale(&self) -> Option<f32> {
        self.input_scale.filter(|_| self.spec.activations.are_static())
    }

    /// The numbers that kernels get beside codes and parameters, little-endian: codebooks of vectors, or factors
    /// of all weights, of even output features and of odd ones, or the map of nested scales, or the scale of the
    /// activations. Empty for most layers.
    pub fn table(&self) -> Vec<u8> {
        if let Some(scale) = self.activation_scale() {
            return scale.to_le_bytes().into();
        }
        if let Some(vectors) = self.codes.vectors() {
            return vectors.bytes();
        }
        let numbers = self.params.iter().find_map(|param| match &param.values {
            ParamValues::Small(scales) => {
                Some(scales.factors().into_iter().flat_map(f32::to_le_bytes).collect())
            }
            ParamValues::Nested(_, map) => Some(map.bytes()),
            _ => None,
        });
        numbers.unwrap_or_default()
    }

    /// The values of the parameter called `name` in the expression.
    pub fn param(&self, name: &str) -> Option<&ParamValues> {
        self.params.iter().find(|param| param.name == name).map(|param| &param.values)
    }

    /// How codes of the scales are turned into scales, where they have codes.
    pub fn nested_map(&self) -> Option<&NestedMap> {
        self.params.iter().find_map(|param| match &param.values {
            ParamValues::Nested(_, map) => Some(&**map),
            _ => None,
        })
    }

    /// The weights `[N, K]`, row-major, columns in the order of the input features, as the format's own library computes them, bit for bit.
    ///
    /// # Panics
    ///
    /// If `spec.expr` is not an expression of `q` and the parameters, which no reader produces.
    pub fn dequantize(&self) -> Vec<f32> {
        if let Some(vectors) = self.codes.vectors() {
            return self.dequantize_vectors(vectors);
        }
        let mut weights = vec![0.0; self.n * self.k];
        let table = CodeTable::new(&self.spec).expect("an expression of the registry");
        let at_once = self.codes.rows_at_once();
        weights.par_chunks_mut((at_once * self.k).max(1)).enumerate().for_each_init(
            Vec::new,
            |scratch, (block, weights)| {
                let first = block * at_once;
                let block = self.codes.block(first..(first + at_once).min(self.n), scratch);
                let (mut codes, mut sorted) = (vec![0; self.k], vec![0.0; self.k]);
                for (n, row) in (first..).zip(weights.chunks_mut(self.k)) {
                    block.unpack_row(n, &mut codes);
                    let Some(order) = &self.k_order else {
                        self.dequantize_row(&table, n, &codes, row);
                        continue;
                    };
                    self.dequantize_row(&table, n, &codes, &mut sorted);
                    for (k, weight) in order.iter().zip(&sorted) {
                        row[*k as usize] = *weight;
                    }
                }
            },
        );
        match self.spec.group {
            qtune_ir::Group::Rows(_) => self.by_feature(&weights),
            _ => weights,
        }
    }

    /// The rows of codes put into the order of the output features.
    fn by_feature(&self, rows: &[f32]) -> Vec<f32> {
        let mut weights = vec![0.0; rows.len()];
        for (row, values) in (0..).zip(rows.chunks(self.k.max(1))) {
            let feature = self.spec.group.feature(row, self.n as u32) as usize;
            weights[feature * self.k..][..self.k].copy_from_slice(values);
        }
        weights
    }

    /// As [`QuantizedLinear::dequantize`], of codes that name vectors: the numbers of a row are its codebook.
    fn dequantize_vectors(&self, vectors: &Vectors) -> Vec<f32> {
        let row = |n: usize| {
            let (mut shares, mut scratch) = (vec![0; self.k], Vec::new());
            self.codes.block(n..n + 1, &mut scratch).unpack_row(n, &mut shares);
            let codebook = self.spec.codebook.with_values(&vectors.row(&shares));
            let spec = WeightSpec { codebook, ..self.spec.clone() };
            let table = CodeTable::new(&spec).expect("an expression of the registry");
            let params: Vec<f64> = self.params.iter().map(|param| param.values.get(n)).collect();
            let mut exact = vec![0.0; self.k];
            table.fill(&params, &mut exact);
            exact.into_iter().map(|weight| self.rounding.round(weight))
        };
        let weights: Vec<f32> = (0..self.n).into_par_iter().flat_map_iter(row).collect();
        match vectors.rotation() {
            Some(rotation) => rotation.undo(&weights),
            None => weights,
        }
    }

    /// One row. A group has few codes and many weights, so each code's value is computed once.
    fn dequantize_row(&self, table: &CodeTable, n: usize, codes: &[u8], row: &mut [f32]) {
        let mut params = vec![0.0; self.params.len()];
        let mut exact = vec![0.0; 1 << self.codes.bits()];
        let mut value_of = vec![0.0; exact.len()];
        let param_row = n / self.spec.group.rows() as usize;
        let groups = codes.chunks(self.group_size()).zip(row.chunks_mut(self.group_size()));
        for (group, (codes, weights)) in groups.enumerate() {
            for (value, param) in params.iter_mut().zip(&self.params) {
                *value = param.values.get(param_row * self.groups() + group);
            }
            match self.rounding {
                Rounding::F32Steps | Rounding::F16Steps | Rounding::Bf16Steps => {
                    let step = |value| self.rounding.round(value).into();
                    table.fill_by_steps(&params, &mut exact, step);
                }
                _ => table.fill(&params, &mut exact),
            }
            for (value, exact) in value_of.iter_mut().zip(&exact) {
                *value = self.rounding.round(*exact);
            }
            for (weight, code) in weights.iter_mut().zip(codes) {
                *weight = value_of[usize::from(*code)];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use qtune_ir::{Group, Param, ParamType};

    #[test]
    fn rounding_to_f16_happens_once() {
        // Just above the tie between 1 and the next f16: two steps would land on the tie first.
        let above_tie = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
        assert_eq!(Rounding::F16.round(above_tie), 1.0 + 2f32.powi(-10));
        assert_eq!(Rounding::F16.round(-above_tie), -1.0 - 2f32.powi(-10));
        let below_tie = 1.0 + 3.0 * 2f64.powi(-11) - 2f64.powi(-40);
        assert_eq!(Rounding::F16.round(below_tie), 1.0 + 2f32.powi(-10));
        assert_eq!(Rounding::F16.round(1e9), f32::INFINITY);
    }

    #[test]
    fn a_short_last_group_has_its_own_parameters() {
        let spec = WeightSpec {
            name: "test".into(),
            bits: 4,
            group: Group::Size(2),
            params: vec![Param { name: "s".into(), dtype: ParamType::F32 }],
            expr: "(* q s)".into(),
            codebook: Default::default(),
            act_order: false,
            activations: Default::default(),
        };
        let mut codes = Codes::zeros(1, 3, 4);
        codes.bytes_mut().copy_from_slice(&[0x21, 0x03]);
        let values = ParamValues::F32(vec![10.0, 100.0]);
        let params = vec![ParamArray { name: "s".into(), values }];
        let rounding = Rounding::F32;
        let (bias, k_order, input_scale) = (None, None, None);
        let mut layer = QuantizedLinear {
            spec,
            n: 1,
            k: 3,
            codes,
            params,
            bias,
            rounding,
            k_order,
            input_scale,
        };
        assert_eq!(layer.dequantize(), [10.0, 20.0, 300.0]);
        layer.k_order = Some(vec![2, 0, 1]);
        assert_eq!(layer.dequantize(), [20.0, 300.0, 10.0], "in the order of the features");
    }

    proptest! {
        /// Values of f16 sums and products are multiples of 2^-24, so nearest is decided exactly.
        #[test]
        fn the_rounded_value_is_a_nearest_f16(value in -(1i64 << 40)..(1i64 << 40)) {
            let exact = value as f64 / (1u64 << 24) as f64;
            let rounded = f64::from(Rounding::F16.round(exact));
            let bits = f16::from_f64(rounded).to_bits();
            for neighbour in [bits.wrapping_sub(1), bits + 1] {
                let neighbour = f16::from_bits(neighbour);
                if neighbour.is_finite() && rounded.is_finite() {
                    let (near, far) = ((rounded - exact).abs(), (neighbour.to_f64() - exact).abs());
                    prop_assert!(near < far || (near == far && bits % 2 == 0));
                }
            }
        }
    }
}
