//! Ordering names as people count: `layers.2` before `layers.10`.

use std::cmp::Ordering;

/// Compares two names, runs of digits by their value.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let (run_a, run_b) = (digits(a), digits(b));
        let order = if run_a > 0 && run_b > 0 {
            let (number_a, number_b) = (significant(&a[..run_a]), significant(&b[..run_b]));
            number_a.len().cmp(&number_b.len()).then(number_a.cmp(number_b))
        } else {
            a.first().cmp(&b.first())
        };
        if order != Ordering::Equal {
            return order;
        }
        if a.is_empty() {
            return Ordering::Equal;
        }
        (a, b) = (&a[run_a.max(1)..], &b[run_b.max(1)..]);
    }
}

/// Length of the run of digits at the start.
fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// A run of digits without leading zeros.
fn significant(run: &[u8]) -> &[u8] {
    let zeros = run.iter().take_while(|byte| **byte == b'0').count();
    &run[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_count_up() {
        let mut names = ["m.10.q", "m.9.q", "m.9.k", "m", "m.09.k2", "n"];
        names.sort_by(|a, b| compare(a, b));
        assert_eq!(names, ["m", "m.9.k", "m.09.k2", "m.9.q", "m.10.q", "n"]);
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in "[a0-2.]{0,8}", b in "[a0-2.]{0,8}", c in "[a0-2.]{0,8}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b) != Ordering::Greater && compare(&b, &c) != Ordering::Greater {
                prop_assert_ne!(compare(&a, &c), Ordering::Greater);
            }
        }
    }
}
