//! What a format says: the exact weight of every code, in f64.

use super::{source, Context, DequantError, Engine, GroupValues, Op, Term};
use crate::{DType, WeightSpec};
use egg::Id;

/// A format's expression, ready to be evaluated for all codes at once.
///
/// ```
/// use qtune_ir::dequant::CodeTable;
/// use qtune_ir::{Group, Param, ParamType, WeightSpec};
/// let s = Param { name: "s".into(), dtype: ParamType::F16 };
/// let (name, expr) = ("test".into(), "(* (- q 8) s)".into());
/// let (group, codebook) = (Group::Channel, Default::default());
/// let (bits, params) = (4, vec![s]);
/// let (act_order, activations) = (false, Default::default());
/// let spec = WeightSpec { name, bits, group, params, expr, codebook, act_order, activations };
/// let mut weights = [0.0; 16];
/// CodeTable::new(&spec)?.fill(&[0.5], &mut weights);
/// assert_eq!((weights[0], weights[15]), (-4.0, 3.5));
/// # Ok::<(), qtune_ir::dequant::DequantError>(())
/// ```
#[derive(Clone, Debug)]
pub struct CodeTable {
    ctx: Context,
    term: Term,
    weight: Id,
    codes: Vec<u32>,
    ones: Vec<f64>,
}

impl CodeTable {
    /// The table of a format.
    ///
    /// # Errors
    /// [`DequantError`] if the format's expression is not one of a weight.
    pub fn new(spec: &WeightSpec) -> Result<CodeTable, DequantError> {
        // Values do not depend on engine and activations; these take every format.
        let ctx = Context { act: DType::F32, engine: Engine::F32, spec: spec.clone() };
        let term = source(&ctx)?;
        let weight = weight_of(&term).unwrap_or(term.root());
        let codes: Vec<u32> = (0..ctx.codes()).collect();
        let ones = vec![1.0; codes.len()];
        Ok(CodeTable { ctx, term, weight, codes, ones })
    }

    /// One group that holds every code once.
    fn group<'a>(&'a self, params: &'a [f64]) -> GroupValues<'a> {
        GroupValues {
            ctx: &self.ctx,
            params,
            codes: &self.codes,
            positions: &self.ones,
            activations: &self.ones,
        }
    }

    /// Sets `weights[q]` to the exact weight of code `q` for every code that fits, given the group
    /// parameters in the order of [`WeightSpec::params`].
    pub fn fill(&self, params: &[f64], weights: &mut [f64]) {
        let group = self.group(params);
        for (code, weight) in weights.iter_mut().enumerate() {
            *weight = group.weight(&self.term, self.weight, code);
        }
    }

    /// [`CodeTable::fill`] by a machine that applies `round` to the result of every sum, difference and
    /// product.
    pub fn fill_by_steps(&self, params: &[f64], weights: &mut [f64], round: impl Fn(f64) -> f64) {
        let group = self.group(params);
        for (code, weight) in weights.iter_mut().enumerate() {
            *weight = self.step(&group, self.weight, code, &round);
        }
    }

    fn step(
        &self,
        group: &GroupValues<'_>,
        id: Id,
        code: usize,
        round: &impl Fn(f64) -> f64,
    ) -> f64 {
        let of = |id: Id| self.step(group, id, code, round);
        match *self.term.node(id) {
            Op::Add([a, b]) => round(of(a) + of(b)),
            Op::Sub([a, b]) => round(of(a) - of(b)),
            Op::Mul([a, b]) => round(of(a) * of(b)),
            _ => group.weight(&self.term, id, code),
        }
    }
}

/// The weight `W` of a source term `(sum (* W x))`.
fn weight_of(source: &Term) -> Option<Id> {
    let Op::Sum(body) = source.node(source.root()) else { return None };
    match source.node(*body) {
        Op::Mul([weight, _]) => Some(*weight),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::awq;
    use super::*;

    #[test]
    fn steps_round_every_operation() {
        let table = CodeTable::new(&awq()).unwrap();
        let mut weights = [0.0; 16];
        table.fill_by_steps(&[0.75, 1.5], &mut weights, f64::floor);
        // floor(floor(q - 1.5) * 0.75)
        assert_eq!(weights[..5], [-2.0, -1.0, 0.0, 0.0, 1.0]);
    }
}
