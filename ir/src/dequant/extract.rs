//! k-best extraction: the cheapest distinct terms of every e-class, per rounding class.
//!
//! egg's own extractor gives one term per class. Here every class keeps, for each set of rounding
//! classes and size of table, its `k` cheapest candidates; lists are recomputed from the children's until nothing
//! changes. Costs are positive, so a term through a cycle never displaces one without, and the
//! fixpoint is reached after as many rounds as the deepest kept term has levels.

use super::check::check_node;
use super::cost::{outer_ops, CostModel, OuterOps};
use super::rounding::of_node;
use super::rules::Graph;
use super::{Context, Facts, Op, PairTable, Role, Rounding};
use egg::{Id, Language, RecExpr};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// One way to compute a class's value.
pub(super) struct Candidate {
    op: Op,
    children: Vec<Rc<Candidate>>,
    facts: Facts,
    /// Cost of all nodes without outer operations, counting equal sub-expressions each time.
    inner: f64,
    outer: OuterOps,
    /// Both together.
    cost: f64,
    rounding: Rounding,
    /// Bytes of shared memory that its tables take.
    table_bytes: u32,
    size: usize,
    text: String,
}

impl Candidate {
    /// The candidate as an egg expression.
    pub fn to_expr(&self) -> RecExpr<Op> {
        let mut expr = RecExpr::default();
        self.push(&mut expr);
        expr
    }

    fn push(&self, expr: &mut RecExpr<Op>) -> Id {
        let ids: Vec<Id> = self.children.iter().map(|child| child.push(expr)).collect();
        let mut ids = ids.into_iter();
        let op = self.op.clone().map_children(|id| ids.next().unwrap_or(id));
        expr.add(op)
    }

    /// Cheaper first; the printed text decides ties, so the order depends on nothing else.
    fn order(&self, other: &Candidate) -> std::cmp::Ordering {
        self.cost
            .total_cmp(&other.cost)
            .then(self.size.cmp(&other.size))
            .then_with(|| self.text.cmp(&other.text))
    }
}

/// Deeper than any term the rules make; cycles end here.
const ROUNDS_MAX: usize = 24;

/// The candidates of one class, sorted, by rounding and bytes of tables.
type Kept = BTreeMap<(Rounding, u32), Vec<Rc<Candidate>>>;

/// The extraction of one e-graph.
pub(super) struct Extraction<'a> {
    ctx: &'a Context,
    model: &'a CostModel<'a>,
    k: usize,
    kept: HashMap<Id, Kept>,
}

impl<'a> Extraction<'a> {
    /// The best candidates of every class of a rebuilt graph.
    pub fn new(graph: &Graph, ctx: &'a Context, model: &'a CostModel<'a>, k: usize) -> Self {
        let mut extraction = Extraction { ctx, model, k, kept: HashMap::new() };
        let mut classes: Vec<Id> = graph.classes().map(|class| class.id).collect();
        classes.sort_unstable();
        let mut dirty: Vec<bool> = vec![true; classes.len()];
        let index: HashMap<Id, usize> =
            classes.iter().enumerate().map(|(i, id)| (*id, i)).collect();
        for _ in 0..ROUNDS_MAX {
            let mut next = vec![false; classes.len()];
            let mut changed = false;
            for (position, id) in classes.iter().enumerate() {
                if dirty[position] && extraction.update(graph, *id) {
                    changed = true;
                    for parent in graph[*id].parents() {
                        next[index[&graph.find(parent)]] = true;
                    }
                }
            }
            if !changed {
                break;
            }
            dirty = next;
        }
        extraction
    }

    /// All candidates of a class, cheapest first within a rounding and size of table.
    pub fn candidates(&self, class: Id) -> impl Iterator<Item = &Rc<Candidate>> {
        self.kept.get(&class).into_iter().flat_map(|kept| kept.values().flatten())
    }

    /// Recomputes one class; true if its list changed.
    fn update(&mut self, graph: &Graph, class: Id) -> bool {
        let mut found: Kept = BTreeMap::new();
        for node in &graph[class].nodes {
            for candidate in self.of_node(graph, class, node) {
                let kind = (candidate.rounding, candidate.table_bytes);
                found.entry(kind).or_default().push(Rc::new(candidate));
            }
        }
        for list in found.values_mut() {
            list.sort_by(|a, b| a.order(b));
            list.dedup_by(|a, b| a.text == b.text);
            list.truncate(self.k);
        }
        let same = self.kept.get(&class).is_some_and(|old| same_texts(old, &found));
        self.kept.insert(class, found);
        !same
    }

    /// The candidates that one e-node makes from its children's.
    fn of_node(&self, graph: &Graph, class: Id, node: &Op) -> Vec<Candidate> {
        let mut tuples: Vec<Vec<Rc<Candidate>>> = vec![Vec::new()];
        for id in node.children() {
            let choices: Vec<&Rc<Candidate>> = self.candidates(graph.find(*id)).collect();
            let extended = tuples.iter().flat_map(|tuple| {
                choices.iter().map(move |choice| {
                    let mut tuple = tuple.clone();
                    tuple.push(Rc::clone(choice));
                    tuple
                })
            });
            tuples = extended.collect();
        }
        let class_facts = graph[class].data.as_ref();
        tuples.into_iter().filter_map(|children| self.build(node, children, class_facts)).collect()
    }

    fn build(
        &self,
        node: &Op,
        children: Vec<Rc<Candidate>>,
        class_facts: Option<&Facts>,
    ) -> Option<Candidate> {
        let ids = node.children();
        let place = |id: Id| ids.iter().position(|c| *c == id).unwrap_or(0);
        let child = |id: Id| &*children[place(id)];
        // Facts of this very term decide its cost and legality, those of the class (which know
        // more about the value) whether it rounds.
        let facts = Facts::of(self.ctx, node, |id| &child(id).facts).ok()?;
        check_node(self.ctx, node, &facts, |id| &child(id).facts).ok()?;
        let value = class_facts.filter(|class| class.role == facts.role).unwrap_or(&facts);
        let rounding = of_node(self.ctx, node, value, |id| (&child(id).op, &child(id).facts));
        let outer = outer_ops(node, &facts, |id| (&child(id).facts, child(id).outer));
        let inner = self.model.node(node, &facts, |id| &child(id).facts).total()
            + children.iter().map(|c| c.inner).sum::<f64>();
        let runs_on = match node {
            Op::Sum(_) => true,
            Op::Mul([a, b]) => [(a, b), (b, a)].into_iter().any(|(c, sum)| {
                let constant = child(*c).facts.hoistable() && !child(*c).facts.param;
                constant && matches!(child(*sum).op, Op::Sum(_))
            }),
            _ => false,
        };
        let extra = match facts.role {
            Role::Outer => self.model.outer(runs_on, outer),
            _ => 0.0,
        };
        let text = text(node, &children);
        Some(Candidate {
            inner,
            outer,
            cost: inner + extra,
            rounding: children.iter().fold(rounding, |all, c| all.with(c.rounding)),
            table_bytes: PairTable::of(node)
                .map(PairTable::bytes)
                .into_iter()
                .chain(children.iter().map(|c| c.table_bytes))
                .fold(0, u32::max),
            size: 1 + children.iter().map(|c| c.size).sum::<usize>(),
            op: node.clone(),
            facts,
            text,
            children,
        })
    }
}

fn same_texts(a: &Kept, b: &Kept) -> bool {
    let texts = |kept: &Kept| -> Vec<String> {
        kept.values().flatten().map(|candidate| candidate.text.clone()).collect()
    };
    texts(a) == texts(b)
}

fn text(node: &Op, children: &[Rc<Candidate>]) -> String {
    if children.is_empty() {
        return node.to_string();
    }
    let mut text = format!("({node}");
    for child in children {
        text.push(' ');
        text.push_str(&child.text);
    }
    text.push(')');
    text
}
