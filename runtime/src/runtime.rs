//! A device, a compiler and a cache, joined: from a problem to a kernel that can be launched.

use crate::lookup::winner_key;
use crate::RuntimeError;
use qtune_cache::{CacheError, Digest, Store, WinnerRecord};
use qtune_codegen::nvrtc::Nvrtc;
use qtune_codegen::{generate, Kernel};
use qtune_device::{Device, KernelImage};
use qtune_formats::QuantizedLinear;
use qtune_ir::dequant::{CodeOrder, Context};
use qtune_ir::{Family, Problem, Rejected, Schedule, WeightSpec};
use qtune_verify::{default_of_family, default_schedule, for_any_scale};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a kernel came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A verified winner of the cache.
    Cache,
    /// The default schedule: nothing usable was found in the cache, or it was not asked.
    Default,
    /// The schedule that the caller named.
    Given,
}

/// Which schedules serve a layer.
#[derive(Clone, Copy, Debug, Default)]
pub enum Choice<'a> {
    /// The cache's winners; default schedules where there are none.
    #[default]
    Best,
    /// The default schedules of a family, whatever the cache has.
    Family(Family),
    /// This one, for every token count.
    Schedule(&'a Schedule),
}

/// A compiled kernel and where it came from.
#[derive(Clone, Debug)]
pub struct Found {
    /// The kernel.
    pub image: KernelImage,
    /// Where it came from.
    pub origin: Origin,
}

/// How look-ups went since the runtime was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lookups {
    /// Kernels taken from the cache.
    pub hits: u64,
    /// Kernels for which the default schedule had to do.
    pub misses: u64,
}

/// Finds kernels for one device. May be used from several threads.
pub struct Runtime {
    device: Box<dyn Device>,
    nvrtc: Nvrtc,
    store: Option<Box<dyn Store>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Runtime({}, {:?})", self.device.describe(), self.lookups())
    }
}

impl Runtime {
    /// A runtime on `device`. Without a store every look-up misses.
    pub fn open(device: Box<dyn Device>, nvrtc: Nvrtc, store: Option<Box<dyn Store>>) -> Runtime {
        Runtime { device, nvrtc, store, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// The device that kernels run on.
    pub fn device(&self) -> &dyn Device {
        self.device.as_ref()
    }

    /// Hits and misses so far.
    pub fn lookups(&self) -> Lookups {
        Lookups {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }

    /// The winner for `problem`, or the default schedule where there is none.
    ///
    /// # Errors
    /// [`RuntimeError`] if the problem has no legal schedule, the cache's disk fails, or the
    /// compiler does. A winner that is damaged or does not belong to this version is a miss.
    pub fn find(&self, problem: &Problem, spec: &WeightSpec) -> Result<Found, RuntimeError> {
        if let Some(image) = self.cached(problem, spec)? {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Found { image, origin: Origin::Cache });
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        tracing::info!(%problem, "no winner in the cache: the default schedule serves");
        let schedule = default_schedule(problem, spec, self.device.arch())
            .map_err(|source| self.no_schedule(problem, source))?;
        let image = self.compile(problem, spec, &schedule)?;
        Ok(Found { image, origin: Origin::Default })
    }

    /// As [`Runtime::find`], with the schedule that `choice` asks for. Only [`Choice::Best`] is a look-up
    /// that hits or misses.
    ///
    /// # Errors
    /// As [`Runtime::find`]; [`RuntimeError::Codegen`] if a schedule that was named is not legal.
    pub fn choose(
        &self,
        problem: &Problem,
        spec: &WeightSpec,
        choice: Choice<'_>,
    ) -> Result<Found, RuntimeError> {
        let arch = self.device.arch();
        let (schedule, origin) = match choice {
            Choice::Best => return self.find(problem, spec),
            Choice::Family(family) => {
                let found = default_of_family(family, problem, spec, arch);
                (found.map_err(|source| self.no_schedule(problem, source))?, Origin::Default)
            }
            Choice::Schedule(schedule) => (schedule.clone(), Origin::Given),
        };
        Ok(Found { image: self.compile(problem, spec, &schedule)?, origin })
    }

    fn no_schedule(&self, problem: &Problem, source: Rejected) -> RuntimeError {
        RuntimeError::NoSchedule { problem: problem.at(self.device.arch()), source }
    }

    /// `found`, or its schedule with another dequantization term where the scales of `weights` are past
    /// what its own is made for.
    ///
    /// # Errors
    /// As [`Runtime::find`]; [`RuntimeError::NoSchedule`] where the schedule was named by the caller, who
    /// is not served another.
    pub(crate) fn suited(
        &self,
        found: Found,
        weights: &QuantizedLinear,
    ) -> Result<Found, RuntimeError> {
        let Kernel { problem, schedule, .. } = &found.image.kernel;
        let raised = CodeOrder::of_term(schedule.dequant()) == CodeOrder::Raised;
        if !raised || scales_fit(weights, &schedule.context(problem, &weights.spec)) {
            return Ok(found);
        }
        if found.origin == Origin::Given {
            let reason = "the layer has scales past what a term that raises codes is made for";
            return Err(self.no_schedule(problem, Rejected { reason: reason.into() }));
        }
        tracing::info!(%problem, "large scales: the schedule takes another dequantization term");
        let schedule = for_any_scale(schedule, problem, &weights.spec, self.device.arch())
            .map_err(|source| self.no_schedule(problem, source))?;
        let image = self.compile(problem, &weights.spec, &schedule)?;
        Ok(Found { image, origin: Origin::Default })
    }

    fn compile(
        &self,
        problem: &Problem,
        spec: &WeightSpec,
        schedule: &Schedule,
    ) -> Result<KernelImage, RuntimeError> {
        let kernel = self.generate(problem, spec, schedule)?;
        Ok(KernelImage::compile(&self.nvrtc, kernel, self.device.arch())?)
    }

    fn generate(
        &self,
        problem: &Problem,
        spec: &WeightSpec,
        schedule: &Schedule,
    ) -> Result<Kernel, RuntimeError> {
        generate(problem, spec, schedule, self.device.arch()).map_err(|source| {
            RuntimeError::Codegen {
                problem: problem.at(self.device.arch()),
                schedule: schedule.to_string(),
                source,
            }
        })
    }

    /// The stored kernel of the winner, if there is one and all of it checks out.
    fn cached(
        &self,
        problem: &Problem,
        spec: &WeightSpec,
    ) -> Result<Option<KernelImage>, RuntimeError> {
        let Some(store) = &self.store else { return Ok(None) };
        let key = winner_key(problem, spec, self.device.arch(), self.nvrtc.fingerprint());
        let Some(record) = store.get(&key)? else { return Ok(None) };
        match self.image_of(store.as_ref(), problem, spec, &record)? {
            Ok(image) => Ok(Some(image)),
            Err(reason) => {
                tracing::warn!(%problem, reason, "the stored winner is passed over");
                Ok(None)
            }
        }
    }

    /// The image of a stored winner, or why it cannot be used.
    fn image_of(
        &self,
        store: &dyn Store,
        problem: &Problem,
        spec: &WeightSpec,
        record: &WinnerRecord,
    ) -> Result<Result<KernelImage, String>, CacheError> {
        let Some(code) = store.kernel(record)? else {
            return Ok(Err("part of its code is lost".into()));
        };
        let image = || {
            let schedule: Schedule =
                record.winner.schedule.parse().map_err(|error| format!("{error}"))?;
            let kernel =
                self.generate(problem, spec, &schedule).map_err(|error| error.to_string())?;
            // The text decides how weights are packed and what is launched; stored code of
            // another text must not be launched with it.
            if Digest::of(kernel.source.as_bytes()) != record.blobs.source {
                return Err("its CUDA text is not what its schedule gives".into());
            }
            let target = self.device.arch().target();
            let image =
                KernelImage::from_parts(kernel, &target, code.ptx, code.cubin, String::new());
            let mut image = image.map_err(|error| error.to_string())?;
            // Spilled bytes are told by the compiler's log alone, which is not stored.
            image.resources.spill_bytes = record.winner.counts.spill_bytes;
            Ok(image)
        };
        Ok(image())
    }
}

/// Whether the layer's scales are as small as terms that raise codes take them to be.
fn scales_fit(weights: &QuantizedLinear, ctx: &Context) -> bool {
    weights.params.iter().all(|param| {
        let values = &param.values;
        let fits = |most| (0..values.len()).all(|index| values.get(index).abs() <= most);
        ctx.scale_max(&param.name).is_none_or(fits)
    })
}
