//! The tiling language as egg sees it: [`Nest`]s as e-graph terms, and the e-class analysis.

use super::nest::{Axis, Binding, Extents, Layer, Leaf, Loop, Nest, AXES, BINDINGS, LEAVES};
use egg::{define_language, Analysis, DidMerge, Id, RecExpr};

define_language! {
    /// Operators of the tiling language; [`Nest`] documents their meaning.
    pub(super) enum Tile {
        "m" = AxisM,
        "n" = AxisN,
        "k" = AxisK,
        "serial" = Serial,
        "block" = Block,
        "warp" = Warp,
        "group" = Group,
        "lane" = Lane,
        "reg" = Reg,
        "unroll" = Unroll,
        "split" = Split([Id; 1]),
        "cluster" = Cluster([Id; 1]),
        "stream" = Stream([Id; 1]),
        "x" = Activations,
        "shared" = Shared,
        "for" = For([Id; 4]),
        "stage" = Stage([Id; 3]),
        "ring" = Ring([Id; 2]),
        "slab" = Slab([Id; 2]),
        "mac" = Mac,
        "fma32" = Fma32,
        "fma2" = Fma2,
        "mma16816" = Mma16816,
        "wgmma64" = Wgmma64,
        Num(u32),
    }
}

pub(super) type EGraph = egg::EGraph<Tile, Cover>;

fn axis_node(axis: Axis) -> Tile {
    match axis {
        Axis::M => Tile::AxisM,
        Axis::N => Tile::AxisN,
        Axis::K => Tile::AxisK,
    }
}

fn leaf_node(leaf: Leaf) -> Tile {
    match leaf {
        Leaf::Mac => Tile::Mac,
        Leaf::Fma32 => Tile::Fma32,
        Leaf::Fma2 => Tile::Fma2,
        Leaf::Mma16816 => Tile::Mma16816,
        Leaf::Wgmma64 => Tile::Wgmma64,
    }
}

/// Adds a nest to an expression and returns its root.
pub(super) fn to_expr(nest: &Nest) -> RecExpr<Tile> {
    let mut expr = RecExpr::default();
    let mut body = expr.add(leaf_node(nest.leaf));
    for layer in nest.layers.iter().rev() {
        body = match layer {
            Layer::For(l) => {
                let axis = expr.add(axis_node(l.axis));
                let extent = expr.add(Tile::Num(l.extent));
                let binding = match l.binding {
                    Binding::Serial => Tile::Serial,
                    Binding::Block => Tile::Block,
                    Binding::Warp => Tile::Warp,
                    Binding::Group => Tile::Group,
                    Binding::Lane => Tile::Lane,
                    Binding::Reg => Tile::Reg,
                    Binding::Unroll => Tile::Unroll,
                    Binding::Split(blocks) => Tile::Split([expr.add(Tile::Num(blocks))]),
                    Binding::Cluster(blocks) => Tile::Cluster([expr.add(Tile::Num(blocks))]),
                    Binding::Stream(blocks) => Tile::Stream([expr.add(Tile::Num(blocks))]),
                };
                let binding = expr.add(binding);
                expr.add(Tile::For([axis, extent, binding, body]))
            }
            Layer::StageX => {
                let (x, shared) = (expr.add(Tile::Activations), expr.add(Tile::Shared));
                expr.add(Tile::Stage([x, shared, body]))
            }
            Layer::Ring(stages) => {
                let stages = expr.add(Tile::Num(*stages));
                expr.add(Tile::Ring([stages, body]))
            }
            Layer::Slab(rows) => {
                let rows = expr.add(Tile::Num(*rows));
                expr.add(Tile::Slab([rows, body]))
            }
        };
    }
    expr
}

/// One node of the chain that a nest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// A layer and its body.
    Layer(Layer, Id),
    /// The end of the chain.
    Leaf(Leaf),
}

/// The chain node that `node` is, or `None` for operands (axes, numbers, bindings). `lookup` gives
/// some node of an operand's class; operand classes have one node, as no rule rewrites operands.
pub(super) fn link<'a>(node: &Tile, lookup: &dyn Fn(Id) -> &'a Tile) -> Option<Link> {
    let number = |id: Id| match lookup(id) {
        Tile::Num(value) => Some(*value),
        _ => None,
    };
    Some(match node {
        Tile::For([axis, extent, binding, body]) => {
            let axis = AXES.iter().find(|(a, _)| axis_node(*a) == *lookup(*axis))?.0;
            let binding = match lookup(*binding) {
                Tile::Split([blocks]) => Binding::Split(number(*blocks)?),
                Tile::Cluster([blocks]) => Binding::Cluster(number(*blocks)?),
                Tile::Stream([blocks]) => Binding::Stream(number(*blocks)?),
                named => BINDINGS.iter().find(|(_, name)| named.to_string() == *name)?.0,
            };
            Link::Layer(Layer::For(Loop { axis, extent: number(*extent)?, binding }), *body)
        }
        Tile::Stage([_, _, body]) => Link::Layer(Layer::StageX, *body),
        Tile::Ring([stages, body]) => Link::Layer(Layer::Ring(number(*stages)?), *body),
        Tile::Slab([rows, body]) => Link::Layer(Layer::Slab(number(*rows)?), *body),
        leaf => Link::Leaf(LEAVES.iter().find(|(l, ..)| leaf_node(*l) == *leaf)?.0),
    })
}

/// The nest that an expression writes, or `None` if it is no nest.
pub(super) fn from_expr(expr: &RecExpr<Tile>) -> Option<Nest> {
    let mut layers = Vec::new();
    let mut at = expr.root();
    loop {
        match link(&expr[at], &|id| &expr[id])? {
            Link::Layer(layer, body) => {
                layers.push(layer);
                at = body;
            }
            Link::Leaf(leaf) => return Some(Nest { layers, leaf }),
        }
    }
}

/// The analysis: what is true of every equal term. Terms are equal if they compute the same part
/// of the iteration space, so all terms of a class cover the same extents.
#[derive(Default)]
pub(super) struct Cover;

/// What the terms of a class stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// A number.
    Number(u32),
    /// A computation that covers these extents.
    Covers(Extents),
    /// An axis, a binding or a memory space.
    Operand,
}

impl Fact {
    fn covered(self) -> Extents {
        match self {
            Fact::Covers(extents) => extents,
            Fact::Number(_) | Fact::Operand => [0; 3],
        }
    }
}

impl Analysis<Tile> for Cover {
    type Data = Fact;

    fn make(egraph: &mut EGraph, node: &Tile, _: Id) -> Fact {
        if let Tile::Num(value) = node {
            return Fact::Number(*value);
        }
        match link(node, &|id| &egraph[id].nodes[0]) {
            None => Fact::Operand,
            Some(Link::Leaf(leaf)) => Fact::Covers(leaf.extents()),
            Some(Link::Layer(layer, body)) => {
                let mut extents = egraph[body].data.covered();
                if let Layer::For(l) = layer {
                    extents[l.axis.index()] = l.extent;
                }
                Fact::Covers(extents)
            }
        }
    }

    fn merge(&mut self, to: &mut Fact, from: Fact) -> DidMerge {
        assert_eq!(*to, from, "a tiling rule equated terms that cover different extents");
        DidMerge(false, false)
    }
}

#[cfg(test)]
mod tests {
    use super::super::nest::tests::any_nest;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn egg_terms_and_nests_are_the_same_text(nest in any_nest()) {
            let expr = to_expr(&nest);
            prop_assert_eq!(from_expr(&expr).unwrap(), nest.clone());
            let parsed: RecExpr<Tile> = nest.to_string().parse().unwrap();
            prop_assert_eq!(parsed.to_string(), expr.to_string());
        }
    }

    #[test]
    fn a_class_knows_what_its_terms_cover() {
        let mut egraph = EGraph::default();
        let nest: Nest = "(for m 3 block (for n 64 reg (ring 2 (mma16816))))".parse().unwrap();
        let id = egraph.add_expr(&to_expr(&nest));
        assert_eq!(egraph[id].data, Fact::Covers([3, 64, 16]));
    }
}
