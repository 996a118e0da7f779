//! `--shard i/n`: a part of the problems, so that several machines share one request.

use qtune_search::{distinct, Shape};

/// Part `index` of `count`, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

/// Parses `2/4`.
pub fn parse(text: &str) -> Result<Shard, String> {
    let bad = || format!("`{text}` is not a shard such as 2/4: i from 1 to n, n at least 1");
    let (index, count) = text.split_once('/').ok_or_else(bad)?;
    let (index, count) = (index.parse().map_err(|_| bad())?, count.parse().map_err(|_| bad())?);
    if index == 0 || index > count {
        return Err(bad());
    }
    Ok(Shard { index, count })
}

impl Shard {
    /// This part of the problems. They are dealt out one by one, since neighbours in a request are
    /// the same matrix for other token counts and take about as long; each problem counts once, with the
    /// calls of all shapes that are it.
    pub fn of(self, shapes: &[Shape]) -> Vec<Shape> {
        distinct(shapes).into_iter().skip(self.index - 1).step_by(self.count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_numbers_from_one_to_their_count() {
        assert_eq!(parse("2/4"), Ok(Shard { index: 2, count: 4 }));
        for text in ["", "2", "0/4", "5/4", "1/0", "-1/2", "1/2/3", "a/b"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_problem_is_in_one_shard() {
        let shape = |(m, calls): (u32, u32)| Shape {
            name: "o".into(),
            problem: format!("w4a16.awq-g128.f16-f16.n64.k256.m{m}").parse().unwrap(),
            calls,
        };
        let all = [(1, 3), (2, 1), (4, 1), (8, 2), (16, 1), (8, 5), (1, 4)].map(shape);
        let mut dealt: Vec<Shape> =
            (1..=3).flat_map(|index| Shard { index, count: 3 }.of(&all)).collect();
        dealt.sort_by_key(|shape| shape.problem.m);
        let whole = [(1, 7), (2, 1), (4, 1), (8, 7), (16, 1)].map(shape);
        assert_eq!(dealt, whole, "with the calls of all shapes that are the same");
    }
}
