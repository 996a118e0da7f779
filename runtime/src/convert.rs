//! Between f32 and the bits of 16-bit floats.

use half::{bf16, f16};
use qtune_ir::DType;

/// `values` rounded to `dtype`, little endian.
pub(crate) fn encode(values: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        DType::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

/// The values of little-endian `bytes` of `dtype`.
pub(crate) fn decode(bytes: &[u8], dtype: DType) -> Vec<f32> {
    let pairs = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    match dtype {
        DType::F16 => pairs.map(|bits| f16::from_bits(bits).to_f32()).collect(),
        DType::Bf16 => pairs.map(|bits| bf16::from_bits(bits).to_f32()).collect(),
        DType::F32 => {
            let words = bytes.chunks_exact(4);
            words.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_a_type_holds_come_back() {
        let values = [0.0, -1.5, 65504.0, 0.25];
        for dtype in [DType::F16, DType::F32] {
            assert_eq!(decode(&encode(&values, dtype), dtype), values);
        }
        assert_eq!(decode(&encode(&[1.0, -2.5], DType::Bf16), DType::Bf16), [1.0, -2.5]);
    }
}
