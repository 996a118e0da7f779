//! `--budget` and `--compile-timeout`: a time with a unit.

use std::time::Duration;

/// Parses `90`, `90s`, `10m`, `1.5h` or `500ms`; a number alone is seconds.
pub fn parse(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a time such as 90s, 10m or 1.5h");
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.trim().parse().map_err(|_| bad())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(bad()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| bad())
}

/// As [`parse`], for the time that a compile may take: at least a second, less would be over before
/// the compiler is loaded.
pub fn compile_limit(text: &str) -> Result<Duration, String> {
    let limit = parse(text)?;
    match limit >= Duration::from_secs(1) {
        true => Ok(limit),
        false => Err(format!("`{text}` is too short for any compile; give it 1s or more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiles_have_a_second_at_least() {
        assert_eq!(compile_limit("2m"), Ok(Duration::from_secs(120)));
        assert!(compile_limit("0").is_err() && compile_limit("999ms").is_err());
    }

    #[test]
    fn times_have_units_and_nonsense_is_refused() {
        assert_eq!(parse("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("7"), Ok(Duration::from_secs(7)));
        for text in ["", "m", "-1s", "10 parsecs", "1e999", "nan"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
