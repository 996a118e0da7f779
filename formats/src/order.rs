//! Act-order: which quant group each column belongs to.

use crate::error::FormatError;
use crate::tensors::{TensorRef, EXPORT_AGAIN};
use qtune_ir::sorted_slice;

/// The group of each column, from `g_idx` `[K]`; each must be one of `groups`.
pub(crate) fn group_of(g_idx: &TensorRef<'_>, groups: usize) -> Result<Vec<u32>, FormatError> {
    let columns = (0..g_idx.bytes.len() / 4).map(|k| {
        let group = g_idx.word(k);
        if (group as usize) < groups {
            return Ok(group);
        }
        let group = group as i32;
        let problem = format!("puts column {k} into quant group {group} of {groups}");
        Err(g_idx.error(problem, EXPORT_AGAIN))
    });
    columns.collect()
}

/// The columns sorted by group, in which groups are runs of `size`; `None` if they are already.
/// Stable, as the libraries' kernels sort them.
pub(crate) fn k_order(
    g_idx: &TensorRef<'_>,
    groups: usize,
    size: usize,
) -> Result<Option<Vec<u32>>, FormatError> {
    let group_of = group_of(g_idx, groups)?;
    if group_of.iter().enumerate().all(|(k, group)| *group as usize == k / size) {
        return Ok(None);
    }
    let mut order: Vec<u32> = (0..group_of.len() as u32).collect();
    order.sort_by_key(|k| group_of[*k as usize]);
    let misplaced = order.iter().enumerate().find_map(|(at, k)| {
        let group = group_of[*k as usize];
        (group as usize != at / size).then_some(group)
    });
    match misplaced {
        None => Ok(Some(order)),
        Some(group) => {
            let columns = group_of.iter().filter(|other| **other == group).count();
            let problem = format!(
                "does not fill groups of {size} columns in turn: quant group {group} has {columns}"
            );
            Err(g_idx.error(problem, "check group_size in the configuration"))
        }
    }
}

/// An order of columns as kernels read it, `order` being the feature of each column: u16 `[K]`, the column
/// of each input feature; then u16 `[K, 2]`, for every slice of features by itself ([`sorted_slice`]) and in
/// the order of the columns, a feature's place in the slice and its column.
///
/// # Errors
/// What is wrong with an order that is no permutation, or too long for 16-bit places.
pub fn places(order: &[u32]) -> Result<Vec<u16>, String> {
    let mut places: Vec<Option<u16>> = vec![None; order.len()];
    for (column, feature) in order.iter().enumerate() {
        let column = u16::try_from(column)
            .map_err(|_| format!("{} columns are in act-order, at most 65536", order.len()))?;
        let place = places.get_mut(*feature as usize).ok_or_else(|| {
            format!("column {column} is said to be feature {feature} of {}", order.len())
        })?;
        if let Some(other) = place.replace(column) {
            return Err(format!(
                "columns {other} and {column} are both said to be feature {feature}"
            ));
        }
    }
    // As many columns as features, none of them twice: every feature has one.
    let mut places: Vec<u16> = places.into_iter().flatten().collect();
    let slice = sorted_slice(order.len() as u32) as usize;
    let mut features: Vec<usize> = (0..order.len()).collect();
    features.sort_unstable_by_key(|feature| (feature / slice, places[*feature]));
    for feature in features {
        places.extend([(feature % slice) as u16, places[feature]]);
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_the_inverse_of_an_order_and_slices_in_that_order() {
        assert_eq!(places(&[2, 0, 3, 1]), Ok(vec![1, 3, 0, 2, 2, 0, 0, 1, 3, 2, 1, 3]));
        // Two slices of eight features, in columns from the last to the first.
        let columns: Vec<u32> = (0..16).rev().collect();
        let places = places(&columns).unwrap();
        assert_eq!(places[..16], (0..16).rev().collect::<Vec<u16>>());
        assert_eq!((&places[16..20], &places[32..36]), (&[7, 8, 6, 9][..], &[7, 0, 6, 1][..]));
    }

    #[test]
    fn the_longest_order_has_places() {
        let most: Vec<u32> = (0..1 << 16).rev().collect();
        assert_eq!(places(&most).map(|places| places[0]), Ok(u16::MAX));
    }

    #[test]
    fn what_is_no_permutation_is_refused_with_the_columns() {
        let refusal = |order: &[u32]| places(order).unwrap_err();
        assert!(refusal(&[0, 4, 1, 2]).contains("column 1 is said to be feature 4 of 4"));
        assert!(refusal(&[0, 1, 0, 2]).contains("columns 0 and 2 are both"));
        let more: Vec<u32> = (0..=1 << 16).collect();
        assert!(refusal(&more).contains("65537 columns"));
    }
}
