//! Scales that are floats of 8 bits, with a number that a whole layer shares.

use qtune_ir::dequant::e4m3;
use std::ops::Range;
use std::sync::LazyLock;

/// What all scales of a layer are multiplied with, or divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LayerNumber {
    /// They are multiplied.
    Factor(f32),
    /// They are divided.
    Divisor(f32),
}

impl LayerNumber {
    /// The scale of a float of 8 bits, in f32.
    fn of(self, scale: f32) -> f32 {
        match self {
            LayerNumber::Factor(factor) => scale * factor,
            LayerNumber::Divisor(divisor) => scale / divisor,
        }
    }
}

/// The values of scales that are e4m3, by code.
static VALUES: LazyLock<[f32; 256]> =
    LazyLock::new(|| std::array::from_fn(|code| e4m3(code as u8) as f32));

/// Scales `[N, groups]`, as their codes (e4m3), and the numbers of their layer.
#[derive(Clone, Debug, PartialEq)]
pub struct SmallScales {
    codes: Vec<u8>,
    groups: usize,
    /// Of even rows and of odd ones, which differ where rows of two layers lie by turns.
    numbers: [LayerNumber; 2],
}

impl SmallScales {
    /// The scales of a layer, with so many quant groups in a row.
    pub fn new(codes: Vec<u8>, groups: usize, number: LayerNumber) -> SmallScales {
        SmallScales { codes, groups, numbers: [number; 2] }
    }

    /// The same scales of a layer with this number.
    pub fn with_number(self, number: LayerNumber) -> SmallScales {
        SmallScales { numbers: [number; 2], ..self }
    }

    /// Scales whose rows are those of `even` and `odd` by turns, in which their codes are already.
    pub(crate) fn by_turns(codes: Vec<u8>, even: &SmallScales, odd: &SmallScales) -> SmallScales {
        let numbers = [even.numbers[0], odd.numbers[0]];
        SmallScales { codes, groups: even.groups, numbers }
    }

    /// The codes, row by row.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// Scale `index`, in f32 as the libraries compute it.
    pub fn get(&self, index: usize) -> f32 {
        let number = self.numbers[index / self.groups.max(1) % 2];
        number.of(VALUES[usize::from(self.codes[index])])
    }

    /// Scales before the number of the layer.
    pub fn small(&self, range: Range<usize>) -> Vec<f32> {
        self.codes[range].iter().map(|code| VALUES[usize::from(*code)]).collect()
    }

    /// The numbers of the layer as factors, of even rows and of odd ones.
    pub fn factors(&self) -> [f32; 2] {
        self.numbers.map(|number| number.of(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_by_turns_keep_the_number_of_their_layer() {
        let gate = SmallScales::new(vec![0x38, 0x40], 2, LayerNumber::Factor(3.0));
        let up = SmallScales::new(vec![0x30, 0xb8], 2, LayerNumber::Divisor(4.0));
        let both = SmallScales::by_turns(vec![0x38, 0x40, 0x30, 0xb8], &gate, &up);
        let all: Vec<f32> = (0..4).map(|index| both.get(index)).collect();
        assert_eq!(all, [3.0, 6.0, 0.125, -0.25]);
        assert_eq!((both.small(1..4), both.factors()), (vec![2.0, 0.5, -1.0], [3.0, 0.25]));
    }
}
