//! Layers of `qweight`, `qzeros` and `scales`. Several libraries use these names for packings of their
//! own; the shapes tell which one a layer has.

use crate::tensors::Module;

/// Widths with the int32 stream packing; the first is the usual one.
pub(crate) const WIDTHS: [u8; 4] = [4, 2, 3, 8];
/// Codes that `bits` words hold, whatever the width. N and K are multiples of it.
pub(crate) const UNIT: usize = 32;

/// Whether a module's codes are packed along K and its zero-points along N: qweight `[_, N]`, qzeros
/// `[R, N*bits/32]`, scales `[R, N]`.
pub(crate) fn is_packed_along_k(module: &Module<'_>) -> bool {
    let shape = |suffix: &str| <[usize; 2]>::try_from(module.get(suffix)?.shape).ok();
    let shapes = (shape("qweight"), shape("qzeros"), shape("scales"));
    let (Some([_, n]), Some([groups, words]), Some([scale_rows, scale_cols])) = shapes else {
        return false;
    };
    n == scale_cols && groups == scale_rows && width(words, n).is_some()
}

/// The width at which `words` words hold `n` codes.
pub(crate) fn width(words: usize, n: usize) -> Option<u8> {
    let units = n / UNIT;
    let holds = |bits: &u8| units > 0 && units.checked_mul((*bits).into()) == Some(words);
    WIDTHS.into_iter().find(|bits| n % UNIT == 0 && holds(bits))
}
