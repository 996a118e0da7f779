//! Unpacking codes and parameters into logical order.

use super::layout::{packing, Groups, Parts};
use crate::codes::Codes;
use crate::error::FormatError;
use crate::linear::{ParamArray, ParamValues, QuantizedLinear, Rounding};
use crate::nibbles::pack;
use crate::registry::{FormatRow, LayerHeader};
use crate::safetensors::ElementType;
use crate::tensors::{word, Module, TensorRef, VALUE_REMEDY};
use half::f16;
use qtune_ir::Group;
use rayon::prelude::*;

/// See [`FormatRow::load`].
pub(super) fn load(
    module: &Module<'_>,
    header: &LayerHeader,
    row: &FormatRow,
) -> Result<QuantizedLinear, FormatError> {
    let parts = Parts::of(module)?;
    let spec = row.spec(&header.name)?;
    let values = [parts.scale, parts.zero].map(|tensor| values(&tensor, &parts, header));
    let named = spec.params.iter().zip(values);
    let param = |(p, values): (&qtune_ir::Param, Result<ParamValues, FormatError>)| {
        Ok(ParamArray { name: p.name.clone(), values: values? })
    };
    Ok(QuantizedLinear {
        params: named.map(param).collect::<Result<_, FormatError>>()?,
        codes: codes(&parts, header.group),
        spec,
        n: parts.n,
        k: parts.k,
        bias: parts.bias.map(|bias| bias.bias(parts.n)).transpose()?,
        rounding: match parts.scale.stored == ElementType::Bf16 {
            true => Rounding::Bf16Steps,
            false => Rounding::F16Steps,
        },
        k_order: None,
        input_scale: None,
    })
}

/// Codes `[N, K]`, rows that share parameters one behind the other.
fn codes(parts: &Parts<'_>, group: Group) -> Codes {
    let Parts { n: count, k, bits, groups, .. } = *parts;
    let packed = parts.codes.keep();
    Codes::stored([count, k], bits, move |first, rows, stride| {
        let mut natural = vec![0; k];
        for (n, row) in (first..).zip(rows.chunks_mut(stride)) {
            // Rows of a layer fit 32 bits.
            let feature = group.feature(n as u32, count as u32) as usize;
            unpack_run(&packed, groups, bits, feature * k, &mut natural);
            pack(&natural, bits, row);
        }
    })
}

/// The codes of a run of the flattened matrix from `first` on. Its rows are stored part after part, the
/// first one in the highest bits.
fn unpack_run(packed: &[u8], groups: Groups, bits: u8, first: usize, codes: &mut [u8]) {
    let (rows, columns) = (groups.rows, groups.columns);
    // The width has been checked to have a packing.
    let (count, bytes) = packing(bits).unwrap_or((1, 1));
    let (of_part, mask) = (rows.div_ceil(count), u8::MAX >> (8 - bits));
    let mut done = 0;
    while done < codes.len() {
        let (row, column) = ((first + done) / columns, (first + done) % columns);
        let run = (columns - column).min(codes.len() - done);
        let shift = usize::from(bits) * (count - 1 - row / of_part);
        let element = row % of_part * columns + column;
        let codes = &mut codes[done..done + run];
        if bytes == 1 {
            for (code, byte) in codes.iter_mut().zip(&packed[element..]) {
                *code = byte >> shift & mask;
            }
        } else {
            for (at, code) in codes.iter_mut().enumerate() {
                *code = (word(packed, element + at) >> shift) as u8 & mask;
            }
        }
        done += run;
    }
}

/// Values `[N, groups]` of a tensor of scales or zero-points, or `[N/G, K]` where rows share them: output feature n
/// is in row n of these then, as far as there are so many.
fn values(
    tensor: &TensorRef<'_>,
    parts: &Parts<'_>,
    header: &LayerHeader,
) -> Result<ParamValues, FormatError> {
    let stored = tensor.floats();
    if let Some(at) = stored.iter().position(|value| !value.is_finite()) {
        let problem = format!("holds {} for group {at}", stored[at]);
        return Err(tensor.error(problem, VALUE_REMEDY));
    }
    let (groups, run) = (header.groups(), parts.k / header.groups());
    let value = |at: usize| stored[parts.groups.of(at / groups * parts.k + at % groups * run)];
    let count = parts.n / header.group.rows() as usize * groups;
    let all = (0..count).into_par_iter().map(value);
    Ok(match tensor.stored == ElementType::F16 {
        true => ParamValues::F16(all.map(f16::from_f32).collect()),
        false => ParamValues::F32(all.collect()),
    })
}
