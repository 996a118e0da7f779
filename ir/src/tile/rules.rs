//! The rewrite rules of tiling, as a table. `README.md` beside this file has the rules about rules.

use super::factors::Factors;
use super::language::{link, Cover, EGraph, Fact, Link, Tile};
use super::lower::{CHUNK_K, FRAGMENT_M, FRAGMENT_N, PIECE_K};
use super::nest::{Axis, Binding, Layer, Leaf};
use super::TileError;
use crate::GROUP_ROWS;
use egg::{Applier, Id, Pattern, PatternAst, Rewrite, Subst, Symbol, Var};
use std::collections::BTreeSet;
use std::sync::Arc;

/// One rule: where `from` matches, it is equal to `to` with `?a` and `?b` as chosen.
///
/// A rule with several cases has a row each, under one name; `case` tells them apart.
struct Row {
    name: &'static str,
    case: &'static str,
    from: &'static str,
    to: &'static str,
    /// The condition and the choice: values of `(?a, ?b)`, none where the rule does not apply.
    choose: fn(&Site) -> Choices,
}

type Choices = Vec<(u32, u32)>;

const NAIVE: &str = "(for m ?M serial (for n ?N serial (for k ?K serial mac)))";

/// The loop that deals rows to warpgroups.
const GROUPS: (Axis, Binding) = (Axis::N, Binding::Group);

const ROWS: &[Row] = &[
    Row {
        name: "bind-rows-to-lanes",
        case: "",
        from: NAIVE,
        to: "(for m ?M block (for n ?N block (for n 32 lane (for k ?K serial fma32))))",
        choose: |_| once(true),
    },
    Row {
        name: "tensorize-mma",
        case: "",
        from: NAIVE,
        to: "(for m ?M block (for n ?N block (for k ?K serial (for k 64 reg mma16816))))",
        choose: |site| once(site.factors.mma),
    },
    Row {
        name: "tensorize-wgmma",
        case: "",
        from: NAIVE,
        to: "(for m ?M block (for n ?N block (for k ?K serial (for k 64 reg wgmma64))))",
        choose: |site| once(site.factors.wgmma),
    },
    Row {
        name: "tensorize-fma2",
        case: "",
        from: "fma32",
        to: "fma2",
        choose: |site| once(site.factors.half2),
    },
    Row {
        name: "tile-tokens",
        case: "",
        from: "(for m ?M block (for n ?N block ?x))",
        to: "(for m ?M block (for m ?a reg (for n ?N block ?x)))",
        choose: |site| match site.leaf() {
            Leaf::Mac | Leaf::Fma32 | Leaf::Fma2 => site.times(&site.factors.tokens, 1),
            Leaf::Mma16816 => site.times(&site.factors.token_tiles, FRAGMENT_M),
            Leaf::Wgmma64 => site.times(&site.factors.token_columns, FRAGMENT_M),
        },
    },
    Row {
        name: "dequantize-slabs",
        case: "",
        from: "(for m ?t reg (for n ?N block ?x))",
        to: "(for m ?t reg (slab ?a (for n ?N block ?x)))",
        choose: |site| match site.multiplies_fragments() {
            true => site.times(&site.factors.slabs, 1),
            false => vec![],
        },
    },
    Row {
        name: "rows-in-registers",
        case: "gemv",
        from: "(for n ?N block (for n ?w lane ?x))",
        to: "(for n ?N block (for n ?a lane (for n ?b reg ?x)))",
        choose: |site| match site.body() {
            Body::For(Axis::K, _) => {
                site.factors.rows.iter().map(|r| (site.number("?w") * r, *r)).collect()
            }
            _ => vec![],
        },
    },
    Row {
        name: "rows-in-registers",
        case: "fragments",
        from: "(for n ?N block ?x)",
        to: "(for n ?N block (for n ?a reg ?x))",
        choose: |site| match (site.body(), site.leaf()) {
            (Body::For(Axis::K, _), Leaf::Mma16816) => {
                site.times(&site.factors.row_tiles, FRAGMENT_N)
            }
            (Body::For(Axis::K, _), Leaf::Wgmma64) => {
                site.times(&site.factors.group_row_tiles, GROUP_ROWS)
            }
            _ => vec![],
        },
    },
    Row {
        name: "lanes-along-k",
        case: "",
        from: "(for n ?N block (for n 32 lane (for k ?K serial fma32)))",
        to: "(for n ?N block (for n ?a lane (for k ?K serial (for k ?b lane fma32))))",
        choose: |site| site.factors.lanes.iter().map(|l| (32 / l, PIECE_K * l)).collect(),
    },
    Row {
        name: "warps-along-n",
        case: "",
        from: "(for n ?N block ?x)",
        to: "(for n ?N block (for n ?a warp ?x))",
        choose: |site| match (site.leaf(), site.body()) {
            (Leaf::Wgmma64, _) | (_, Body::For(Axis::N, Binding::Warp)) => vec![],
            _ => site.times(&site.factors.warps_n, site.covers(Axis::N)),
        },
    },
    Row {
        name: "warpgroups-along-n",
        case: "",
        from: "(for n ?N block ?x)",
        to: "(for n ?N block (for n ?a group ?x))",
        choose: |site| match (site.leaf(), site.body()) {
            (Leaf::Wgmma64, Body::For(axis, binding)) if (axis, binding) != GROUPS => {
                site.times(&site.factors.groups, site.covers(Axis::N))
            }
            _ => vec![],
        },
    },
    Row {
        name: "stage-activations-shared",
        case: "",
        from: "(for n ?w lane ?x)",
        to: "(for n ?w lane (stage x shared ?x))",
        choose: |site| once(site.body() != Body::Stage),
    },
    Row {
        name: "warps-along-k",
        case: "",
        from: "(for k ?K serial ?x)",
        to: "(for k ?K serial (for k ?a warp ?x))",
        choose: |site| match (site.leaf(), site.body()) {
            (Leaf::Fma32 | Leaf::Fma2, Body::Fma | Body::For(Axis::K, Binding::Lane))
            | (Leaf::Mma16816, Body::For(Axis::K, Binding::Reg | Binding::Unroll)) => {
                site.times(&site.factors.warps_k, site.covers(Axis::K))
            }
            _ => vec![],
        },
    },
    Row {
        name: "unroll",
        case: "",
        from: "(for k ?K serial ?x)",
        to: "(for k ?K serial (for k ?a unroll ?x))",
        choose: |site| match (site.multiplies_fragments(), site.body()) {
            (false, Body::Fma | Body::For(Axis::K, Binding::Lane | Binding::Warp)) => {
                site.times(&site.factors.unroll, site.covers(Axis::K))
            }
            _ => vec![],
        },
    },
    Row {
        name: "k-tile",
        case: "",
        from: "(for k ?K serial (for k 64 reg ?x))",
        to: "(for k ?K serial (for k ?a unroll (for k 64 reg ?x)))",
        choose: |site| site.times(&site.factors.k_tiles, CHUNK_K),
    },
    Row {
        name: "ring-pipeline",
        case: "",
        from: "(for k ?K serial ?x)",
        to: "(for k ?K serial (ring ?a ?x))",
        choose: |site| match (site.multiplies_fragments(), site.body()) {
            (true, Body::For(..)) => site.times(&site.factors.stages, 1),
            _ => vec![],
        },
    },
    Row {
        name: "split-k-over-blocks",
        case: "",
        from: "(for k ?K serial ?x)",
        to: "(for k ?K (split ?a) ?x)",
        choose: |site| match site.body() {
            Body::Mac => vec![],
            _ => site.times(&site.factors.splits, 1),
        },
    },
    Row {
        name: "split-k-over-cluster",
        case: "",
        from: "(for k ?K serial ?x)",
        to: "(for k ?K (cluster ?a) ?x)",
        choose: |site| match site.leaf() {
            Leaf::Mac => vec![],
            _ => site.times(&site.factors.clusters, 1),
        },
    },
    Row {
        name: "stream-k-over-blocks",
        case: "",
        from: "(for k ?K serial ?x)",
        to: "(for k ?K (stream ?a) ?x)",
        choose: |site| match (site.leaf(), site.body()) {
            (Leaf::Mma16816 | Leaf::Wgmma64, Body::Ring) => site.times(&site.factors.streams, 1),
            _ => vec![],
        },
    },
];

fn once(applies: bool) -> Choices {
    if applies {
        vec![(0, 0)]
    } else {
        vec![]
    }
}

/// The outermost operator of a body. Rules keep it the same for all terms of a class that some
/// rule binds to `?x`, except that a loop over k may be serial or shared by blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    For(Axis, Binding),
    Stage,
    Ring,
    Slab,
    Mac,
    Fma,
    Fragment,
}

/// A match of a rule.
struct Site<'a> {
    egraph: &'a EGraph,
    subst: &'a Subst,
    factors: &'a Factors,
}

impl Site<'_> {
    fn class(&self, var: &str) -> Id {
        let var: Var = var.parse().expect("rules name their variables");
        self.subst[var]
    }

    fn number(&self, var: &str) -> u32 {
        match self.egraph[self.class(var)].data {
            Fact::Number(value) => value,
            fact => unreachable!("{var} stands for an extent, not {fact:?}"),
        }
    }

    /// What `?x` covers of an axis.
    fn covers(&self, axis: Axis) -> u32 {
        match self.egraph[self.class("?x")].data {
            Fact::Covers(extents) => extents[axis.index()],
            fact => unreachable!("?x stands for a body, not {fact:?}"),
        }
    }

    /// The leaf inside `?x`. All terms of a class that some rule binds to `?x` have the same leaf,
    /// but for the two kinds of FMA.
    fn leaf(&self) -> Leaf {
        let mut class = self.class("?x");
        loop {
            match link(&self.egraph[class].nodes[0], &|id| &self.egraph[id].nodes[0]) {
                Some(Link::Layer(_, body)) => class = body,
                Some(Link::Leaf(leaf)) => return leaf,
                None => unreachable!("?x stands for a body"),
            }
        }
    }

    /// Whether `?x` multiplies fragments on tensor cores.
    fn multiplies_fragments(&self) -> bool {
        matches!(self.leaf(), Leaf::Mma16816 | Leaf::Wgmma64)
    }

    /// The outermost operator of `?x`.
    fn body(&self) -> Body {
        let class = &self.egraph[self.class("?x")];
        match link(&class.nodes[0], &|id| &self.egraph[id].nodes[0]) {
            Some(Link::Layer(Layer::For(l), _)) => Body::For(l.axis, l.binding),
            Some(Link::Layer(Layer::StageX, _)) => Body::Stage,
            Some(Link::Layer(Layer::Ring(_), _)) => Body::Ring,
            Some(Link::Layer(Layer::Slab(_), _)) => Body::Slab,
            Some(Link::Leaf(Leaf::Mac)) => Body::Mac,
            Some(Link::Leaf(Leaf::Fma32 | Leaf::Fma2)) => Body::Fma,
            Some(Link::Leaf(Leaf::Mma16816 | Leaf::Wgmma64)) => Body::Fragment,
            None => unreachable!("?x stands for a body"),
        }
    }

    /// Each factor as `?a`, times `unit`.
    fn times(&self, factors: &[u32], unit: u32) -> Choices {
        factors.iter().map(|factor| (factor * unit, 0)).collect()
    }
}

/// Puts the chosen numbers for `?a` and `?b` and equates the match with `to`.
struct Choose {
    row: &'static Row,
    from: PatternAst<Tile>,
    to: PatternAst<Tile>,
    factors: Arc<Factors>,
}

impl Applier<Tile, Cover> for Choose {
    fn apply_one(
        &self,
        egraph: &mut EGraph,
        _: Id,
        subst: &Subst,
        _: Option<&PatternAst<Tile>>,
        rule: Symbol,
    ) -> Vec<Id> {
        let choices = (self.row.choose)(&Site { egraph, subst, factors: &self.factors });
        let mut changed = Vec::new();
        for (a, b) in choices {
            let mut subst = subst.clone();
            for (name, value) in [("?a", a), ("?b", b)] {
                let id = egraph.add(Tile::Num(value));
                subst.insert(name.parse().expect("a variable"), id);
            }
            let (id, new) = egraph.union_instantiations(&self.from, &self.to, &subst, rule);
            changed.extend(new.then_some(id));
        }
        changed
    }
}

impl Row {
    fn rewrite(&'static self, factors: &Arc<Factors>) -> Rewrite<Tile, Cover> {
        let pattern = |text: &str| -> Pattern<Tile> {
            text.parse().unwrap_or_else(|error| panic!("rule {}: {error}", self.name))
        };
        let (from, to) = (pattern(self.from), pattern(self.to));
        let applier =
            Choose { row: self, from: from.ast.clone(), to: to.ast, factors: Arc::clone(factors) };
        let name = match self.case {
            "" => self.name.to_string(),
            case => format!("{}/{case}", self.name),
        };
        Rewrite::new(name, from, applier).unwrap_or_else(|why| panic!("rule {}: {why}", self.name))
    }
}

/// The names of all rules.
pub fn rule_names() -> Vec<&'static str> {
    let mut seen = BTreeSet::new();
    ROWS.iter().map(|row| row.name).filter(|name| seen.insert(*name)).collect()
}

/// The name in [`rule_names`] of a rewrite as egg reports it.
pub(super) fn rule_named(symbol: Symbol) -> Option<&'static str> {
    let name = symbol.as_str().split('/').next();
    ROWS.iter().map(|row| row.name).find(|row| Some(*row) == name)
}

/// The rewrites with these factors, without those that are disabled by name.
pub(super) fn rewrites(
    factors: Factors,
    disabled: &[String],
) -> Result<Vec<Rewrite<Tile, Cover>>, TileError> {
    if let Some(name) = disabled.iter().find(|name| !rule_names().contains(&name.as_str())) {
        return Err(TileError::UnknownRule { name: name.clone(), known: rule_names() });
    }
    let factors = Arc::new(factors);
    let enabled = ROWS.iter().filter(|row| !disabled.iter().any(|name| name == row.name));
    Ok(enabled.map(|row| row.rewrite(&factors)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_a_rewrite_of_its_own_name() {
        let p = "w4a16.awq-g128.f16-f16.n64.k64.m1".parse().unwrap();
        let factors = Factors::new(&p, &crate::Arch::named("h200").unwrap());
        let rewrites = rewrites(factors, &[]).unwrap();
        let names: BTreeSet<&str> = rewrites.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names.len(), ROWS.len());
        assert!(rewrites.iter().all(|r| rule_named(r.name).is_some()));
    }

    #[test]
    fn a_rule_that_does_not_exist_is_refused_with_the_names_that_do() {
        let p = "w4a16.awq-g128.f16-f16.n64.k64.m1".parse().unwrap();
        let factors = Factors::new(&p, &crate::Arch::named("h200").unwrap());
        let error = rewrites(factors, &["tile-toknes".into()]).unwrap_err().to_string();
        assert!(error.contains("tile-toknes") && error.contains("tile-tokens"), "{error}");
    }
}
