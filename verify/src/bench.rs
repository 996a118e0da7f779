//! A kernel set up on a device: packed weights uploaded, ready for launch after launch.

use crate::compare;
use crate::epilogue::Finish;
use crate::guard::Guarded;
use crate::inputs::Activations;
use crate::reference::Reference;
use crate::sample::Sample;
use crate::weights::Weights;
use crate::VerifyError;
use qtune_codegen::{Argument, CodeRow, Kernel};
use qtune_device::{
    Access, AsyncSchedule, Buffer, Device, KernelImage, LaunchArgs, LaunchOutcome, LoadedKernel,
    WarpOrder,
};
use qtune_formats::{places, Rotation, Vectors};
use qtune_ir::Epilogue;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// What every output byte holds before a launch: a NaN in each element type.
pub(crate) const UNWRITTEN: u8 = 0xff;

/// A loaded kernel with its read-only operands.
pub(crate) struct Bench<'a> {
    pub device: &'a dyn Device,
    loaded: LoadedKernel,
    weights: Buffer,
    params: Buffer,
    table: Buffer,
    /// Factors of input and output features.
    factors: [Buffer; 2],
    bias: Buffer,
    places: Buffer,
    /// The input feature of each column, where they are sorted.
    features: Option<Vec<u32>>,
}

/// What a launch writes, and the activations and the residual that it reads.
pub(crate) struct Workspace {
    tokens: u32,
    activations: Buffer,
    residual: Buffer,
    output: Guarded,
    partials: Guarded,
    counters: Guarded,
    slab: Guarded,
    prepared: Guarded,
    token_scales: Guarded,
    products: Guarded,
}

/// How the simulator runs a launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mode {
    pub schedule: AsyncSchedule,
    pub order: WarpOrder,
}

impl Mode {
    /// The schedule and order opposite to the default.
    pub fn opposite() -> Mode {
        Mode { schedule: AsyncSchedule::Eager, order: WarpOrder::Reversed }
    }
}

/// What a launch left behind.
pub(crate) struct Launched {
    pub outcome: LaunchOutcome,
    /// The whole output, row-major.
    pub output: Vec<u8>,
    /// Rotated activations and products, of a kernel with rotations.
    pub turned: Vec<u8>,
    pub products: Vec<u8>,
    /// Misuse of workspaces, one line each.
    pub damage: Vec<String>,
}

impl<'a> Bench<'a> {
    /// Uploads the packed form of the references' row tiles. Everything else of the weights stays
    /// uninitialised: a kernel that strays into it is found out.
    pub fn new(
        device: &'a dyn Device,
        image: &KernelImage,
        weights: &Weights<'_>,
        references: &BTreeMap<u32, Reference>,
    ) -> Result<Bench<'a>, VerifyError> {
        let kernel = &image.kernel;
        let layout = &kernel.layout;
        let loaded = device.load(image)?;
        let read_only = |name, bytes: usize| device.alloc(name, bytes.max(16), Access::ReadOnly);
        let packed_weights = read_only("weights", layout.weight_bytes())?;
        let packed_params = read_only("params", layout.param_bytes())?;
        let table = read_only("table", layout.table_bytes())?;
        device.upload(&table, 0, &weights.table())?;
        let factors = factors(device, weights)?;
        let order = layout.param_order();
        let pack = |(_, reference): (&u32, &Reference)| {
            let tile = reference.tile();
            let codes = layout.pack_weight_tile(tile.index, &|n| CodeRow::Bytes(tile.row_codes(n)));
            (tile.index, codes, layout.pack_param_tile(&order, &tile.param_columns()))
        };
        let packed: Vec<_> = references.par_iter().map(pack).collect();
        for (tile, codes, params) in packed {
            let at = tile as usize * layout.tile_weight_bytes();
            device.upload(&packed_weights, at, &codes)?;
            device.upload(&packed_params, layout.param_offset(tile), &params)?;
        }
        let problem = &kernel.problem;
        let bias = read_only("bias", (problem.n * problem.out.bytes()) as usize)?;
        if problem.bias {
            let values: Vec<f32> = (0..problem.n).map(|n| weights.bias(n)).collect();
            device.upload(&bias, 0, &problem.out.encode(&values))?;
        }
        let features = weights.features();
        let places = match &features {
            Some(features) => places(features).map_err(|reason| VerifyError::Weights { reason })?,
            None => Vec::new(),
        };
        let places: Vec<u8> = places.into_iter().flat_map(u16::to_le_bytes).collect();
        let places_buffer = read_only("places", places.len())?;
        device.upload(&places_buffer, 0, &places)?;
        Ok(Bench {
            device,
            loaded,
            weights: packed_weights,
            params: packed_params,
            table,
            factors,
            bias,
            places: places_buffer,
            features,
        })
    }

    fn kernel(&self) -> &Kernel {
        &self.loaded.image().kernel
    }

    /// Buffers for launches with `tokens` tokens. `products` is what products hold before each of them, of a
    /// kernel with rotations.
    pub fn workspace(
        &self,
        tokens: u32,
        sample: &Sample,
        finish: &Finish,
        products: &[u8],
    ) -> Result<Workspace, VerifyError> {
        let kernel = self.kernel();
        let problem = &kernel.problem;
        let output = tokens as usize * (problem.columns() * problem.out.bytes()) as usize;
        let activations = tokens as usize * (problem.k * problem.act.bytes()) as usize;
        let filled =
            |name, bytes: usize, fill| Guarded::new(self.device, name, &vec![fill; bytes.max(16)]);
        Ok(Workspace {
            tokens,
            activations: self.device.alloc("activations", activations, Access::ReadOnly)?,
            residual: self.residual(output, sample, finish)?,
            output: Guarded::new(self.device, "output", &vec![UNWRITTEN; output])?,
            partials: filled("partials", kernel.partials_bytes(tokens), UNWRITTEN)?,
            counters: filled("counters", kernel.counter_bytes(tokens), 0)?,
            slab: filled("slab", kernel.slab_bytes(), UNWRITTEN)?,
            prepared: filled("prepared", kernel.prepared_bytes(tokens), UNWRITTEN)?,
            token_scales: filled("token scales", kernel.token_scale_bytes(tokens), UNWRITTEN)?,
            products: Guarded::new(self.device, "products", products)?,
        })
    }

    /// The residual of the sample's tiles. The rest stays uninitialised, as with the weights.
    fn residual(
        &self,
        bytes: usize,
        sample: &Sample,
        finish: &Finish,
    ) -> Result<Buffer, VerifyError> {
        let Kernel { problem, layout, .. } = self.kernel();
        if finish.epilogue() != Epilogue::Residual {
            return Ok(self.device.alloc("residual", 16, Access::ReadOnly)?);
        }
        let buffer = self.device.alloc("residual", bytes, Access::ReadOnly)?;
        for tile in &sample.tiles {
            let columns = tile.columns(layout, problem);
            let of_token = |token| compare::runs(&columns).map(move |run| (token, run));
            for (token, run) in tile.tokens().flat_map(of_token) {
                let values: Vec<f32> =
                    run.iter().map(|column| finish.residual(token, *column)).collect();
                let at = token as usize * problem.columns() as usize + run[0] as usize;
                let at = at * problem.out.bytes() as usize;
                self.device.upload(&buffer, at, &problem.out.encode(&values))?;
            }
        }
        Ok(buffer)
    }

    /// One launch: output and partial sums start as NaN, the counters as the last launch left them,
    /// unless the sample leaves tiles unfinished.
    pub fn launch(
        &self,
        space: &Workspace,
        sample: &Sample,
        products: &[u8],
        mode: Mode,
    ) -> Result<Launched, VerifyError> {
        let kernel = self.kernel();
        space.products.write(self.device, products)?;
        space.output.fill_with(self.device, UNWRITTEN)?;
        space.partials.fill_with(self.device, UNWRITTEN)?;
        space.slab.fill_with(self.device, UNWRITTEN)?;
        space.prepared.fill_with(self.device, UNWRITTEN)?;
        space.token_scales.fill_with(self.device, UNWRITTEN)?;
        if !sample.arrivals.is_empty() {
            space.counters.fill_with(self.device, 0)?;
        }
        let operand = |argument: Argument| match argument {
            Argument::Weights => (&self.weights, 0),
            Argument::Params => (&self.params, 0),
            Argument::Table => (&self.table, 0),
            Argument::Bias => (&self.bias, 0),
            Argument::Output => space.output.place(),
            Argument::Partials => space.partials.place(),
            Argument::Counters => space.counters.place(),
            Argument::Slab => space.slab.place(),
            Argument::Places => (&self.places, 0),
            Argument::Prepared | Argument::PreparedMap => space.prepared.place(),
            Argument::TokenScales => space.token_scales.place(),
            Argument::InputFactors => (&self.factors[0], 0),
            Argument::OutputFactors => (&self.factors[1], 0),
            Argument::Products => space.products.place(),
            Argument::Residual => (&space.residual, 0),
            Argument::Activations
            | Argument::ActivationMap
            | Argument::Tokens
            | Argument::FirstTile
            | Argument::Next
            | Argument::NextLines => (&space.activations, 0),
        };
        // The weights stand for the next matrix: nothing of it is read.
        let all = LaunchArgs::new(kernel, space.tokens, operand);
        let all = all.with_next(kernel, &self.weights, self.weights.bytes() as u32);
        let launch = LaunchArgs {
            schedule: mode.schedule,
            order: mode.order,
            ..all.with_blocks(&sample.blocks)
        };
        let outcome = self.device.launch(&self.loaded, &launch)?;
        let output = space.output.read(self.device)?;
        let (turned, products) = match kernel.rotates() {
            true => (space.prepared.read(self.device)?, space.products.read(self.device)?),
            false => Default::default(),
        };
        let damage = self.damage(space, sample)?;
        Ok(Launched { outcome, output, turned, products, damage })
    }

    fn damage(&self, space: &Workspace, sample: &Sample) -> Result<Vec<String>, VerifyError> {
        let mut damage = Vec::new();
        let buffers = [&space.output, &space.partials, &space.counters, &space.slab];
        let buffers =
            buffers.into_iter().chain([&space.prepared, &space.token_scales, &space.products]);
        for buffer in buffers {
            damage.extend(buffer.damage(self.device)?);
        }
        let counters = space.counters.read(self.device)?;
        for (at, bytes) in counters.chunks_exact(4).enumerate() {
            let value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let wanted = sample.arrivals.get(&(at as u32)).copied().unwrap_or(0);
            if value != wanted {
                damage.push(match wanted {
                    0 => format!("counter {at} is not back at zero"),
                    _ => format!("counter {at} holds {value} arrivals of {wanted}"),
                });
                break;
            }
        }
        Ok(damage)
    }

    /// Uploads the activations of the next launches. Those of the test are by column, a kernel gets
    /// them by input feature.
    pub fn feed(&self, space: &Workspace, x: &Activations) -> Result<(), VerifyError> {
        let act = self.kernel().problem.act;
        let mut bytes = x.encode(act);
        if let Some(features) = &self.features {
            bytes = by_feature(&bytes, features, act.bytes() as usize);
        }
        Ok(self.device.upload(&space.activations, 0, &bytes)?)
    }
}

/// The factors of input and of output features, where the weights lie between rotations.
fn factors(device: &dyn Device, weights: &Weights<'_>) -> Result<[Buffer; 2], VerifyError> {
    let rotation = weights.vectors().and_then(Vectors::rotation);
    let [inputs, outputs] = rotation.map(Rotation::bytes).unwrap_or_default();
    let upload = |name, bytes: Vec<u8>| -> Result<Buffer, VerifyError> {
        let buffer = device.alloc(name, bytes.len().max(16), Access::ReadOnly)?;
        device.upload(&buffer, 0, &bytes)?;
        Ok(buffer)
    };
    Ok([upload("input factors", inputs)?, upload("output factors", outputs)?])
}

/// Rows of elements of `size` bytes, one per column, as one per input feature.
fn by_feature(columns: &[u8], features: &[u32], size: usize) -> Vec<u8> {
    let mut bytes = vec![0; columns.len()];
    let row = features.len() * size;
    for (columns, row) in columns.chunks(row).zip(bytes.chunks_mut(row)) {
        for (element, feature) in columns.chunks(size).zip(features) {
            row[*feature as usize * size..][..size].copy_from_slice(element);
        }
    }
    bytes
}
