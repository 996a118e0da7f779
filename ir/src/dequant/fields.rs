//! What a packed parameter array holds for one row and quant group.
//!
//! Usually the format's parameters as they are. A term with `(stored a b)` reads products that are
//! multiplied when weights are packed; then an entry holds these, and what else the term reads.

use super::{Context, Engine, GroupValues, Op, Term};
use crate::{DType, ParamType, WeightSpec};

/// The operator as it stands in the text of terms.
const STORED: &str = "(stored ";

/// One value of an entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// What the term calls it: a parameter's name, or the text of a stored product.
    pub name: String,
    /// How it is packed.
    pub dtype: ParamType,
    value: Value,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    /// The parameter of this index.
    Param(usize),
    /// A term of parameters.
    Product(Box<(Context, Term)>),
}

impl Field {
    /// The field's value, from all parameters of the row and group in the format's order.
    pub fn value(&self, param: impl Fn(usize) -> f32) -> f32 {
        match &self.value {
            Value::Param(index) => param(*index),
            Value::Product(product) => {
                let (ctx, term) = &**product;
                let count = ctx.spec.params.len();
                let params: Vec<f64> = (0..count).map(|index| f64::from(param(index))).collect();
                let (codes, ones, activations) = (&[0], &[1.0], &[0.0]);
                let positions = ones;
                GroupValues { ctx, params: &params, codes, positions, activations }.value(term)
                    as f32
            }
        }
    }
}

/// The fields of an entry that a kernel with this term reads, in the order in which they are packed.
pub fn fields(term: &str, spec: &WeightSpec) -> Vec<Field> {
    let param = |index: usize| Field {
        name: spec.params[index].name.clone(),
        dtype: spec.params[index].dtype,
        value: Value::Param(index),
    };
    // Dequantized weights have no parameters, whatever term made them.
    let stores = term.contains(STORED) && !spec.params.is_empty();
    let parsed = if stores { term.parse::<Term>().ok() } else { None };
    let Some(parsed) = parsed else { return (0..spec.params.len()).map(param).collect() };
    let read = parameters_outside(&parsed);
    let kept = (0..spec.params.len()).filter(|i| read.contains(&spec.params[*i].name.as_str()));
    let mut fields: Vec<Field> = kept.map(param).collect();
    let ctx = Context { act: DType::F32, engine: Engine::F32, spec: spec.clone() };
    for (index, op) in parsed.nodes().iter().enumerate() {
        if let Op::Stored(_) = op {
            let name = parsed.text_at(egg::Id::from(index));
            // The text of a term's node is a term.
            let Ok(product) = name.parse() else { continue };
            let value = Value::Product(Box::new((ctx.clone(), product)));
            fields.push(Field { name, dtype: ParamType::F16, value });
        }
    }
    fields
}

/// Names of the parameters that a term reads outside of stored products.
fn parameters_outside(term: &Term) -> Vec<&str> {
    let mut names = Vec::new();
    let mut open = vec![term.root()];
    while let Some(id) = open.pop() {
        match term.node(id) {
            Op::Stored(_) => {}
            Op::Param(name) => names.push(name.as_str()),
            op => open.extend(egg::Language::children(op)),
        }
    }
    names
}

/// Bytes of one (row, group) entry that a kernel with this term reads.
pub fn packed_param_bytes(term: &str, spec: &WeightSpec) -> u32 {
    // The search asks this of every candidate, and few terms store anything.
    match term.contains(STORED) {
        true => fields(term, spec).iter().map(|field| field.dtype.packed_bytes()).sum(),
        false => spec.packed_param_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::two_levels;
    use super::*;

    #[test]
    fn without_stored_products_an_entry_holds_the_parameters() {
        let spec = two_levels();
        let term = "(- (* (* d i) (sum (* (magic q) x))) (* (* e j) (sum x)))";
        let names: Vec<_> = fields(term, &spec).into_iter().map(|field| field.name).collect();
        assert_eq!(names, ["d", "i", "e", "j"]);
        assert_eq!(packed_param_bytes(term, &spec), 8);
    }

    #[test]
    fn stored_products_replace_what_is_read_through_them_alone() {
        let spec = two_levels();
        let term = "(- (* (stored d (- i 1)) (sum (* (magic q) x))) (* (* e j) (sum x)))";
        let found = fields(term, &spec);
        let names: Vec<_> = found.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["e", "j", "(stored d (- i 1))"]);
        assert_eq!(packed_param_bytes(term, &spec), 6);
        let params = [0.5, 7.0, 2.0, 3.0];
        let values: Vec<f32> = found.iter().map(|field| field.value(|i| params[i])).collect();
        assert_eq!(values, [2.0, 3.0, 3.0]);
        assert_eq!(packed_param_bytes(term, &WeightSpec::dense()), 0);
    }
}
