//! What is to be gained by tuning a problem: which ones a budget is spent on first.

use crate::candidate::Candidate;
use crate::request::Task;
use crate::warm;
use qtune_ir::Arch;

/// Microseconds per decoded token that tuning can gain at most: what the default schedule takes by
/// the model above the roof, over the tokens of a call, times the calls for a token. A problem without a default schedule gains
/// everything.
pub(crate) fn expected(task: &Task, arch: &Arch) -> f64 {
    let Task { problem, spec, calls, .. } = task;
    let default = qtune_verify::default_schedule(problem, spec, arch).ok();
    let default = default.and_then(|schedule| warm::candidate(task, arch, &schedule));
    default.map_or(f64::INFINITY, |Candidate { estimate, .. }| {
        (estimate.time_us - estimate.roof_us) * f64::from(*calls) / f64::from(problem.m)
    })
}

/// `pending` with what promises the most first.
pub(crate) fn by_gain(pending: &[usize], tasks: &[Task], arch: &Arch) -> Vec<usize> {
    let mut gains: Vec<(usize, f64)> =
        pending.iter().map(|index| (*index, expected(&tasks[*index], arch))).collect();
    gains.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    gains.into_iter().map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_matrices_for_few_tokens_that_are_used_often_come_first() {
        let arch = Arch::named("h200").unwrap();
        let task = |n: u32, m: u32, calls: u32| {
            let key = format!("w4a16.awq-g128.f16-f16.n{n}.k5120.m{m}");
            let problem: qtune_ir::Problem = key.parse().unwrap();
            let spec = qtune_formats::resolve(&problem.format).unwrap();
            Task { name: "o".into(), problem, spec, calls }
        };
        let tasks = [task(1024, 16, 1), task(27648, 16, 1), task(27648, 1, 1), task(27648, 1, 64)];
        let order = by_gain(&[0, 1, 2, 3], &tasks, &arch);
        let gain = |index: usize| expected(&tasks[index], &arch);
        assert!(order.windows(2).all(|pair| gain(pair[0]) >= gain(pair[1])), "{order:?}");
        assert_eq!(order[..2], [3, 2]);
        assert_eq!(order[3], 0);
    }
}
