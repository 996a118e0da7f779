//! The launch file: which kernel runs in which shape on which arguments.

use anyhow::{bail, ensure, Context};
use qtune_sim::Arg;
use serde::de::IgnoredAny;
use serde::Deserialize;

/// A launch file as it is written. Unknown names are errors: a mistyped `expected` must not turn
/// a comparison off.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    entry: Option<String>,
    grid: [u32; 3],
    block: [u32; 3],
    #[serde(default = "one_block")]
    cluster: [u32; 3],
    #[serde(default)]
    dynamic_shared_bytes: u32,
    args: Vec<WrittenArg>,
}

fn one_block() -> [u32; 3] {
    [1, 1, 1]
}

/// One argument: exactly one of its kinds, and for `buffer` what goes with it. A struct instead of
/// an enum, so that errors name the field.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenArg {
    buffer: Option<String>,
    mode: Option<Mode>,
    dtype: Option<DType>,
    expected: Option<String>,
    relative_tolerance: Option<f64>,
    write: Option<String>,
    u32: Option<u32>,
    i32: Option<i32>,
    u64: Option<u64>,
    i64: Option<i64>,
    f32: Option<f32>,
    bytes: Option<String>,
    tensor_map: Option<IgnoredAny>,
}

/// What a kernel does with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Reads it only; a store is a finding.
    In,
    /// Writes it; what the file holds is not shown to the kernel.
    Out,
    /// Reads and writes it.
    Inout,
}

/// What the elements of a buffer stand for, where the file's own type does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE half precision.
    Fp16,
    /// bfloat16, stored as 16-bit integers.
    Bf16,
    /// IEEE single precision.
    Fp32,
    /// 8-bit floats with 4 exponent bits and no infinities, stored as bytes.
    Fp8e4nv,
    /// 32-bit integers.
    I32,
}

/// A checked launch file. Paths are as written, relative to the file.
#[derive(Debug, PartialEq)]
pub struct LaunchFile {
    /// The kernel; `None` for the only one of the module.
    pub entry: Option<String>,
    /// Thread blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads per block along x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared_bytes: u32,
    /// The arguments, in order.
    pub args: Vec<ArgSpec>,
}

/// One argument.
#[derive(Debug, PartialEq)]
pub enum ArgSpec {
    /// A value.
    Value(Arg),
    /// The address of a buffer.
    Buffer(BufferSpec),
}

/// A buffer argument.
#[derive(Debug, PartialEq)]
pub struct BufferSpec {
    /// The npy file with its contents, or for an output its type and size.
    pub path: String,
    /// What the kernel does with it.
    pub mode: Mode,
    /// What its elements stand for.
    pub dtype: Option<DType>,
    /// What to compare with.
    pub expected: Option<String>,
    /// Largest norm of the difference over the norm of what is expected.
    pub tolerance: f64,
    /// Where to write the contents after the run.
    pub write: Option<String>,
}

impl LaunchFile {
    /// Reads a launch file's text.
    pub fn parse(text: &str) -> anyhow::Result<LaunchFile> {
        let mut json = serde_json::Deserializer::from_str(text);
        let written: Written = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            match error.path().to_string().as_str() {
                "." => anyhow::anyhow!("{}", error.inner()),
                place => anyhow::anyhow!("`{place}`: {}", error.inner()),
            }
        })?;
        json.end()?;
        ensure!(
            written.cluster == one_block(),
            "`cluster` {:?}: clusters of more than one block are not supported by this version",
            written.cluster
        );
        let args = written.args.into_iter().enumerate().map(|(index, arg)| {
            // Named like the fields in errors of the JSON itself.
            checked(arg).with_context(|| format!("`args[{index}]`"))
        });
        Ok(LaunchFile {
            entry: written.entry,
            grid: written.grid,
            block: written.block,
            dynamic_shared_bytes: written.dynamic_shared_bytes,
            args: args.collect::<Result<_, _>>()?,
        })
    }
}

fn checked(arg: WrittenArg) -> anyhow::Result<ArgSpec> {
    ensure!(arg.tensor_map.is_none(), "`tensor_map` is not supported by this version");
    let bytes = arg.bytes.as_deref().map(from_hex).transpose().context("`bytes`")?;
    if let Some(value) = arg.f32 {
        // A number beyond the range of f32 would silently become infinite.
        ensure!(value.is_finite(), "`f32` is beyond the range of f32");
    }
    let mut values = [
        arg.u32.map(Arg::U32),
        arg.i32.map(Arg::I32),
        arg.u64.map(Arg::U64),
        arg.i64.map(Arg::I64),
        arg.f32.map(Arg::F32),
        bytes.map(Arg::Bytes),
    ]
    .into_iter()
    .flatten();
    let of_buffers = arg.mode.is_some()
        || arg.dtype.is_some()
        || arg.expected.is_some()
        || arg.relative_tolerance.is_some()
        || arg.write.is_some();
    match (arg.buffer, values.next(), values.next()) {
        (Some(path), None, None) => {
            let Some(mode) = arg.mode else { bail!("`mode` is missing; it is in, out or inout") };
            let buffer = BufferSpec {
                path,
                mode,
                dtype: arg.dtype,
                tolerance: arg.relative_tolerance.unwrap_or(0.0),
                expected: arg.expected,
                write: arg.write,
            };
            check_buffer(&buffer, arg.relative_tolerance.is_some())?;
            Ok(ArgSpec::Buffer(buffer))
        }
        (None, Some(_), None) if of_buffers => {
            bail!("mode, dtype, expected, relative_tolerance and write go with `buffer` only")
        }
        (None, Some(value), None) => Ok(ArgSpec::Value(value)),
        _ => bail!("exactly one of buffer, u32, i32, u64, i64, f32 and bytes is needed"),
    }
}

fn check_buffer(buffer: &BufferSpec, has_tolerance: bool) -> anyhow::Result<()> {
    let BufferSpec { mode, expected, write, tolerance, .. } = buffer;
    ensure!(
        *mode != Mode::In || (expected.is_none() && write.is_none()),
        "`expected` and `write` need mode out or inout"
    );
    ensure!(
        tolerance.is_finite() && *tolerance >= 0.0,
        "`relative_tolerance` is {tolerance}, not a number from 0 up"
    );
    ensure!(expected.is_some() || !has_tolerance, "`relative_tolerance` needs `expected`");
    Ok(())
}

fn from_hex(text: &str) -> anyhow::Result<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    match digits {
        Some(digits) if !digits.is_empty() && digits.len() % 2 == 0 => {
            Ok(digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
        }
        _ => bail!("`{text}` is not an even number of hexadecimal digits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_args(args: &str) -> anyhow::Result<LaunchFile> {
        LaunchFile::parse(&format!(r#"{{"grid":[1,1,1],"block":[32,1,1],"args":[{args}]}}"#))
    }

    #[test]
    fn every_kind_of_argument_is_read() {
        let launch = with_args(
            r#"{"u32":4294967295},{"i32":-1},{"u64":1},{"i64":-9},{"f32":0.5},{"bytes":"00fF"},
               {"buffer":"a.npy","mode":"inout","dtype":"bf16","expected":"e.npy",
                "relative_tolerance":0.02,"write":"o.npy"}"#,
        )
        .unwrap();
        let values = [
            Arg::U32(u32::MAX),
            Arg::I32(-1),
            Arg::U64(1),
            Arg::I64(-9),
            Arg::F32(0.5),
            Arg::Bytes(vec![0, 255]),
        ];
        let mut expected: Vec<ArgSpec> = values.into_iter().map(ArgSpec::Value).collect();
        expected.push(ArgSpec::Buffer(BufferSpec {
            path: "a.npy".into(),
            mode: Mode::Inout,
            dtype: Some(DType::Bf16),
            expected: Some("e.npy".into()),
            tolerance: 0.02,
            write: Some("o.npy".into()),
        }));
        assert_eq!(launch.args, expected);
        assert_eq!((launch.entry, launch.dynamic_shared_bytes), (None, 0));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (arg, parts) in [
            (r#"{"u32":-1}"#, &["`args[0].u32`", "-1"][..]),
            (r#"{"u32":1},{"i32":3000000000}"#, &["`args[1].i32`", "3000000000"]),
            (r#"{"u23":1}"#, &["`args[0].u23`", "unknown field `u23`"]),
            (r#"{"u32":1,"i32":1}"#, &["`args[0]`", "exactly one"]),
            (r#"{}"#, &["`args[0]`", "exactly one"]),
            (r#"{"u32":1,"mode":"in"}"#, &["`args[0]`", "`buffer` only"]),
            (r#"{"f32":1e300}"#, &["`args[0]", "range"]),
            (r#"{"bytes":"abc"}"#, &["`args[0]`", "`bytes`", "hexadecimal"]),
            (r#"{"bytes":"é0"}"#, &["`args[0]`", "hexadecimal"]),
            (r#"{"buffer":"a"}"#, &["`args[0]`", "`mode` is missing"]),
            (r#"{"buffer":"a","mode":"read"}"#, &["`args[0].mode`", "`inout`"]),
            (r#"{"buffer":"a","mode":"in","expected":"e"}"#, &["`args[0]`", "mode out"]),
            (
                r#"{"buffer":"a","mode":"out","relative_tolerance":1}"#,
                &["`args[0]`", "needs `expected`"],
            ),
            (
                r#"{"buffer":"a","mode":"out","expected":"e","relative_tolerance":-1}"#,
                &["`args[0]`", "from 0 up"],
            ),
            (r#"{"tensor_map":{"buffer":"a"}}"#, &["`args[0]`", "not supported by this version"]),
        ] {
            let error = format!("{:#}", with_args(arg).unwrap_err());
            for part in parts {
                assert!(error.contains(part), "{arg}: `{part}` is not in: {error}");
            }
        }
    }

    #[test]
    fn clusters_and_text_after_the_object_are_refused() {
        let error = |text: &str| LaunchFile::parse(text).unwrap_err().to_string();
        let launch = r#"{"grid":[1,1,1],"block":[32,1,1],"cluster":[2,1,1],"args":[]}"#;
        assert!(error(launch).contains("not supported by this version"));
        let alone = launch.replace("[2,", "[1,");
        assert!(LaunchFile::parse(&alone).is_ok());
        assert!(error(&(alone + "x")).contains("trailing"));
        assert!(error(r#"{"grid":[1,1]}"#).contains("`grid"));
    }
}
