//! Codebooks of vectors that a layer brings.

use crate::rotation::Rotation;
use half::f16;
use qtune_ir::{vector_code, VectorCodes, VECTOR_WEIGHTS};
use std::sync::Arc;

/// The codebooks of one layer: what the codes of its vectors name.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    codes: VectorCodes,
    /// `[books, entries, VECTOR_WEIGHTS]`.
    values: Arc<[f16]>,
    rotation: Option<Rotation>,
}

impl Vectors {
    /// Codebooks of `values` `[books, entries, VECTOR_WEIGHTS]`, all of them finite.
    ///
    /// # Panics
    /// If there are not as many values as `codes` can name.
    pub fn new(codes: VectorCodes, values: impl Into<Arc<[f16]>>) -> Vectors {
        let values = values.into();
        assert_eq!(values.len(), codes.values(), "every entry of every codebook");
        Vectors { codes, values, rotation: None }
    }

    /// The same of weights that lie between rotations.
    pub fn between(self, rotation: Rotation) -> Vectors {
        Vectors { rotation: Some(rotation), ..self }
    }

    /// The rotations between which the weights lie.
    pub fn rotation(&self) -> Option<&Rotation> {
        self.rotation.as_ref()
    }

    /// How codes name entries.
    pub fn codes(&self) -> VectorCodes {
        self.codes
    }

    /// The values as kernels read them, little-endian.
    pub fn bytes(&self) -> Vec<u8> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// The numbers of a row, from its weights' shares of the codes of vectors: entries added in f32, in the
    /// order of their codebooks.
    pub fn row(&self, shares: &[u8]) -> Vec<f32> {
        let vectors = shares.chunks(VECTOR_WEIGHTS);
        vectors.flat_map(|shares| self.sum(vector_code(shares))).collect()
    }

    /// The vector of a code.
    fn sum(&self, code: u16) -> [f32; VECTOR_WEIGHTS] {
        let mut sum = [0.0; VECTOR_WEIGHTS];
        for entry in self.codes.named(code) {
            let vector = &self.values[entry * VECTOR_WEIGHTS..][..VECTOR_WEIGHTS];
            sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value.to_f32());
        }
        sum
    }
}
