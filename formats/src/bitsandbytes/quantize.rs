//! Quantizing weights as the library does when it loads an ordinary checkpoint.
//!
//! Per block: `absmax`, then `x * (1 / absmax)` in f32, then the nearest value of the codebook, the
//! decision being at midpoints and a tie going to the lower value.

use super::decode::row_values;
use super::layout::row_block;
use super::Kind;
use crate::codes::Codes;
use crate::error::FormatError;
use crate::linear::{ParamArray, ParamValues, QuantizedLinear, Rounding};
use crate::name::{FormatName, Grouping, Modifier};
use crate::nibbles::pack;
use crate::plain::PlainWeight;
use crate::registry::FormatRow;
use crate::safetensors::ElementType;
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// See [`crate::FormatRow::quantize`].
pub(super) fn quantize(
    kind: &Kind,
    row: &FormatRow,
    weight: &PlainWeight<'_>,
    name: &FormatName,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<QuantizedLinear, FormatError> {
    let block = block(kind, weight, name)?;
    let (n, k) = (weight.n, weight.k);
    let mut codes = Codes::zeros(n, k, 4);
    let (codes_of, mut absmax) = (Nearest::new(kind.codebook), vec![0.0; (n * k).div_ceil(block)]);
    // The fewest rows that are made of whole blocks, so that tasks share none.
    let rows = block / row_block(k, block) as usize;
    let (stride, done) = (codes.row_stride(), AtomicUsize::new(0));
    let tasks = codes.bytes_mut().par_chunks_mut(rows * stride);
    let tasks = tasks.zip(absmax.par_chunks_mut(rows * k / block)).enumerate();
    tasks.try_for_each(|(task, (packed, absmax))| {
        let held = packed.len() / stride;
        let values = weight.values(task * rows * k, held * k)?;
        let found: Vec<u8> = values
            .chunks(block)
            .zip(absmax)
            .flat_map(|(block, absmax)| codes_of.block(block, absmax))
            .collect();
        for (codes, row) in found.chunks(k).zip(packed.chunks_mut(stride)) {
            pack(codes, 4, row);
        }
        progress(done.fetch_add(held, Ordering::Relaxed) + held, n);
        Ok::<(), FormatError>(())
    })?;
    let run = Grouping::Block(row_block(k, block));
    let spec = row.spec(&FormatName { grouping: Some(run), ..name.clone() })?;
    let values = ParamValues::F32(row_values(&absmax, n, k, block));
    let params = vec![ParamArray { name: "s".into(), values }];
    let rounding = match weight.element() {
        ElementType::F16 => Rounding::F32ThenF16,
        ElementType::Bf16 => Rounding::F32ThenBf16,
        _ => Rounding::F32,
    };
    Ok(QuantizedLinear {
        spec,
        n,
        k,
        codes,
        params,
        bias: weight.bias()?,
        rounding,
        k_order: None,
        input_scale: None,
    })
}

/// The block size that a name asks for.
fn block(kind: &Kind, weight: &PlainWeight<'_>, name: &FormatName) -> Result<usize, FormatError> {
    let refuse = |problem: String| {
        weight.error(problem, format!("name a format such as {}-b64", kind.family))
    };
    if name.modifiers.contains(&Modifier::DoubleQuant) {
        let problem = "would need double quantization, which is only read, not made";
        return Err(refuse(problem.into()));
    }
    match name.grouping {
        Some(Grouping::Block(size)) if size.is_power_of_two() && size <= 1 << 16 => {
            Ok(size as usize)
        }
        _ => Err(refuse(format!("cannot be cut into the blocks of `{name}`"))),
    }
}

/// The code whose value is nearest.
struct Nearest {
    /// Between neighbouring values, ascending.
    midpoints: [f32; 15],
    /// The codes in the order of their values; of equal values the first code stands for all.
    codes: [u8; 16],
}

impl Nearest {
    fn new(codebook: &[f32; 16]) -> Nearest {
        let mut codes: [u8; 16] = std::array::from_fn(|code| code as u8);
        let value = |code: u8| codebook[usize::from(code)];
        codes.sort_by(|a, b| value(*a).total_cmp(&value(*b)));
        let middle = |i: usize| (f64::from(value(codes[i])) + f64::from(value(codes[i + 1]))) / 2.0;
        let midpoints = std::array::from_fn(|i| middle(i) as f32);
        for i in 1..16 {
            if value(codes[i]) == value(codes[i - 1]) {
                codes[i] = codes[i - 1];
            }
        }
        Nearest { midpoints, codes }
    }

    /// `x` of -1 to 1.
    fn code(&self, x: f32) -> u8 {
        let below = self.midpoints.iter().filter(|midpoint| x > **midpoint).count();
        self.codes[below]
    }

    /// The codes of a block; a block of zeros has the code of zero.
    fn block<'a>(&'a self, block: &'a [f32], absmax: &mut f32) -> impl Iterator<Item = u8> + 'a {
        *absmax = block.iter().fold(0.0, |most, value| most.max(value.abs()));
        let scale = if *absmax == 0.0 { 0.0 } else { 1.0 / *absmax };
        block.iter().map(move |value| self.code((value * scale).clamp(-1.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FP4, NF4};
    use super::*;

    #[test]
    fn values_of_a_codebook_have_their_own_codes() {
        for kind in [&NF4, &FP4] {
            let nearest = Nearest::new(kind.codebook);
            for (code, value) in kind.codebook.iter().enumerate() {
                let found = usize::from(nearest.code(*value));
                assert_eq!(kind.codebook[found], *value);
                assert!(found <= code, "of equal values the first code");
            }
        }
    }

    #[test]
    fn midpoints_go_to_the_lower_value() {
        let nearest = Nearest::new(NF4.codebook);
        for (code, midpoint) in nearest.midpoints.into_iter().enumerate() {
            assert_eq!(usize::from(nearest.code(midpoint)), code);
            assert_eq!(usize::from(nearest.code(midpoint.next_up())), code + 1);
        }
    }

    #[test]
    fn a_block_of_zeros_is_zero() {
        let mut absmax = f32::NAN;
        let codes: Vec<u8> = Nearest::new(NF4.codebook).block(&[0.0, -0.0], &mut absmax).collect();
        assert_eq!((absmax, codes), (0.0, vec![7, 7]));
    }
}
