//! Rotations between which a layer's weights lie: Hadamard transforms that are made orthonormal, with a
//! factor for every input and output feature.

use half::f16;
use rayon::prelude::*;

/// The factors of a layer's rotations. Its weights are `diag(outputs) H W H diag(inputs)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotation {
    /// Factors of the input features `[K]`, which come before their transform.
    pub inputs: Vec<f16>,
    /// Factors of the output features `[N]`, which come after theirs.
    pub outputs: Vec<f16>,
}

impl Rotation {
    /// The factors of input and of output features as kernels read them, little-endian.
    pub fn bytes(&self) -> [Vec<u8>; 2] {
        [&self.inputs, &self.outputs]
            .map(|factors| factors.iter().flat_map(|factor| factor.to_le_bytes()).collect())
    }

    /// The weights `[N, K]` of the features themselves, from those between the rotations.
    pub fn undo(&self, weights: &[f32]) -> Vec<f32> {
        let (n, k) = (self.outputs.len(), self.inputs.len());
        let mut values: Vec<f64> = weights.iter().copied().map(f64::from).collect();
        values.par_chunks_mut(k).for_each(|row| transform(row, 1));
        transform(&mut values, k);
        let size = (n as f64 * k as f64).sqrt();
        let weight = |(at, value): (usize, &f64)| {
            let factors = self.outputs[at / k].to_f64() * self.inputs[at % k].to_f64();
            (value / size * factors) as f32
        };
        values.par_iter().enumerate().map(weight).collect()
    }
}

/// The Hadamard transform of elements that are runs of `width` numbers, a power of two of them, without
/// what would make it orthonormal: sums and differences of elements 1, 2, 4 and so on apart.
pub fn transform(values: &mut [f64], width: usize) {
    let mut apart = width;
    while apart < values.len() {
        for pair in values.chunks_exact_mut(2 * apart) {
            let (low, high) = pair.split_at_mut(apart);
            for (low, high) in low.iter_mut().zip(high) {
                (*low, *high) = (*low + *high, *low - *high);
            }
        }
        apart *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transform_is_its_own_inverse_but_for_the_size() {
        let mut values = [1.0, 2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0];
        let original = values;
        transform(&mut values, 1);
        assert_eq!(values[..2], [59.0, -11.0]);
        transform(&mut values, 1);
        assert_eq!(values, original.map(|value| 8.0 * value));
        transform(&mut values, 4);
        assert_eq!(values[0], 8.0 * (1.0 + 7.0));
    }
}
