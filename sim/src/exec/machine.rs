//! What the interpreter asks of the CPU beyond plain Rust, in two versions with the same results.
//!
//! The interpreter is compiled once for each [`Machine`], the second time with AVX2, FMA and F16C
//! enabled, and picks one per run. Whatever is inlined into it (`#[inline(always)]`) is vectorised
//! with the machine's instructions; functions behind a call are compiled once, for the baseline.

use super::numeric::{f16_to_f32, f32_to_f16};

/// Operations that vector extensions have instructions for. A value is the proof that the CPU has
/// them.
pub(crate) trait Machine: Copy {
    /// Eight f16 packed in four words, low half first, as f32. A NaN stays one, of any payload.
    fn widen_f16(self, words: [u32; 4]) -> [f32; 8];

    /// The f16 in the low halves of eight words as f32. A NaN stays one, of any payload.
    fn widen_low_f16(self, words: [u32; 8]) -> [f32; 8];

    /// The inverse of [`Machine::widen_f16`], to nearest even; NaN becomes the one of PTX.
    fn narrow_f16(self, values: [f32; 8]) -> [u32; 4];

    /// Adds the products of sixteen rows with eight columns, slice after slice, to sums: k
    /// increasing, one rounding per step. The first `length` elements of rows and columns count.
    /// `exact` says that products are exact in f32, so that it does not matter how often a step
    /// rounds.
    fn multiply(self, sums: &mut Rows, factors: (&[Rows], &[Columns]), length: usize, exact: bool);
}

/// Sixteen rows of eight numbers.
pub(crate) type Rows = [[f32; 8]; 16];
/// Eight columns of eight numbers.
pub(crate) type Columns = [[f32; 8]; 8];

/// Any CPU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

impl Machine for Portable {
    #[inline(always)]
    fn widen_f16(self, words: [u32; 4]) -> [f32; 8] {
        let mut values = [0.0; 8];
        for i in 0..4 {
            values[2 * i] = f16_to_f32(words[i] & 0xFFFF);
            values[2 * i + 1] = f16_to_f32(words[i] >> 16);
        }
        values
    }

    #[inline(always)]
    fn widen_low_f16(self, words: [u32; 8]) -> [f32; 8] {
        words.map(|word| f16_to_f32(word & 0xFFFF))
    }

    #[inline(always)]
    fn narrow_f16(self, values: [f32; 8]) -> [u32; 4] {
        let mut words = [0; 4];
        for i in 0..4 {
            words[i] = f32_to_f16(values[2 * i]) | f32_to_f16(values[2 * i + 1]) << 16;
        }
        words
    }

    #[inline(always)]
    fn multiply(
        self,
        sums: &mut Rows,
        (rows, columns): (&[Rows], &[Columns]),
        length: usize,
        exact: bool,
    ) {
        for (rows, columns) in rows.iter().zip(columns) {
            for (sums, row) in sums.iter_mut().zip(rows) {
                for k in 0..length.min(8) {
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        let (a, b) = (row[k], column[k]);
                        *sum = if exact { a * b + *sum } else { a.mul_add(b, *sum) };
                    }
                }
            }
        }
    }
}

/// A CPU with AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// The machine, if this CPU is one.
    pub(crate) fn detect() -> Option<Avx2> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        all.then_some(Avx2(()))
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Avx2, Columns, Machine, Rows};
    use crate::exec::numeric::HALF_NAN;
    use std::arch::x86_64::*;
    use std::mem::transmute;

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn widen_f16(words: [u32; 4]) -> [f32; 8] {
        // SAFETY: arrays and vectors of the same size; the features are the caller's promise.
        unsafe { transmute(_mm256_cvtph_ps(transmute::<[u32; 4], __m128i>(words))) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn widen_low_f16(words: [u32; 8]) -> [f32; 8] {
        // SAFETY: as above.
        unsafe {
            // The low halves of four words each, side by side in both 128-bit parts, then as one.
            let low = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 0, 0, 0, 0, 0, 0, 0, 0);
            let words = transmute::<[u32; 8], __m256i>(words);
            let packed = _mm256_shuffle_epi8(words, _mm256_broadcastsi128_si256(low));
            let halves = _mm256_permute4x64_epi64::<0b1000>(packed);
            transmute(_mm256_cvtph_ps(_mm256_castsi256_si128(halves)))
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn narrow_f16(values: [f32; 8]) -> [u32; 4] {
        // SAFETY: as above.
        unsafe {
            let values = transmute::<[f32; 8], __m256>(values);
            let is_nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(values, values);
            // The conversion keeps the upper ten bits of the payload: all ones for PTX's NaN.
            let nan = _mm256_set1_ps(f32::from_bits(0x7F80_0000 | (HALF_NAN as u32 & 0x3FF) << 13));
            let values = _mm256_blendv_ps(values, nan, is_nan);
            transmute(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values))
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn transpose(rows: &[[f32; 8]; 8]) -> [__m256; 8] {
        // SAFETY: as above.
        unsafe {
            let r = transmute::<[[f32; 8]; 8], [__m256; 8]>(*rows);
            // Pairs of rows, then fours, then all eight.
            let mut pairs = r;
            for i in 0..4 {
                pairs[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                pairs[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            let mut fours = r;
            for half in 0..2 {
                for i in 0..2 {
                    let (low, high) = (pairs[4 * half + i], pairs[4 * half + i + 2]);
                    fours[4 * half + 2 * i] = _mm256_shuffle_ps::<0x44>(low, high);
                    fours[4 * half + 2 * i + 1] = _mm256_shuffle_ps::<0xEE>(low, high);
                }
            }
            let mut columns = r;
            for i in 0..4 {
                columns[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[4 + i]);
                columns[4 + i] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[4 + i]);
            }
            columns
        }
    }

    /// Not inlined: with its operands in memory, the compiler broadcasts elements of A by loads,
    /// which cost nothing beside the multiplications, instead of by shuffles.
    #[inline(never)]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn multiply(sums: &mut Rows, rows: &[Rows], columns: &[Columns], length: usize) {
        // SAFETY: as above.
        unsafe {
            let mut transposed = [[_mm256_setzero_ps(); 8]; 2];
            for (rows, columns) in rows.chunks(2).zip(columns.chunks(2)) {
                for (b, columns) in transposed.iter_mut().zip(columns) {
                    *b = transpose(columns);
                }
                for half in [0, 8] {
                    // Eight rows side by side, so that additions do not wait for each other: two
                    // units with a latency of four cycles are busy with eight.
                    let mut total = [_mm256_setzero_ps(); 8];
                    for row in 0..8 {
                        total[row] = _mm256_loadu_ps(sums[half + row].as_ptr());
                    }
                    for (rows, b) in rows.iter().zip(&transposed) {
                        for k in 0..length.min(8) {
                            for row in 0..8 {
                                let a = _mm256_broadcast_ss(&rows[half + row][k]);
                                total[row] = _mm256_fmadd_ps(a, b[k], total[row]);
                            }
                        }
                    }
                    for row in 0..8 {
                        _mm256_storeu_ps(sums[half + row].as_mut_ptr(), total[row]);
                    }
                }
            }
        }
    }

    // SAFETY of the calls: an `Avx2` exists only where the features were detected.
    impl Machine for Avx2 {
        #[inline(always)]
        fn widen_f16(self, words: [u32; 4]) -> [f32; 8] {
            // SAFETY: see above.
            unsafe { widen_f16(words) }
        }

        #[inline(always)]
        fn widen_low_f16(self, words: [u32; 8]) -> [f32; 8] {
            // SAFETY: see above.
            unsafe { widen_low_f16(words) }
        }

        #[inline(always)]
        fn narrow_f16(self, values: [f32; 8]) -> [u32; 4] {
            // SAFETY: see above.
            unsafe { narrow_f16(values) }
        }

        #[inline(always)]
        fn multiply(
            self,
            sums: &mut Rows,
            (rows, columns): (&[Rows], &[Columns]),
            length: usize,
            _exact: bool,
        ) {
            // SAFETY: see above.
            unsafe { multiply(sums, rows, columns, length) }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn both_machines_convert_every_f16_alike() {
        let Some(avx2) = Avx2::detect() else { return };
        for bits in (0..=u16::MAX).step_by(8) {
            let words = std::array::from_fn(|i| {
                let low = u32::from(bits) + 2 * i as u32;
                low | (low + 1) << 16
            });
            let (a, b) = (Portable.widen_f16(words), avx2.widen_f16(words));
            for (a, b) in a.into_iter().zip(b) {
                assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan());
            }
            assert_eq!(Portable.narrow_f16(a), avx2.narrow_f16(b));
            let spread = std::array::from_fn(|i| (u32::from(bits) + i as u32) | 0xABCD << 16);
            let (a, b) = (Portable.widen_low_f16(spread), avx2.widen_low_f16(spread));
            for (a, b) in a.into_iter().zip(b) {
                assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan());
            }
        }
    }

    #[test]
    fn both_machines_round_to_f16_alike() {
        let Some(avx2) = Avx2::detect() else { return };
        for high in 0..=u16::MAX {
            let values = [0u32, 1, 0xFFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0xFFFF]
                .map(|low| f32::from_bits(u32::from(high) << 16 | low));
            assert_eq!(Portable.narrow_f16(values), avx2.narrow_f16(values), "{values:?}");
        }
    }

    #[test]
    fn both_machines_multiply_rows_by_columns() {
        let Some(avx2) = Avx2::detect() else { return };
        let rows: [Rows; 3] = std::array::from_fn(|s| {
            std::array::from_fn(|r| std::array::from_fn(|k| (r + 3 * k + 5 * s) as f32))
        });
        let columns: [Columns; 3] = std::array::from_fn(|s| {
            std::array::from_fn(|c| std::array::from_fn(|k| (7 * c + s) as f32 - k as f32))
        });
        let start: Rows = std::array::from_fn(|r| [r as f32; 8]);
        for length in [4, 8] {
            let (mut portable, mut fast) = (start, start);
            Portable.multiply(&mut portable, (&rows, &columns), length, true);
            avx2.multiply(&mut fast, (&rows, &columns), length, false);
            assert_eq!(portable, fast);
            let (row, column) = (9, 5);
            let terms = (0..3).flat_map(|s| (0..length).map(move |k| (s, k)));
            let product = terms.map(|(s, k)| rows[s][row][k] * columns[s][column][k]).sum::<f32>();
            assert_eq!(fast[row][column], row as f32 + product);
        }
    }
}
