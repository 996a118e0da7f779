//! Which `.target` an instruction needs (the "Target ISA Notes" of its section of the PTX ISA).
//!
//! The compiler refuses an instruction that the module's target lacks, so the simulator does too:
//! a kernel that runs here must assemble.

/// What a target must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// This compute capability or a later one.
    From(u32),
    /// An architecture-specific target (`a`, or the family's `f`) of one of these.
    Specific(&'static [u32]),
}

/// Instructions of an opcode that have one of these modifiers, or all of them if none is named.
struct Rule {
    opcode: &'static str,
    modifiers: &'static [&'static str],
    needs: Needs,
}

const fn rule(opcode: &'static str, modifiers: &'static [&'static str], needs: Needs) -> Rule {
    Rule { opcode, modifiers, needs }
}

const FP8: &[&str] = &["e4m3", "e5m2", "e4m3x2", "e5m2x2"];
const SMALL_FLOATS: &[&str] = &["e2m1x2", "e2m3x2", "e3m2x2", "ue8m0x2"];
const SCALED: &[&str] =
    &["block_scale", "kind::f8f6f4", "kind::mxf8f6f4", "kind::mxf4", "kind::mxf4nvf4"];
const BF16: &[&str] = &["bf16", "bf16x2"];
const BLACKWELL: Needs = Needs::Specific(&[100, 101, 103, 110, 120, 121]);
const HOPPER_OR_BLACKWELL: Needs = Needs::Specific(&[90, 100, 101, 103, 110, 120, 121]);

/// All rules; every one that fits an instruction holds.
const RULES: &[Rule] = &[
    rule("mma", &["m16n8k8", "m16n8k16", "m16n8k32", "m16n8k64", "m16n8k128"], Needs::From(80)),
    rule("mma", FP8, Needs::From(89)),
    rule("mma", SCALED, Needs::Specific(&[120, 121])),
    rule("wgmma", &[], Needs::Specific(&[90])),
    rule("setmaxnreg", &[], HOPPER_OR_BLACKWELL),
    rule("ldmatrix", &[], Needs::From(75)),
    rule("ldmatrix", &["m16n16", "m8n16"], BLACKWELL),
    rule("stmatrix", &[], Needs::From(90)),
    rule("stmatrix", &["m16n8"], BLACKWELL),
    rule("movmatrix", &[], Needs::From(75)),
    rule("cp", &["async"], Needs::From(80)),
    rule("cp", &["bulk"], Needs::From(90)),
    rule("mbarrier", &[], Needs::From(80)),
    rule("mbarrier", &["try_wait", "expect_tx", "complete_tx"], Needs::From(90)),
    rule("mbarrier", &["shared::cluster", "cluster"], Needs::From(90)),
    rule("tensormap", &["replace"], HOPPER_OR_BLACKWELL),
    rule("elect", &[], Needs::From(90)),
    rule("mapa", &[], Needs::From(90)),
    rule("getctarank", &[], Needs::From(90)),
    rule("griddepcontrol", &[], Needs::From(90)),
    rule("barrier", &["cluster"], Needs::From(90)),
    rule("redux", &[], Needs::From(80)),
    rule("redux", &["f32"], Needs::Specific(&[100, 101, 103])),
    rule("match", &[], Needs::From(70)),
    rule("nanosleep", &[], Needs::From(70)),
    rule("createpolicy", &[], Needs::From(80)),
    rule("add", BF16, Needs::From(90)),
    rule("sub", BF16, Needs::From(90)),
    rule("mul", BF16, Needs::From(90)),
    rule("fma", BF16, Needs::From(80)),
    rule("min", BF16, Needs::From(80)),
    rule("max", BF16, Needs::From(80)),
    rule("add", &["f32x2"], Needs::From(100)),
    rule("mul", &["f32x2"], Needs::From(100)),
    rule("fma", &["f32x2"], Needs::From(100)),
    rule("cvt", &["bf16", "bf16x2", "tf32"], Needs::From(80)),
    rule("cvt", FP8, Needs::From(89)),
    rule("cvt", SMALL_FLOATS, BLACKWELL),
    rule("ld", &["b128"], Needs::From(70)),
    rule("st", &["b128"], Needs::From(70)),
    rule("mov", &["b128"], Needs::From(70)),
    rule("atom", &["b128"], Needs::From(90)),
    rule("ld", &["v8"], Needs::From(100)),
    rule("st", &["v8"], Needs::From(100)),
    rule("ld", &["cluster", "shared::cluster"], Needs::From(90)),
    rule("st", &["cluster", "shared::cluster"], Needs::From(90)),
    rule("st", &["async", "bulk"], Needs::From(90)),
    rule(
        "atom",
        &["cluster", "shared::cluster", "v2", "v4", "v8", "bf16", "bf16x2"],
        Needs::From(90),
    ),
    rule(
        "red",
        &["cluster", "shared::cluster", "v2", "v4", "v8", "bf16", "bf16x2"],
        Needs::From(90),
    ),
    rule("red", &["async"], Needs::From(90)),
    rule("fence", &["cluster", "acquire", "release", "mbarrier_init"], Needs::From(90)),
    rule("fence", &["proxy"], Needs::From(70)),
    rule("fence", &["async", "async::generic", "tensormap", "tensormap::generic"], Needs::From(90)),
];

/// The target of a module: compute capability, and whether it is architecture-specific.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    capability: u32,
    specific: bool,
}

impl Target {
    /// Reads the text after `.target`; what is no `sm_…` is taken to allow everything.
    pub(super) fn parse(text: &str) -> Option<Target> {
        let name = text.split(',').find_map(|word| word.trim().strip_prefix("sm_"))?;
        let digits = name.trim_end_matches(['a', 'f']);
        Some(Target { capability: digits.parse().ok()?, specific: digits.len() < name.len() })
    }

    fn meets(self, needs: Needs) -> bool {
        match needs {
            Needs::From(capability) => self.capability >= capability,
            Needs::Specific(capabilities) => {
                self.specific && capabilities.contains(&self.capability)
            }
        }
    }

    /// Says what an instruction needs if the target lacks it.
    pub(super) fn check(self, instruction: &str) -> Result<(), String> {
        let mut parts = instruction.split('.');
        let opcode = parts.next().unwrap_or_default();
        let modifiers: Vec<&str> = parts.collect();
        // The narrower rules of an opcode come last.
        let unmet = RULES.iter().rev().find(|rule| {
            let fits = rule.modifiers.is_empty()
                || rule.modifiers.iter().any(|modifier| modifiers.contains(modifier));
            rule.opcode == opcode && fits && !self.meets(rule.needs)
        });
        match unmet.map(|rule| rule.needs) {
            None => Ok(()),
            Some(Needs::From(capability)) => Err(format!("needs .target sm_{capability} or later")),
            Some(Needs::Specific(capabilities)) => {
                let names: Vec<String> = capabilities.iter().map(|c| format!("sm_{c}a")).collect();
                Err(format!("needs .target {}", names.join(" or ")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assembles(instruction: &str, target: &str) -> bool {
        Target::parse(target).unwrap().check(instruction).is_ok()
    }

    #[test]
    fn instructions_assemble_for_the_targets_that_have_them() {
        let columns = ["sm_80", "sm_89", "sm_90", "sm_90a", "sm_100a", "sm_120", "sm_120a"];
        for (instruction, expected) in [
            ("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", "yyyyyyy"),
            ("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32", ".yyyyyy"),
            ("mma.sync.aligned.kind::mxf4nvf4.block_scale.m16n8k64.f32", "......y"),
            ("wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16", "...y..."),
            ("setmaxnreg.inc.sync.aligned.u32", "...yy.y"),
            ("cp.async.cg.shared.global", "yyyyyyy"),
            ("cp.async.bulk.tensor.2d.shared::cluster.global", "..yyyyy"),
            ("mbarrier.init.shared::cta.b64", "yyyyyyy"),
            ("mbarrier.try_wait.parity.shared::cta.b64", "..yyyyy"),
            ("cvt.rn.f16x2.e4m3x2", ".yyyyyy"),
            ("cvt.rn.f16x2.e2m1x2", "....y.y"),
            ("mul.bf16x2", "..yyyyy"),
            ("fma.rn.f32x2", "....yyy"),
            ("ld.global.v8.b32", "....yyy"),
            ("barrier.cluster.arrive", "..yyyyy"),
            ("bar.sync", "yyyyyyy"),
        ] {
            let found: String = columns
                .iter()
                .map(|target| if assembles(instruction, target) { 'y' } else { '.' })
                .collect();
            assert_eq!(found, expected, "{instruction}");
        }
    }

    #[test]
    fn the_refusal_names_the_target() {
        let sm80 = Target::parse("sm_80, debug").unwrap();
        assert_eq!(sm80.check("wgmma.fence.sync.aligned").unwrap_err(), "needs .target sm_90a");
        assert_eq!(sm80.check("elect.sync").unwrap_err(), "needs .target sm_90 or later");
    }
}
