//! Gate and up projections as one layer with their rows by turns.

use crate::{FormatError, ParamArray, ParamValues, QuantizedLinear, SmallScales};

impl QuantizedLinear {
    /// The rows of `self` (gate) and `up` by turns: row `2i` is row `i` of the gate, row `2i + 1`
    /// row `i` of the up projection, as kernels with the SiLU-multiply epilogue take them.
    ///
    /// # Errors
    /// [`FormatError::Unpaired`] if the layers differ in size, format, order of columns or in
    /// having a bias.
    pub fn interleave(&self, up: &QuantizedLinear) -> Result<QuantizedLinear, FormatError> {
        self.check_pair(up)?;
        let groups = self.groups();
        let param = |(gate, up): (&ParamArray, &ParamArray)| ParamArray {
            name: gate.name.clone(),
            values: by_turns(&gate.values, &up.values, groups),
        };
        let bias = self.bias.as_ref().zip(up.bias.as_ref());
        Ok(QuantizedLinear {
            spec: self.spec.clone(),
            n: 2 * self.n,
            k: self.k,
            codes: self.codes.by_turns(&up.codes),
            params: self.params.iter().zip(&up.params).map(param).collect(),
            bias: bias.map(|(gate, up)| rows_by_turns(gate, up, 1)),
            rounding: self.rounding,
            k_order: self.k_order.clone(),
            // Of the greater scale, so that nothing saturates that would not in a layer of its own.
            input_scale: self.input_scale.zip(up.input_scale).map(|(gate, up)| gate.max(up)),
        })
    }

    fn check_pair(&self, up: &QuantizedLinear) -> Result<(), FormatError> {
        let differs = |what: &str, gate: String, up: String| {
            Err(FormatError::Unpaired { what: what.into(), gate, up })
        };
        let sizes = |layer: &QuantizedLinear| format!("{}x{}", layer.n, layer.k);
        if (self.n, self.k) != (up.n, up.k) {
            return differs("sizes", sizes(self), sizes(up));
        }
        if self.spec != up.spec || self.rounding != up.rounding {
            return differs("formats", self.spec.name.clone(), up.spec.name.clone());
        }
        if self.k_order != up.k_order {
            return differs("orders of columns", "one".into(), "another".into());
        }
        if self.codes.vectors() != up.codes.vectors() {
            return differs("codebooks", "one".into(), "another".into());
        }
        if matches!(self.spec.group, qtune_ir::Group::Rows(_)) {
            let what = "parameters, which rows of one layer share";
            return differs(what, "the gate's".into(), "those of up".into());
        }
        let bias = |layer: &QuantizedLinear| {
            if layer.bias.is_some() { "with" } else { "without" }.to_string()
        };
        if self.bias.is_some() != up.bias.is_some() {
            return differs("biases", bias(self), bias(up));
        }
        Ok(())
    }
}

fn by_turns(gate: &ParamValues, up: &ParamValues, groups: usize) -> ParamValues {
    match (gate, up) {
        (ParamValues::F16(gate), ParamValues::F16(up)) => {
            ParamValues::F16(rows_by_turns(gate, up, groups))
        }
        (ParamValues::F32(gate), ParamValues::F32(up)) => {
            ParamValues::F32(rows_by_turns(gate, up, groups))
        }
        (ParamValues::Code(gate), ParamValues::Code(up)) => {
            ParamValues::Code(rows_by_turns(gate, up, groups))
        }
        (ParamValues::Small(gate), ParamValues::Small(up)) => {
            let codes = rows_by_turns(gate.codes(), up.codes(), groups);
            ParamValues::Small(SmallScales::by_turns(codes, gate, up))
        }
        // Equal specs store a parameter in one type; exact values survive the widest. Codes of scales do not
        // name values of one map then, and nobody reads them: the scales are there.
        (gate, up) => {
            let wide = |values: &ParamValues| -> Vec<f32> {
                (0..values.len()).map(|index| values.get(index) as f32).collect()
            };
            ParamValues::F32(rows_by_turns(&wide(gate), &wide(up), groups))
        }
    }
}

/// Rows of `width` values by turns.
fn rows_by_turns<T: Copy>(gate: &[T], up: &[T], width: usize) -> Vec<T> {
    let rows = gate.chunks(width).zip(up.chunks(width));
    rows.flat_map(|(gate, up)| gate.iter().chain(up).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Codes, Rounding};
    use half::f16;

    fn layer(seed: usize, n: usize, bias: bool) -> QuantizedLinear {
        let k = 96;
        let mut codes = Codes::zeros(n, k, 4);
        let bytes = codes.bytes_mut().iter_mut().enumerate();
        bytes.for_each(|(i, byte)| *byte = (i * 37 + seed) as u8);
        let scale = |i| f16::from_f32(0.01 + (i * 7 + seed) as f32 / 1024.0);
        let array = |name: &str, values| ParamArray { name: name.into(), values };
        let count = n * k / 32;
        let zeros = (0..count).map(|i| ((i * 5 + seed) % 16) as u8).collect();
        QuantizedLinear {
            spec: crate::resolve("awq-g32").unwrap(),
            n,
            k,
            codes,
            params: vec![
                array("s", ParamValues::F16((0..count).map(scale).collect())),
                array("z", ParamValues::Code(zeros)),
            ],
            bias: bias.then(|| (0..n).map(|i| (i + seed) as f32).collect()),
            rounding: Rounding::F16,
            k_order: None,
            input_scale: None,
        }
    }

    #[test]
    fn gate_rows_are_even_and_up_rows_are_odd() {
        let (gate, up) = (layer(3, 5, true), layer(11, 5, true));
        let both = gate.interleave(&up).unwrap();
        let (weights, k) = (both.dequantize(), both.k);
        let (of_gate, of_up) = (gate.dequantize(), up.dequantize());
        for n in 0..5 {
            let row = |weights: &[f32], n: usize| weights[n * k..][..k].to_vec();
            assert_eq!(row(&weights, 2 * n), row(&of_gate, n));
            assert_eq!(row(&weights, 2 * n + 1), row(&of_up, n));
        }
        assert_eq!(both.bias.unwrap()[..4], [3.0, 11.0, 4.0, 12.0]);
    }

    #[test]
    fn layers_that_do_not_pair_are_refused_with_what_differs() {
        let gate = layer(3, 5, false);
        let why = |up: &QuantizedLinear| gate.interleave(up).unwrap_err().to_string();
        assert!(why(&layer(3, 6, false)).contains("sizes"));
        assert!(why(&layer(3, 5, true)).contains("biases"));
        let other = QuantizedLinear { rounding: Rounding::F32, ..layer(3, 5, false) };
        assert!(why(&other).contains("formats"));
        let spec = crate::resolve("hqq-g5-axis0").unwrap();
        let shared = QuantizedLinear { spec, ..gate.clone() };
        assert!(shared
            .interleave(&shared)
            .unwrap_err()
            .to_string()
            .contains("rows of one layer share"));
    }
}
