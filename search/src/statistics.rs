//! Medians of few and noisy values.

/// The middle value, or the mean of the two middle ones; 0 without values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// The median, and the distance between the quartiles.
pub(crate) fn middle(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    let (low, high) = (&sorted[..half], &sorted[sorted.len() - half..]);
    (median(values), median(high) - median(low))
}

/// Standard error of the median of `values`: of normal ones it is 1.2533 times the mean's
/// (asymptotic efficiency 2/pi). The spread is taken from the median absolute deviation, which a
/// few wild values do not move. Infinite for fewer than three values.
pub(crate) fn standard_error(values: &[f64]) -> f64 {
    if values.len() < 3 {
        return f64::INFINITY;
    }
    let middle = median(values);
    let deviations: Vec<f64> = values.iter().map(|v| (v - middle).abs()).collect();
    // 1.4826 turns the median absolute deviation of normal values into their standard deviation.
    1.2533 * 1.4826 * median(&deviations) / (values.len() as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_medians_of_the_halves() {
        assert_eq!(middle(&[4.0, 1.0, 3.0, 2.0, 5.0]), (3.0, 3.0));
        assert_eq!(middle(&[]), (0.0, 0.0));
    }

    #[test]
    fn wild_values_move_neither_the_median_nor_its_error() {
        let calm = [9.0, 10.0, 11.0, 10.0, 9.5, 10.5];
        let wild = [9.0, 10.0, 11.0, 10.0, 9.5, 10.5, 900.0];
        assert!((median(&wild) - median(&calm)).abs() < 0.1);
        assert!(standard_error(&wild) < 2.0 * standard_error(&calm));
        assert_eq!(standard_error(&[7.0; 5]), 0.0);
        assert!(standard_error(&[1.0, 2.0]).is_infinite());
    }
}
