//! `--format`, `--n`, `--k`, `--m`, `--act`, `--bias` and their like: which problem a command is about.

use crate::exit::usage;
use anyhow::Context;
use qtune_codegen::CodegenError;
use qtune_formats::{in_act_bits, served_on, ActBits, FormatError};
use qtune_ir::{Arch, DType, Epilogue, Family, Group, Problem, Schedule, WeightSpec};
use qtune_runtime::BUCKETS;
use qtune_verify::{default_of_family, default_schedule, default_with_library};

/// Element type of the activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct ActArgs {
    /// Element type of the activations: f16 or bf16
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = act)]
    pub act: DType,
}

/// Element types of activations and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct ElementArgs {
    #[command(flatten)]
    pub act: ActArgs,
    /// Element type of the output: f16, bf16 or f32 [default: that of the activations]
    #[arg(long, value_name = "TYPE")]
    pub out_type: Option<DType>,
}

impl ElementArgs {
    /// Element type of the activations.
    pub fn act(self) -> DType {
        self.act.act
    }

    /// Element type of the output.
    pub fn out(self) -> DType {
        self.out_type.unwrap_or(self.act.act)
    }
}

/// In how many bits activations are multiplied with the layers of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct ActBitsArgs {
    /// Bits in which activations are multiplied: 16 dequantizes weights, 8 quantizes activations per token
    /// [default: what the checkpoint asks for]
    #[arg(long, value_name = "8|16", value_parser = str::parse::<ActBits>)]
    pub act_bits: Option<ActBits>,
}

impl ActBitsArgs {
    /// `spec` of a checkpoint as the command line wants it; without a wish, as the GPU can serve it.
    pub fn served(self, spec: WeightSpec, arch: &Arch) -> Result<WeightSpec, FormatError> {
        match self.act_bits {
            Some(bits) => in_act_bits(spec, bits),
            None => Ok(served_on(spec, arch)),
        }
    }
}

/// What is done to the product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct EpilogueArgs {
    /// Add a bias
    #[arg(long)]
    pub bias: bool,
    /// Add a residual [M, N]
    #[arg(long)]
    pub residual: bool,
    /// Rows are gate and up by turns; the output [M, N/2] is silu(gate) * up
    #[arg(long, conflicts_with = "residual")]
    pub silu_mul: bool,
}

impl EpilogueArgs {
    /// The options that ask for `bias` and `epilogue`.
    pub fn of(bias: bool, epilogue: Epilogue) -> EpilogueArgs {
        EpilogueArgs {
            bias,
            residual: epilogue == Epilogue::Residual,
            silu_mul: epilogue == Epilogue::SiluMul,
        }
    }

    /// The epilogue that these options ask for.
    pub fn epilogue(self) -> Epilogue {
        match (self.residual, self.silu_mul) {
            (true, _) => Epilogue::Residual,
            (false, true) => Epilogue::SiluMul,
            (false, false) => Epilogue::Store,
        }
    }
}

/// One weight shape and what is multiplied with it.
#[derive(Clone, Debug, clap::Args)]
pub struct ProblemArgs {
    /// Format of the weights, such as awq-g128
    #[arg(long, value_name = "NAME")]
    pub format: String,
    /// Output features
    #[arg(long)]
    pub n: u64,
    /// Input features
    #[arg(long)]
    pub k: u64,
    /// Tokens, 1 to 65536
    #[arg(long, default_value_t = 1)]
    pub m: u64,
    #[command(flatten)]
    pub types: ElementArgs,
    #[command(flatten)]
    pub epilogue: EpilogueArgs,
}

impl ProblemArgs {
    /// The problem of these options and its format; `m` is the bucket that serves `--m`.
    pub fn resolve(&self) -> anyhow::Result<(Problem, WeightSpec)> {
        let spec = qtune_formats::resolve(&self.format)?;
        let problem = problem(&spec, self.n, self.k, self.m, self.types, self.epilogue)?;
        Ok((problem, spec))
    }
}

/// The problem of one weight shape, its `m` rounded up to a bucket; sizes are checked.
pub fn problem(
    spec: &WeightSpec,
    n: u64,
    k: u64,
    m: u64,
    types: ElementArgs,
    end: EpilogueArgs,
) -> anyhow::Result<Problem> {
    Problem::check_sizes(n, k, m)?;
    if let Group::Size(group) = spec.group {
        if k % u64::from(group) != 0 {
            return Err(usage(format!(
                "K = {k} is not a multiple of the {group} weights of a quant group of {}; choose \
                 another K or another format",
                spec.name
            )));
        }
    }
    let rows = spec.group.rows();
    if n % u64::from(rows) != 0 {
        return Err(usage(format!(
            "N = {n} is not a multiple of the {rows} rows of {} that share parameters; choose another N or \
             another format",
            spec.name
        )));
    }
    // The sizes are below 2^20, so nothing is cut off.
    let sizes = [n as u32, k as u32, m as u32];
    let product = Problem::of(spec, [types.act(), types.out()], sizes);
    let problem = Problem { bias: end.bias, ..product };
    let problem = problem.with_epilogue(end.epilogue())?;
    Ok(problem.with_m(bucket(problem.m)))
}

/// The smallest bucket that serves `m` tokens; beyond the last bucket `m` itself.
pub fn bucket(m: u32) -> u32 {
    BUCKETS.into_iter().find(|bucket| *bucket >= m).unwrap_or(m)
}

/// Refuses a schedule from the command line that no kernel can be generated for.
pub fn check_schedule(
    schedule: &Schedule,
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
) -> anyhow::Result<()> {
    match qtune_codegen::generate(problem, spec, schedule, arch) {
        Ok(_) => Ok(()),
        Err(error @ (CodegenError::Rejected(_) | CodegenError::Term(_))) => {
            Err(usage(format!("--schedule is not legal for {}: {error}", problem.at(arch))))
        }
        Err(error) => Err(error.into()),
    }
}

/// The schedule that is used where nothing has been tuned, of one family if that is wanted.
pub fn untuned(
    problem: &Problem,
    spec: &WeightSpec,
    arch: &Arch,
    family: Option<Family>,
) -> anyhow::Result<Schedule> {
    match family {
        None => default_schedule(problem, spec, arch)
            .with_context(|| format!("no schedule for {}", problem.at(arch))),
        Some(family) => default_of_family(family, problem, spec, arch).map_err(|refused| {
            let name = family.name();
            let at = problem.at(arch);
            usage(format!("no schedule of family {name} is legal for {at}: {refused}"))
        }),
    }
}

/// The untuned schedule that multiplies slabs by cuBLASLt.
pub fn with_library(problem: &Problem, spec: &WeightSpec, arch: &Arch) -> anyhow::Result<Schedule> {
    default_with_library(problem, spec, arch).map_err(|refused| {
        let at = problem.at(arch);
        usage(format!("slabs of {at} cannot be multiplied by a library: {refused}"))
    })
}

/// Parses `--family`.
pub fn family(text: &str) -> Result<Family, String> {
    let names = Family::ALL.map(Family::name).join(", ");
    let found = Family::ALL.into_iter().find(|family| family.name() == text);
    found.ok_or_else(|| format!("unknown family `{text}`; known: {names}"))
}

/// Parses `--act`.
fn act(text: &str) -> Result<DType, String> {
    match text.parse()? {
        DType::F32 => Err("activations are f16 or bf16".into()),
        act => Ok(act),
    }
}

/// Parses `--shape NxK`.
pub fn shape(text: &str) -> Result<(u64, u64), String> {
    let parsed = text
        .split_once(['x', 'X'])
        .and_then(|(n, k)| Some((n.trim().parse().ok()?, k.trim().parse().ok()?)));
    parsed.ok_or_else(|| format!("`{text}` is not NxK, such as 5120x27648"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_served_by_the_smallest_bucket_that_holds_them() {
        assert_eq!([1, 3, 16, 33, 64, 65].map(bucket), [1, 4, 16, 64, 64, 128]);
        assert_eq!([1024, 1025].map(bucket), [1024, 1025]);
    }

    #[test]
    fn sizes_that_no_kernel_is_made_for_are_the_users_mistake() {
        let spec = qtune_formats::resolve("awq-g128").unwrap();
        let types = ElementArgs { act: ActArgs { act: DType::F16 }, out_type: Some(DType::F32) };
        let exit = |n, k, m| {
            let error = problem(&spec, n, k, m, types, EpilogueArgs::default()).unwrap_err();
            crate::exit::exit_of(&error)
        };
        assert_eq!(exit(0, 128, 1), crate::exit::Exit::Usage);
        assert_eq!(exit(64, 200, 1), crate::exit::Exit::Usage);
        assert_eq!(exit(64, 1 << 40, 1), crate::exit::Exit::Usage);
        let paired = EpilogueArgs { silu_mul: true, ..EpilogueArgs::default() };
        let odd = problem(&spec, 33, 128, 1, types, paired).unwrap_err();
        assert_eq!(crate::exit::exit_of(&odd), crate::exit::Exit::Usage);
        let bias = EpilogueArgs { bias: true, ..EpilogueArgs::default() };
        assert!(problem(&spec, 1, 128, 65536, types, bias).is_ok());
    }

    #[test]
    fn shapes_are_two_numbers() {
        assert_eq!(shape("5120x27648"), Ok((5120, 27648)));
        assert!(shape("5120").is_err() && shape("ax1").is_err());
    }
}
