//! The fingerprint under which winners are stored: all that decides the code of a kernel besides
//! its problem, schedule and arch.

use crate::nvrtc::FIXED_OPTIONS;
use crate::GENERATOR_VERSION;
use qtune_ir::WeightSpec;

/// BLAKE3 (hex) over the generator's version, the format and the compiler with its fixed options.
///
/// `compiler` is [`crate::nvrtc::Nvrtc::fingerprint`]. A winner that was stored under another
/// fingerprint is stale: this build would not make the same kernel of its schedule.
pub fn fingerprint(spec: &WeightSpec, compiler: &str) -> String {
    let parts = [
        format!("generator {GENERATOR_VERSION}"),
        format!("format {spec:?}"),
        format!("compiler {compiler} {FIXED_OPTIONS:?}"),
    ];
    let mut hash = blake3::Hasher::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    hash.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use qtune_ir::{Group, Param, ParamType};

    fn spec() -> WeightSpec {
        WeightSpec {
            name: "awq-g128".into(),
            bits: 4,
            group: Group::Size(128),
            params: vec![Param { name: "s".into(), dtype: ParamType::F16 }],
            expr: "(* q s)".into(),
            codebook: Default::default(),
            act_order: false,
            activations: Default::default(),
        }
    }

    #[test]
    fn another_compiler_or_format_has_another_fingerprint() {
        let own = fingerprint(&spec(), "13.0-0123");
        assert_eq!(own, fingerprint(&spec(), "13.0-0123"));
        assert_eq!(own.len(), 64);
        assert_ne!(own, fingerprint(&spec(), "12.9-0123"));
        let other = WeightSpec { expr: "(* s q)".into(), ..spec() };
        assert_ne!(own, fingerprint(&other, "13.0-0123"));
    }
}
