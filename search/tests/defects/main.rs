//! Generators with a defect: not one of their kernels is ever stored.
//!
//! A defect is planted between generator and compiler: a compiler that the search is given replaces
//! one place of a kernel's text and hands it on. So the generator, whose text must not depend on
//! anything but its input, has no switch for defects, not even one that only tests are built with and
//! that some other build could turn on; and a defect is what it would look like in review: one wrong
//! line of CUDA.
//!
//! Each goes all the way that a winner goes. The defective schedule won for an earlier generator, so
//! that the search begins with it; on the device it is nine times as fast as anything else; and beside
//! it there is one right kernel only, which must win.

mod plants;
#[path = "../support/mod.rs"]
mod support;

use plants::Plant;
use qtune_cache::trial_log::{self, Outcome, TrialEvent};
use qtune_cache::{Evidence, Extent, Provenance, Store, Verification, Winner, WinnerKey};
use qtune_codegen::Kernel;
use qtune_device::{DeviceError, KernelImage};
use qtune_ir::{Arch, Problem, Schedule};
use qtune_search::{Compiler, Effort, NoProgress, Shape, TuneReport, TuneRequest};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use support::{arch, Counting, Lab, Scripted};

/// Fingerprints of the generators for which the defective schedule and the right one won.
const EARLIER: [&str; 2] = ["earlier", "still earlier"];

/// One problem whose kernel of one schedule has a defect.
struct Case<'a> {
    problem: &'a str,
    /// The defective schedule.
    schedule: String,
    /// The schedule of the right kernel.
    right: String,
    /// Images of kernels without a defect, by their text.
    compiled: &'a Mutex<HashMap<String, KernelImage>>,
}

impl<'a> Case<'a> {
    fn new(
        problem: &'a str,
        schedule: &str,
        compiled: &'a Mutex<HashMap<String, KernelImage>>,
    ) -> Case<'a> {
        let schedule = schedule.parse::<Schedule>().unwrap().to_string();
        let right = schedule.replace("raster=rows", "raster=tokens");
        let right = right.replace("cache=stream", "cache=normal");
        assert_ne!(schedule, right, "the right kernel is another one");
        Case { problem, schedule, right, compiled }
    }

    fn request(&self) -> TuneRequest {
        let problem = self.problem.parse().unwrap();
        let shape = Shape { name: "small".into(), problem, calls: 1 };
        TuneRequest { effort: Effort::Quick, ..TuneRequest::new(arch(), vec![shape]) }
    }

    /// A search in which the schedule's kernel has this defect, if any.
    fn run(&self, lab: &Lab, plant: Option<&Plant>) -> TuneReport {
        let problem: Problem = self.problem.parse().unwrap();
        for (generator, schedule) in EARLIER.into_iter().zip([&self.schedule, &self.right]) {
            let key = WinnerKey::of(&problem, &arch(), generator.into());
            lab.store.put(&key, &won_earlier(schedule), &Default::default()).unwrap();
        }
        let compiler = Defective { case: self, inner: &lab.compiler, plant };
        let fast = self.schedule.clone();
        let device = Scripted::timed(move |text| if text == fast { 1.0 } else { 9.0 });
        lab.run_on(&self.request(), &device, &compiler, &NoProgress)
    }

    /// What the search stored: schedule, text, and what it says of the others.
    fn stored(&self, lab: &Lab) -> Vec<(Winner, String)> {
        let stored = lab.store.winners().unwrap().into_iter();
        let new = stored.filter(|record| !EARLIER.contains(&record.key.fingerprint.as_str()));
        new.map(|r| (r.winner.clone(), lab.store.kernel(&r).unwrap().unwrap().source)).collect()
    }
}

/// A winner of this schedule, of which nothing but the schedule is ever used.
fn won_earlier(schedule: &str) -> Winner {
    Winner {
        schedule: schedule.into(),
        family: "any".into(),
        evidence: Evidence::Timed,
        time_us: 1.0,
        samples_us: vec![1.0],
        roof_share: 1.0,
        load_only_us: None,
        verified: true,
        error_over_bound: 0.5,
        extent: Extent::Full,
        verification: Verification::default(),
        counts: Default::default(),
        cost_terms: Vec::new(),
        beat: Vec::new(),
        derivation: Vec::new(),
        provenance: Provenance::default(),
    }
}

/// A compiler for the two schedules of a case, with a defect planted in one of them.
struct Defective<'a> {
    case: &'a Case<'a>,
    inner: &'a Counting,
    plant: Option<&'a Plant>,
}

impl Defective<'_> {
    /// A kernel of the generator, compiled once.
    fn as_generated(&self, kernel: Kernel, arch: &Arch) -> Result<KernelImage, DeviceError> {
        let compiled = || self.case.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = compiled().get(&kernel.source) {
            return Ok(image.clone());
        }
        let source = kernel.source.clone();
        let image = self.inner.compile(kernel, arch)?;
        compiled().insert(source, image.clone());
        Ok(image)
    }
}

impl Compiler for Defective<'_> {
    fn compile(&self, kernel: Kernel, arch: &Arch) -> Result<KernelImage, DeviceError> {
        let schedule = kernel.schedule.to_string();
        if schedule == self.case.right {
            return self.as_generated(kernel, arch);
        }
        if schedule != self.case.schedule {
            let entry = kernel.main().name.clone();
            return Err(DeviceError::Image { entry, reason: "it is not in this test".into() });
        }
        let Some((_, from, to)) = self.plant else { return self.as_generated(kernel, arch) };
        assert!(kernel.source.contains(from), "`{from}` is not in the text:\n{}", kernel.source);
        let source = kernel.source.replace(from, to);
        self.inner.compile(Kernel { source, ..kernel }, arch)
    }

    fn fingerprint(&self) -> String {
        self.inner.fingerprint()
    }
}

/// Why the log says that the schedule failed.
fn faults(lab: &Lab, wanted: &str) -> Vec<String> {
    let events = trial_log::read(&lab.log_path()).unwrap();
    let fault = |event| match event {
        TrialEvent::Result { schedule, outcome: Outcome::Failed { reason }, .. } => {
            (schedule == wanted).then_some(reason)
        }
        _ => None,
    };
    events.into_iter().filter_map(fault).collect()
}

/// Searches with each defect in turn. Without any the schedule wins: it is what the search would have
/// stored.
fn none_is_ever_stored(problem: &str, schedule: &str, plants: &[Plant]) {
    let compiled = Mutex::default();
    let case = Case::new(problem, schedule, &compiled);
    let Some(lab) = Lab::new() else { return };
    // Nor does the search take it for luck that a kernel is so much faster than it expects.
    case.run(&lab, None);
    let stored = case.stored(&lab);
    assert_eq!(stored[0].0.schedule, case.schedule, "without a defect it wins: {stored:#?}");
    for plant in plants {
        let lab = Lab::new().expect("the compiler was there before");
        let report = case.run(&lab, Some(plant));
        let (name, _, wrong) = plant;
        assert_eq!(report.failures.get("failed verification"), Some(&1), "{name}: {report:#?}");
        let faults = faults(&lab, &case.schedule);
        assert!(faults.len() == 1 && !faults[0].contains("without a detail"), "{name}: {faults:?}");
        let stored = case.stored(&lab);
        let winners: Vec<&str> = stored.iter().map(|(w, _)| w.schedule.as_str()).collect();
        assert_eq!(winners, [case.right.as_str()], "{name}: {report:#?}");
        let (winner, text) = &stored[0];
        assert!(compiled_as(&case, text), "{name}: `{wrong}` was stored");
        let lost = winner.beat.iter().filter(|lost| lost.schedule == case.schedule);
        assert!(lost.into_iter().all(|l| l.reason.starts_with("failed verification: ")), "{name}");
    }
}

/// Whether a text is one that the generator wrote.
fn compiled_as(case: &Case<'_>, text: &str) -> bool {
    case.compiled.lock().unwrap_or_else(PoisonError::into_inner).contains_key(text)
}

#[test]
fn no_defect_of_dequantization_in_an_mma_kernel_is_stored() {
    none_is_ever_stored(plants::MMA_PROBLEM, plants::MMA, &plants::MMA_DEQUANTIZATION);
}

#[test]
fn no_defect_of_the_main_loop_of_an_mma_kernel_is_stored() {
    none_is_ever_stored(plants::MMA_LONG, plants::MMA, &plants::MMA_MAINLOOP);
}

#[test]
fn no_defect_of_the_epilogue_of_an_mma_kernel_is_stored() {
    none_is_ever_stored(plants::MMA_PROBLEM, plants::MMA, &plants::MMA_EPILOGUE);
}

#[test]
fn no_defect_of_a_gemv_kernel_is_stored() {
    none_is_ever_stored(plants::GEMV_PROBLEM, plants::GEMV, &plants::GEMV_PLANTS);
}

#[test]
fn no_defect_of_a_table_is_stored() {
    none_is_ever_stored(plants::TABLE_PROBLEM, plants::TABLE, &plants::TABLE_PLANTS);
}

#[test]
fn no_defect_of_a_residual_is_stored() {
    none_is_ever_stored(plants::RESIDUAL_PROBLEM, plants::MMA, &plants::RESIDUAL_PLANTS);
}

#[test]
fn no_defect_of_gated_rows_is_stored() {
    none_is_ever_stored(plants::GATED_PROBLEM, plants::MMA, &plants::GATED_PLANTS);
    none_is_ever_stored(plants::GATED_GEMV_PROBLEM, plants::GEMV, &plants::GATED_GEMV_PLANTS);
}

#[test]
fn no_defect_between_the_functions_of_a_dequant_kernel_is_stored() {
    none_is_ever_stored(plants::SLAB_PROBLEM, plants::SLAB, &plants::SLAB_PLANTS);
}

#[test]
fn no_defect_of_the_shares_of_a_stream_is_stored() {
    none_is_ever_stored(plants::STREAM_PROBLEM, plants::STREAM, &plants::STREAM_PLANTS);
}

#[test]
fn no_defect_of_the_exchange_in_a_cluster_is_stored() {
    none_is_ever_stored(plants::GEMV_PROBLEM, plants::CLUSTER, &plants::CLUSTER_PLANTS);
}

#[test]
fn no_defect_of_a_ring_that_runs_on_across_tiles_is_stored() {
    none_is_ever_stored(plants::GROUP_PROBLEM, plants::GROUP_STREAM, &plants::GROUP_STREAM_PLANTS);
}

#[test]
fn no_defect_of_copies_to_a_cluster_is_stored() {
    none_is_ever_stored(plants::GROUP_PROBLEM, plants::MULTICAST, &plants::MULTICAST_PLANTS);
}

#[test]
fn no_defect_of_quantized_activations_is_stored() {
    none_is_ever_stored(plants::CODES_PROBLEM, plants::CODES, &plants::CODES_PLANTS);
    none_is_ever_stored(plants::STATIC_PROBLEM, plants::CODES, &plants::STATIC_PLANTS);
    none_is_ever_stored(plants::FLOAT8_PROBLEM, plants::FLOAT8, &plants::FLOAT8_PLANTS);
}
