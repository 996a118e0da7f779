//! What measurements say about schedules that were not measured.
//!
//! The cost model's absolute error is large, but its errors on similar schedules are similar. So the
//! logarithm of measured over modelled time is taken for a Gaussian process over the fields of a
//! schedule (Rasmussen and Williams, *Gaussian Processes for Machine Learning*, algorithm 2.1): a
//! linear part for fields whose effect the model gets wrong throughout, a smooth part for what
//! depends on several of them, and noise.

use std::collections::BTreeMap;

/// Prior standard deviation of what the model gets wrong about every schedule alike.
const COMMON: f64 = 0.5;
/// Of the effect of doubling a field, or of another value of a named one.
const LINEAR: f64 = 0.12;
/// Of what depends on several fields.
const SMOOTH: f64 = 0.12;
/// Distance, in doublings, over which the smooth part is much the same.
const LENGTH: f64 = 2.0;
/// Of what a schedule has for itself.
const OWN: f64 = 0.01;

/// The fields of a schedule as numbers: logarithms to base 2 of numeric ones, an indicator for each
/// value of the others.
pub(crate) type Features = Vec<f64>;

/// Turns schedules into features, by the fields that the schedules of a search have.
#[derive(Clone, Debug)]
pub(crate) struct Encoder {
    /// Feature index by name: a field with its position, or a field with its value.
    index: BTreeMap<String, usize>,
}

impl Encoder {
    /// An encoder for these schedule texts.
    pub fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Encoder {
        let mut index = BTreeMap::new();
        for text in texts {
            for (name, _) in fields(text) {
                let next = index.len();
                index.entry(name).or_insert(next);
            }
        }
        Encoder { index }
    }

    /// The features of a schedule; fields that the encoder does not know are left out.
    pub fn features(&self, text: &str) -> Features {
        let mut features = vec![0.0; self.index.len()];
        for (name, value) in fields(text) {
            if let Some(at) = self.index.get(&name) {
                features[*at] = value;
            }
        }
        features
    }
}

/// Named numbers of a schedule's text: `tile=16x128` gives `tile.0` 4 and `tile.1` 7, `raster=rows`
/// gives `raster=rows` 1, and what follows `dequant=` is one name. A number of a kind has a name for
/// its kind: `split=4@cluster` gives `split.0` 2 and `split@cluster` 1, `split=stream:64` gives
/// `split:stream` 1 and `split:stream.0` 6.
fn fields(text: &str) -> Vec<(String, f64)> {
    let (head, dequant) = text.split_once(" dequant=").unwrap_or((text, ""));
    let mut fields = vec![(format!("dequant={dequant}"), 1.0)];
    for word in head.split_whitespace() {
        let Some((name, value)) = word.split_once('=') else {
            fields.push((word.to_owned(), 1.0));
            continue;
        };
        let (name, value, kind) = of_kind(name, value);
        fields.extend(kind.map(|kind| (kind, 1.0)));
        let numbers: Result<Vec<f64>, _> = value.split('x').map(str::parse).collect();
        match numbers {
            Ok(numbers) => {
                let named = |(at, n): (usize, f64)| (format!("{name}.{at}"), n.max(0.5).log2());
                fields.extend(numbers.into_iter().enumerate().map(named));
            }
            Err(_) => fields.push((word.to_owned(), 1.0)),
        }
    }
    fields
}

/// The name of a field's numbers, the numbers, and the name of their kind if they are of one.
fn of_kind<'a>(name: &str, value: &'a str) -> (String, &'a str, Option<String>) {
    if let Some((numbers, kind)) = value.split_once('@') {
        return (name.to_owned(), numbers, Some(format!("{name}@{kind}")));
    }
    match value.split_once(':') {
        Some((kind, numbers)) => {
            let name = format!("{name}:{kind}");
            (name.clone(), numbers, Some(name))
        }
        None => (name.to_owned(), value, None),
    }
}

/// A measurement.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    /// The schedule.
    pub at: Features,
    /// Logarithm of measured over modelled time.
    pub value: f64,
    /// Standard error of the value.
    pub error: f64,
}

/// The process after some measurements.
#[derive(Debug)]
pub(crate) struct Surrogate {
    points: Vec<Features>,
    /// Lower triangle of the Cholesky factor of the points' covariance, row by row.
    factor: Vec<Vec<f64>>,
    /// The covariance's inverse times the measured values.
    weights: Vec<f64>,
}

impl Surrogate {
    /// The process given these measurements.
    pub fn of(measured: &[Point]) -> Surrogate {
        let points: Vec<Features> = measured.iter().map(|point| point.at.clone()).collect();
        let mut factor: Vec<Vec<f64>> = Vec::with_capacity(points.len());
        for (i, Point { at, error, .. }) in measured.iter().enumerate() {
            let covariance = points[..i].iter().map(|other| kernel(at, other)).collect();
            let mut row = forward(&factor, covariance);
            let rest = kernel(at, at) + error * error - row.iter().map(|v| v * v).sum::<f64>();
            // Positive but for rounding: every measurement has an error.
            row.push(rest.max(1e-12).sqrt());
            factor.push(row);
        }
        let weights = forward(&factor, measured.iter().map(|point| point.value).collect());
        let weights = backward(&factor, weights);
        Surrogate { points, factor, weights }
    }

    /// Mean and standard deviation at a point.
    pub fn predict(&self, x: &[f64]) -> (f64, f64) {
        let covariance: Vec<f64> = self.points.iter().map(|other| kernel(x, other)).collect();
        let mean = covariance.iter().zip(&self.weights).map(|(k, w)| k * w).sum();
        let known = forward(&self.factor, covariance);
        let variance = kernel(x, x) - known.iter().map(|v| v * v).sum::<f64>();
        (mean, variance.max(0.0).sqrt())
    }
}

/// Covariance of the process at two points.
fn kernel(a: &[f64], b: &[f64]) -> f64 {
    let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    let distance: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    let smooth = (-distance / (2.0 * LENGTH * LENGTH)).exp();
    let own = if distance == 0.0 { OWN * OWN } else { 0.0 };
    COMMON * COMMON + LINEAR * LINEAR * product + SMOOTH * SMOOTH * smooth + own
}

/// Solves `L x = y` for the lower triangle `L`.
fn forward(factor: &[Vec<f64>], mut y: Vec<f64>) -> Vec<f64> {
    for i in 0..y.len() {
        let known: f64 = factor[i][..i].iter().zip(&y).map(|(l, x)| l * x).sum();
        y[i] = (y[i] - known) / factor[i][i];
    }
    y
}

/// Solves `L^T x = y`.
fn backward(factor: &[Vec<f64>], mut y: Vec<f64>) -> Vec<f64> {
    for i in (0..y.len()).rev() {
        let known: f64 = (i + 1..y.len()).map(|j| factor[j][i] * y[j]).sum();
        y[i] = (y[i] - known) / factor[i][i];
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_the_model_misjudges_is_learned_from_a_few_measurements() {
        let text = |stages: u32, split: u32, raster: &str| {
            format!("mma tile=16x128x256 stages={stages} split={split} raster={raster} dequant=x")
        };
        let mut texts = Vec::new();
        for stages in [2, 3, 4, 6, 8] {
            for split in [1, 2, 4, 8] {
                texts.extend(["rows", "columns"].map(|raster| text(stages, split, raster)));
            }
        }
        let encoder = Encoder::of(texts.iter().map(String::as_str));
        // Deeper is faster than modelled, columns are slower.
        let truth = |text: &str| {
            let at = |name: &str| encoder.index[name];
            let x = encoder.features(text);
            0.3 - 0.1 * x[at("stages.0")] + 0.2 * x[at("raster=columns")]
        };
        let point = |t: &String| Point { at: encoder.features(t), value: truth(t), error: 0.01 };
        let seen = texts.iter().step_by(3).map(point);
        let surrogate = Surrogate::of(&seen.collect::<Vec<_>>());
        for text in &texts {
            let (mean, deviation) = surrogate.predict(&encoder.features(text));
            assert!((mean - truth(text)).abs() < 0.04, "{text}: {mean} for {}", truth(text));
            assert!(deviation < 0.1, "{text}: {deviation}");
        }
    }

    #[test]
    fn what_was_measured_is_known_and_what_is_far_is_not() {
        let point = |stages: f64| vec![stages, 1.0];
        let seen = |stages, value| Point { at: point(stages), value, error: 0.01 };
        let surrogate = Surrogate::of(&[seen(1.0, 0.4), seen(1.0, 0.4), seen(2.0, 0.1)]);
        let (mean, near) = surrogate.predict(&point(1.0));
        assert!((mean - 0.4).abs() < 0.02 && near < 0.03, "{mean} {near}");
        assert!(surrogate.predict(&point(9.0)).1 > 5.0 * near);
    }

    #[test]
    fn without_measurements_the_model_is_believed() {
        let (mean, deviation) = Surrogate::of(&[]).predict(&[1.0]);
        assert_eq!(mean, 0.0);
        assert!(deviation > COMMON);
    }
}
