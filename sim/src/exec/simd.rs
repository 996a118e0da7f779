//! Inner loops compiled twice, for the machine's baseline and for AVX2 + FMA, chosen at run time.
//!
//! The bodies are plain Rust that the compiler vectorises; both versions give the same bits,
//! because the portable one uses `mul_add` only where one rounding is the meaning.

use super::numeric::{bf16_to_f32, canonical, f16_to_f32, f32_to_f16, fma_bf16, fma_f16};
use crate::program::Float2;
use crate::state::{each_lane, Lanes32};

/// Whether the fast versions may be called.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Defines `name` as a dispatcher over a portable and an AVX2 + FMA build of the same body.
macro_rules! versions {
    ($(#[$doc:meta])* pub(crate) fn $name:ident($($arg:ident: $ty:ty),* $(,)?) -> $out:ty $body:block) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $ty),*) -> $out {
            #[inline(always)]
            fn body($($arg: $ty),*) -> $out $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                unsafe fn fast($($arg: $ty),*) -> $out {
                    body($($arg),*)
                }
                if $crate::exec::simd::has_avx2() {
                    // SAFETY: the features were detected just above.
                    return unsafe { fast($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use versions;

versions! {
    /// a * b + c in f32, one rounding.
    pub(crate) fn fma_f32(a: &Lanes32, b: &Lanes32, c: &Lanes32) -> Lanes32 {
        each_lane!(|l| {
            let product = f32::from_bits(a[l]);
            canonical(product.mul_add(f32::from_bits(b[l]), f32::from_bits(c[l])))
        })
    }
}

versions! {
    /// Sum, difference or product of f16 pairs.
    ///
    /// f32 holds the product exactly and the sum precisely enough (24 >= 2 * 11 + 2 bits) for the
    /// second rounding to be innocuous.
    pub(crate) fn f16x2_arithmetic(op: Float2, a: &Lanes32, b: &Lanes32) -> Lanes32 {
        macro_rules! apply {
            ($op:tt) => {
                {
                    let low: Lanes32 = each_lane!(|l| {
                        f32_to_f16(f16_to_f32(a[l] & 0xFFFF) $op f16_to_f32(b[l] & 0xFFFF))
                    });
                    let high: Lanes32 = each_lane!(|l| {
                        f32_to_f16(f16_to_f32(a[l] >> 16) $op f16_to_f32(b[l] >> 16))
                    });
                    each_lane!(|l| low[l] | high[l] << 16)
                }
            };
        }
        match op {
            Float2::Add => apply!(+),
            Float2::Sub => apply!(-),
            _ => apply!(*),
        }
    }
}

versions! {
    /// a * b + c on f16 pairs, one rounding.
    pub(crate) fn fma_f16x2(a: &Lanes32, b: &Lanes32, c: &Lanes32) -> Lanes32 {
        let low: Lanes32 = each_lane!(|l| f32_to_f16(fma_f16(
            f16_to_f32(a[l] & 0xFFFF),
            f16_to_f32(b[l] & 0xFFFF),
            f16_to_f32(c[l] & 0xFFFF)
        )));
        let high: Lanes32 = each_lane!(|l| f32_to_f16(fma_f16(
            f16_to_f32(a[l] >> 16),
            f16_to_f32(b[l] >> 16),
            f16_to_f32(c[l] >> 16)
        )));
        each_lane!(|l| low[l] | high[l] << 16)
    }
}

versions! {
    /// a * b + c on bf16 pairs, one rounding.
    pub(crate) fn fma_bf16x2(a: &Lanes32, b: &Lanes32, c: &Lanes32) -> Lanes32 {
        let low: Lanes32 = each_lane!(|l| fma_bf16(
            bf16_to_f32(a[l] & 0xFFFF),
            bf16_to_f32(b[l] & 0xFFFF),
            bf16_to_f32(c[l] & 0xFFFF)
        ));
        let high: Lanes32 = each_lane!(|l| fma_bf16(
            bf16_to_f32(a[l] >> 16),
            bf16_to_f32(b[l] >> 16),
            bf16_to_f32(c[l] >> 16)
        ));
        each_lane!(|l| low[l] | high[l] << 16)
    }
}
