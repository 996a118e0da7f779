//! `--shard i/n`: a part of the problems, so that several machines share one request.

use qtune_search::Shape;

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
    /// the same matrix for other token counts and take about as long; each problem counts once.
    pub fn of(self, shapes: Vec<Shape>) -> Vec<Shape> {
        let mut distinct: Vec<Shape> = Vec::new();
        for shape in shapes {
            if distinct.iter().all(|other| other.problem != shape.problem) {
                distinct.push(shape);
            }
        }
        distinct.into_iter().skip(self.index - 1).step_by(self.count).collect()
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
        let shape = |m: u32| Shape {
            name: "o".into(),
            problem: format!("w4a16.awq-g128.f16-f16.n64.k256.m{m}").parse().unwrap(),
            calls: 1,
        };
        let all: Vec<Shape> = [1, 2, 4, 8, 16, 8, 1].map(shape).into();
        let mut dealt: Vec<Shape> =
            (1..=3).flat_map(|index| Shard { index, count: 3 }.of(all.clone())).collect();
        dealt.sort_by_key(|shape| shape.problem.m);
        assert_eq!(dealt, [1, 2, 4, 8, 16].map(shape));
    }
}
