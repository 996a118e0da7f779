//! Act-order: which quant group each column belongs to.

use crate::error::FormatError;
use crate::tensors::{TensorRef, EXPORT_AGAIN};

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
