//! The interpreter of nests: what one multiplies, in serial order. It is the oracle for rules:
//! every nest that they derive visits each point of the iteration space exactly once.

use super::nest::{Axis, Binding, Extents, Layer, Nest};

/// Calls `visit` with every `[m, n, k]` that the nest computes, as if one thread ran all steps.
/// Points beyond what the enclosing loops cover are clipped.
pub fn run(nest: &Nest, visit: &mut dyn FnMut(Extents)) {
    let mut covered = vec![nest.leaf.extents()];
    for layer in nest.layers.iter().rev() {
        let mut extents = covered[covered.len() - 1];
        if let Layer::For(l) = layer {
            extents[l.axis.index()] = l.extent;
        }
        covered.push(extents);
    }
    covered.reverse();
    let limit = covered[0];
    Run { nest, covered, visit }.layer(0, [0; 3], limit);
}

struct Run<'a> {
    nest: &'a Nest,
    /// What each layer covers, outermost first; the leaf is last.
    covered: Vec<Extents>,
    visit: &'a mut dyn FnMut(Extents),
}

impl Run<'_> {
    fn layer(&mut self, index: usize, origin: Extents, limit: Extents) {
        let Some(layer) = self.nest.layers.get(index) else {
            return self.leaf(origin, limit);
        };
        let Layer::For(l) = layer else {
            return self.layer(index + 1, origin, limit);
        };
        let axis = l.axis.index();
        let step = self.covered[index + 1][axis];
        let steps = l.extent.div_ceil(step);
        let mut limit = limit;
        limit[axis] = limit[axis].min(origin[axis] + l.extent);
        let shares = match l.binding {
            Binding::Split(blocks) | Binding::Cluster(blocks) => blocks,
            _ => 1,
        };
        for share in 0..shares {
            for i in steps * share / shares..steps * (share + 1) / shares {
                let mut inner = origin;
                inner[axis] += i * step;
                self.layer(index + 1, inner, limit);
            }
        }
    }

    fn leaf(&mut self, origin: Extents, limit: Extents) {
        let size = self.nest.leaf.extents();
        let range = |axis: Axis| {
            let a = axis.index();
            origin[a]..limit[a].min(origin[a] + size[a])
        };
        for m in range(Axis::M) {
            for n in range(Axis::N) {
                for k in range(Axis::K) {
                    (self.visit)([m, n, k]);
                }
            }
        }
    }
}

/// How often each point of the iteration space is visited, in `m`, `n`, `k` order. A visit outside
/// of the space panics: this is a test's oracle.
#[cfg(test)]
pub(super) fn visits(nest: &Nest, [m, n, k]: Extents) -> Vec<u32> {
    let mut counts = vec![0; (m * n * k) as usize];
    run(nest, &mut |[i, j, l]| {
        assert!(i < m && j < n && l < k, "({i}, {j}, {l}) is outside of {m} x {n} x {k}");
        counts[((i * n + j) * k + l) as usize] += 1;
    });
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_naive_nest_walks_in_lexicographic_order() {
        let mut seen = Vec::new();
        run(&Nest::naive([2, 1, 2]), &mut |point| seen.push(point));
        assert_eq!(seen, [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]]);
    }

    #[test]
    fn tensor_leaves_are_clipped_to_the_space_and_shares_of_a_split_do_not_overlap() {
        let text = "(for m 3 block (for n 20 block (for k 100 (split 3) (ring 2 (mma16816)))))";
        let counts = visits(&text.parse().unwrap(), [3, 20, 100]);
        assert!(counts.iter().all(|&count| count == 1));
    }

    #[test]
    fn a_step_that_is_too_short_is_seen_as_a_point_visited_twice() {
        let text = "(for m 1 block (for n 4 block (for n 3 warp (for n 2 reg \
                    (for k 1 serial (mac))))))";
        // 3 is no multiple of 2, and the clipped inner loop must not run into the next step.
        assert!(visits(&text.parse().unwrap(), [1, 4, 1]).iter().all(|&count| count == 1));
        let dropped = "(for m 1 block (for n 2 block (for k 1 serial (mac))))";
        assert_eq!(visits(&dropped.parse().unwrap(), [1, 4, 1]), [1, 1, 0, 0]);
    }
}
