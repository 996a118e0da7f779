//! The lattice E8, shifted by a quarter: what a code of 16 bits of the E8P codebook stands for.
//!
//! The upper byte names one of 256 vectors of odd halves, the lower one says which of the first seven
//! signs to turn, and which way everything is shifted. The eighth sign makes their sum even.

use half::f16;
use std::sync::{Arc, OnceLock};

/// A nibble for each number `v` of a vector, `2v + 8`: 227 vectors with a squared norm of at most 10, and
/// 29 with one of 12 (Tseng et al., 2024, section 4.2 and appendix C).
#[rustfmt::skip]
static VECTORS: [u32; 256] = [
    0x99999999, 0x59999999, 0xd9999999, 0x7999b999, 0xb999b999, 0x3999b999, 0x9999d999, 0x5999d999,
    0x7b999999, 0xbb999999, 0x3b999999, 0x9b99b999, 0x5b99b999, 0x7b99d999, 0x9d999999, 0x5d999999,
    0x7d99b999, 0x79999b99, 0xb9999b99, 0x39999b99, 0x9999bb99, 0x5999bb99, 0x7999db99, 0x9b999b99,
    0x5b999b99, 0x7b99bb99, 0xbb99bb99, 0x7d999b99, 0x99999d99, 0x59999d99, 0x7999bd99, 0x7b999d99,
    0x79b99999, 0xb9b99999, 0x39b99999, 0x99b9b999, 0x59b9b999, 0x79b9d999, 0x9bb99999, 0x5bb99999,
    0x7bb9b999, 0xbbb9b999, 0x7db99999, 0x99b99b99, 0x59b99b99, 0x79b9bb99, 0xb9b9bb99, 0x7bb99b99,
    0xbbb99b99, 0x9bb9bb99, 0x79b99d99, 0x99d99999, 0x59d99999, 0x79d9b999, 0x7bd99999, 0x79d99b99,
    0x799999b9, 0xb99999b9, 0x399999b9, 0x9999b9b9, 0x5999b9b9, 0x7999d9b9, 0x9b9999b9, 0x5b9999b9,
    0x7b99b9b9, 0xbb99b9b9, 0x7d9999b9, 0x99999bb9, 0x59999bb9, 0x7999bbb9, 0xb999bbb9, 0x7b999bb9,
    0xbb999bb9, 0x9b99bbb9, 0x79999db9, 0x99b999b9, 0x59b999b9, 0x79b9b9b9, 0xb9b9b9b9, 0x7bb999b9,
    0xbbb999b9, 0x9bb9b9b9, 0x79b99bb9, 0xb9b99bb9, 0x99b9bbb9, 0x9bb99bb9, 0x79d999b9, 0x999999d9,
    0x599999d9, 0x7999b9d9, 0x7b9999d9, 0x79999bd9, 0x79b999d9, 0x799b9999, 0xb99b9999, 0x399b9999,
    0x999bb999, 0x599bb999, 0x799bd999, 0x9b9b9999, 0x5b9b9999, 0x7b9bb999, 0xbb9bb999, 0x7d9b9999,
    0x999b9b99, 0x599b9b99, 0x799bbb99, 0xb99bbb99, 0x7b9b9b99, 0xbb9b9b99, 0x9b9bbb99, 0x799b9d99,
    0x99bb9999, 0x59bb9999, 0x79bbb999, 0xb9bbb999, 0x7bbb9999, 0xbbbb9999, 0x9bbbb999, 0x79bb9b99,
    0xb9bb9b99, 0x99bbbb99, 0x9bbb9b99, 0x79db9999, 0x999b99b9, 0x599b99b9, 0x799bb9b9, 0xb99bb9b9,
    0x7b9b99b9, 0xbb9b99b9, 0x9b9bb9b9, 0x799b9bb9, 0xb99b9bb9, 0x999bbbb9, 0x9b9b9bb9, 0x79bb99b9,
    0xb9bb99b9, 0x99bbb9b9, 0x9bbb99b9, 0x99bb9bb9, 0x799b99d9, 0x999d9999, 0x599d9999, 0x799db999,
    0x7b9d9999, 0x799d9b99, 0x79bd9999, 0x799d99b9, 0x7999999b, 0xb999999b, 0x3999999b, 0x9999b99b,
    0x5999b99b, 0x7999d99b, 0x9b99999b, 0x5b99999b, 0x7b99b99b, 0xbb99b99b, 0x7d99999b, 0x99999b9b,
    0x59999b9b, 0x7999bb9b, 0xb999bb9b, 0x7b999b9b, 0xbb999b9b, 0x9b99bb9b, 0x79999d9b, 0x99b9999b,
    0x59b9999b, 0x79b9b99b, 0xb9b9b99b, 0x7bb9999b, 0xbbb9999b, 0x9bb9b99b, 0x79b99b9b, 0xb9b99b9b,
    0x99b9bb9b, 0x9bb99b9b, 0x79d9999b, 0x999999bb, 0x599999bb, 0x7999b9bb, 0xb999b9bb, 0x7b9999bb,
    0xbb9999bb, 0x9b99b9bb, 0x79999bbb, 0xb9999bbb, 0x9999bbbb, 0x9b999bbb, 0x79b999bb, 0xb9b999bb,
    0x99b9b9bb, 0x9bb999bb, 0x99b99bbb, 0x799999db, 0x999b999b, 0x599b999b, 0x799bb99b, 0xb99bb99b,
    0x7b9b999b, 0xbb9b999b, 0x9b9bb99b, 0x799b9b9b, 0xb99b9b9b, 0x999bbb9b, 0x9b9b9b9b, 0x79bb999b,
    0xb9bb999b, 0x99bbb99b, 0x9bbb999b, 0x99bb9b9b, 0x799b99bb, 0xb99b99bb, 0x999bb9bb, 0x9b9b99bb,
    0x999b9bbb, 0x99bb99bb, 0x799d999b, 0x9999999d, 0x5999999d, 0x7999b99d, 0x7b99999d, 0x79999b9d,
    0x79b9999d, 0x799999bd, 0x799b999d, 0x5b99bb9b, 0x5b9bbb99, 0x5b99bbb9, 0x5bb9bb99, 0x7b9b9bbb,
    0x799bbbbb, 0x7b9bb9bb, 0x599b9bbb, 0x5b9b99bb, 0x599bb9bb, 0x7bbb9b9b, 0x79bbbb9b, 0x7bbbb99b,
    0x59bb9b9b, 0x5bbb999b, 0x59bbb99b, 0x7bb99bbb, 0x79b9bbbb, 0x7bb9b9bb, 0x59b99bbb, 0x5bb999bb,
    0x59bbb9b9, 0x7bbb9bb9, 0x79bbbbb9, 0x7bbbb9b9, 0x59bb9bb9, 0x5bbb99b9, 0x5bb9b9b9, 0x7b9bbb9b,
];

/// The nibble of each number.
const ORDER: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// The points of all codes, as a codebook of vectors: multiples of a quarter, which f16 holds.
pub(super) fn points() -> Arc<[f16]> {
    static POINTS: OnceLock<Arc<[f16]>> = OnceLock::new();
    let all = || (0..=u16::MAX).flat_map(point).map(f16::from_f64).collect();
    POINTS.get_or_init(all).clone()
}

/// The eight numbers of a code.
fn point(code: u16) -> [f64; 8] {
    let [signs, vector] = code.to_le_bytes();
    let odd = signs.count_ones() % 2;
    let signs = u32::from(signs) ^ odd;
    let shift = if odd == 0 { 0.25 } else { -0.25 };
    ORDER.map(|nibble| {
        let half = VECTORS[usize::from(vector)] >> (4 * nibble) & 15;
        let value = (f64::from(half) - 8.0) / 2.0;
        let signed = if signs >> nibble & 1 == 1 { -value } else { value };
        signed + shift
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_a_point_of_its_own() {
        let key = |code: u16| point(code).map(|value| (value * 4.0) as i32);
        let points: BTreeSet<[i32; 8]> = (0..=u16::MAX).map(key).collect();
        assert_eq!(points.len(), 1 << 16);
        assert!(points.iter().flatten().all(|quarters| quarters % 2 != 0));
    }

    #[test]
    fn points_without_their_shift_are_of_the_lattice() {
        for code in 0..=u16::MAX {
            let shift = if (code & 0xff).count_ones() % 2 == 0 { 0.25 } else { -0.25 };
            let sum: f64 = point(code).iter().map(|value| value - shift).sum();
            assert_eq!(sum % 2.0, 0.0, "{code:#x}");
        }
    }
}
