//! A linear layer that is not quantized, as a quantizer reads it.

use crate::error::FormatError;
use crate::safetensors::ElementType;
use crate::tensors::{Module, TensorRef, VALUE_REMEDY};
use half::{bf16, f16};

/// The weight matrix of a plain layer: f16, bf16 or f32 `[N, K]`.
#[derive(Clone, Copy, Debug)]
pub struct PlainWeight<'a> {
    tensor: TensorRef<'a>,
    element: ElementType,
    bias: Option<TensorRef<'a>>,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
}

impl<'a> PlainWeight<'a> {
    /// The weight of a module, which must be a matrix of floats.
    pub(crate) fn of(module: &Module<'a>) -> Result<PlainWeight<'a>, FormatError> {
        let tensor = module.require("weight", "bias")?;
        match (tensor.shape, tensor.stored.float()) {
            (&[n, k], Some(element)) if n > 0 && k > 0 => {
                Ok(PlainWeight { tensor, element, bias: module.get("bias"), n, k })
            }
            (shape, _) => {
                let problem = format!("is {} {shape:?}, not a matrix of floats", tensor.stored);
                Err(tensor.error(problem, "name a linear layer that is not quantized"))
            }
        }
    }

    /// The type of the values.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// `count` values of the flattened matrix from `first` on, all of which must be finite.
    pub fn values(&self, first: usize, count: usize) -> Result<Vec<f32>, FormatError> {
        let size = self.element().bytes();
        let bytes = &self.tensor.bytes[first * size..(first + count) * size];
        let halves = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        let values: Vec<f32> = match self.element() {
            ElementType::F16 => halves.map(|bits| f16::from_bits(bits).to_f32()).collect(),
            ElementType::Bf16 => halves.map(|bits| bf16::from_bits(bits).to_f32()).collect(),
            _ => {
                let words = bytes.chunks_exact(4);
                words.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
        };
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => {
                let (n, k) = ((first + at) / self.k, (first + at) % self.k);
                let problem = format!("holds {} for output feature {n}, input {k}", values[at]);
                Err(self.error(problem, VALUE_REMEDY))
            }
        }
    }

    /// The bias `[N]`, if there is one.
    pub fn bias(&self) -> Result<Option<Vec<f32>>, FormatError> {
        self.bias.map(|bias| bias.bias(self.n)).transpose()
    }

    /// An error about the weight.
    pub fn error(&self, problem: impl Into<String>, remedy: impl Into<String>) -> FormatError {
        self.tensor.error(problem, remedy)
    }
}
