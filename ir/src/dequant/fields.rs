//! What a packed parameter array holds for one row and quant group.
//!
//! Usually the format's parameters as they are. A term with `(stored a b)` reads products that are
//! multiplied when weights are packed; then an entry holds these, and what else the term reads. A term with
//! `(nested s c n)` reads what the scale `s` is made of, in the place of entries: see [`Levels`].

use super::{Context, Engine, Op, Term};
use crate::{DType, ParamType, WeightSpec, NESTED_GROUPS};
use egg::Id;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// The operator as it stands in the text of terms.
const STORED: &str = "(stored ";
/// The same of a scale that the kernel makes.
const NESTED: &str = "(nested ";

/// One value of an entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// What the term calls it: a parameter's name, or the text of a stored product or a nested scale.
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
    /// The field's values in many entries, from the values of each parameter in them, in the
    /// format's order. A term has the value NaN if it is none of parameters and arithmetic.
    pub fn column<'a>(&self, params: &'a [Vec<f32>]) -> Cow<'a, [f32]> {
        match &self.value {
            Value::Param(index) => Cow::Borrowed(&params[*index]),
            Value::Product(product) => {
                let (ctx, term) = &**product;
                let values = column(ctx, term, term.root(), params);
                Cow::Owned(values.into_iter().map(|value| value as f32).collect())
            }
        }
    }
}

/// The values of a node in many entries, as [`super::GroupValues`] has them in one. Not by that one: it
/// looks at the term anew for every entry, which takes several times as long as all of a layer's packing;
/// here every node is one loop over all entries.
fn column(ctx: &Context, term: &Term, id: Id, params: &[Vec<f32>]) -> Vec<f64> {
    let entries = params.first().map_or(0, Vec::len);
    let of = |id: Id| column(ctx, term, id, params);
    match term.node(id) {
        Op::Const(number) => vec![number.value(); entries],
        Op::Param(name) => match ctx.param(name.as_str()) {
            Some((index, _)) => params[index].iter().map(|value| f64::from(*value)).collect(),
            None => vec![f64::NAN; entries],
        },
        Op::Real(a) => of(*a),
        Op::Neg(a) => of(*a).into_iter().map(|a| -a).collect(),
        Op::Add([a, b]) => each(of(*a), of(*b), |a, b| a + b),
        Op::Sub([a, b]) => each(of(*a), of(*b), |a, b| a - b),
        Op::Mul([a, b]) | Op::Stored([a, b]) => each(of(*a), of(*b), |a, b| a * b),
        _ => vec![f64::NAN; entries],
    }
}

/// `op` of the values of both nodes in every entry.
fn each(mut a: Vec<f64>, b: Vec<f64>, op: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a = op(*a, b));
    a
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
    let in_entries = |i: &usize| spec.params[*i].dtype.in_entries();
    let Some(parsed) = parsed else {
        return (0..spec.params.len()).filter(in_entries).map(param).collect();
    };
    let Reads { parameters, products } = reads(&parsed);
    let kept =
        (0..spec.params.len()).filter(|i| parameters.contains(&spec.params[*i].name.as_str()));
    let mut fields: Vec<Field> = kept.map(param).collect();
    let ctx = Context { act: DType::F32, engine: Engine::F32, spec: spec.clone() };
    for id in products {
        let name = parsed.text_at(id);
        // The text of a term's node is a term.
        let Ok(product) = name.parse() else { continue };
        let value = Value::Product(Box::new((ctx.clone(), product)));
        fields.push(Field { name, dtype: ParamType::F16, value });
    }
    fields
}

/// Whether a term reads what nested scales are made of.
pub fn reads_nested(term: &str) -> bool {
    term.contains(NESTED)
}

/// Scales of two levels packed level by level: for each quant group its integers, a byte each, or two in one
/// if they are as small; and for several groups together the floats that these multiply. An entry for each group repeats the floats, or
/// holds products that take more bits than their integers. Of nested scales the integers are numbers
/// of values in the layer's map.
#[derive(Clone, Debug, PartialEq)]
pub struct Levels {
    /// The floats that groups share.
    pub shared: Vec<Field>,
    /// The integers of each group: as many as there are floats.
    pub codes: Vec<Field>,
    /// What an entry of a group holds once the levels are together in registers.
    pub entry: Vec<Field>,
    /// Groups that share the floats.
    pub groups: u32,
    /// Whether both integers of a group take a byte together: of two rows that lie side by side one byte has
    /// the first ones, that of the second row in its upper half, the next byte the second ones.
    pub nibbles: bool,
}

impl Levels {
    /// The levels of the fields of an entry, if they are one or two integers of up to 8 bits and as many
    /// shared floats.
    pub fn of(fields: Vec<Field>) -> Option<Levels> {
        let is_code = |field: &Field| matches!(field.dtype, ParamType::Code(bits) if bits <= 8);
        let (codes, shared): (Vec<Field>, Vec<Field>) = fields.into_iter().partition(is_code);
        let entry = [&shared[..], &codes].concat();
        let dtype = shared.first()?.dtype;
        let ParamType::Shared(groups) = dtype else { return None };
        let alike = shared.iter().all(|field| field.dtype == dtype);
        let paired = codes.len() == shared.len() && codes.len() <= 2;
        let is_nibble = |field: &Field| matches!(field.dtype, ParamType::Code(bits) if bits <= 4);
        let nibbles = codes.len() == 2 && codes.iter().all(is_nibble);
        (alike && paired).then(|| Levels { shared, codes, entry, groups: groups.into(), nibbles })
    }

    /// The same with a byte for each integer.
    pub fn in_bytes(self) -> Levels {
        Levels { nibbles: false, ..self }
    }

    /// The levels of the nested scales of a matrix with rows of `k`, if the term, or one that is still to be
    /// chosen, reads them: wherever a row starts among the groups that share a float, at least so many follow
    /// each other in it.
    pub fn nested(term: &str, spec: &WeightSpec, k: u32) -> Option<Levels> {
        if !term.is_empty() && !reads_nested(term) {
            return None;
        }
        let of = |dtype: ParamType| {
            let index = spec.params.iter().position(|param| param.dtype == dtype)?;
            let name = spec.params[index].name.clone();
            Some(Field { name, dtype, value: Value::Param(index) })
        };
        let [scale, code, shared] =
            [of(ParamType::Resolved)?, of(ParamType::NestedCode)?, of(ParamType::NestedScale)?];
        let name = format!("{NESTED}{} {} {})", scale.name, code.name, shared.name);
        let entry = vec![Field { name, ..scale }];
        // What rows start with differs by whole rows: the power of two in their groups.
        let groups = 1 << spec.group.count(k).trailing_zeros();
        let groups = NESTED_GROUPS.min(groups);
        Some(Levels { shared: vec![shared], codes: vec![code], entry, groups, nibbles: false })
    }

    /// Whether the integers are numbers of values in the layer's map.
    pub fn is_nested(&self) -> bool {
        self.codes.iter().any(|code| code.dtype == ParamType::NestedCode)
    }

    /// Bytes of a group's integers.
    pub fn code_bytes(&self) -> u32 {
        match self.nibbles {
            true => 1,
            false => self.codes.len() as u32,
        }
    }

    /// Bytes of the floats that groups share.
    pub fn shared_bytes(&self) -> u32 {
        self.shared.iter().map(|field| field.dtype.packed_bytes()).sum()
    }

    /// Of `groups` that lie together, those that share floats there.
    pub fn sharing(&self, groups: u32) -> u32 {
        self.groups.min(groups)
    }

    /// Bytes of a row's parameters in `groups` that lie together.
    pub fn bytes(&self, groups: u32) -> u32 {
        groups * self.code_bytes() + groups / self.sharing(groups) * self.shared_bytes()
    }
}

/// What a term reads of a group.
struct Reads<'a> {
    /// Names of the parameters outside of stored products.
    parameters: Vec<&'a str>,
    /// The stored products that are part of no other, in the order of the term's nodes.
    products: BTreeSet<Id>,
}

fn reads(term: &Term) -> Reads<'_> {
    let mut reads = Reads { parameters: Vec::new(), products: BTreeSet::new() };
    let mut open = vec![term.root()];
    while let Some(id) = open.pop() {
        match term.node(id) {
            Op::Stored(_) => {
                reads.products.insert(id);
            }
            Op::Param(name) => reads.parameters.push(name.as_str()),
            op => open.extend(egg::Language::children(op)),
        }
    }
    reads
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
    use super::super::tests::{nested, two_levels};
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
    fn integers_and_the_floats_that_groups_share_are_two_levels() {
        let spec = two_levels();
        let names = |fields: &[Field]| fields.iter().map(|f| f.name.clone()).collect::<String>();
        let levels = Levels::of(fields("(- (* (* d i) (sum x)) (* e j))", &spec)).unwrap();
        assert_eq!((names(&levels.shared), names(&levels.codes)), ("de".into(), "ij".into()));
        assert_eq!((levels.groups, levels.code_bytes(), levels.shared_bytes()), (8, 2, 4));
        for term in ["(* (stored d i) (sum x))", "(- (* (stored d i) (sum x)) (* e j))"] {
            assert_eq!(Levels::of(fields(term, &spec)), None, "{term}");
        }
    }

    #[test]
    fn integers_of_half_a_byte_share_one() {
        let mut spec = two_levels();
        spec.params[1].dtype = ParamType::Code(4);
        let of = |spec: &WeightSpec| Levels::of(fields("(- (* (* d i) (sum x)) (* e j))", spec));
        assert_eq!(of(&spec).unwrap().code_bytes(), 2, "the other has six bits");
        spec.params[3].dtype = ParamType::Code(4);
        let levels = of(&spec).unwrap();
        assert_eq!((levels.code_bytes(), levels.bytes(8)), (1, 12));
        assert_eq!(levels.in_bytes().code_bytes(), 2);
    }

    #[test]
    fn what_nested_scales_are_made_of_lies_in_their_place() {
        let (spec, made) = (nested(), "(sum (* (* (pair q) (nested s c n)) x))");
        let entry = fields("(* s (sum (* (pair q) x)))", &spec);
        assert_eq!((entry[0].name.as_str(), entry.len()), ("s", 1));
        assert_eq!(packed_param_bytes("", &spec), 4);
        // Groups of 128: rows of 27, 48 and 512 of them.
        for (groups, sharing) in [(27, 1), (48, 16), (512, 256)] {
            let levels = Levels::nested(made, &spec, 128 * groups).unwrap();
            assert!(levels.is_nested() && levels.groups == sharing, "{groups}");
            assert_eq!((levels.code_bytes(), levels.shared_bytes()), (1, 4));
            assert_eq!(levels.entry[0].name, "(nested s c n)");
            assert_eq!(levels.bytes(8), 8 + 8 / sharing.min(8) * 4);
        }
        assert_eq!(Levels::nested("(* s (sum (* (pair q) x)))", &spec, 4096), None);
        assert_eq!(Levels::nested(made, &two_levels(), 4096), None);
    }

    #[test]
    fn stored_products_replace_what_is_read_through_them_alone() {
        let spec = two_levels();
        let term = "(- (* (stored d (- i 1)) (sum (* (magic q) x))) (* (* e j) (sum x)))";
        let found = fields(term, &spec);
        let names: Vec<_> = found.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["e", "j", "(stored d (- i 1))"]);
        assert_eq!(packed_param_bytes(term, &spec), 6);
        let params = [[0.5, 1.0], [7.0, 5.0], [2.0, 1.0], [3.0, 4.0]].map(Vec::from);
        let columns: Vec<_> = found.iter().map(|field| field.column(&params).to_vec()).collect();
        assert_eq!(columns, [[2.0, 1.0], [3.0, 4.0], [3.0, 4.0]]);
        assert_eq!(packed_param_bytes(term, &WeightSpec::dense()), 0);
    }

    #[test]
    fn a_stored_product_of_a_stored_product_is_one_field() {
        let term = "(* (stored 256 (stored 0.5 d)) (sum x))";
        let found = fields(term, &two_levels());
        let names: Vec<_> = found.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["(stored 256 (stored 0.5 d))"]);
        let params = [[0.5, 1.0], [7.0, 5.0], [2.0, 1.0], [3.0, 4.0]].map(Vec::from);
        assert_eq!(found[0].column(&params).to_vec(), [64.0, 128.0]);
    }
}
