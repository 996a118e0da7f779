//! The verifier of nests. A nest is well formed for a problem if
//!
//! 1. the outermost loop of each axis covers exactly the problem's extent;
//! 2. every loop inside it covers a multiple of what its body covers: only the outermost loop of
//!    an axis rounds up, and its last step is clipped;
//! 3. every inner loop has at least two steps; a `lane` loop may have one, it then only says that
//!    the lanes of a warp stand on the other axis;
//! 4. an axis has each binding at most once, and grid bindings (`block`, split, cluster,
//!    stream) only outermost;
//! 5. the steps of all `lane` loops together are the 32 lanes of a warp; scalar leaves, `mma` and
//!    `wgmma`, whose lanes the instruction itself binds, have no `lane` loop;
//! 6. activations are staged at most once, there is at most one ring, and a ring stands inside a
//!    loop over k and around what that loop's steps cover;
//! 7. there is at most one slab, around the loop that deals rows to thread blocks, of a nest that
//!    multiplies fragments.

use super::nest::{Axis, Binding, Extents, Layer, Leaf, Loop, Nest, NestError};

/// Lanes of a warp.
const LANES: u32 = 32;

/// What a verified nest is known to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Steps of each layer, outermost first; 1 for a layer that is no loop.
    pub steps: Vec<u32>,
    /// What the body of each layer covers, outermost first.
    pub body: Vec<Extents>,
}

/// Checks a nest against a problem's extents `[M, N, K]`.
///
/// # Errors
/// [`NestError`] names the rule and the layer.
pub fn verify(nest: &Nest, extents: Extents) -> Result<Facts, NestError> {
    let facts = walk(nest)?;
    for (axis, _) in super::nest::AXES {
        let outermost = loops(nest).find(|(_, l)| l.axis == axis);
        let covered = outermost.map_or(nest.leaf.extents()[axis.index()], |(_, l)| l.extent);
        if covered != extents[axis.index()] {
            let wanted = extents[axis.index()];
            return Err(NestError::new(format!("covers {covered} of {wanted} along {axis}"), nest));
        }
    }
    check_bindings(nest)?;
    check_lanes(nest, &facts)?;
    check_wrappers(nest)?;
    Ok(facts)
}

fn loops(nest: &Nest) -> impl Iterator<Item = (usize, Loop)> + Clone + '_ {
    nest.layers.iter().enumerate().filter_map(|(index, layer)| match layer {
        Layer::For(l) => Some((index, *l)),
        Layer::StageX | Layer::Ring(_) | Layer::Slab(_) => None,
    })
}

/// Rules 2 and 3: steps and coverage, from the inside to the outside.
fn walk(nest: &Nest) -> Result<Facts, NestError> {
    let count = nest.layers.len();
    let mut facts = Facts { steps: vec![1; count], body: vec![nest.leaf.extents(); count] };
    let mut covered = nest.leaf.extents();
    for (index, layer) in nest.layers.iter().enumerate().rev() {
        facts.body[index] = covered;
        let Layer::For(l) = layer else { continue };
        let step = covered[l.axis.index()];
        let outermost = !loops(nest).any(|(other, o)| other < index && o.axis == l.axis);
        if l.extent == 0 || (!outermost && l.extent % step != 0) {
            return Err(NestError::new(format!("{} is not a multiple of {step}", l.extent), layer));
        }
        facts.steps[index] = l.extent.div_ceil(step);
        if facts.steps[index] == 1 && !outermost && l.binding != Binding::Lane {
            return Err(NestError::new("an inner loop of one step", layer));
        }
        covered[l.axis.index()] = l.extent;
    }
    Ok(facts)
}

/// Rule 4.
fn check_bindings(nest: &Nest) -> Result<(), NestError> {
    for (index, l) in loops(nest) {
        let mut outer = loops(nest).filter(|(other, o)| *other < index && o.axis == l.axis);
        let grid = matches!(
            l.binding,
            Binding::Block | Binding::Split(_) | Binding::Cluster(_) | Binding::Stream(_)
        );
        if outer.clone().next().is_some() && grid {
            return Err(NestError::new("a grid binding inside another loop", Layer::For(l)));
        }
        if outer.any(|(_, o)| o.binding == l.binding) {
            return Err(NestError::new("a binding twice on one axis", Layer::For(l)));
        }
    }
    Ok(())
}

/// Rule 5.
fn check_lanes(nest: &Nest, facts: &Facts) -> Result<(), NestError> {
    let bound = loops(nest).filter(|(_, l)| l.binding == Binding::Lane);
    let lanes: u32 = bound.map(|(index, _)| facts.steps[index]).product();
    let wanted = match nest.leaf {
        Leaf::Mac | Leaf::Mma16816 | Leaf::Wgmma64 => 1,
        Leaf::Fma32 | Leaf::Fma2 => LANES,
    };
    if lanes != wanted {
        return Err(NestError::new(format!("{lanes} lanes are bound, not {wanted}"), nest));
    }
    Ok(())
}

/// Rule 6.
fn check_wrappers(nest: &Nest) -> Result<(), NestError> {
    let count = |wanted: fn(&Layer) -> bool| nest.layers.iter().filter(|l| wanted(l)).count();
    if count(|l| matches!(l, Layer::StageX)) > 1 || count(|l| matches!(l, Layer::Ring(_))) > 1 {
        return Err(NestError::new("staged twice", nest));
    }
    check_slab(nest)?;
    let walks_k = |l: &Layer| matches!(l, Layer::For(l) if l.axis == Axis::K);
    match nest.layers.iter().position(|l| matches!(l, Layer::Ring(_))) {
        Some(0) => Err(NestError::new("a ring outside all loops", nest)),
        Some(at) if !walks_k(&nest.layers[at - 1]) => {
            Err(NestError::new("a ring that no loop over k drives", nest.layers[at]))
        }
        _ => Ok(()),
    }
}

/// Rule 7.
fn check_slab(nest: &Nest) -> Result<(), NestError> {
    let slabs = nest.layers.iter().enumerate().filter(|(_, l)| matches!(l, Layer::Slab(_)));
    let rows =
        |l: &Layer| matches!(l, Layer::For(l) if (l.axis, l.binding) == (Axis::N, Binding::Block));
    for (nth, (at, layer)) in slabs.enumerate() {
        if nth > 0 {
            return Err(NestError::new("dequantized twice", layer));
        }
        if !nest.layers.get(at + 1).is_some_and(rows) {
            return Err(NestError::new("a slab that no grid of rows reads", layer));
        }
        if !matches!(nest.leaf, Leaf::Mma16816 | Leaf::Wgmma64) {
            return Err(NestError::new("a slab that no tensor core multiplies", layer));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str, extents: Extents) -> String {
        verify(&text.parse().unwrap(), extents).unwrap_err().to_string()
    }

    #[test]
    fn the_naive_nest_is_well_formed() {
        let facts = verify(&Nest::naive([3, 50, 70]), [3, 50, 70]).unwrap();
        assert_eq!(facts.steps, [3, 50, 70]);
        assert_eq!(facts.body, [[1, 50, 70], [1, 1, 70], [1, 1, 1]]);
    }

    #[test]
    fn only_the_outermost_loop_of_an_axis_rounds_up() {
        let nest = "(for n 100 block (for n 32 lane (for k 70 serial (fma32))))";
        assert_eq!(verify(&nest.parse().unwrap(), [1, 100, 70]).unwrap().steps, [4, 32, 3]);
        let uneven = nest.replace("70 serial", "70 serial (for k 48 unroll") + ")";
        assert!(why(&uneven, [1, 100, 70]).contains("48 is not a multiple of 32"));
    }

    #[test]
    fn each_rule_is_named_when_it_is_broken() {
        let cases = [
            ("(for n 32 lane (for k 64 serial (fma32)))", "covers 32 of 64 along n"),
            (
                "(for n 64 block (for n 32 lane (for n 1 reg (for k 64 serial (fma32)))))",
                "one step",
            ),
            (
                "(for n 64 block (for n 32 lane (for k 64 serial (for k 64 block (fma32)))))",
                "grid binding",
            ),
            (
                "(for n 64 block (for n 32 lane (for n 4 lane (for k 64 serial (fma32)))))",
                "twice on one axis",
            ),
            ("(for n 64 block (for n 16 lane (for k 64 serial (fma32))))", "16 lanes are bound"),
            ("(for n 64 block (for k 64 serial (mma16816)))", "covers 8 of 1 along m"),
            ("(stage x shared (stage x shared (for n 64 block (for k 64 serial (mac)))))", "twice"),
            ("(ring 2 (for n 64 block (for k 64 serial (mac))))", "outside all loops"),
            ("(for n 64 block (ring 2 (for k 64 serial (mac))))", "no loop over k drives"),
            ("(for n 64 block (slab 64 (for k 64 serial (mac))))", "no grid of rows reads"),
            ("(slab 64 (for n 64 block (for k 64 serial (mac))))", "no tensor core multiplies"),
        ];
        for (text, wanted) in cases {
            let message = why(text, [1, 64, 64]);
            assert!(message.contains(wanted), "{text}: {message}");
        }
    }
}
