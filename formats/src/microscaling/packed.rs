//! Tensors of codes and tensors of scales.

use crate::codes::Codes;
use crate::error::FormatError;
use crate::linear::{ParamArray, ParamValues, QuantizedLinear, Rounding};
use crate::name::FormatName;
use crate::registry::{row_of, GroupNames, LayerHeader};
use crate::safetensors::ElementType;
use crate::tensors::{first_but, power_of_two, Module, TensorRef, EXPORT_AGAIN, VALUE_REMEDY};
use qtune_ir::Group;
use rayon::prelude::*;

/// The tensors of a layer. Stacked matrices count as one, rows after rows.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) codes: TensorRef<'a>,
    pub(super) scales: TensorRef<'a>,
    pub(super) bias: Option<TensorRef<'a>>,
    pub(super) n: usize,
    pub(super) k: usize,
}

impl<'a> Parts<'a> {
    /// A matrix of `codes` bytes, each of `per_byte` codes, and a scale for every `size` weights.
    pub(super) fn matrix(
        codes: TensorRef<'a>,
        element: ElementType,
        per_byte: usize,
        (scales, size): (TensorRef<'a>, u32),
        bias: Option<TensorRef<'a>>,
    ) -> Result<Parts<'a>, FormatError> {
        let [n, bytes] = codes.matrix(element)?;
        let k = bytes.checked_mul(per_byte).unwrap_or(0);
        codes.check_size(n, k)?;
        let size = size as usize;
        if k % size != 0 {
            let problem =
                format!("holds K = {k} codes of a row, which are no quant groups of {size}");
            return Err(codes.error(problem, EXPORT_AGAIN));
        }
        let shape = [n, k / size];
        if scales.shape != shape {
            let problem = format!(
                "is {:?} where a scale per {size} weights is needed, {shape:?}",
                scales.shape
            );
            return Err(scales.error(problem, EXPORT_AGAIN));
        }
        bias.map_or(Ok(()), |bias| bias.check_bias(n))?;
        Ok(Parts { codes, scales, bias, n, k })
    }

    /// What an inspection tells of the layer.
    pub(super) fn header(
        &self,
        family: &str,
        layout: &'static str,
        (groups, size): (GroupNames, u32),
    ) -> LayerHeader {
        let name = FormatName {
            family: family.into(),
            bits: None,
            grouping: groups.printed(),
            modifiers: Vec::new(),
        };
        LayerHeader { name, layout, n: self.n, k: self.k, group: Group::Size(size) }
    }

    /// The layer, from its codes and its only parameter.
    pub(super) fn layer(
        &self,
        header: &LayerHeader,
        codes: Codes,
        values: ParamValues,
    ) -> Result<QuantizedLinear, FormatError> {
        let spec = row_of(&header.name)?.spec(&header.name)?;
        let named = spec.params.iter().zip([values]);
        Ok(QuantizedLinear {
            codes,
            params: named.map(|(p, values)| ParamArray { name: p.name.clone(), values }).collect(),
            spec,
            n: self.n,
            k: self.k,
            bias: self.bias.map(|bias| bias.bias(self.n)).transpose()?,
            rounding: Rounding::F32ThenBf16,
            k_order: None,
            input_scale: None,
        })
    }

    /// The codes of nibbles, the even column in the low one, which is how they are kept.
    pub(super) fn nibbles(&self) -> Codes {
        Codes::as_stored([self.n, self.k], 4, self.codes.keep())
    }

    /// The powers of two that the bytes of the scales are exponents of.
    pub(super) fn powers(&self, bias: i32) -> Result<ParamValues, FormatError> {
        let bytes = self.scales.bytes;
        if let Some(at) = first_but(bytes, |exponent| *exponent != u8::MAX) {
            let groups = bytes.len() / self.n;
            let (n, group) = (at / groups, at % groups);
            let problem = format!("holds NaN for output feature {n}, quant group {group}");
            return Err(self.scales.error(problem, VALUE_REMEDY));
        }
        let value = |exponent: &u8| power_of_two(*exponent, bias);
        Ok(ParamValues::F32(bytes.par_iter().map(value).collect()))
    }
}

/// Whether a tensor has a byte for each element that is an exponent: libraries write both types.
pub(super) fn is_exponents(tensor: &TensorRef<'_>) -> bool {
    tensor.stored == ElementType::U8 || tensor.stored == ElementType::F8E8M0
}

/// The scales of a module whose codes are in the tensor `codes`.
pub(super) fn scales<'a>(module: &Module<'a>, codes: &str) -> Result<TensorRef<'a>, FormatError> {
    module.require("weight_scale", codes)
}
