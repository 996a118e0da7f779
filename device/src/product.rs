//! The operands of a step that a library does.

use crate::{ArgValue, Buffer, DeviceError, Grid};
use qtune_codegen::{Argument, Entry, SlabProduct};
use std::ops::Range;

/// A place in a buffer: the buffer and a byte.
pub(crate) type Place<'a> = (&'a Buffer, usize);

/// What one multiplication of a slab works on.
#[derive(Clone, Debug)]
pub(crate) struct Operands<'a> {
    pub slab: Place<'a>,
    pub activations: Place<'a>,
    pub bias: Option<Place<'a>>,
    pub residual: Option<Place<'a>>,
    /// The first element of the whole output.
    pub output: Place<'a>,
    pub tokens: u32,
    /// Output features of the slab.
    pub rows: Range<u32>,
}

impl<'a> Operands<'a> {
    /// The operands of a grid whose entry is `product`.
    ///
    /// # Errors
    /// [`DeviceError::Launch`] if one of them is missing or not of its kind.
    pub fn of(
        entry: &Entry,
        product: &SlabProduct,
        grid: &Grid<'a>,
    ) -> Result<Operands<'a>, DeviceError> {
        let value = |wanted: &[Argument]| {
            let mut pairs = entry.arguments.iter().zip(&grid.args);
            pairs.find(|(argument, _)| wanted.contains(argument)).map(|(_, value)| *value)
        };
        let missing = |what: &str| DeviceError::Launch {
            entry: entry.name.clone(),
            reason: format!("the library's step has no {what}"),
        };
        let place = |wanted: &[Argument]| match value(wanted) {
            Some(ArgValue::Buffer(buffer, offset)) => Some((buffer, offset)),
            _ => None,
        };
        let number = |wanted| match value(&[wanted]) {
            Some(ArgValue::U32(number)) => Some(number),
            _ => None,
        };
        let bias = place(&[Argument::Bias]).filter(|_| product.bias);
        let residual = place(&[Argument::Residual]).filter(|_| product.residual);
        if bias.is_some() != product.bias || residual.is_some() != product.residual {
            return Err(missing("bias or residual"));
        }
        let first_tile = number(Argument::FirstTile).ok_or_else(|| missing("first row tile"))?;
        let inputs = [Argument::Activations, Argument::Prepared];
        Ok(Operands {
            slab: place(&[Argument::Slab]).ok_or_else(|| missing("slab"))?,
            activations: place(&inputs).ok_or_else(|| missing("activations"))?,
            bias,
            residual,
            output: place(&[Argument::Output, Argument::Products])
                .ok_or_else(|| missing("output"))?,
            tokens: number(Argument::Tokens).ok_or_else(|| missing("token count"))?,
            rows: product.rows(first_tile),
        })
    }
}
