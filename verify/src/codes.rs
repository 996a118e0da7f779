//! What each code of a quant group stands for, and how far a schedule's way of computing it may be
//! off.
//!
//! A dequantization term is linear in its sums over k: one weight adds `coefficient_j * w_j * x`
//! for every sum `j`. So the error of one weight, times `|x|`, can be tabulated per code, and the
//! errors of all weights add up.

use crate::rounding::Rounding;
use crate::VerifyError;
use qtune_ir::dequant::{
    source, Bounded, Context, DequantError, Evaluator, GroupValues, Lowered, Term, POSITIONS,
};
use qtune_ir::{Problem, Schedule, WeightSpec};

/// Unit roundoff of f32.
const F32_UNIT: f64 = 1.0 / (1 << 24) as f64;

/// The term of a schedule and what it is a way of computing.
#[derive(Clone, Debug)]
pub(crate) struct Meaning {
    ctx: Context,
    term: Term,
    source: Term,
}

impl Meaning {
    /// # Errors
    /// [`VerifyError::Term`] if the term or the format's expression does not parse.
    pub fn new(
        problem: &Problem,
        spec: &WeightSpec,
        schedule: &Schedule,
    ) -> Result<Meaning, VerifyError> {
        let ctx = schedule.context(problem, spec);
        let fail = |e: DequantError| refused(schedule.dequant(), &e);
        let term: Term = schedule.dequant().parse().map_err(fail)?;
        let source = source(&ctx).map_err(fail)?;
        Ok(Meaning { ctx, term, source })
    }

    /// Facts of the term.
    ///
    /// # Errors
    /// [`VerifyError::Term`] if the engine cannot compute the term.
    pub fn lowered(&self) -> Result<Lowered, VerifyError> {
        Lowered::new(&self.term, &self.ctx).map_err(|e| refused(&self.term.to_string(), &e))
    }

    /// The rounding of accumulation that the schedule's arithmetic implies.
    ///
    /// # Errors
    /// As [`Meaning::lowered`].
    pub fn rounding(
        &self,
        problem: &Problem,
        schedule: &Schedule,
    ) -> Result<Rounding, VerifyError> {
        let sums = self.lowered()?.sums.len() as u32;
        let direct = self.term.runs_on().is_some();
        Ok(Rounding::new(schedule, &self.ctx.spec, problem, sums, direct))
    }
}

fn refused(term: &str, error: &DequantError) -> VerifyError {
    VerifyError::Term { term: term.into(), reason: error.to_string() }
}

/// Tabulates quant groups.
pub(crate) struct Decoder<'a> {
    meaning: &'a Meaning,
    evaluator: Evaluator<'a>,
    codes: u32,
}

/// The codes of one quant group of one row.
#[derive(Clone, Debug)]
pub(crate) struct CodeTable {
    /// Exact weight, by code.
    weights: Vec<f64>,
    /// By code and position weight: see [`CodeTable::index`].
    values: Vec<CodeError>,
    /// Absolute error per product for each unit of underflow in it.
    sensitivity: f64,
}

/// How far one weight may be off, per unit of activation.
#[derive(Clone, Copy, Debug, Default)]
struct CodeError {
    /// Rounding of the weight and of the coefficients.
    own: f64,
    /// What accumulation errors are relative to: the products as they are summed.
    magnitude: f64,
}

impl<'a> Decoder<'a> {
    /// # Errors
    /// As [`Meaning::lowered`].
    pub fn new(meaning: &'a Meaning) -> Result<Decoder<'a>, VerifyError> {
        let evaluator = Evaluator::new(&meaning.term, &meaning.ctx)
            .map_err(|e| refused(&meaning.term.to_string(), &e))?;
        Ok(Decoder { meaning, evaluator, codes: meaning.ctx.codes() })
    }

    /// The table of a quant group whose codes name vectors, by number: `values` are those of its weights.
    ///
    /// # Errors
    /// As [`Meaning::lowered`].
    pub fn table_of(&self, values: &[f32], params: &[f32]) -> Result<CodeTable, VerifyError> {
        let mut meaning = self.meaning.clone();
        meaning.ctx.spec.codebook = meaning.ctx.spec.codebook.with_values(values);
        let decoder = Decoder::new(&meaning)?;
        Ok(decoder.table(params))
    }

    /// The table of a quant group with these parameters.
    pub fn table(&self, params: &[f32]) -> CodeTable {
        let params: Vec<f64> = params.iter().map(|p| f64::from(*p)).collect();
        let mut table = CodeTable {
            weights: (0..self.codes).map(|code| self.exact(code, &params)).collect(),
            values: vec![CodeError::default(); POSITIONS.len() * self.codes as usize],
            sensitivity: 0.0,
        };
        for (index, &position) in POSITIONS.iter().enumerate() {
            self.fill(&mut table, index, position, &params);
        }
        table
    }

    /// The weight of a code, by the format's own expression.
    fn exact(&self, code: u32, params: &[f64]) -> f64 {
        let group = GroupValues {
            ctx: &self.meaning.ctx,
            params,
            codes: &[code],
            positions: &[1.0],
            activations: &[1.0],
        };
        group.value(&self.meaning.source)
    }

    fn fill(&self, table: &mut CodeTable, index: usize, position: f64, params: &[f64]) {
        let sums = self.evaluator.sums();
        let mut unit = vec![Bounded::default(); sums.len()];
        for (j, sum) in sums.iter().enumerate() {
            unit[j] = Bounded::exact(1.0);
            let coefficient = self.evaluator.combine(&unit, params, position);
            unit[j] = Bounded::default();
            let mut largest = 0.0f64;
            for code in 0..self.codes {
                let weight = self.evaluator.weight(sum, code, params, position);
                largest = largest.max(weight.magnitude());
                let entry = &mut table.values[POSITIONS.len() * code as usize + index];
                entry.add(weight, coefficient, sum.activation_scale);
            }
            // Scaled activations that become subnormal lose up to a unit before they are
            // multiplied.
            let scaled = if sum.activation_scale < 1.0 { largest } else { 0.0 };
            let per_unit = coefficient.magnitude() * (1.0 + scaled);
            table.sensitivity = table.sensitivity.max(per_unit);
        }
    }
}

impl CodeError {
    /// The error weight when accumulation is off by `relative`.
    fn at(self, relative: f64) -> f64 {
        self.own + relative * self.magnitude
    }

    /// Adds one sum's share.
    fn add(&mut self, weight: Bounded, coefficient: Bounded, scale: f64) {
        let product = weight.magnitude() * scale;
        let rounded = coefficient.error + F32_UNIT * coefficient.value.abs();
        self.own += coefficient.magnitude() * weight.error * scale + rounded * product;
        self.magnitude += coefficient.magnitude() * product;
    }
}

impl CodeTable {
    /// Index of a code at one of the two position weights.
    pub fn index(code: u32, position: usize) -> u32 {
        POSITIONS.len() as u32 * code + (position as u32 & 1)
    }

    /// The exact weight at an index.
    pub fn weight(&self, index: u32) -> f64 {
        self.weights[index as usize / POSITIONS.len()]
    }

    /// Error weights by index, when accumulation is off by `relative`.
    pub fn errors(&self, relative: f64) -> Vec<f64> {
        self.values.iter().map(|value| value.at(relative)).collect()
    }

    /// The error weight at an index.
    pub fn error(&self, index: u32, relative: f64) -> f64 {
        self.values[index as usize].at(relative)
    }

    /// Error of the output for each unit of underflow in a product.
    pub fn sensitivity(&self) -> f64 {
        self.sensitivity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epilogue::Approximate;
    use crate::rounding::output;
    use qtune_ir::dequant::{variants, Options};

    const GEMV: &str = "gemv tokens=1 rows=2 lanes=32 warps=4x1 unroll=2 split=1 x=shared \
                        acc=f32 cache=stream dequant=";
    const MMA: &str = "mma tile=16x64x256 warps=1x4 stages=4 split=2 pad=16 raster=rows \
                       dequant=";

    fn problem(act: &str) -> (Problem, WeightSpec) {
        let key = format!("w4a16.awq-g128.{act}-{act}.n64.k4096.m1");
        (key.parse().unwrap(), qtune_formats::resolve("awq-g128").unwrap())
    }

    fn with_tables(schedule: &Schedule, act: &str, check: impl Fn(&CodeTable, &Rounding)) {
        let (problem, spec) = problem(act);
        let meaning = Meaning::new(&problem, &spec, schedule).unwrap();
        let rounding = meaning.rounding(&problem, schedule).unwrap();
        let decoder = Decoder::new(&meaning).unwrap();
        for zero in 0..16 {
            check(&decoder.table(&[scale() as f32, zero as f32]), &rounding);
        }
    }

    fn scale() -> f64 {
        half::f16::from_f32(0.0137).to_f64()
    }

    /// Every schedule of the families above, with every term that the algebra finds for it.
    fn schedules(act: &str) -> Vec<Schedule> {
        let (problem, spec) = problem(act);
        let arch = qtune_ir::Arch::named("h200").unwrap();
        let texts = match act {
            "f16" => vec![MMA.to_string(), GEMV.to_string(), GEMV.replace("acc=f32", "acc=half2")],
            _ => vec![MMA.to_string(), GEMV.to_string()],
        };
        let mut all = Vec::new();
        for text in texts {
            let schedule: Schedule = format!("{text}x").parse().unwrap();
            let ctx = schedule.context(&problem, &spec);
            let params = schedule.cost_params(&problem, &spec);
            let found = variants(&ctx, &params, &arch, &Options::default()).unwrap();
            let terms = found.variants.iter().map(|variant| variant.term.to_string());
            all.extend(terms.map(|term| schedule.with_dequant(&term)));
        }
        all
    }

    #[test]
    fn weights_are_the_formats_expression() {
        for schedule in schedules("f16") {
            with_tables(&schedule, "f16", |table, _| {
                let weight = |code| table.weight(CodeTable::index(code, 0));
                assert_eq!(weight(8) - weight(7), scale(), "{schedule}");
            });
        }
    }

    #[test]
    fn the_bound_of_a_one_hot_output_is_less_than_half_a_code() {
        for act in ["f16", "bf16"] {
            let schedules = schedules(act);
            assert!(schedules.len() >= 4, "{act}: {schedules:?}");
            for schedule in schedules {
                with_tables(&schedule, act, |table, rounding| {
                    let errors = table.errors(rounding.accumulation(1));
                    for (entry, error) in errors.iter().enumerate() {
                        let error = error + rounding.underflow() * table.sensitivity();
                        let weight = table.weight(entry as u32);
                        let result = Approximate { value: weight, error };
                        let bound = error + output(problem(act).0.out, result);
                        assert!(bound < 0.5 * scale(), "{act} {schedule}: {bound:.2e} of {entry}");
                    }
                });
            }
        }
    }
}
