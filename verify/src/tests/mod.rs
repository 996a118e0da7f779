//! The verifier on kernels that are right and on kernels that are wrong.

mod eight_bit;
mod fake;
mod generated;
mod library;
mod vectors;

use crate::{verify, Effort, Verdict, VerifyRequest};
use fake::{Defect, FakeDevice};
use qtune_device::Evidence;

const GEMV: &str = "gemv tokens=1 rows=1 lanes=1 warps=1x1 unroll=1 split=1 x=global acc=f32 \
                    cache=normal dequant=(sum (* (* (- (real q) z) s) x))";
const SPLIT: &str = "gemv tokens=1 rows=1 lanes=1 warps=1x1 unroll=1 split=2 x=global acc=f32 \
                     cache=normal dequant=(sum (* (* (- (real q) z) s) x))";
const PROBLEM: &str = "w4a16.awq-g32.f16-f16.n64.k64.m3+bias";

fn verdict(schedule: &str, defect: Defect, effort: Effort, evidence: Evidence) -> Verdict {
    let (image, spec) = FakeDevice::image(PROBLEM, schedule);
    let device = FakeDevice::new(&spec, 11, defect, evidence);
    let request = VerifyRequest { effort, ..VerifyRequest::new(&image, &spec, 11) };
    verify(&request, &device).unwrap()
}

#[test]
fn a_right_kernel_passes_with_every_token_count_and_effort() {
    for effort in [Effort::Quick, Effort::Full] {
        let verdict = verdict(GEMV, Defect::Nothing, effort, Evidence::Modelled);
        assert!(verdict.passed, "{verdict:#?}");
        assert_eq!(verdict.cases.iter().map(|c| c.m).collect::<Vec<_>>(), [3, 2, 1]);
        assert!(verdict.error_over_bound > 0.1 && verdict.error_over_bound <= 1.0);
        assert!(verdict.cases.iter().all(|c| c.outputs_checked >= u64::from(64 * c.m)));
        assert_eq!(verdict.share_of_blocks_run, 1.0);
    }
}

#[test]
fn every_planted_arithmetic_defect_is_caught() {
    let defects = [
        Defect::DroppedTail,
        Defect::GroupOffByOne,
        Defect::SwappedNibbles,
        Defect::MissingZero,
        Defect::OneCodeOff,
        Defect::BiasTwice,
        Defect::ElementUnwritten,
    ];
    for defect in defects {
        let verdict = verdict(GEMV, defect, Effort::Full, Evidence::Modelled);
        assert!(!verdict.passed && verdict.error_over_bound > 1.0, "{defect:?} passed");
        let detail = verdict.cases[0].detail.as_deref().unwrap_or_default();
        assert!(detail.contains("token") && detail.contains("is right"), "{defect:?}: {detail}");
    }
}

#[test]
fn one_wrong_code_is_caught_by_reading_the_weights_back() {
    let verdict = verdict(GEMV, Defect::OneCodeOff, Effort::Full, Evidence::Modelled);
    let detail = verdict.cases[0].detail.as_deref().unwrap();
    assert!(detail.starts_with("one-hot x") && detail.contains("output 5:"), "{detail}");
}

#[test]
fn misuse_of_memory_is_caught() {
    let cases = [
        (GEMV, Defect::GuardWritten, Evidence::Timed, "guard band after `output`"),
        (SPLIT, Defect::CounterLeft, Evidence::Modelled, "counter 0 is not back at zero"),
        (GEMV, Defect::Flaky, Evidence::Modelled, "two launches with the same inputs differ"),
    ];
    for (schedule, defect, evidence, message) in cases {
        let verdict = verdict(schedule, defect, Effort::Quick, evidence);
        assert!(!verdict.passed, "{defect:?} passed");
        let found = verdict.findings.iter().any(|line| line.contains(message));
        assert!(found, "{defect:?}: {:?}", verdict.findings);
    }
}

#[test]
fn a_write_into_a_tile_that_was_not_run_is_caught() {
    let (image, spec) = FakeDevice::image("w4a16.awq-g32.f16-f16.n8192.k96.m1", GEMV);
    let run = |defect| {
        let device = FakeDevice::new(&spec, 3, defect, Evidence::Modelled);
        verify(&VerifyRequest::new(&image, &spec, 3), &device).unwrap()
    };
    let right = run(Defect::Nothing);
    assert!(right.passed && right.share_of_blocks_run < 0.1, "{right:#?}");
    let wrong = run(Defect::StrayWrite);
    assert!(wrong.findings.iter().any(|l| l.contains("does not own it")), "{:?}", wrong.findings);
}

#[test]
fn token_counts_outside_the_bucket_are_refused() {
    let (image, spec) = FakeDevice::image(PROBLEM, GEMV);
    let device = FakeDevice::new(&spec, 1, Defect::Nothing, Evidence::Modelled);
    for tokens in [vec![], vec![4], vec![0]] {
        let request = VerifyRequest { tokens, ..VerifyRequest::new(&image, &spec, 1) };
        let error = verify(&request, &device).unwrap_err().to_string();
        assert!(error.contains("outside 1..=3"), "{error}");
    }
}
