//! A device whose "kernel" is Rust code with a defect to order.

use crate::inputs::decode;
use crate::weights::{WeightSource, Weights};
use qtune_codegen::{generate, Argument, Kernel};
use qtune_device::{
    Access, ArgValue, Blocks, Buffer, Counters, Device, DeviceError, Evidence, KernelImage,
    LaunchArgs, LaunchOutcome, LoadedKernel, Resources, Timing, TimingPlan,
};
use qtune_ir::{Arch, WeightSpec};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Mutex;

/// What is wrong with the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defect {
    Nothing,
    /// The last eight k are left out.
    DroppedTail,
    /// Parameters of the next quant group.
    GroupOffByOne,
    /// Codes of neighbouring k exchanged.
    SwappedNibbles,
    /// The zero-point is taken for the middle of the range.
    MissingZero,
    /// One code of the matrix is read as one more.
    OneCodeOff,
    BiasTwice,
    /// One element of each tile is left as it was.
    ElementUnwritten,
    /// Also writes the output left of the tile's first.
    StrayWrite,
    /// Writes past the output.
    GuardWritten,
    /// A counter is not set back.
    CounterLeft,
    /// Every launch gives something else, within the bound.
    Flaky,
}

pub(super) struct FakeDevice {
    arch: Arch,
    spec: WeightSpec,
    seed: u64,
    defect: Defect,
    evidence: Evidence,
    launches: AtomicU32,
}

impl FakeDevice {
    pub fn new(spec: &WeightSpec, seed: u64, defect: Defect, evidence: Evidence) -> FakeDevice {
        let arch = Arch::named("h200").unwrap();
        FakeDevice { arch, spec: spec.clone(), seed, defect, evidence, launches: AtomicU32::new(0) }
    }

    /// The image of a kernel that this device pretends to run.
    pub fn image(problem: &str, schedule: &str) -> (KernelImage, WeightSpec) {
        let problem: qtune_ir::Problem = problem.parse().unwrap();
        let spec = qtune_formats::resolve(&problem.format).unwrap();
        let arch = Arch::named("h200").unwrap();
        let kernel = generate(&problem, &spec, &schedule.parse().unwrap(), &arch).unwrap();
        let image = KernelImage {
            kernel,
            target: arch.target(),
            ptx: String::new(),
            cubin: Vec::new(),
            log: String::new(),
            resources: Resources { registers: 32, ..Resources::default() },
        };
        (image, spec)
    }

    fn block(&self, job: &Job<'_>, block: u32) {
        let step = job.kernel.steps(job.tokens)[0];
        let tile = &job.kernel.block_tiles(&step, block, job.tokens)[0];
        for m in tile.tokens.clone() {
            for n in tile.rows.clone() {
                let last = n + 1 == tile.rows.end && m + 1 == tile.tokens.end;
                if last && self.defect == Defect::ElementUnwritten {
                    continue;
                }
                job.store(m, n, self.element(job, m, n));
            }
        }
        if self.defect == Defect::StrayWrite && tile.rows.start > 0 {
            let (m, n) = (tile.tokens.start, tile.rows.start - 1);
            job.store(m, n, self.element(job, m, n));
        }
    }

    fn element(&self, job: &Job<'_>, m: u32, n: u32) -> f32 {
        let problem = &job.kernel.problem;
        let end = problem.k - if self.defect == Defect::DroppedTail { 8 } else { 0 };
        let sum: f64 = (0..end).map(|k| self.weight(job, n, k) * job.x(m, k)).sum();
        let bias = if problem.bias { f64::from(job.weights.bias(n)) } else { 0.0 };
        let twice = if self.defect == Defect::BiasTwice { 2.0 } else { 1.0 };
        (sum + twice * bias) as f32
    }

    fn weight(&self, job: &Job<'_>, n: u32, k: u32) -> f64 {
        let group = self.spec.group.size(job.kernel.problem.k);
        let groups = self.spec.group.count(job.kernel.problem.k);
        let code_k = if self.defect == Defect::SwappedNibbles { k ^ 1 } else { k };
        let mut code = f64::from(job.kernel.layout.code(&job.packed, n, code_k));
        if self.defect == Defect::OneCodeOff && (n, k) == (5, 37) {
            code += 1.0;
        }
        let shift = u32::from(self.defect == Defect::GroupOffByOne);
        let tile = job.weights.row_tile(n, 1);
        let params = tile.row_params(n, (k / group + shift) % groups);
        let zero = if self.defect == Defect::MissingZero { 8.0 } else { f64::from(params[1]) };
        (code - zero) * f64::from(params[0])
    }

    fn storage<'b>(&self, buffer: &'b Buffer) -> &'b Mutex<Vec<u8>> {
        buffer.inner().unwrap()
    }
}

/// One launch, its operands copied out.
struct Job<'a> {
    kernel: &'a Kernel,
    weights: Weights<'a>,
    packed: Vec<u8>,
    x: Vec<u8>,
    output: &'a Mutex<Vec<u8>>,
    offset: usize,
    tokens: u32,
}

impl Job<'_> {
    fn x(&self, m: u32, k: u32) -> f64 {
        let problem = &self.kernel.problem;
        decode(&self.x, (m * problem.k + k) as usize, problem.act)
    }

    fn store(&self, m: u32, n: u32, value: f32) {
        let problem = &self.kernel.problem;
        let bytes = problem.out.encode(&[value]);
        let at = self.offset + (m * problem.n + n) as usize * bytes.len();
        self.output.lock().unwrap()[at..at + bytes.len()].copy_from_slice(&bytes);
    }
}

impl Device for FakeDevice {
    fn arch(&self) -> &Arch {
        &self.arch
    }

    fn describe(&self) -> String {
        "a fake device".into()
    }

    fn evidence(&self) -> Evidence {
        self.evidence
    }

    fn load(&self, image: &KernelImage) -> Result<LoadedKernel, DeviceError> {
        Ok(LoadedKernel::new(image.clone(), ()))
    }

    fn alloc(&self, name: &str, bytes: usize, _: Access) -> Result<Buffer, DeviceError> {
        Ok(Buffer::new(name, bytes, Mutex::new(vec![0u8; bytes])))
    }

    fn upload(&self, buffer: &Buffer, offset: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let mut storage = self.storage(buffer).lock().unwrap();
        storage[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn download(&self, buffer: &Buffer, offset: usize, len: usize) -> Result<Vec<u8>, DeviceError> {
        Ok(self.storage(buffer).lock().unwrap()[offset..offset + len].to_vec())
    }

    fn launch(
        &self,
        kernel: &LoadedKernel,
        launch: &LaunchArgs<'_>,
    ) -> Result<LaunchOutcome, DeviceError> {
        let kernel = &kernel.image().kernel;
        let argument = |wanted| {
            let index = kernel.main().arguments.iter().position(|a| *a == wanted)?;
            Some(launch.grids[0].args[index])
        };
        let bytes = |wanted| match argument(wanted) {
            Some(ArgValue::Buffer(buffer, 0)) => self.storage(buffer).lock().unwrap().clone(),
            other => panic!("{wanted:?} is {other:?}"),
        };
        let Some(ArgValue::Buffer(output, offset)) = argument(Argument::Output) else {
            panic!("no output");
        };
        let Some(ArgValue::U32(tokens)) = argument(Argument::Tokens) else { panic!("no tokens") };
        let source = WeightSource::Synthetic { seed: self.seed };
        let job = Job {
            kernel,
            weights: Weights::new(source, &self.spec, &kernel.problem).unwrap(),
            packed: bytes(Argument::Weights),
            x: bytes(Argument::Activations),
            output: self.storage(output),
            offset,
            tokens,
        };
        let total = launch.block_count() as u32;
        let blocks = match &launch.grids[0].blocks {
            Blocks::All => (0..total).collect(),
            Blocks::List(blocks) => blocks.clone(),
        };
        blocks.iter().for_each(|&block| self.block(&job, block));
        self.misbehave(&job, argument(Argument::Counters));
        Ok(LaunchOutcome {
            blocks_run: blocks.len() as u64,
            blocks_total: total.into(),
            counters: Some(Counters::default()),
            ..LaunchOutcome::default()
        })
    }

    fn time(
        &self,
        _: &LoadedKernel,
        _: &[LaunchArgs<'_>],
        _: &TimingPlan,
    ) -> Result<Option<Timing>, DeviceError> {
        Ok(None)
    }
}

impl FakeDevice {
    fn misbehave(&self, job: &Job<'_>, counters: Option<ArgValue<'_>>) {
        let launch = self.launches.fetch_add(1, Ordering::Relaxed);
        let mut output = job.output.lock().unwrap();
        match self.defect {
            Defect::Flaky => output[job.offset] ^= (launch & 1) as u8,
            Defect::GuardWritten => *output.last_mut().unwrap() = 0,
            Defect::CounterLeft => {
                if let Some(ArgValue::Buffer(buffer, offset)) = counters {
                    self.storage(buffer).lock().unwrap()[offset] = 1;
                }
            }
            _ => {}
        }
    }
}
