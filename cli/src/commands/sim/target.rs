//! Launch limits: of a GPU that was named, else of the PTX file's own target.

use crate::exit::usage;
use crate::gpu::GpuArgs;
use qtune_sim::Limits;

/// The limits of `gpu`, or of what `.target` says.
pub fn limits(gpu: Option<&str>, target: &str) -> anyhow::Result<Limits> {
    let compiled = Target::parse(target);
    let Some(gpu) = gpu else {
        let Some(compiled) = compiled else {
            return Err(usage(format!("`.target {target}` names no GPU that is known; add --gpu")));
        };
        return Ok(Limits { name: target.to_owned(), ..Limits::for_sm(compiled.sm) });
    };
    let arch = GpuArgs { gpu: Some(gpu.to_owned()) }.arch()?;
    let sm = u32::from(arch.capability.0) * 10 + u32::from(arch.capability.1);
    if compiled.is_some_and(|compiled| !compiled.runs_on(sm)) {
        let name = &arch.name;
        return Err(usage(format!("PTX for {target} does not run on {name}, which is sm_{sm}")));
    }
    Ok(Limits {
        name: arch.target(),
        shared_per_block: arch.sm.shared_per_block,
        sm_count: arch.sm_count,
        ..Limits::for_sm(sm)
    })
}

/// A compile target such as `sm_90a`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Target {
    /// Compute capability as one number.
    sm: u32,
    /// `a`: exactly this capability; `f`: its family.
    suffix: Option<char>,
}

impl Target {
    fn parse(text: &str) -> Option<Target> {
        let text = text.strip_prefix("sm_")?;
        let suffix = text.chars().last().filter(|last| matches!(last, 'a' | 'f'));
        let digits = text.strip_suffix(['a', 'f']).unwrap_or(text);
        match digits.len() {
            2 | 3 => Some(Target { sm: digits.parse().ok()?, suffix }),
            _ => None,
        }
    }

    /// PTX ISA 11.1.2 (`.target`): PTX runs on its own and later capabilities, except with a
    /// suffix.
    fn runs_on(self, sm: u32) -> bool {
        match self.suffix {
            Some('a') => sm == self.sm,
            Some(_) => sm >= self.sm && sm / 10 == self.sm / 10,
            None => sm >= self.sm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_the_target_gives_the_limits() {
        let shared = |target: &str| limits(None, target).unwrap().shared_per_block >> 10;
        assert_eq!(["sm_80", "sm_90a", "sm_120"].map(shared), [163, 227, 99]);
        assert!(limits(None, "sm_next").is_err());
    }

    #[test]
    fn a_gpu_must_be_able_to_run_the_target() {
        assert_eq!(limits(Some("rtx4090"), "sm_80").unwrap().shared_per_block >> 10, 99);
        assert!(limits(Some("h200"), "sm_90a").is_ok());
        for (gpu, target) in [("a100", "sm_90"), ("b200", "sm_90a"), ("rtx5090", "sm_100f")] {
            let error = limits(Some(gpu), target).unwrap_err();
            assert!(error.to_string().contains("does not run on"), "{error}");
        }
    }
}
