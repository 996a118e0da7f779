//! Timing by CUDA graphs: launches captured once, replayed between two events.
//!
//! A graph replays launches back to back without the host in between, so what is measured is the
//! GPU. The launches rotate over the argument sets that the caller gives: with as many copies of
//! the weights as overflow the L2 cache, every launch finds it cold. Samples taken while the SM
//! clock was not what it was for most, or while another process had the GPU, are thrown away.

use super::driver::{check, event_elapsed_ms, CudaError};
use super::gpu::{new_stream, Gpu};
use super::nvml::{Conditions, Monitor};
use super::work::Work;
use cudarc::driver::sys;
use std::ptr;

/// A clock within this share of the usual one is the same clock.
const CLOCK_TOLERANCE: f64 = 0.02;
/// Samples are taken again for those thrown away, but at most this many times the plan.
const MAX_ATTEMPTS: u64 = 2;

/// How many launches are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimingPlan {
    /// Launches of one sample, at least; rounded up so that each argument set takes part equally.
    pub launches_per_sample: u32,
    /// Samples that are wanted; fewer are kept if too many are disturbed.
    pub samples: u32,
    /// Samples that are run first and dropped.
    pub warmup: u32,
}

impl Default for TimingPlan {
    fn default() -> Self {
        TimingPlan { launches_per_sample: 20, samples: 11, warmup: 2 }
    }
}

impl TimingPlan {
    /// Launches of one sample with `sets` argument sets: a whole number of rounds.
    fn launches(&self, sets: usize) -> usize {
        let wanted = usize::try_from(self.launches_per_sample).unwrap_or(usize::MAX).max(1);
        wanted.div_ceil(sets).saturating_mul(sets)
    }
}

/// Times of one kernel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    /// Microseconds of one launch, one value per sample, in the order they were taken.
    pub us: Vec<f64>,
    /// Samples thrown away because the clock changed or another process used the GPU.
    pub discarded: u32,
    /// The usual SM clock in MHz; `None` if it cannot be read.
    pub clock_mhz: Option<u32>,
    /// The usual power in milliwatts; `None` if it cannot be read.
    pub power_mw: Option<u32>,
}

impl Samples {
    /// Keeps what was taken under the usual conditions. If every sample was disturbed, all are
    /// kept: a GPU that is always shared or always changing has no better time to offer, and the
    /// spread shows it.
    fn of(taken: &[Taken]) -> Samples {
        let usual = middle(taken.iter().filter_map(|sample| sample.clock_mhz));
        let power_mw = middle(taken.iter().filter_map(|sample| sample.power_mw));
        let steady = |sample: &&Taken| !sample.shared && same_clock(sample.clock_mhz, usual);
        let mut us: Vec<f64> = taken.iter().filter(steady).map(|sample| sample.us).collect();
        let discarded = u32::try_from(taken.len() - us.len()).unwrap_or(u32::MAX);
        if us.is_empty() {
            us.extend(taken.iter().map(|sample| sample.us));
        }
        Samples { us, discarded, clock_mhz: usual, power_mw }
    }

    /// The median in microseconds.
    pub fn median_us(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Distance between the first and third quartile in microseconds.
    pub fn spread_us(&self) -> f64 {
        self.quantile(0.75) - self.quantile(0.25)
    }

    /// Linear interpolation between order statistics; 0 without samples.
    fn quantile(&self, at: f64) -> f64 {
        let mut sorted = self.us.clone();
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
        let position = at * last as f64;
        let below = position.floor() as usize;
        let above = (below + 1).min(last);
        sorted[below] + (sorted[above] - sorted[below]) * position.fract()
    }
}

/// The upper of the middle values.
fn middle(values: impl Iterator<Item = u32>) -> Option<u32> {
    let mut sorted: Vec<u32> = values.collect();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

/// One sample with what was seen around it.
#[derive(Debug, Clone, Copy)]
struct Taken {
    us: f64,
    /// The slower of the clocks before and after; `None` if unknown.
    clock_mhz: Option<u32>,
    /// The greater of the powers before and after, in milliwatts; `None` if unknown.
    power_mw: Option<u32>,
    /// Whether another process had the GPU.
    shared: bool,
}

impl Taken {
    fn new(us: f64, before: Option<Conditions>, after: Option<Conditions>) -> Taken {
        let clock = |c: Option<Conditions>| c.and_then(|c| c.clock_mhz);
        let power = |c: Option<Conditions>| c.and_then(|c| c.power_mw);
        Taken {
            us,
            clock_mhz: clock(before).zip(clock(after)).map(|(a, b)| a.min(b)),
            power_mw: power(before).max(power(after)),
            shared: [before, after].iter().flatten().any(|c| c.shared),
        }
    }
}

/// Whether two clocks are the same as far as is known.
fn same_clock(clock: Option<u32>, usual: Option<u32>) -> bool {
    let Some((clock, usual)) = clock.zip(usual) else { return true };
    (f64::from(clock) / f64::from(usual.max(1)) - 1.0).abs() <= CLOCK_TOLERANCE
}

impl Gpu {
    /// Times `launches`, each of them steps that run one after the other. They differ in their
    /// arguments: launch `i` of a sample is number `i` modulo their count.
    ///
    /// # Errors
    /// [`CudaError::BadLaunch`] without launches or for one that cannot be right,
    /// [`CudaError::Driver`] if capture or a launch fails.
    pub fn time(
        &self,
        launches: &[Vec<Work<'_>>],
        plan: &TimingPlan,
    ) -> Result<Samples, CudaError> {
        if launches.is_empty() || plan.samples == 0 {
            let reason = "nothing to time: no launches or no samples".to_owned();
            return Err(CudaError::BadLaunch { reason });
        }
        // Copies of inputs must be there before the graph runs on a stream of its own.
        self.synchronize()?;
        let stream = Stream::new(self)?;
        let count = plan.launches(launches.len());
        // A library loads its kernels when they are first launched, which a capture may forbid.
        let products = |work: &&Work<'_>| matches!(work, Work::Product(_));
        launches.iter().flatten().filter(products).try_for_each(Work::launch)?;
        self.synchronize()?;
        let graph = Graph::capture(self, &stream, || {
            launches
                .iter()
                .cycle()
                .take(count)
                .flatten()
                .try_for_each(|work| work.launch_on(stream.handle))
        })?;
        let (start, end) = (Event::new(self)?, Event::new(self)?);
        let sample = || -> Result<f64, CudaError> {
            start.record(&stream)?;
            graph.replay(&stream)?;
            end.record(&stream)?;
            end.wait()?;
            let ms = f64::from(event_elapsed_ms(start.handle, end.handle)?);
            Ok(ms * 1e3 / count as f64)
        };
        for _ in 0..plan.warmup {
            sample()?;
        }
        take(plan, Monitor::open(&self.attributes().pci).as_ref(), sample)
    }
}

/// Takes samples until enough undisturbed ones are there.
fn take(
    plan: &TimingPlan,
    monitor: Option<&Monitor>,
    sample: impl Fn() -> Result<f64, CudaError>,
) -> Result<Samples, CudaError> {
    let conditions = || monitor.map(Monitor::conditions);
    let mut taken = Vec::new();
    for _ in 0..MAX_ATTEMPTS * u64::from(plan.samples) {
        let before = conditions();
        let us = sample()?;
        taken.push(Taken::new(us, before, conditions()));
        let samples = Samples::of(&taken);
        let kept = taken.len() - usize::try_from(samples.discarded).unwrap_or(taken.len());
        if kept >= usize::try_from(plan.samples).unwrap_or(usize::MAX) {
            break;
        }
    }
    Ok(Samples::of(&taken))
}

/// A stream that only the timing uses, so that nothing else gets into the capture.
struct Stream<'a> {
    gpu: &'a Gpu,
    handle: sys::CUstream,
}

impl<'a> Stream<'a> {
    fn new(gpu: &'a Gpu) -> Result<Stream<'a>, CudaError> {
        gpu.make_current()?;
        Ok(Stream { gpu, handle: new_stream()? })
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        if self.gpu.make_current().is_ok() {
            // SAFETY: created here and destroyed once; the driver waits for its work.
            let _ = unsafe { sys::cuStreamDestroy_v2(self.handle) };
        }
    }
}

/// A timing event.
struct Event<'a> {
    gpu: &'a Gpu,
    handle: sys::CUevent,
}

impl<'a> Event<'a> {
    fn new(gpu: &'a Gpu) -> Result<Event<'a>, CudaError> {
        gpu.make_current()?;
        let mut handle: sys::CUevent = ptr::null_mut();
        // SAFETY: a context is current; writes one handle. Flags 0: with timing.
        check(unsafe { sys::cuEventCreate(&mut handle, 0) }, "cuEventCreate")?;
        Ok(Event { gpu, handle })
    }

    fn record(&self, stream: &Stream<'_>) -> Result<(), CudaError> {
        // SAFETY: event and stream are live and of the current context.
        check(unsafe { sys::cuEventRecord(self.handle, stream.handle) }, "cuEventRecord")
    }

    fn wait(&self) -> Result<(), CudaError> {
        // SAFETY: the event is live.
        check(unsafe { sys::cuEventSynchronize(self.handle) }, "cuEventSynchronize")
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        if self.gpu.make_current().is_ok() {
            // SAFETY: created here and destroyed once.
            let _ = unsafe { sys::cuEventDestroy_v2(self.handle) };
        }
    }
}

/// An instantiated graph.
struct Graph<'a> {
    gpu: &'a Gpu,
    graph: sys::CUgraph,
    executable: sys::CUgraphExec,
}

impl<'a> Graph<'a> {
    /// Captures what `launch` puts on `stream`.
    fn capture(
        gpu: &'a Gpu,
        stream: &Stream<'_>,
        launch: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<Graph<'a>, CudaError> {
        // Calls of other threads must not break this capture, nor be forbidden by it.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is live and idle.
        let status = unsafe { sys::cuStreamBeginCapture_v2(stream.handle, mode) };
        check(status, "cuStreamBeginCapture")?;
        let launched = launch();
        let mut graph: sys::CUgraph = ptr::null_mut();
        // The capture is ended whether or not the launches went well: the stream is of no use
        // otherwise.
        // SAFETY: the stream is capturing; writes one handle, null if the capture broke.
        let ended = unsafe { sys::cuStreamEndCapture(stream.handle, &mut graph) };
        // From here on the drop of `captured` destroys what there is of the graph.
        let mut captured = Graph { gpu, graph, executable: ptr::null_mut() };
        launched?;
        check(ended, "cuStreamEndCapture")?;
        // SAFETY: the graph is live; writes one handle.
        let status =
            unsafe { sys::cuGraphInstantiateWithFlags(&mut captured.executable, graph, 0) };
        check(status, "cuGraphInstantiate")?;
        Ok(captured)
    }

    fn replay(&self, stream: &Stream<'_>) -> Result<(), CudaError> {
        // SAFETY: the executable graph and the stream are live.
        check(unsafe { sys::cuGraphLaunch(self.executable, stream.handle) }, "cuGraphLaunch")
    }
}

impl Drop for Graph<'_> {
    fn drop(&mut self) {
        if self.gpu.make_current().is_err() {
            return;
        }
        // SAFETY: each was created here, is destroyed once, and null is skipped. The driver waits
        // for a replay that still runs.
        unsafe {
            if !self.executable.is_null() {
                let _ = sys::cuGraphExecDestroy(self.executable);
            }
            if !self.graph.is_null() {
                let _ = sys::cuGraphDestroy(self.graph);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_cover_every_argument_set_equally() {
        let plan =
            |launches_per_sample| TimingPlan { launches_per_sample, ..TimingPlan::default() };
        assert_eq!(plan(20).launches(3), 21);
        assert_eq!(plan(20).launches(5), 20);
        assert_eq!(plan(1).launches(7), 7);
        assert_eq!(plan(0).launches(1), 1);
    }

    #[test]
    fn median_and_spread_are_those_of_the_order_statistics() {
        let samples = |us: &[f64]| Samples { us: us.to_vec(), ..Samples::default() };
        let odd = samples(&[5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!((odd.median_us(), odd.spread_us()), (3.0, 2.0));
        assert_eq!(samples(&[2.0, 1.0]).median_us(), 1.5);
        // One launch that something disturbed moves neither.
        let disturbed = samples(&[1.0, 1.0, 1.0, 1.0, 90.0]);
        assert_eq!((disturbed.median_us(), disturbed.spread_us()), (1.0, 0.0));
        assert_eq!(samples(&[]).median_us(), 0.0);
    }

    fn taken(us: f64, mhz: u32, shared: bool) -> Taken {
        let conditions =
            Some(Conditions { clock_mhz: Some(mhz), power_mw: Some(10 * mhz), shared });
        Taken::new(us, conditions, conditions)
    }

    #[test]
    fn samples_under_another_clock_or_beside_another_process_are_thrown_away() {
        let all = [
            taken(10.0, 1980, false),
            taken(14.0, 1400, false),
            taken(10.1, 1965, false),
            taken(30.0, 1980, true),
            taken(10.2, 1980, false),
        ];
        let (clock_mhz, power_mw) = (Some(1980), Some(19_800));
        let kept = vec![10.0, 10.1, 10.2];
        assert_eq!(Samples::of(&all), Samples { us: kept, discarded: 2, clock_mhz, power_mw });
    }

    #[test]
    fn where_nothing_is_known_or_everything_is_disturbed_all_samples_are_kept() {
        let unknown = [Taken::new(1.0, None, None), Taken::new(2.0, None, None)];
        let us = vec![1.0, 2.0];
        assert_eq!(Samples::of(&unknown), Samples { us: us.clone(), ..Samples::default() });
        let shared = [taken(1.0, 1980, true), taken(2.0, 1980, true)];
        let shared = Samples::of(&shared);
        assert_eq!((shared.us, shared.discarded), (us, 2));
    }

    #[test]
    fn a_clock_that_drops_during_a_sample_counts_as_dropped_and_power_that_rises_as_risen() {
        let at =
            |mhz, mw| Some(Conditions { clock_mhz: Some(mhz), power_mw: Some(mw), shared: false });
        let taken = Taken::new(1.0, at(1980, 300_000), at(1200, 700_000));
        assert_eq!((taken.clock_mhz, taken.power_mw), (Some(1200), Some(700_000)));
    }

    #[test]
    fn sampling_stops_when_enough_are_steady_and_passes_errors_on() {
        let plan = TimingPlan { samples: 3, ..TimingPlan::default() };
        let samples = take(&plan, None, || Ok(5.0)).expect("samples");
        assert_eq!(samples.us, [5.0; 3]);
        let error = CudaError::Unavailable { reason: "lost".to_owned() };
        assert_eq!(take(&plan, None, || Err(error.clone())), Err(error));
    }
}
