//! How well the cost model ranked what a device timed, in words.

use qtune_search::{RankCorrelation, Ranking};
use std::fmt::Write;

/// One line per problem with device timings; a line that says so where there are none.
pub fn text(rankings: &[Ranking]) -> String {
    let mut text =
        String::from("ranking of the cost model (rank correlation with device timings)\n");
    let timed: Vec<&Ranking> = rankings.iter().filter(|ranking| ranking.timed > 0).collect();
    if timed.is_empty() {
        text += "  no device timings: how well the model ranks was not measured\n";
    }
    for ranking in timed {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  {}: {} timed; before compiling {}; compiled {}",
            ranking.problem,
            ranking.timed,
            correlation(ranking.before_compiling),
            correlation(ranking.compiled)
        );
    }
    text
}

fn correlation(found: Option<RankCorrelation>) -> String {
    match found {
        Some(c) => {
            format!("Spearman {:.2}, Kendall {:.2} over {}", c.spearman, c.kendall, c.pairs)
        }
        None => "too few to rank".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_timings_it_says_so_and_with_them_it_gives_both_figures() {
        assert!(text(&[]).contains("not measured"));
        let found = RankCorrelation { spearman: 0.9, kendall: 0.8, pairs: 7 };
        let ranking = Ranking {
            problem: "p".to_owned(),
            timed: 7,
            before_compiling: Some(found),
            compiled: None,
        };
        let line = "  p: 7 timed; before compiling Spearman 0.90, Kendall 0.80 over 7; compiled too few to rank";
        assert!(text(&[ranking]).contains(line));
    }
}
