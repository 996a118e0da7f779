//! What is true of a value: the part it plays, what it depends on, and where it lies.
//!
//! Facts are computed from a node and its children's facts, so the same rules serve terms (the
//! verifier, [`super::Lowered`]) and e-classes (the analysis that rule conditions ask).

use super::context::{POSITIONS, RAISED};
use super::{float8, Context, Engine, Num, Op};
use crate::{DType, ParamType};

/// The type of a node: which part of a group's computation it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A constant.
    Constant,
    /// Depends on group parameters or the position weight, not on codes or activations.
    Uniform,
    /// An integer computed from the code, in the low bits.
    Integer,
    /// An integer left where it lies in its packed word.
    Word,
    /// A real number that depends on the code: computed once per weight in the compute type.
    Weight,
    /// `x`, or a constant times `x`.
    Activation,
    /// A weight times an activation.
    Product,
    /// Contains a sum: computed in f32 per row, token and quant group.
    Outer,
}

/// Every value lies in `lo..=hi` and is a multiple of `2^ulp`. Float parameters are assumed not to
/// exceed 64, and activations are measured in units of the largest one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Least value.
    pub lo: f64,
    /// Greatest value.
    pub hi: f64,
    /// Exponent of the spacing.
    pub ulp: i32,
}

/// Spacing of floats: finer than any type, so that nothing computed from them counts as exact.
const FLOAT_ULP: i32 = -1000;

/// The magnitude that float parameters are taken to have at most, when it is asked whether a term
/// overflows. Scales and zero-points of published formats are below it; a checkpoint that is not
/// shows as an infinite error bound.
const PARAM_MAX: f64 = 64.0;

/// The same of scales of scales, which integers of up to 8 bits multiply.
const SHARED_MAX: f64 = 1.0;

/// The magnitude that numbers of vectors are taken to have at most, likewise: codebooks are made for
/// weights that were divided by a norm.
pub(super) const VECTOR_MAX: f64 = 8.0;

impl Grid {
    fn constant(value: f64) -> Grid {
        let bits = value.to_bits();
        let exponent = ((bits >> 52) & 0x7ff) as i32;
        let mantissa = bits & ((1 << 52) - 1);
        let ulp = match (exponent, mantissa) {
            (0, 0) => 0,
            (0, m) => -1074 + m.trailing_zeros() as i32,
            (e, 0) => e - 1023,
            (e, m) => e - 1075 + m.trailing_zeros() as i32,
        };
        Grid { lo: value, hi: value, ulp }
    }

    fn integers(hi: f64) -> Grid {
        Grid { lo: 0.0, hi, ulp: 0 }
    }

    fn add(self, other: Grid) -> Grid {
        Grid { lo: self.lo + other.lo, hi: self.hi + other.hi, ulp: self.ulp.min(other.ulp) }
    }

    fn neg(self) -> Grid {
        Grid { lo: -self.hi, hi: -self.lo, ulp: self.ulp }
    }

    fn mul(self, other: Grid) -> Grid {
        let corners =
            [self.lo * other.lo, self.lo * other.hi, self.hi * other.lo, self.hi * other.hi];
        Grid {
            lo: corners.into_iter().fold(f64::INFINITY, f64::min),
            hi: corners.into_iter().fold(f64::NEG_INFINITY, f64::max),
            ulp: self.ulp + other.ulp,
        }
    }

    /// The largest magnitude.
    pub fn magnitude(self) -> f64 {
        self.lo.abs().max(self.hi.abs())
    }

    /// Whether every value of the grid is a value of `dtype`.
    pub fn exact_in(self, dtype: DType) -> bool {
        let (digits, least) = match dtype {
            DType::F16 => (11, -24),
            DType::Bf16 => (8, -133),
            DType::F32 => (24, -149),
        };
        let magnitude = self.magnitude();
        let representable = magnitude <= 2.0f64.powi(digits + self.ulp);
        magnitude == 0.0 || (representable && self.ulp >= least && magnitude <= dtype.max_finite())
    }

    /// The tighter of two grids that both hold; ties keep `self`.
    fn tighter(self, other: Grid) -> Grid {
        Grid { lo: self.lo.max(other.lo), hi: self.hi.min(other.hi), ulp: self.ulp.max(other.ulp) }
    }
}

/// What is true of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Its type.
    pub role: Role,
    /// Whether it uses `p` or `rp` outside of a sum.
    pub position: bool,
    /// Whether it uses a group parameter outside of a sum.
    pub param: bool,
    /// Its value, where it is a constant.
    pub constant: Option<Num>,
    /// Where its values lie, for each of [`POSITIONS`]; `None` for what contains a sum.
    pub grid: [Option<Grid>; 2],
}

/// One grid per position weight.
type Grids = [Option<Grid>; 2];

fn map2(a: Grids, b: Grids, f: impl Fn(Grid, Grid) -> Grid) -> Grids {
    [0, 1].map(|i| Some(f(a[i]?, b[i]?)))
}

fn map1(a: Grids, f: impl Fn(Grid) -> Grid) -> Grids {
    a.map(|grid| grid.map(&f))
}

impl Facts {
    /// Whether the value can be computed outside of the loop over k, for each position weight.
    pub fn hoistable(&self) -> bool {
        matches!(self.role, Role::Constant | Role::Uniform)
    }

    /// Whether the value is the same for all k of a quant group.
    pub fn invariant(&self, engine: Engine) -> bool {
        match self.role {
            Role::Constant | Role::Uniform => !self.position || engine == Engine::Mma,
            Role::Outer => true,
            Role::Integer | Role::Word | Role::Weight | Role::Activation | Role::Product => false,
        }
    }

    /// Largest magnitude over both position weights, where it is known.
    pub fn magnitude(&self) -> Option<f64> {
        Some(self.grid[0]?.magnitude().max(self.grid[1]?.magnitude()))
    }

    /// Whether every value is a value of `dtype`, so that computing it there does not round.
    pub fn exact_in(&self, dtype: DType) -> bool {
        self.grid.iter().all(|grid| grid.is_some_and(|g| g.exact_in(dtype)))
    }

    /// The facts of the sum or difference, whichever is wider: used to ask whether an offset stays
    /// exact before it is formed.
    pub(super) fn offset_exact(&self, other: &Facts, dtype: DType) -> bool {
        let exact = |a: Option<Grid>, b: Option<Grid>| match (a, b) {
            (Some(a), Some(b)) => {
                let hi = a.magnitude() + b.magnitude();
                Grid { lo: -hi, hi, ulp: a.ulp.min(b.ulp) }.exact_in(dtype)
            }
            _ => false,
        };
        (0..2).all(|i| exact(self.grid[i], other.grid[i]))
    }

    pub(super) fn leaf(role: Role, grid: Grids) -> Facts {
        Facts { role, position: false, param: false, constant: None, grid }
    }

    /// The facts of `op`, from those of its children.
    ///
    /// # Errors
    /// One line saying why the operator does not accept these operands.
    pub fn of<'a>(
        ctx: &Context,
        op: &Op,
        child: impl Fn(egg::Id) -> &'a Facts,
    ) -> Result<Facts, String> {
        match op {
            Op::Const(num) => {
                let grid = [Some(Grid::constant(num.value())); 2];
                Ok(Facts { constant: Some(*num), ..Facts::leaf(Role::Constant, grid) })
            }
            Op::Code => {
                let grid = Grid::integers(ctx.code_max().into());
                Ok(Facts::leaf(Role::Integer, [Some(grid); 2]))
            }
            // In units of the largest activation, so that a product's grid bounds its overflow.
            Op::Activation => {
                let grid = Grid { lo: -1.0, hi: 1.0, ulp: FLOAT_ULP };
                Ok(Facts::leaf(Role::Activation, [Some(grid); 2]))
            }
            Op::Position | Op::Unposition => Ok(position_facts(op)),
            Op::Param(name) => param_facts(ctx, name.as_str()),
            Op::Xor([a, b])
            | Op::And([a, b])
            | Op::Or([a, b])
            | Op::Shl([a, b])
            | Op::Shr([a, b]) => integer_facts(op, child(*a), child(*b)),
            Op::Lookup(a) | Op::Pair(a) | Op::Page(a) | Op::Permuted(a) => {
                lookup_facts(ctx, op, child(*a), 1.0)
            }
            Op::Vector(a) => vector_facts(ctx, child(*a)),
            Op::Short(a) => lookup_facts(ctx, op, child(*a), ctx.short_unit()),
            Op::Float8(a) | Op::Wide(a) | Op::Converted(a) => float8::facts(child(*a), 1.0),
            Op::Narrow(a) => float8::facts(child(*a), float8::NARROW),
            Op::Real(a) | Op::At(a) | Op::Raised(a) | Op::Magic(a) | Op::Subnormal(a) => {
                conversion_facts(ctx, op, child(*a))
            }
            Op::Add([a, b]) => sum_facts(child(*a), child(*b), false),
            Op::Sub([a, b]) => sum_facts(child(*a), child(*b), true),
            Op::Mul([a, b]) => product_facts(child(*a), child(*b)),
            Op::Fma([a, b, c]) => {
                sum_facts(&product_facts(child(*a), child(*b))?, child(*c), false)
            }
            Op::Neg(a) => negation_facts(child(*a)),
            Op::Stored([a, b]) => stored_facts(child(*a), child(*b)),
            Op::Nested(made) => nested_facts(made.map(child)),
            Op::Sum(a) => match child(*a).role {
                Role::Activation | Role::Product => Ok(Facts::leaf(Role::Outer, [None; 2])),
                other => Err(format!("sum of {other:?}, expected x or a weight times x")),
            },
        }
    }

    /// Joins facts that hold of the same value; true if `self` changed.
    pub(super) fn merge(&mut self, other: &Facts) -> bool {
        let merged = Facts {
            role: self.role.min(other.role),
            position: self.position && other.position,
            param: self.param && other.param,
            constant: self.constant.or(other.constant),
            grid: [0, 1].map(|i| match (self.grid[i], other.grid[i]) {
                (Some(a), Some(b)) => Some(a.tighter(b)),
                (a, b) => a.or(b),
            }),
        };
        let changed = merged != *self;
        *self = merged;
        changed
    }
}

fn position_facts(op: &Op) -> Facts {
    let value = |p: f64| if matches!(op, Op::Position) { p } else { 1.0 / p };
    let grid = POSITIONS.map(|p| Some(Grid::constant(value(p))));
    Facts { position: true, ..Facts::leaf(Role::Uniform, grid) }
}

fn param_facts(ctx: &Context, name: &str) -> Result<Facts, String> {
    let Some((_, dtype)) = ctx.param(name) else {
        let known: Vec<&str> = ctx.spec.params.iter().map(|p| p.name.as_str()).collect();
        return Err(format!("unknown parameter `{name}`, known: {}", known.join(", ")));
    };
    let grid = match dtype {
        ParamType::Code(bits) => Grid::integers(2.0f64.powi(bits.into()) - 1.0),
        ParamType::NestedCode => Grid::integers(f64::from(u8::MAX)),
        // What kernels compute with, before the number of the layer.
        ParamType::E4M3 => float8::GRID,
        ParamType::F16
        | ParamType::F32
        | ParamType::Resolved
        | ParamType::NestedScale
        | ParamType::E8M0
        | ParamType::Shared(_) => {
            let any = if matches!(dtype, ParamType::Shared(_)) { SHARED_MAX } else { PARAM_MAX };
            let hi = ctx.scale_max(name).unwrap_or(any);
            Grid { lo: -hi, hi, ulp: FLOAT_ULP }
        }
    };
    Ok(Facts { param: true, ..Facts::leaf(Role::Uniform, [Some(grid); 2]) })
}

fn integer_facts(op: &Op, a: &Facts, b: &Facts) -> Result<Facts, String> {
    let integer = |facts: &Facts| facts.constant.and_then(Num::as_integer).filter(|&c| c < 1 << 10);
    let hi = |facts: &Facts| facts.grid[0].map_or(0, |g| g.hi as u32);
    let ones = |value: u32| (value + 1).next_power_of_two() - 1;
    let (code, constant) = match (a.role, b.role) {
        (Role::Integer, Role::Constant) => (a, integer(b)),
        (Role::Constant, Role::Integer) if !matches!(op, Op::Shl(_) | Op::Shr(_)) => {
            (b, integer(a))
        }
        _ => return Err(format!("`{op}` takes a code and an integer constant")),
    };
    let constant = constant.ok_or("integer constants are 0 to 1023")?;
    let hi = match op {
        Op::And(_) => hi(code).min(constant),
        Op::Shl(_) if constant < 10 => hi(code) << constant,
        Op::Shl(_) => return Err("left shifts are by 0 to 9".into()),
        Op::Shr(_) => hi(code).checked_shr(constant).unwrap_or(0),
        _ => ones(hi(code)) | ones(constant),
    };
    Ok(Facts::leaf(Role::Integer, [Some(Grid::integers(hi.into())); 2]))
}

/// Every value of the codebook over `unit`, whichever the integer is.
fn lookup_facts(ctx: &Context, op: &Op, a: &Facts, unit: f64) -> Result<Facts, String> {
    if a.role != Role::Integer {
        return Err(format!("`{op}` takes an integer made from the code, not {:?}", a.role));
    }
    let (values, hi) = (ctx.spec.codebook.values(), a.magnitude().unwrap_or(f64::INFINITY));
    if hi >= values.len() as f64 {
        return Err(format!("the codebook has {} values, none for {hi}", values.len()));
    }
    let grids = values.iter().map(|value| Grid::constant(f64::from(*value) / unit));
    let grid =
        grids.reduce(|a, b| Grid { lo: a.lo.min(b.lo), hi: a.hi.max(b.hi), ulp: a.ulp.min(b.ulp) });
    Ok(Facts::leaf(Role::Weight, [grid; 2]))
}

/// Any number that a layer's codebooks may make.
fn vector_facts(ctx: &Context, a: &Facts) -> Result<Facts, String> {
    if a.role != Role::Integer || ctx.spec.codebook.vectors().is_none() {
        return Err("`vector` takes the code of a format whose codes name vectors".into());
    }
    let grid = Grid { lo: -VECTOR_MAX, hi: VECTOR_MAX, ulp: FLOAT_ULP };
    Ok(Facts::leaf(Role::Weight, [Some(grid); 2]))
}

fn conversion_facts(ctx: &Context, op: &Op, a: &Facts) -> Result<Facts, String> {
    let (role, grid) = match (op, a.role) {
        (Op::At(_), Role::Integer) => {
            let at = [0, 1].map(|i| Some(a.grid[i]?.mul(Grid::constant(POSITIONS[i]))));
            (Role::Word, at)
        }
        (Op::Raised(_), Role::Integer) => {
            let at = [0, 1].map(|i| Some(a.grid[i]?.mul(Grid::constant(RAISED * POSITIONS[i]))));
            (Role::Word, at)
        }
        (Op::Real(_), Role::Integer | Role::Word) => (Role::Weight, a.grid),
        (Op::Magic(_), Role::Integer | Role::Word) => {
            (Role::Weight, map1(a.grid, |g| g.add(Grid::constant(ctx.magic_base()))))
        }
        (Op::Subnormal(_), Role::Integer | Role::Word) => {
            (Role::Weight, map1(a.grid, |g| g.mul(Grid::constant(2.0f64.powi(-24)))))
        }
        _ => return Err(format!("`{op}` takes an integer made from the code, not {:?}", a.role)),
    };
    Ok(Facts::leaf(role, grid))
}

fn sum_facts(a: &Facts, b: &Facts, negate: bool) -> Result<Facts, String> {
    let role = match (a.role, b.role) {
        (
            Role::Constant | Role::Uniform | Role::Weight,
            Role::Constant | Role::Uniform | Role::Weight,
        )
        | (
            Role::Constant | Role::Uniform | Role::Outer,
            Role::Constant | Role::Uniform | Role::Outer,
        ) => a.role.max(b.role),
        (a, b) => return Err(format!("{a:?} and {b:?} cannot be added")),
    };
    let grid = map2(a.grid, b.grid, |a, b| a.add(if negate { b.neg() } else { b }));
    Ok(both(a, b, role, grid))
}

fn product_facts(a: &Facts, b: &Facts) -> Result<Facts, String> {
    let role = match (a.role, b.role) {
        (
            Role::Constant | Role::Uniform | Role::Weight,
            Role::Constant | Role::Uniform | Role::Weight,
        ) => a.role.max(b.role),
        (Role::Outer, Role::Constant | Role::Uniform)
        | (Role::Constant | Role::Uniform, Role::Outer) => Role::Outer,
        (Role::Constant, Role::Activation) => Role::Activation,
        (Role::Uniform | Role::Weight, Role::Activation) => Role::Product,
        (a, b) => return Err(format!("{a:?} and {b:?} cannot be multiplied")),
    };
    Ok(both(a, b, role, map2(a.grid, b.grid, Grid::mul)))
}

/// The product of two parameters, or of one and a constant, rounded when weights are packed.
fn stored_facts(a: &Facts, b: &Facts) -> Result<Facts, String> {
    let factors = [a, b];
    let known = factors.iter().all(|facts| facts.hoistable() && !facts.position);
    if !known || !factors.iter().any(|facts| facts.param) {
        return Err("only products of group parameters and constants are stored".into());
    }
    let product = product_facts(a, b)?;
    Ok(Facts { grid: map1(product.grid, |grid| Grid { ulp: FLOAT_ULP, ..grid }), ..product })
}

/// A scale and what it is made of.
fn nested_facts(made: [&Facts; 3]) -> Result<Facts, String> {
    let parameters = made.iter().all(|facts| facts.hoistable() && facts.param && !facts.position);
    match parameters {
        true => Ok(made[0].clone()),
        false => Err("only group parameters are nested".into()),
    }
}

fn negation_facts(a: &Facts) -> Result<Facts, String> {
    match a.role {
        Role::Constant | Role::Uniform | Role::Weight | Role::Outer => {
            Ok(Facts { constant: None, grid: map1(a.grid, Grid::neg), ..a.clone() })
        }
        other => Err(format!("{other:?} cannot be negated")),
    }
}

fn both(a: &Facts, b: &Facts, role: Role, grid: Grids) -> Facts {
    Facts {
        role,
        position: a.position || b.position,
        param: a.param || b.param,
        constant: None,
        grid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_constant_is_exact_where_rounding_keeps_it(
            mantissa in -5000i32..5000,
            exponent in -30i32..12,
        ) {
            let value = f64::from(mantissa) * 2.0f64.powi(exponent);
            for dtype in [DType::F16, DType::Bf16, DType::F32] {
                let kept = dtype.round(value) == value;
                prop_assert_eq!(Grid::constant(value).exact_in(dtype), kept, "{} {}", value, dtype);
            }
        }
    }

    #[test]
    fn grids_are_exact_up_to_the_types_precision() {
        let integers = |hi| Grid::integers(hi);
        assert!(integers(2048.0).exact_in(DType::F16) && !integers(2049.0).exact_in(DType::F16));
        assert!(integers(256.0).exact_in(DType::Bf16) && !integers(257.0).exact_in(DType::Bf16));
        let eighths = integers(8.0).mul(Grid::constant(0.125));
        assert_eq!((eighths.hi, eighths.ulp), (1.0, -3));
    }
}
