//! Which thread blocks work together: of a sampled block its partners must run too (split-K).

use qtune_sim::Partners;
use std::sync::Arc;

/// Grid axes by x, y, z.
pub type Axes = [bool; 3];

/// Reads axes as the command line names them.
pub fn parse(text: &str) -> Result<Axes, String> {
    match text.chars().all(|c| "xyz".contains(c)) && !text.is_empty() {
        true => Ok(['x', 'y', 'z'].map(|axis| text.contains(axis))),
        false => Err("axes are letters of xyz".into()),
    }
}

/// The names of axes.
pub fn names(axes: Axes) -> String {
    "xyz".chars().zip(axes).filter(|(_, named)| *named).map(|(axis, _)| axis).collect()
}

/// The blocks of a grid that differ from one along some axes alone, itself included.
pub fn along(axes: Axes, grid: [u32; 3]) -> Partners {
    Arc::new(move |block| {
        let at = [block % grid[0], block / grid[0] % grid[1], block / grid[0] / grid[1]];
        let along = |axis: usize| if axes[axis] { 0..grid[axis] } else { at[axis]..at[axis] + 1 };
        let mut all = Vec::new();
        for z in along(2) {
            for y in along(1) {
                all.extend(along(0).map(|x| x + grid[0] * (y + grid[1] * z)));
            }
        }
        all
    })
}

/// Finds the axes along which blocks work together, from trials of single blocks: `touched` runs
/// the block with this number alone and says which elements of all outputs it changed, or nothing
/// if the block does not come to an end without others.
///
/// Blocks that change the same elements, or wait for each other, are partners. The first block is
/// compared with its neighbour along each axis, `step` blocks on.
pub fn find(
    grid: [u32; 3],
    step: [u32; 3],
    mut touched: impl FnMut(u32) -> Option<Vec<bool>>,
) -> Axes {
    let split = |axis: usize| grid[axis] > step[axis];
    let Some(first) = touched(0) else { return std::array::from_fn(split) };
    let strides = [1, grid[0], grid[0].saturating_mul(grid[1])];
    std::array::from_fn(|axis| {
        split(axis)
            && touched(strides[axis] * step[axis])
                .is_none_or(|other| first.iter().zip(&other).any(|(a, b)| *a && *b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partners_are_the_blocks_along_the_named_axes() {
        let grid = [4, 3, 2];
        let block = 1 + 4 * 2;
        assert_eq!(along(parse("z").unwrap(), grid)(block), [block, block + 12]);
        assert_eq!(along(parse("x").unwrap(), grid)(block), [8, 9, 10, 11]);
        assert_eq!(along(parse("xyz").unwrap(), grid)(block).len(), 24);
        assert!(parse("w").is_err() && parse("").is_err());
        assert_eq!(names([true, false, true]), "xz");
    }

    #[test]
    fn blocks_that_change_the_same_elements_are_partners() {
        let grid = [4, 3, 2];
        // Each column of blocks along z has one element.
        let own = |block: u32| (0..12).map(|element| element == block % 12).collect();
        assert_eq!(find(grid, [1; 3], |block| Some(own(block))), [false, false, true]);
        // In clusters of two along x.
        let pair = |block: u32| (0..12).map(|element| element / 2 == block % 12 / 2).collect();
        assert_eq!(find(grid, [2, 1, 1], |block| Some(pair(block))), [false, false, true]);
    }

    #[test]
    fn blocks_that_wait_for_others_are_partners_along_every_axis() {
        assert_eq!(find([4, 1, 2], [1; 3], |_| None), [true, false, true]);
        let waits = |block: u32| (block != 8).then(|| vec![block == 0, block == 1]);
        assert_eq!(find([4, 2, 2], [1; 3], waits), [false, false, true]);
    }
}
