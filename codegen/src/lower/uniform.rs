//! Operands of weights that are fixed within a quant group, in packed halves.
//!
//! The algebra says that such a value is computed in f32 and rounded once. Where it is one product
//! or one exact sum of values that are f16 already, packed arithmetic gives the same bits with
//! fewer instructions, as parameters need no widening and the result no packing.

use super::term::{Plan, Row};
use crate::kir::{call, hex, Expr};
use egg::Id;
use qtune_ir::dequant::Op;
use qtune_ir::DType;

/// Selectors that put the lower half of a second word above that of a first.
const LOWER_HALVES: u32 = 0x5410;
/// The same of upper halves.
const UPPER_HALVES: u32 = 0x7632;
/// The signs of both halves.
const SIGNS: u32 = 0x8000_8000;

/// A constant times parameters.
struct Product {
    constant: f64,
    /// A parameter, and whether all its values are integers.
    params: Vec<(Expr, bool)>,
}

impl Product {
    fn constant(constant: f64) -> Product {
        Product { constant, params: Vec::new() }
    }

    fn times(mut self, other: Product) -> Product {
        self.constant *= other.constant;
        self.params.extend(other.params);
        self
    }

    /// Two parameters, an integer first, and a constant for each, if multiplying by that is exact: an
    /// integer gets smaller, or what an integer multiplies greater, and so has room for it.
    fn factors(mut self) -> Option<[(Expr, f64); 2]> {
        self.params.sort_by_key(|(_, integers)| !integers);
        let [(first, integers), (second, _)] = <[_; 2]>::try_from(self.params).ok()?;
        match self.constant {
            constant if !is_power_of_two(constant) => None,
            1.0 => Some([(first, 1.0), (second, 1.0)]),
            _ if !integers => None,
            constant if constant.abs() > 1.0 => Some([(first, 1.0), (second, constant)]),
            constant => Some([(first, constant), (second, 1.0)]),
        }
    }
}

impl Plan<'_> {
    /// The value of invariant `id` in a row, rounded to the compute type, in both halves.
    pub fn broadcast(&self, id: Id, row: &Row) -> Expr {
        if let Some(value) = self.packed(id, row) {
            return value;
        }
        let value = self.invariant(id, row);
        call(self.op("pack"), [value.clone(), value])
    }

    /// The same by packed arithmetic that rounds at most once, if there is a way.
    fn packed(&self, id: Id, row: &Row) -> Option<Expr> {
        if self.compute() != DType::F16 {
            return None;
        }
        if let Some(product) = self.product(id, row) {
            return self.packed_product(product);
        }
        let (name, a, b) = match *self.node(id) {
            Op::Add([a, b]) => ("h2_add", a, b),
            Op::Sub([a, b]) => ("h2_sub", a, b),
            _ => return None,
        };
        let exact = [id, a, b].iter().all(|id| self.facts(*id).exact_in(DType::F16));
        exact.then_some(())?;
        Some(call(name, [self.packed(a, row)?, self.packed(b, row)?]))
    }

    /// `id` as a product.
    fn product(&self, id: Id, row: &Row) -> Option<Product> {
        if let Some(constant) = self.constant(id, row.position) {
            return Some(Product::constant(constant));
        }
        match *self.node(id) {
            Op::Mul([a, b]) => Some(self.product(a, row)?.times(self.product(b, row)?)),
            Op::Neg(a) => Some(self.product(a, row)?.times(Product::constant(-1.0))),
            Op::Param(_) | Op::Stored(_) => {
                let value = self.entry(id, row)?;
                let both = match value {
                    Expr::Call("h2_low", words) => call("h2_both_low", words.clone()),
                    Expr::Call("h2_high", words) => call("h2_both_high", words.clone()),
                    _ => return None,
                };
                let params = vec![(both, self.facts(id).exact_in(DType::F16))];
                Some(Product { constant: 1.0, params })
            }
            _ => None,
        }
    }

    /// A constant, or a product of one parameter, or of two where scaling one is exact.
    fn packed_product(&self, product: Product) -> Option<Expr> {
        let constant = product.constant;
        let scaled = |value: Expr, constant: f64| match constant == 1.0 {
            true => value,
            false => call("h2_mul", [value, self.both(constant)]),
        };
        match &product.params[..] {
            [] => Some(self.both(constant)),
            [(only, _)] if is_power_of_two(constant) => Some(scaled(only.clone(), constant)),
            _ => {
                let [first, second] = product.factors()?.map(|(value, c)| scaled(value, c));
                Some(call("h2_mul", [first, second]))
            }
        }
    }

    /// The values of two invariants in their rows, each rounded to the compute type, in the two halves of
    /// a register.
    pub fn joined(&self, invariants: [(Id, &Row); 2]) -> Expr {
        let [low, high] = invariants.map(|(id, row)| self.broadcast(id, row));
        let joined = in_one_word(&low, &high);
        joined.unwrap_or_else(|| call("permute", [low, high, hex(LOWER_HALVES)]))
    }

    /// The values of an invariant in two columns, the second one in the upper half, each rounded to the compute type.
    pub fn side_by_side(&self, id: Id, columns: [&Row; 2]) -> Expr {
        let halves = self.product_of_halves(id, columns);
        halves.unwrap_or_else(|| self.joined(columns.map(|row| (id, row))))
    }

    /// The same in both halves at once: of parameters that lie side by side one, times a power of two, or a product
    /// of two, which is rounded once.
    fn product_of_halves(&self, id: Id, columns: [&Row; 2]) -> Option<Expr> {
        if self.compute() != DType::F16 {
            return None;
        }
        let [low, high] = columns.map(|row| self.product(id, row));
        let (low, high) = (low?, high?);
        let halves = |((low, _), (high, _)): (&(Expr, bool), &(Expr, bool))| match (low, high) {
            (Expr::Call("h2_both_low", a), Expr::Call("h2_both_high", b)) if a == b => {
                a.first().cloned()
            }
            _ => None,
        };
        let words: Option<Vec<Expr>> = low.params.iter().zip(&high.params).map(halves).collect();
        match (&words?[..], low.constant) {
            ([word], 1.0) => Some(word.clone()),
            ([word], constant) if is_power_of_two(constant) => {
                Some(call("h2_mul", [word.clone(), self.both(constant)]))
            }
            ([a, b], 1.0) => Some(call("h2_mul", [a.clone(), b.clone()])),
            ([a, b], -1.0) => Some(call("h2_mul", [a.clone() ^ hex(SIGNS), b.clone()])),
            _ => None,
        }
    }
}

/// Two values of [`Plan::broadcast`] as the halves of one word, if that takes no more operations than one of
/// them: the same packed operations on halves of one word or of two, or one conversion of both.
pub(super) fn in_one_word(low: &Expr, high: &Expr) -> Option<Expr> {
    if let (Expr::Hex(low), Expr::Hex(high)) = (low, high) {
        return Some(hex(low & 0xffff | high & 0xffff_0000));
    }
    let (Expr::Call(name, a), Expr::Call(other, b)) = (low, high) else { return None };
    let ((a_value, a_scale), (b_value, b_scale)) = (scaled(low), scaled(high));
    if (a_scale, b_scale) != (ONES, ONES) {
        let scales = hex(a_scale & 0xffff | b_scale & 0xffff_0000);
        return Some(call("h2_mul", [in_one_word(a_value, b_value)?, scales]));
    }
    let of_two = |selectors| call("permute", [a[0].clone(), b[0].clone(), hex(selectors)]);
    match (*name, *other) {
        ("h2_both_low", "h2_both_high") if a == b => Some(a[0].clone()),
        ("h2_both_low", "h2_both_low") => Some(of_two(LOWER_HALVES)),
        ("h2_both_high", "h2_both_high") => Some(of_two(UPPER_HALVES)),
        ("h2_pack" | "bf2_pack", _) if name == other && a[0] == a[1] && b[0] == b[1] => {
            Some(call(name, [a[0].clone(), b[0].clone()]))
        }
        ("h2_mul" | "h2_add" | "h2_sub", _) if name == other => {
            let operands = a.iter().zip(b).map(|(a, b)| in_one_word(a, b));
            Some(call(name, operands.collect::<Option<Vec<_>>>()?))
        }
        _ => None,
    }
}

/// 1 in both halves.
const ONES: u32 = 0x3c00_3c00;

/// A packed product with a constant, taken apart.
fn scaled(value: &Expr) -> (&Expr, u32) {
    match value {
        Expr::Call("h2_mul", operands) => match &operands[..] {
            [value, Expr::Hex(scale)] => (value, *scale),
            _ => (value, ONES),
        },
        _ => (value, ONES),
    }
}

/// Whether a value is a power of two, or minus one, that f16 has among its normal numbers.
fn is_power_of_two(value: f64) -> bool {
    let fits = (-14..=15).contains(&(value.abs().log2().floor() as i32));
    fits && value.to_bits() & ((1 << 52) - 1) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::two_levels;
    use crate::kir::var;
    use qtune_ir::dequant::{Context, Engine, Term};
    use qtune_ir::{Group, Param, ParamType, WeightSpec};

    /// What an invariant of a term is computed by, in the rows of a position.
    fn shown(term: &str, zero: ParamType, invariant: usize, position: usize) -> String {
        let param = |name: &str, dtype| Param { name: name.into(), dtype };
        let spec = WeightSpec {
            name: "test".into(),
            bits: 4,
            group: Group::Size(128),
            params: vec![param("s", ParamType::F16), param("z", zero)],
            expr: "(* (- q z) s)".into(),
            codebook: Default::default(),
            act_order: false,
            activations: Default::default(),
        };
        let ctx = Context { act: DType::F16, engine: Engine::Mma, spec };
        let term: Term = term.parse().unwrap();
        let plan = Plan::new(&term, &ctx).unwrap();
        let word = || [var("w")];
        let params = [("s".into(), call("h2_low", word())), ("z".into(), call("h2_high", word()))];
        let id = plan.invariants()[invariant];
        format!("{:?}", plan.broadcast(id, &Row { params: &params, position }))
    }

    #[test]
    fn stored_products_are_taken_from_their_half_as_they_are() {
        let param = |name: &str, dtype| Param { name: name.into(), dtype };
        let params = vec![param("d", ParamType::Shared(8)), param("i", ParamType::Code(6))];
        let spec = WeightSpec {
            name: "test".into(),
            bits: 4,
            group: Group::Size(32),
            params,
            expr: "(* q (* d i))".into(),
            act_order: false,
            activations: Default::default(),
            codebook: Default::default(),
        };
        let ctx = Context { act: DType::F16, engine: Engine::Mma, spec };
        let term = "(sum (* (* (- (magic q) 1024) (* 2 (stored d i))) x))".parse().unwrap();
        let plan = Plan::new(&term, &ctx).unwrap();
        let params = [("(stored d i)".into(), call("h2_high", [var("w")]))];
        let row = Row { params: &params, position: 0 };
        let scale = format!("{:?}", plan.broadcast(plan.invariants()[0], &row));
        assert!(scale.contains("h2_both_high") && !scale.contains("h2_pack"), "{scale}");
    }

    const RAISED: &str = "(* (* 256 rp) (sum (* (fma (subn (raise q)) (* 8192 s) \
                          (* (neg (* z s)) (* p 0.00390625))) x)))";

    #[test]
    fn products_of_a_scale_and_an_integer_take_packed_arithmetic() {
        let scale = shown(RAISED, ParamType::Code(4), 0, 0);
        assert_eq!(scale.matches("h2_mul").count(), 1, "{scale}");
        for position in [0, 1] {
            let offset = shown(RAISED, ParamType::Code(4), 1, position);
            assert_eq!(offset.matches("h2_mul").count(), 2, "{offset}");
            assert!(!offset.contains("h2_pack"), "{offset}");
        }
    }

    #[test]
    fn two_products_of_the_same_words_are_one_multiplication() {
        let spec = two_levels();
        let ctx = Context { act: DType::F16, engine: Engine::Mma, spec };
        let term: Term = "(* (* 256 rp) (sum (* (fma (subn (raise q)) (* 8192 (* d i)) \
                          (* (neg (* e j)) (* p 0.00390625))) x)))"
            .parse()
            .unwrap();
        let plan = Plan::new(&term, &ctx).unwrap();
        let part = |name: &str, half, word: &str| (name.to_string(), call(half, [var(word)]));
        let joined = |j: &str| {
            let (low, high) = ("h2_low", "h2_high");
            let params = [
                part("d", low, "f"),
                part("e", high, "f"),
                part("i", low, "c"),
                part("j", high, j),
            ];
            let row = Row { params: &params, position: 0 };
            let invariants = plan.invariants();
            format!("{:?}", plan.joined([(invariants[0], &row), (invariants[1], &row)]))
        };
        let product = joined("c");
        assert_eq!(product.matches("h2_mul").count(), 3, "{product}");
        // 1 and -1/256 for integers, which have no room for 8192; that and 1 for floats.
        for (word, constants) in [("c", 0x9c00_3c00u32), ("f", 0x3c00_7000)] {
            let scaled = format!("{:?}", [var(word), hex(constants)]);
            assert!(product.contains(&scaled), "{scaled} in {product}");
        }
        assert!(!joined("c").contains("permute") && joined("other").contains("permute"));
    }

    #[test]
    fn what_would_round_twice_is_computed_in_f32() {
        let offset = shown(RAISED, ParamType::F16, 1, 0);
        assert!(offset.contains("h2_pack") && !offset.contains("h2_mul"), "{offset}");
    }

    #[test]
    fn exact_offsets_are_added_in_halves() {
        let term = "(* s (sum (* (- (magic q) (+ 1024 z)) x)))";
        let offset = shown(term, ParamType::Code(4), 0, 0);
        assert!(offset.contains("h2_add") && !offset.contains("h2_pack"), "{offset}");
        let offset = shown(term, ParamType::F16, 0, 0);
        assert!(offset.contains("h2_pack"), "{offset}");
    }
}
