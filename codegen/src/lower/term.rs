//! The dequantization term in kernel IR.
//!
//! A term is a linear combination of *sums* over a quant group, with coefficients that do not
//! depend on k: `total += coefficient * sum`, in f32, once per group, row and token. Inside a sum
//! stand the weight, an expression of the packed code in the compute type, and the activation,
//! which may be pre-scaled when it is staged.

use super::octet::Octet;
use super::table::{is_lookup, looked_up, Entries};
use super::CodegenError;
use crate::kir::{call, float, hex, var, BinaryOp, Body, Expr, Type};
use egg::{Id, Language};
use qtune_ir::dequant::{
    CodeOrder, Context, Facts, GroupValues, Lowered, Op, PairTable, Role, SumSite, Term, POSITIONS,
};
use qtune_ir::{CodePacking, DType, OCTET_CODES};

/// A dequantization term that can be lowered.
pub(super) struct Plan<'a> {
    term: &'a Term,
    lowered: Lowered,
    ctx: &'a Context,
    /// Type of packed arithmetic on weights.
    compute: DType,
}

/// Values of group parameters in one row, and the position weight that goes with them.
pub(super) struct Row<'a> {
    pub params: &'a [(String, Expr)],
    pub position: usize,
}

/// Invariant parts of a weight expression, as packed values.
pub(super) struct Prepared {
    /// Invariant, index of its place, register.
    values: Vec<(Id, usize, Expr)>,
    /// Places of an octet's pairs, which take turns.
    places: usize,
}

impl<'a> Plan<'a> {
    /// Checks the term and takes it apart.
    ///
    /// # Errors
    /// The term is not one that the engine of `ctx` can compute.
    pub fn new(term: &'a Term, ctx: &'a Context) -> Result<Plan<'a>, CodegenError> {
        Ok(Plan { term, lowered: Lowered::new(term, ctx)?, ctx, compute: ctx.compute() })
    }

    /// The distinct sums.
    pub fn sums(&self) -> &[SumSite] {
        &self.lowered.sums
    }

    /// Type of packed arithmetic on weights.
    pub(super) fn compute(&self) -> DType {
        self.compute
    }

    pub(super) fn node(&self, id: Id) -> &Op {
        self.term.node(id)
    }

    pub(super) fn facts(&self, id: Id) -> &Facts {
        self.lowered.facts(id)
    }

    /// The value of a uniform expression that uses no group parameter.
    pub(super) fn constant(&self, id: Id, position: usize) -> Option<f64> {
        let facts = self.facts(id);
        let grid = facts.grid[position].filter(|grid| grid.lo == grid.hi);
        (facts.hoistable() && !facts.param).then_some(grid?.lo)
    }

    /// Whether the whole term is one sum with at most a constant coefficient: then it accumulates
    /// across groups and the group parameters are needed only inside of it.
    pub fn is_direct(&self) -> bool {
        self.term.runs_on().is_some()
    }

    /// A complete total of a row with a position weight: the term's constant factor is applied now.
    pub fn finished(&self, total: Expr, position: usize) -> Expr {
        match self.final_factor(position) {
            1.0 => total,
            factor => total * float(factor),
        }
    }

    /// What totals are multiplied by at the end: the constant of a direct sum, or the powers of two
    /// that the coefficient of the first sum has.
    fn final_factor(&self, position: usize) -> f64 {
        match self.term.runs_on() {
            Some(constant) => constant.and_then(|c| self.constant(c, position)).unwrap_or(1.0),
            None => self.first_factor(self.term.root(), position),
        }
    }

    fn first_factor(&self, id: Id, position: usize) -> f64 {
        match *self.node(id) {
            Op::Add([a, _]) | Op::Sub([a, _]) => self.first_factor(a, position),
            Op::Mul([c, rest]) if self.facts(rest).role == Role::Outer => {
                self.power_of_two(c, position) * self.first_factor(rest, position)
            }
            _ => 1.0,
        }
    }

    /// The powers of two among the factors of an invariant.
    fn power_of_two(&self, id: Id, position: usize) -> f64 {
        match (self.constant(id, position), self.node(id)) {
            (Some(constant), _) if constant.log2().fract() == 0.0 => constant,
            (None, &Op::Mul([a, b])) => {
                self.power_of_two(a, position) * self.power_of_two(b, position)
            }
            _ => 1.0,
        }
    }

    /// The factor that activations get when they are staged.
    pub fn activation_scale(&self) -> f64 {
        self.sums().first().map_or(1.0, |sum| sum.activation_scale)
    }

    /// `total = fma(coefficient, sum, total)` for every place the term mentions a sum, with the
    /// row's parameters. `sums[i]` is the value of sum `i` for one token.
    pub fn coefficients(&self, row: &Row) -> Vec<(usize, Expr)> {
        let mut found = Vec::new();
        let left = float(1.0 / self.final_factor(row.position));
        self.linear(self.term.root(), left, row, &mut found);
        found
    }

    fn linear(&self, id: Id, factor: Expr, row: &Row, found: &mut Vec<(usize, Expr)>) {
        match *self.node(id) {
            Op::Sum(_) => found.push((self.sum_index(id), factor)),
            Op::Add([a, b]) => {
                self.linear(a, factor.clone(), row, found);
                self.linear(b, factor, row, found);
            }
            Op::Sub([a, b]) => {
                self.linear(a, factor.clone(), row, found);
                self.linear(b, negate(factor), row, found);
            }
            Op::Neg(a) => self.linear(a, negate(factor), row, found),
            Op::Mul([a, b]) => self.linear_product(a, b, factor, row, found),
            Op::Fma([a, b, c]) => {
                self.linear_product(a, b, factor.clone(), row, found);
                self.linear(c, factor, row, found);
            }
            // `Lowered` lets only the forms above contain sums.
            _ => {}
        }
    }

    fn linear_product(
        &self,
        a: Id,
        b: Id,
        factor: Expr,
        row: &Row,
        found: &mut Vec<(usize, Expr)>,
    ) {
        let a_sums = self.facts(a).role == Role::Outer;
        let (sum, invariant) = if a_sums { (a, b) } else { (b, a) };
        let factor = multiply(factor, self.invariant(invariant, row));
        self.linear(sum, factor, row, found);
    }

    fn sum_index(&self, id: Id) -> usize {
        // `Lowered` lists every sum of the term.
        self.sums().iter().position(|sum| sum.id == id).unwrap_or(0)
    }

    /// An invariant expression in f32.
    pub(super) fn invariant(&self, id: Id, row: &Row) -> Expr {
        if let Some(constant) = self.constant(id, row.position) {
            return float(constant);
        }
        let sub = |id: Id| self.invariant(id, row);
        match *self.node(id) {
            Op::Position => float(POSITIONS[row.position]),
            Op::Unposition => float(1.0 / POSITIONS[row.position]),
            Op::Add([a, b]) => add(sub(a), sub(b)),
            Op::Sub([a, b]) => add(sub(a), negate(sub(b))),
            Op::Mul([a, b]) => multiply(sub(a), sub(b)),
            Op::Fma([a, b, c]) => add(multiply(sub(a), sub(b)), sub(c)),
            Op::Neg(a) => negate(sub(a)),
            Op::Param(_) | Op::Stored(_) | Op::Nested(_) => {
                let name = self.term.text_at(id);
                self.entry(id, row).cloned().unwrap_or_else(|| var(name))
            }
            // Every other operator depends on a code or an activation.
            _ => float(f64::NAN),
        }
    }

    /// A parameter, a stored product or a nested scale in a row's entry.
    pub(super) fn entry<'r>(&self, id: Id, row: &'r Row) -> Option<&'r Expr> {
        let name = self.term.text_at(id);
        row.params.iter().find(|(field, _)| *field == name).map(|(_, value)| value)
    }

    /// The invariant operands inside weights that are worth a register per row: everything that
    /// is not a constant known now.
    pub fn invariants(&self) -> Vec<Id> {
        let mut found = Vec::new();
        for weight in self.sums().iter().filter_map(|sum| sum.weight) {
            self.collect_invariants(weight, &mut found);
        }
        found
    }

    fn collect_invariants(&self, id: Id, found: &mut Vec<Id>) {
        if !self.facts(id).hoistable() {
            let children = self.node(id).children();
            return children.iter().for_each(|child| self.collect_invariants(*child, found));
        }
        if self.facts(id).param && !found.contains(&id) {
            found.push(id);
        }
    }

    /// The four pairs of an octet as packed weights of sum `index` in the compute type.
    /// `prepared` names the invariants by position weight.
    pub fn pairs(
        &self,
        body: &mut Body,
        index: usize,
        weight: Id,
        octet: &Octet,
        prepared: &Prepared,
    ) -> [Expr; 4] {
        if let Some(floats) = octet.floats() {
            return floats;
        }
        let word = octet.nibbles();
        let upper = match (self.lowered.in_place, self.lowered.order) {
            (false, _) => word.clone(),
            (true, CodeOrder::Raised) => {
                let down = call("permute", [word.clone(), word.clone(), hex(0x0321)]);
                body.bind(format!("upper{index}"), Type::U32, down)
            }
            (true, _) => body.bind(format!("upper{index}"), Type::U32, word.clone() >> 8u32),
        };
        let lookups = self.lookups(weight);
        let values = lookups.into_iter().map(|id| (id, self.look_up(body, index, id, word)));
        let values: Vec<_> = values.collect();
        std::array::from_fn(|pair| {
            let (upper, values) = (&upper, &values);
            Packed { plan: self, octet, upper, values, prepared, pair }.value(weight)
        })
    }

    /// The lookups of a weight expression.
    fn lookups(&self, id: Id) -> Vec<Id> {
        let op = self.node(id);
        if is_lookup(op) {
            return vec![id];
        }
        let mut found: Vec<Id> = op.children().iter().flat_map(|id| self.lookups(*id)).collect();
        found.dedup();
        found
    }

    /// The four pairs of values that a lookup gives for a packed word.
    fn look_up(&self, body: &mut Body, index: usize, id: Id, word: &Expr) -> [Expr; 4] {
        match PairTable::of(self.node(id)) {
            Some(table) => looked_up(table, word),
            None => self.entries(id).permuted(body, &format!("value{index}_{id}"), word),
        }
    }

    /// The table of a lookup: what it and the integer operations below it make of every code.
    fn entries(&self, id: Id) -> Entries {
        let codes: Vec<u32> = (0..16).collect();
        let ones = [1.0; 16];
        let (positions, activations) = (&ones, &ones);
        let params = &[];
        let group = GroupValues { ctx: self.ctx, params, codes: &codes, positions, activations };
        Entries::new(std::array::from_fn(|code| self.bits(group.weight(self.term, id, code))))
    }

    /// The entries of the table in shared memory, if the term reads one.
    pub fn shared_entries(&self) -> Option<(PairTable, Entries)> {
        let mut nodes = self.term.nodes().iter().enumerate();
        nodes.find_map(|(index, op)| Some((PairTable::of(op)?, self.entries(Id::from(index)))))
    }

    /// Name of a packed operation in the compute type.
    pub(super) fn op(&self, name: &str) -> &'static str {
        match (self.compute, name) {
            (DType::Bf16, "pack") => "bf2_pack",
            (DType::Bf16, _) => "bf2_fma",
            (_, "pack") => "h2_pack",
            (_, "add") => "h2_add",
            (_, "sub") => "h2_sub",
            (_, "mul") => "h2_mul",
            _ => "h2_fma",
        }
    }

    /// `value` in both halves of a packed register.
    pub fn both(&self, value: f64) -> Expr {
        let bits = u32::from(self.bits(value));
        hex(bits << 16 | bits)
    }

    /// `value` in the compute type.
    fn bits(&self, value: f64) -> u16 {
        match self.compute {
            DType::Bf16 => half::bf16::from_f64(value).to_bits(),
            _ => half::f16::from_f64(value).to_bits(),
        }
    }
}

impl Prepared {
    /// `values` are (invariant, position weight index, register), the same for all columns: broadcast to both halves.
    pub fn new(values: Vec<(Id, usize, Expr)>) -> Prepared {
        Prepared { values, places: POSITIONS.len() }
    }

    /// `values` are (invariant, pair of the octet, register), with a column in each half.
    pub fn by_pair(values: Vec<(Id, usize, Expr)>) -> Prepared {
        Prepared { values, places: OCTET_CODES / 2 }
    }
}

/// One pair of an octet being dequantized.
struct Packed<'p, 'a> {
    plan: &'p Plan<'a>,
    octet: &'p Octet,
    /// The word of 4-bit fields, shifted down by 8.
    upper: &'p Expr,
    /// Pairs that lookups give.
    values: &'p [(Id, [Expr; 4])],
    prepared: &'p Prepared,
    pair: usize,
}

impl Packed<'_, '_> {
    fn value(&self, id: Id) -> Expr {
        let plan = self.plan;
        if let Some(constant) = self.constant(id) {
            return plan.both(constant);
        }
        if plan.facts(id).hoistable() {
            return self.invariant(id);
        }
        match *plan.node(id) {
            Op::Subnormal(code) if self.in_bytes() => self.below(code, 0),
            Op::Subnormal(code) => self.masked(code),
            Op::Magic(code) => {
                let magic = if plan.compute == DType::Bf16 { 0x43 } else { 0x64 };
                if self.in_bytes() {
                    return self.below(code, magic);
                }
                let (source, mask) = self.source(code);
                call("and_or", [source, hex(mask), hex(magic * 0x0100_0100)])
            }
            Op::Real(code) => self.converted(code),
            Op::Narrow(code) => self.moved(code, 7),
            Op::Converted(code) => {
                let half = if self.pair % 2 == 0 { "float8_low" } else { "float8_high" };
                call(half, [self.applied(code, self.octet.word(self.pair / 2))])
            }
            // Multiplied back by the difference of the biases, in an operation that rounds nothing.
            Op::Wide(code) => {
                let back = plan.both(2.0f64.powi(120));
                call("bf2_fma", [self.moved(code, 4), back, plan.both(-0.0)])
            }
            Op::Pair(_) | Op::Page(_) | Op::Permuted(_) | Op::Short(_) => self.looked_up(id),
            Op::Vector(_) => self.octet.word(self.pair).clone(),
            Op::Add([a, b]) => self.add(a, b, false),
            Op::Sub([a, b]) => self.add(a, b, true),
            Op::Mul([a, b]) => self.mul(a, b),
            Op::Fma([a, b, c]) => self.fma(a, b, c),
            Op::Neg(a) => self.value(a) ^ hex(0x8000_8000),
            // `Lowered` admits nothing else around a code.
            _ => plan.both(f64::NAN),
        }
    }

    fn constant(&self, id: Id) -> Option<f64> {
        self.plan.constant(id, self.pair % 2)
    }

    fn looked_up(&self, id: Id) -> Expr {
        let found = self.values.iter().find(|(other, _)| *other == id);
        found.map_or_else(|| var("missing_lookup"), |(_, pairs)| pairs[self.pair].clone())
    }

    fn invariant(&self, id: Id) -> Expr {
        let place = self.pair % self.prepared.places;
        let wanted = |(other, at, _): &&(Id, usize, Expr)| *at == place && *other == id;
        let found = self.prepared.values.iter().find(wanted);
        found.map_or_else(|| var("missing_invariant"), |(_, _, value)| value.clone())
    }

    /// The register that holds the pair's codes and the mask that isolates them: in place for
    /// `(at code)`, else shifted down to bit 0.
    fn source(&self, code: Id) -> (Expr, u32) {
        let plan = self.plan;
        let (code, in_place) = match *plan.node(code) {
            Op::At(inner) | Op::Raised(inner) => (inner, true),
            _ => (code, false),
        };
        let packing = self.octet.packing;
        let mask = packing.code_mask() * 0x0001_0001;
        if !in_place {
            let shift = packing.field(self.pair as u32, 0, CodeOrder::Split).shift;
            return (self.applied(code, self.octet.word(self.pair)) >> shift, mask);
        }
        let source = if self.pair < 2 { self.octet.nibbles() } else { self.upper };
        let mask = if self.pair % 2 == 0 { mask } else { mask << 4 };
        (self.applied(code, source), mask << plan.lowered.order.rotation())
    }

    /// A word of codes after the bit operations on one of them.
    fn applied(&self, code: Id, word: &Expr) -> Expr {
        let (packing, rotation) = (self.octet.packing, self.plan.lowered.order.rotation());
        let operations = self.integer(code);
        let apply = |word, op| apply_integer(packing, rotation, word, op);
        operations.iter().fold(word.clone(), apply)
    }

    /// Whether codes have a byte each.
    fn in_bytes(&self) -> bool {
        self.octet.packing.field_bits() == 8
    }

    /// The pair's codes, a byte each, as the low bytes of half words that all have the same high byte.
    fn below(&self, code: Id, high: u32) -> Expr {
        let byte = self.octet.packing.field(self.pair as u32, 0, CodeOrder::Split).shift / 8;
        let selectors = 0x4240 | byte | byte << 8;
        let word = self.applied(code, self.octet.word(self.pair));
        call("permute", [word, hex(high * 0x0101_0101), hex(selectors)])
    }

    /// The pair's codes, a byte each, with the sign at the top of the half word and the other seven bits
    /// from bit `low` on.
    fn moved(&self, code: Id, low: u32) -> Expr {
        let at = self.octet.packing.field(self.pair as u32, 0, CodeOrder::Split).shift;
        let word = self.applied(code, self.octet.word(self.pair));
        let below = match at > low {
            true => word.clone() >> (at - low),
            false => word.clone() << (low - at),
        };
        let signs = if at == 8 { word } else { word << (8 - at) };
        call("and_or", [signs, hex(0x8000_8000), below & hex((0x7f << low) * 0x0001_0001)])
    }

    fn masked(&self, code: Id) -> Expr {
        let (source, mask) = self.source(code);
        source & hex(mask)
    }

    /// The bit operations on a code, innermost first, as operations on all codes of a word.
    fn integer(&self, code: Id) -> Vec<(char, u32)> {
        let plan = self.plan;
        let (op, [a, b]) = match *plan.node(code) {
            Op::Xor(ab) => ('^', ab),
            Op::And(ab) => ('&', ab),
            Op::Or(ab) => ('|', ab),
            Op::Shl(ab) => ('<', ab),
            Op::Shr(ab) => ('>', ab),
            _ => return Vec::new(),
        };
        let (inner, constant) = if plan.facts(b).hoistable() { (a, b) } else { (b, a) };
        let mut operations = self.integer(inner);
        let constant = plan.constant(constant, 0).unwrap_or(0.0) as u32;
        operations.push((op, constant));
        operations
    }

    /// Plain integer to float conversion, one code at a time.
    fn converted(&self, code: Id) -> Expr {
        let (source, mask) = self.source(code);
        let low = (source.clone() & hex(mask & 0xffff)).cast(Type::F32);
        let high = ((source >> 16u32) & hex(mask & 0xffff)).cast(Type::F32);
        call(self.plan.op("pack"), [low, high])
    }

    fn add(&self, a: Id, b: Id, subtract: bool) -> Expr {
        let (a, b) = (self.value(a), self.value(b));
        let plan = self.plan;
        match (plan.compute, subtract) {
            (DType::Bf16, false) => call("bf2_fma", [a, plan.both(1.0), b]),
            (DType::Bf16, true) => call("bf2_fma", [b, plan.both(-1.0), a]),
            (_, false) => call("h2_add", [a, b]),
            (_, true) => call("h2_sub", [a, b]),
        }
    }

    fn mul(&self, a: Id, b: Id) -> Expr {
        match (self.constant(a), self.constant(b)) {
            (Some(1.0), _) => return self.value(b),
            (_, Some(1.0)) => return self.value(a),
            _ => {}
        }
        let (a, b) = (self.value(a), self.value(b));
        match self.plan.compute {
            DType::Bf16 => call("bf2_fma", [a, b, self.plan.both(-0.0)]),
            _ => call("h2_mul", [a, b]),
        }
    }

    fn fma(&self, a: Id, b: Id, c: Id) -> Expr {
        match (self.constant(a), self.constant(b)) {
            (Some(1.0), _) => return self.add(b, c, false),
            (_, Some(1.0)) => return self.add(a, c, false),
            _ => {}
        }
        call(self.plan.op("fma"), [self.value(a), self.value(b), self.value(c)])
    }
}

/// An operation on every code of a word that was rotated up by `rotation` bits. Shifted codes drop
/// what crosses into a neighbour; `Lowered` admits no result wider than a code.
fn apply_integer(packing: CodePacking, rotation: u32, word: Expr, operation: &(char, u32)) -> Expr {
    let fields = if packing.field_bits() == 4 { 0x1111_1111u32 } else { 0x0101_0101 };
    let code = packing.code_mask();
    let each = |bits: u32| hex(((bits & code) * fields).rotate_left(rotation));
    let &(op, constant) = operation;
    match op {
        '^' => word ^ each(constant),
        '&' => word & each(constant),
        '|' => word | each(constant),
        _ if constant >= packing.bits() => hex(0),
        // What a rotated code has on the other side of the word's end must come along.
        '<' if rotation > 0 => {
            ((word.clone() << constant) | (word >> (32 - constant))) & each(code << constant)
        }
        _ if rotation > 0 => {
            ((word.clone() >> constant) | (word << (32 - constant))) & each(code >> constant)
        }
        '<' => (word << constant) & each(code << constant),
        _ => (word >> constant) & each(code >> constant),
    }
}

/// A product; a power of two moves to the constant in a product that is multiplied, which changes no
/// rounding.
fn multiply(a: Expr, b: Expr) -> Expr {
    match (&a, &b) {
        (Expr::Float(x), Expr::Float(y)) => Expr::Float(x * y),
        (Expr::Float(one), _) if *one == 1.0 => b,
        (_, Expr::Float(one)) if *one == 1.0 => a,
        (_, Expr::Float(_)) => multiply(b, a),
        (Expr::Float(x), Expr::Binary(BinaryOp::Mul, c, rest)) if x.abs().log2().fract() == 0.0 => {
            match **c {
                Expr::Float(y) => multiply(Expr::Float(x * y), (**rest).clone()),
                _ => a * b,
            }
        }
        _ => a * b,
    }
}

fn add(a: Expr, b: Expr) -> Expr {
    match (&a, &b) {
        (Expr::Float(x), Expr::Float(y)) => Expr::Float(x + y),
        _ => a + b,
    }
}

fn negate(a: Expr) -> Expr {
    match a {
        Expr::Float(x) => Expr::Float(-x),
        other => float(-1.0) * other,
    }
}
