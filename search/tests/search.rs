//! The search as a whole, on devices whose times and defects are scripted.
//!
//! The kernels are real: NVRTC compiles them and the simulator runs them.

mod support;

use qtune_cache::trial_log::{self, TrialEvent, TrialLog};
use qtune_cache::{Beaten, Evidence, Extent, Store, Winner};
use qtune_search::{
    plan, rule_usage, Effort, Progress, Shape, Stopped, Tally, TuneReport, TuneRequest,
    WinnerReport,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{arch, request, Lab, Scripted};

/// The schedules that were proposed for the first problem, in the log's order.
fn proposed(lab: &Lab) -> Vec<String> {
    let events = trial_log::read(&lab.log_path()).unwrap();
    let schedule = |event| match event {
        TrialEvent::Proposed { schedule, .. } => Some(schedule),
        _ => None,
    };
    events.into_iter().filter_map(schedule).collect()
}

/// The schedules that were compiled, in the log's order.
fn compiled(lab: &Lab) -> Vec<String> {
    let events = trial_log::read(&lab.log_path()).unwrap();
    let schedule = |event| match event {
        TrialEvent::Compiled { schedule, .. } => Some(schedule),
        _ => None,
    };
    events.into_iter().filter_map(schedule).collect()
}

#[test]
fn the_model_decides_where_nothing_is_timed() {
    let Some(lab) = Lab::new() else { return };
    let report = lab.run(&request(&[1, 16]), &Scripted::modelled());
    assert_eq!(report.stopped, Stopped::Complete);
    assert_eq!(report.winners.len(), 2, "{report:#?}");
    for winner in &report.winners {
        assert!(winner.verified && winner.error_over_bound <= 1.0, "{winner:?}");
        assert_eq!(winner.evidence, Evidence::Modelled);
        assert!(winner.default_us.is_some_and(|default| 1.11 * default >= winner.time_us));
        assert!((0.0..1.0).contains(&winner.roof_share) && !winner.from_cache);
    }
    let stored = lab.store.winners().unwrap();
    let derivations = stored.iter().map(|record| record.winner.derivation.as_slice());
    let usage = rule_usage(derivations);
    assert!(usage.tiling.len() >= 2 && !usage.dequant.is_empty(), "{usage:?}");
    assert!(stored.iter().all(|record| !record.winner.cost_terms.is_empty()));
}

#[test]
fn stored_winners_of_the_preset_need_four_rules_of_each_graph() {
    let Some(lab) = Lab::new() else { return };
    let matrix = qtune_formats::presets::preset("qwen2.5-32b").unwrap().matrices()[1];
    let shape = |m: u32| {
        let key = format!("w4a16.awq-g128.f16-f16.n{}.k{}.m{m}", matrix.n, matrix.k);
        Shape {
            name: matrix.name.into(),
            problem: key.parse().unwrap(),
            calls: matrix.calls_per_token,
        }
    };
    let mut request = TuneRequest::new(support::arch(), vec![shape(1), shape(16)]);
    request.effort = Effort::Quick;
    let report = lab.run(&request, &Scripted::modelled());
    assert!(report.winners.iter().all(|winner| winner.verified), "{report:#?}");
    let stored = lab.store.winners().unwrap();
    let derivations = stored.iter().map(|record| record.winner.derivation.as_slice());
    let usage = rule_usage(derivations);
    assert!(usage.tiling.len() >= 4 && usage.dequant.len() >= 4, "{usage:?}");
}

#[test]
fn a_fast_but_wrong_kernel_never_wins() {
    let Some(lab) = Lab::new() else { return };
    let fast_if_gemv = |text: &str| if text.starts_with("gemv") { 1.0 } else { 9.0 };
    let device = Scripted::timed(fast_if_gemv).wrong(|text| text.starts_with("gemv"));
    let report = lab.run(&request(&[1]), &device);
    assert_eq!(report.winners[0].family, "mma");
    assert!(report.winners[0].verified);
    assert!(report.failures["failed verification"] >= 1, "{:?}", report.failures);
    let stored = &lab.store.winners().unwrap()[0].winner;
    assert!(stored.beat.iter().any(|b| b.reason.contains("failed verification")), "{stored:?}");
    let events = trial_log::read(&lab.log_path()).unwrap();
    assert!(trial_log::poison(&events).is_empty(), "every launch has its result");
}

#[test]
fn the_models_favourite_loses_if_it_is_wrong() {
    let Some(lab) = Lab::new() else { return };
    let first = lab.run(&request(&[16]), &Scripted::modelled()).winners.remove(0);
    let favourite = first.schedule.clone();
    let device = Scripted::modelled().wrong(move |text| text == favourite);
    let again = TuneRequest { fresh: true, ..request(&[16]) };
    let second = lab.run(&again, &device).winners.remove(0);
    assert_ne!(second.schedule, first.schedule);
    assert!(second.verified);
}

#[test]
fn where_every_kernel_is_wrong_there_is_no_winner() {
    let Some(lab) = Lab::new() else { return };
    let report = lab.run(&request(&[1]), &Scripted::modelled().wrong(|_| true));
    assert!(report.winners.is_empty());
    assert!(report.without[0].1.contains("failed verification"), "{:?}", report.without);
    assert_eq!(report.stopped, Stopped::Complete);
    assert!(lab.store.winners().unwrap().is_empty());
}

#[test]
fn measured_times_overrule_the_model_and_ties_go_to_the_simpler_kernel() {
    let Some(lab) = Lab::new() else { return };
    let slow_if_gemv = |text: &str| if text.starts_with("gemv") { 9.0 } else { 4.0 };
    let winner = lab.run(&request(&[1]), &Scripted::timed(slow_if_gemv)).winners.remove(0);
    assert_eq!((winner.family.as_str(), winner.time_us), ("mma", 4.0));
    assert_eq!(winner.evidence, Evidence::Timed);
    let stored = lab.store.winners().unwrap().remove(0).winner;
    assert_eq!((stored.load_only_us, stored.roof_share), (Some(2.0), 0.5));

    let again = TuneRequest { fresh: true, ..request(&[1]) };
    let tied = lab.run(&again, &Scripted::timed(|_| 5.0)).winners.remove(0);
    let stored = lab.store.winners().unwrap().remove(0).winner;
    let threads = |text: &str| text.parse::<qtune_ir::Schedule>().unwrap().threads();
    let simpler = stored.beat.iter().filter(|b| b.reason.ends_with("less simple"));
    let simpler: Vec<u32> = simpler.map(|b| threads(&b.schedule)).collect();
    assert!(!simpler.is_empty());
    assert!(simpler.iter().all(|t| *t >= threads(&tied.schedule)), "{stored:?}");
}

#[test]
fn the_same_seed_gives_the_same_winners() {
    let winners = || Some(Lab::new()?.run(&request(&[2, 16]), &Scripted::modelled()).winners);
    assert_eq!(winners(), winners());
}

#[test]
fn a_cache_hit_compiles_nothing_unless_it_must_be_fresh() {
    let Some(lab) = Lab::new() else { return };
    let first = lab.run(&request(&[1]), &Scripted::modelled());
    let compiles = lab.compiles();
    let second = lab.run(&request(&[1]), &Scripted::modelled());
    assert_eq!(lab.compiles(), compiles);
    assert!(second.winners[0].from_cache && !first.winners[0].from_cache);
    let without_origin = |w: &WinnerReport| WinnerReport { from_cache: false, ..w.clone() };
    assert_eq!(without_origin(&second.winners[0]), without_origin(&first.winners[0]));
    lab.run(&TuneRequest { fresh: true, ..request(&[1]) }, &Scripted::modelled());
    assert!(lab.compiles() > compiles);
}

#[test]
fn a_modelled_winner_does_not_keep_a_gpu_from_timing() {
    let Some(lab) = Lab::new() else { return };
    lab.run(&request(&[1]), &Scripted::modelled());
    let timed = lab.run(&request(&[1]), &Scripted::timed(|_| 7.0)).winners.remove(0);
    assert_eq!((timed.evidence, timed.from_cache), (Evidence::Timed, false));
    let modelled = lab.run(&request(&[1]), &Scripted::modelled()).winners.remove(0);
    assert_eq!((modelled.evidence, modelled.from_cache), (Evidence::Timed, true));
}

/// Cancels at the first event that `when` accepts.
struct CancelWhen<'a> {
    cancel: &'a AtomicBool,
    done: bool,
    timed: usize,
}

impl Progress for CancelWhen<'_> {
    fn candidate(&self, _: usize, tally: &Tally) {
        if self.timed > 0 && tally.timed >= self.timed {
            self.cancel.store(true, Ordering::Relaxed);
        }
    }

    fn problem_done(&self, _: usize, _: &WinnerReport) {
        if self.done {
            self.cancel.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn cancelling_keeps_what_is_done_and_the_rest_can_be_resumed() {
    let Some(lab) = Lab::new() else { return };
    let progress = CancelWhen { cancel: &lab.cancel, done: true, timed: 0 };
    let wanted = request(&[1, 2, 4]);
    let report = lab.run_with(&wanted, &Scripted::modelled(), &progress);
    assert_eq!((report.stopped, report.winners.len()), (Stopped::Interrupted, 1));
    assert_eq!(lab.store.winners().unwrap().len(), 1);
    lab.cancel.store(false, Ordering::Relaxed);
    let resumed = lab.run(&wanted, &Scripted::modelled());
    let cached: Vec<bool> = resumed.winners.iter().map(|w| w.from_cache).collect();
    assert_eq!(
        (resumed.stopped, cached.as_slice()),
        (Stopped::Complete, &[true, false, false][..])
    );
}

#[test]
fn cancelling_while_timing_keeps_the_best_that_was_timed() {
    let Some(lab) = Lab::new() else { return };
    let progress = CancelWhen { cancel: &lab.cancel, done: false, timed: 1 };
    let report = lab.run_with(&request(&[16, 1]), &Scripted::timed(|_| 3.0), &progress);
    assert_eq!(report.stopped, Stopped::Interrupted);
    assert_eq!(report.winners.len(), 1);
    assert!(report.winners[0].verified && report.winners[0].time_us == 3.0);
}

#[test]
fn what_was_found_before_cancelling_is_served_until_a_whole_search_replaces_it() {
    let Some(lab) = Lab::new() else { return };
    let (wanted, device) = (request(&[16]), Scripted::timed(|_| 3.0));
    let cancelled = |wanted: &TuneRequest| {
        let progress = CancelWhen { cancel: &lab.cancel, done: false, timed: 1 };
        let report = lab.run_with(wanted, &device, &progress);
        lab.cancel.store(false, Ordering::Relaxed);
        report
    };
    let found = |report: &TuneReport| {
        let winner = &report.winners[0];
        (report.stopped, winner.from_cache, winner.extent == Extent::CutShort)
    };
    assert_eq!(found(&cancelled(&wanted)), (Stopped::Interrupted, false, true));
    let production = TuneRequest { cache_only: true, ..wanted.clone() };
    assert_eq!(found(&lab.run(&production, &device)), (Stopped::Complete, true, true));
    assert_eq!(found(&lab.run(&wanted, &device)), (Stopped::Complete, false, false));
    assert_eq!(found(&lab.run(&wanted, &device)), (Stopped::Complete, true, false));
    let again = TuneRequest { fresh: true, ..wanted };
    let kept = (Stopped::Interrupted, true, false);
    assert_eq!(found(&cancelled(&again)), kept, "a search that is cut short takes nothing away");
}

/// How a request ends for which there is no time: at once, if the cache answers it.
fn answered(lab: &Lab, effort: Effort, device: &Scripted) -> bool {
    let wanted = TuneRequest { effort, budget: Some(Duration::ZERO), ..request(&[1]) };
    lab.run(&wanted, device).stopped == Stopped::Complete
}

#[test]
fn a_search_answers_requests_of_its_effort_and_of_less() {
    let Some(lab) = Lab::new() else { return };
    let device = || Scripted::timed(|_| 5.0);
    assert_eq!(lab.run(&request(&[1]), &device()).winners[0].extent, Extent::Quick);
    let record = lab.store.winners().unwrap().remove(0);
    let kernel = lab.store.kernel(&record).unwrap().unwrap();
    let efforts = [Effort::Quick, Effort::Normal, Effort::Full];
    for (extent, expected) in [
        (Extent::Unrecorded, [false, false, false]),
        (Extent::CutShort, [false, false, false]),
        (Extent::Quick, [true, false, false]),
        (Extent::Normal, [true, true, false]),
        (Extent::Full, [true, true, true]),
    ] {
        let winner = Winner { extent, ..record.winner.clone() };
        lab.store.put(&record.key, &winner, &kernel).unwrap();
        assert_eq!(efforts.map(|e| answered(&lab, e, &device())), expected, "{extent:?}");
        // What was measured is better than what a model says, with any effort.
        assert_eq!(efforts.map(|e| answered(&lab, e, &Scripted::modelled())), [true; 3]);
        let production = TuneRequest { cache_only: true, ..request(&[1]) };
        assert!(lab.run(&production, &device()).winners[0].from_cache);
    }
    // Another machine found something faster, with less effort.
    let mut theirs = Winner { extent: Extent::Quick, time_us: 4.0, ..record.winner };
    theirs.samples_us = vec![4.0];
    theirs.schedule = theirs.beat[0].schedule.clone();
    theirs.provenance.host = "another".into();
    lab.store.contribute(&record.key, &theirs, &kernel).unwrap();
    assert_eq!(lab.store.get(&record.key).unwrap().unwrap().winner, theirs);
    assert!(answered(&lab, Effort::Full, &device()), "one machine searched with this effort");
}

#[test]
fn a_search_goes_on_from_what_one_of_less_effort_found() {
    let Some(lab) = Lab::new() else { return };
    let device = || Scripted::timed(|schedule| 5.0 + spread(schedule));
    lab.run(&request(&[1]), &device());
    let record = lab.store.winners().unwrap().remove(0);
    let kernel = lab.store.kernel(&record).unwrap().unwrap();
    // Such as this search would not come to by itself.
    let earlier: Vec<String> = ["split=1", "split=2"]
        .map(|split| {
            format!(
                "gemv tokens=1 rows=1 lanes=2 warps=1x1 unroll=1 {split} x=global acc=f32 \
                 cache=normal dequant=(sum (* (* (- (real q) z) s) x))"
            )
        })
        .into();
    let beaten = Beaten { schedule: earlier[1].clone(), time_us: 5.5, reason: "slower".into() };
    let winner = Winner {
        schedule: earlier[0].clone(),
        extent: Extent::Unrecorded,
        time_us: 5.0,
        beat: vec![beaten],
        ..record.winner
    };
    lab.store.put(&record.key, &winner, &kernel).unwrap();
    assert!(earlier.iter().all(|schedule| !compiled(&lab).contains(schedule)));
    lab.run(&TuneRequest { fresh: true, ..request(&[1]) }, &device());
    assert!(earlier.iter().all(|schedule| !compiled(&lab).contains(schedule)), "a fresh start");
    lab.store.put(&record.key, &winner, &kernel).unwrap();
    let found = lab.run(&request(&[1]), &device()).winners.remove(0);
    assert_eq!((found.from_cache, found.extent), (false, Extent::Quick));
    assert!(earlier.iter().all(|schedule| compiled(&lab).contains(schedule)), "a warm one");
}

#[test]
fn a_budget_that_ends_leaves_a_partial_result() {
    let Some(lab) = Lab::new() else { return };
    lab.run(&request(&[1]), &Scripted::modelled());
    let compiles = lab.compiles();
    let hurried = TuneRequest { budget: Some(Duration::ZERO), ..request(&[1, 16]) };
    let report = lab.run(&hurried, &Scripted::modelled());
    assert_eq!(report.stopped, Stopped::BudgetEnded);
    assert_eq!(report.winners.len(), 1);
    assert_eq!(lab.compiles(), compiles);
    let events = trial_log::read(&lab.log_path()).unwrap();
    assert!(matches!(events.last(), Some(TrialEvent::End { interrupted: true, .. })));
}

#[test]
fn a_schedule_that_a_search_never_came_back_from_is_not_tried_again() {
    let Some(lab) = Lab::new() else { return };
    let winner = lab.run(&request(&[16]), &Scripted::modelled()).winners.remove(0);
    let mut log = TrialLog::append_to(&lab.log_path()).unwrap();
    let (problem, schedule) = (winner.problem, winner.schedule);
    log.append(&TrialEvent::Launch { problem, schedule: schedule.clone() }).unwrap();
    drop(log);
    let events_before = proposed(&lab).len();
    let again = TuneRequest { fresh: true, ..request(&[16]) };
    let second = lab.run(&again, &Scripted::modelled()).winners.remove(0);
    assert_ne!(second.schedule, schedule);
    assert!(proposed(&lab)[events_before..].iter().all(|text| *text != schedule));
    assert_eq!(lab.store.poison().unwrap()[0].schedule, schedule);
}

#[test]
fn exact_requests_round_weights_as_the_reference_does() {
    let Some(lab) = Lab::new() else { return };
    lab.run(&request(&[1, 16]), &Scripted::modelled());
    let exact = TuneRequest { exact: true, ..request(&[1, 16]) };
    let report = lab.run(&exact, &Scripted::modelled());
    assert_eq!(report.winners.len(), 2);
    for winner in &report.winners {
        assert!(winner.schedule.contains("dequant=(sum"), "{}", winner.schedule);
        assert!(!winner.from_cache, "the cached winner may round elsewhere");
    }
    assert!(lab.run(&exact, &Scripted::modelled()).winners.iter().all(|w| w.from_cache));
}

#[test]
fn a_plan_names_what_would_be_compiled() {
    let plans = plan(&request(&[1, 16])).unwrap();
    assert_eq!(plans.len(), 2);
    for planned in &plans {
        assert!(planned.sketches_considered > planned.finalists.len());
        assert!(planned.candidates >= planned.finalists.len() && planned.seconds > 0.0);
        assert!(planned.finalists.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        for (family, space) in &planned.space.families {
            let pruned: usize = space.pruned.values().sum();
            assert_eq!(space.considered, space.legal + pruned, "{family:?}");
        }
        let mut families = planned.space.families.values();
        assert!(families.any(|space| space.dimensions["pdl"].len() == 2), "on and off");
        let legal: usize = planned.space.families.values().map(|space| space.legal).sum();
        assert!(legal >= planned.candidates);
    }
    let Some(lab) = Lab::new() else { return };
    lab.run(&request(&[1]), &Scripted::modelled());
    let tried = proposed(&lab);
    assert!(plans[0].finalists.iter().all(|(text, _)| tried.contains(text)));
}

/// Two matrices of one layer, for which kernels are fast that take long among others.
#[test]
fn finalists_that_are_slower_among_the_other_kernels_lose_in_step() {
    let Some(lab) = Lab::new() else { return };
    let shape = |name: &str, n: u32| Shape {
        name: name.into(),
        problem: format!("w4a16.awq-g32.f16-f16.n{n}.k512.m1").parse().unwrap(),
        calls: 8,
    };
    let shapes = vec![shape("first", 64), shape("second", 128)];
    let alone = TuneRequest { effort: Effort::Quick, ..TuneRequest::new(arch(), shapes) };
    // A share of a percent for each character: all are near, none are tied.
    let times = |schedule: &str| 10.0 + 0.003 * schedule.len() as f64 + 0.1 * spread(schedule);
    let isolated = lab.run(&alone, &Scripted::timed(times)).winners;
    let fast: Vec<String> = isolated.iter().map(|winner| winner.schedule.clone()).collect();
    let device =
        Scripted::timed(times)
            .in_step(move |schedule| if fast.iter().any(|f| f == schedule) { 1.2 } else { 1.0 });
    let report = lab.run(&TuneRequest { in_step: true, ..alone }, &device);
    assert_eq!(report.stopped, Stopped::Complete);
    for (before, after) in isolated.iter().zip(&report.winners) {
        assert_ne!(before.schedule, after.schedule);
        assert!(after.verified && !after.from_cache);
    }
    let stored = lab.store.winners().unwrap();
    for (before, after) in isolated.iter().zip(&report.winners) {
        let record = stored.iter().find(|r| r.winner.schedule == after.schedule).unwrap();
        let beaten = record.winner.beat.iter().find(|b| b.schedule == before.schedule).unwrap();
        assert!(beaten.reason.contains("faster alone"), "{beaten:?}");
    }
}

/// A number from 0 to 1 for a text.
fn spread(text: &str) -> f64 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    f64::from(text.bytes().fold(0x811c_9dc5, step)) / f64::from(u32::MAX)
}
