//! What several measurements of one thing say.

/// Resamplings of a confidence interval.
const RESAMPLINGS: usize = 2_000;

/// The middle of several measurements.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median, between the ends of its 95 % confidence interval (bootstrap, percentiles).
pub fn estimate(values: &[f64], random: &mut fastrand::Rng) -> [f64; 3] {
    if values.is_empty() {
        return [f64::NAN; 3];
    }
    let mut medians: Vec<_> = (0..RESAMPLINGS)
        .map(|_| median((0..values.len()).map(|_| values[random.usize(0..values.len())]).collect()))
        .collect();
    medians.sort_by(f64::total_cmp);
    [quantile(&medians, 0.025), median(values.to_vec()), quantile(&medians, 0.975)]
}

/// The value below which this part of them lies; they are sorted.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = ((sorted.len().saturating_sub(1)) as f64 * part).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// By how much `y` grows with each `x`, as the line of least squares has it.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_lies_in_its_interval_which_is_narrow_where_values_are_alike() {
        let mut random = fastrand::Rng::with_seed(7);
        let alike: Vec<_> = (0..31).map(|n| 100.0 + f64::from(n % 3)).collect();
        let spread: Vec<_> = (0..31).map(|n| f64::from(n * 37 % 31)).collect();
        for (values, widest) in [(alike, 2.0), (spread, 20.0)] {
            let [low, middle, high] = estimate(&values, &mut random);
            assert!(low <= middle && middle <= high && high - low <= widest, "{low} {middle} {high}");
        }
        assert_eq!(estimate(&[5.0; 9], &mut random), [5.0; 3]);
        assert!(estimate(&[], &mut random).iter().all(|value| value.is_nan()));
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<_> = (1..=100).map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|part| quantile(&values, part)), [1.0, 51.0, 99.0, 100.0]);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_slope_is_that_of_the_line_through_the_points() {
        let line: Vec<_> = (0..10).map(|x| (f64::from(x), 3.0 * f64::from(x) + 7.0)).collect();
        assert!((slope(&line) - 3.0).abs() < 1e-9);
        // What goes up and down around one value does not grow.
        let level = [(0.0, 5.0), (1.0, 6.0), (2.0, 6.0), (3.0, 5.0)];
        assert!(slope(&level).abs() < 1e-9);
    }
}
