//! One linear layer, ready to multiply.

use crate::lookup::bucket;
use crate::packing::{self, Packed};
use crate::workspace::Workspace;
use crate::{Choice, Found, Origin, Runtime, RuntimeError};
use qtune_codegen::{Argument, Kernel};
use qtune_device::{
    Access, AsyncSchedule, Blocks, Buffer, LaunchArgs, LaunchOutcome, LoadedKernel, WarpOrder,
};
use qtune_formats::{Checkpoint, QuantizedLinear};
use qtune_ir::{DType, Epilogue, Problem};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How a layer is loaded.
#[derive(Clone, Copy)]
pub struct LoadOptions<'a> {
    /// Element type of the activations.
    pub act: DType,
    /// Element type of the output.
    pub out: DType,
    /// What is done to the product. For [`Epilogue::SiluMul`] the rows of the weights are gate and
    /// up by turns: see [`LinearLayer::load_gated`].
    pub epilogue: Epilogue,
    /// Token counts that will be run; each gets the kernel of its bucket.
    pub tokens: &'a [u32],
    /// Which schedules serve them.
    pub choice: Choice<'a>,
    /// Told the row tiles that are packed, and how many there are.
    pub progress: &'a dyn Fn(u32, u32),
}

impl LoadOptions<'_> {
    /// Plain products of `act` in `act`, for one token, loaded without a word.
    pub fn new(act: DType) -> LoadOptions<'static> {
        LoadOptions {
            act,
            out: act,
            epilogue: Epilogue::Store,
            tokens: &[1],
            choice: Choice::Best,
            progress: &|_, _| {},
        }
    }
}

impl fmt::Debug for LoadOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadOptions")
            .field("act", &self.act)
            .field("out", &self.out)
            .field("epilogue", &self.epilogue)
            .field("tokens", &self.tokens)
            .field("choice", &self.choice)
            .finish_non_exhaustive()
    }
}

/// A layer of a checkpoint on a device, with a kernel for each bucket that it was loaded for.
///
/// Weights are packed once per layout: buckets whose schedules read the same layout share them.
pub struct LinearLayer<'r> {
    runtime: &'r Runtime,
    path: String,
    problem: Problem,
    packed: Vec<Packed>,
    bias: Buffer,
    /// The numbers that the layer brings for kernels.
    table: Buffer,
    /// Factors of input and output features, of a layer between rotations.
    factors: [Buffer; 2],
    /// The column of each input feature, of a layer with act-order.
    places: Buffer,
    kernels: BTreeMap<u32, ReadyKernel>,
    workspace: Mutex<Workspace>,
}

/// The kernel of one bucket.
struct ReadyKernel {
    loaded: LoadedKernel,
    origin: Origin,
    /// Index into [`LinearLayer::packed`].
    packed: usize,
}

/// One launch on buffers of the caller.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// Number of tokens.
    pub tokens: u32,
    /// Activations `[tokens, K]` and the byte they start at, a multiple of 16.
    pub activations: (&'a Buffer, usize),
    /// Residual `[tokens, N]` in the output's type and the byte it starts at, for a layer that adds
    /// one; may be the output.
    pub residual: Option<(&'a Buffer, usize)>,
    /// Output `[tokens, N]`, or `[tokens, N/2]` of gated rows, and the byte it starts at.
    pub output: (&'a Buffer, usize),
    /// What the next kernel on the stream will read and how many bytes of it L2 is asked for, if
    /// this layer's schedule does so.
    pub next: Option<(&'a Buffer, u32)>,
    /// Where a layer between rotations leaves rotated activations and the products before they are rotated,
    /// for who wants to see them; in its own memory without.
    pub steps: Option<[(&'a Buffer, usize); 2]>,
    /// Thread blocks to run of each grid of the launch, all where there is no entry; for the
    /// simulator.
    pub blocks: &'a [Blocks],
    /// When asynchronous copies land; for the simulator.
    pub schedule: AsyncSchedule,
    /// Order of warps; for the simulator.
    pub order: WarpOrder,
}

impl fmt::Debug for LinearLayer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buckets: Vec<&u32> = self.kernels.keys().collect();
        write!(f, "LinearLayer({}, {}, buckets {buckets:?})", self.path, self.problem)
    }
}

impl<'r> LinearLayer<'r> {
    /// Decodes the layer at `path`, finds the kernels for the wanted token counts and packs the
    /// weights for them. Activations are quantized where the checkpoint asks for it and the GPU multiplies such
    /// codes; [`QuantizedLinear::in_act_bits`] and [`LinearLayer::of`] serve a layer otherwise.
    ///
    /// # Errors
    /// [`RuntimeError`]; the message names the file and tensor, or the problem.
    pub fn load(
        runtime: &'r Runtime,
        checkpoint: &Checkpoint,
        path: &str,
        options: &LoadOptions<'_>,
    ) -> Result<LinearLayer<'r>, RuntimeError> {
        let weights = checkpoint.load_layer(path)?.suited_to(runtime.device().arch());
        LinearLayer::of(runtime, &weights, path, options)
    }

    /// As [`LinearLayer::load`], for the gate and up projections of an MLP as one layer that gives
    /// `silu(gate) * up`.
    ///
    /// # Errors
    /// As [`LinearLayer::load`]; [`RuntimeError::Format`] if the two do not pair.
    pub fn load_gated(
        runtime: &'r Runtime,
        checkpoint: &Checkpoint,
        [gate, up]: [&str; 2],
        options: &LoadOptions<'_>,
    ) -> Result<LinearLayer<'r>, RuntimeError> {
        let both = checkpoint.load_layer(gate)?.interleave(&checkpoint.load_layer(up)?)?;
        let both = both.suited_to(runtime.device().arch());
        let options = LoadOptions { epilogue: Epilogue::SiluMul, ..*options };
        LinearLayer::of(runtime, &both, &format!("{gate} with {up}"), &options)
    }

    /// As [`LinearLayer::load`], for weights that are decoded, or were quantized on load.
    ///
    /// # Errors
    /// As [`LinearLayer::load`].
    pub fn of(
        runtime: &'r Runtime,
        weights: &QuantizedLinear,
        path: &str,
        options: &LoadOptions<'_>,
    ) -> Result<LinearLayer<'r>, RuntimeError> {
        let problem = problem_of(weights, path, options)?;
        let device = runtime.device();
        let mut layer = LinearLayer {
            bias: packing::bias(device, weights, &problem)?,
            table: packing::table(device, weights)?,
            factors: packing::factors(device, weights)?,
            places: packing::places(device, weights, path)?,
            runtime,
            path: path.into(),
            packed: Vec::new(),
            kernels: BTreeMap::new(),
            workspace: Mutex::new(Workspace::empty(device)?),
            problem,
        };
        for tokens in options.tokens {
            let bucket = bucket(*tokens);
            if !layer.kernels.contains_key(&bucket) {
                let problem = layer.problem.with_m(bucket);
                let found = runtime.choose(&problem, &weights.spec, options.choice)?;
                let found = runtime.suited(found, weights)?;
                layer.add(bucket, found, weights, options.progress)?;
            }
        }
        Ok(layer)
    }

    /// Makes `found` the kernel of its bucket.
    fn add(
        &mut self,
        bucket: u32,
        found: Found,
        weights: &QuantizedLinear,
        progress: &dyn Fn(u32, u32),
    ) -> Result<(), RuntimeError> {
        let device = self.runtime.device();
        let layout = &found.image.kernel.layout;
        let id = layout.id();
        let packed = match self.packed.iter().position(|packed| packed.layout_id == id) {
            Some(index) => index,
            None => {
                self.packed.push(packing::pack(device, weights, layout, progress)?);
                self.packed.len() - 1
            }
        };
        let loaded = device.load(&found.image)?;
        self.kernels.insert(bucket, ReadyKernel { loaded, origin: found.origin, packed });
        Ok(())
    }

    /// Module path of the layer.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the layer computes, for one token.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The kernel that serves `tokens` tokens, and where it came from.
    ///
    /// # Errors
    /// [`RuntimeError::Activations`] if the layer was not loaded for that count.
    pub fn kernel(&self, tokens: u32) -> Result<(&LoadedKernel, Origin), RuntimeError> {
        self.ready(tokens).map(|ready| (&ready.loaded, ready.origin))
    }

    /// `x` `[tokens, K]`, row-major, times the weights: `[tokens, N]`, or `[tokens, N/2]` of gated
    /// rows. Activations are rounded to the layer's activation type.
    ///
    /// # Errors
    /// [`RuntimeError::Activations`] if `x` is not `tokens * K` long, the layer was not loaded for
    /// this count or it adds a residual, which [`LinearLayer::launch`] takes; [`RuntimeError::Device`]; [`RuntimeError::Defect`] in the simulator.
    pub fn run(&self, x: &[f32], tokens: u32) -> Result<Vec<f32>, RuntimeError> {
        let output = self.run_bytes(&self.problem.act.encode(x), tokens)?;
        Ok(self.problem.out.decode(&output))
    }

    /// As [`LinearLayer::run`], on little-endian elements of the activation type, giving those of
    /// the output type.
    ///
    /// # Errors
    /// As [`LinearLayer::run`].
    pub fn run_bytes(&self, x: &[u8], tokens: u32) -> Result<Vec<u8>, RuntimeError> {
        let token_bytes = self.problem.k as usize * self.problem.act.bytes() as usize;
        if x.len() != tokens as usize * token_bytes {
            let reason =
                format!("{} bytes of activations, {tokens} x {token_bytes} are needed", x.len());
            return Err(self.wrong(reason));
        }
        let kernel = &self.ready(tokens)?.loaded.image().kernel;
        let mut output = Vec::new();
        for slice in x.chunks(token_bytes * tokens_per_launch(kernel) as usize) {
            output.extend(self.run_slice(slice, (slice.len() / token_bytes) as u32, tokens)?);
        }
        Ok(output)
    }

    /// One launch on fresh buffers; `of` is the token count that decides the kernel.
    fn run_slice(&self, x: &[u8], tokens: u32, of: u32) -> Result<Vec<u8>, RuntimeError> {
        let device = self.runtime.device();
        let activations = device.alloc("activations", x.len(), Access::ReadOnly)?;
        device.upload(&activations, 0, x)?;
        let bytes =
            tokens as usize * self.problem.columns() as usize * self.problem.out.bytes() as usize;
        let output = device.alloc("output", bytes, Access::ReadWrite)?;
        let batch = Batch {
            tokens,
            activations: (&activations, 0),
            residual: None,
            next: None,
            steps: None,
            output: (&output, 0),
            blocks: &[],
            schedule: AsyncSchedule::default(),
            order: WarpOrder::default(),
        };
        let outcome = self.launch_with(self.ready(of)?, &batch)?;
        if let Some(finding) = outcome.findings.into_iter().next() {
            return Err(RuntimeError::Defect { layer: self.path.clone(), tokens, finding });
        }
        Ok(device.download(&output, 0, bytes)?)
    }

    /// Launches the kernel for `batch.tokens` tokens on the caller's buffers.
    ///
    /// # Errors
    /// [`RuntimeError::Activations`] if the layer was not loaded for this count or it is too
    /// large for one launch; [`RuntimeError::Device`] if the launch is refused or fails.
    pub fn launch(&self, batch: &Batch<'_>) -> Result<LaunchOutcome, RuntimeError> {
        let ready = self.ready(batch.tokens)?;
        let most = tokens_per_launch(&ready.loaded.image().kernel);
        if batch.tokens > most {
            return Err(self.wrong(format!("{} tokens, one launch takes {most}", batch.tokens)));
        }
        self.launch_with(ready, batch)
    }

    fn launch_with(
        &self,
        ready: &ReadyKernel,
        batch: &Batch<'_>,
    ) -> Result<LaunchOutcome, RuntimeError> {
        let kernel = &ready.loaded.image().kernel;
        let device = self.runtime.device();
        // Held until the launch has ended: two launches must not share partial sums.
        let mut workspace = self.workspace();
        if !workspace.holds(kernel, batch.tokens) {
            *workspace = Workspace::new(device, kernel, batch.tokens)?;
        }
        let packed = &self.packed[ready.packed];
        let residual = self.residual(batch)?;
        let own = (&workspace.prepared, 0);
        let operand = |argument: Argument| match argument {
            Argument::Weights => (&packed.weights, 0),
            Argument::Params => (&packed.params, 0),
            Argument::Table => (&self.table, 0),
            Argument::Bias => (&self.bias, 0),
            Argument::Output => batch.output,
            Argument::Partials => (&workspace.partials, 0),
            Argument::Counters => (&workspace.counters, 0),
            Argument::Slab => (&workspace.slab, 0),
            Argument::Places => (&self.places, 0),
            Argument::Prepared | Argument::PreparedMap => batch.steps.map_or(own, |steps| steps[0]),
            Argument::TokenScales => (&workspace.token_scales, 0),
            Argument::Products => batch.steps.map_or((&workspace.products, 0), |steps| steps[1]),
            Argument::InputFactors => (&self.factors[0], 0),
            Argument::OutputFactors => (&self.factors[1], 0),
            Argument::Residual => residual,
            Argument::Activations
            | Argument::ActivationMap
            | Argument::Tokens
            | Argument::FirstTile
            | Argument::Next
            | Argument::NextLines => batch.activations,
        };
        let mut all = LaunchArgs::new(kernel, batch.tokens, operand).with_blocks(batch.blocks);
        if let Some((next, bytes)) = batch.next {
            all = all.with_next(kernel, next, bytes);
        }
        let launch = LaunchArgs { schedule: batch.schedule, order: batch.order, ..all };
        Ok(device.launch(&ready.loaded, &launch)?)
    }

    /// The residual of a launch; of a layer that adds none, something that its kernels do not take.
    fn residual<'b>(&self, batch: &Batch<'b>) -> Result<(&'b Buffer, usize), RuntimeError> {
        match (self.problem.epilogue, batch.residual) {
            (Epilogue::Residual, None) => {
                Err(self.wrong("it adds a residual; launch it with one".into()))
            }
            // Kernels without one do not take it.
            (_, residual) => Ok(residual.unwrap_or(batch.output)),
        }
    }

    fn workspace(&self) -> MutexGuard<'_, Workspace> {
        self.workspace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self, tokens: u32) -> Result<&ReadyKernel, RuntimeError> {
        Problem::check_sizes(1, 1, tokens.into())
            .map_err(|source| RuntimeError::Size { layer: self.path.clone(), source })?;
        self.kernels
            .get(&bucket(tokens))
            .ok_or_else(|| self.wrong(format!("it was not loaded for {tokens} tokens")))
    }

    fn wrong(&self, reason: String) -> RuntimeError {
        RuntimeError::Activations { layer: self.path.clone(), reason }
    }
}

/// The problem of a layer, for one token.
fn problem_of(
    weights: &QuantizedLinear,
    path: &str,
    options: &LoadOptions<'_>,
) -> Result<Problem, RuntimeError> {
    Problem::check_sizes(weights.n as u64, weights.k as u64, 1)
        .map_err(|source| RuntimeError::Size { layer: path.into(), source })?;
    if weights.spec.activations.are_static() && weights.input_scale.is_none() {
        let reason =
            format!("{} takes the scale of activations that a layer brings", weights.spec.name);
        return Err(RuntimeError::Activations { layer: path.into(), reason });
    }
    let sizes = [weights.n as u32, weights.k as u32, 1];
    let product = Problem::of(&weights.spec, [options.act, options.out], sizes);
    let problem = Problem { bias: weights.bias.is_some(), ..product };
    let unpaired = |source| RuntimeError::Size { layer: path.into(), source };
    problem.with_epilogue(options.epilogue).map_err(unpaired)
}

/// Tokens that one launch can take: kernels index with 32-bit signed integers.
fn tokens_per_launch(kernel: &Kernel) -> u32 {
    let problem = &kernel.problem;
    let (tile_n, tile_m) = kernel.schedule.tile();
    let (split, steps) = (kernel.schedule.split(), kernel.layout.steps());
    let row = problem.n.next_multiple_of(tile_n).saturating_mul(split.per_tile());
    // Stream-K numbers the steps of all tiles.
    let walked = split.stream().map_or(0, |_| (kernel.layout.tiles() * steps).div_ceil(tile_m));
    let most = i32::MAX as u32 / row.max(problem.k).max(walked).max(1);
    (most / tile_m * tile_m).max(1)
}
