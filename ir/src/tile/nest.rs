//! Loop nests: the terms of the tiling language, as plain values.
//!
//! A nest is one chain of layers around one leaf, written as an s-expression:
//!
//! ```text
//! (for m 16 block (for n 5120 block (for n 64 warp (for k 5120 serial (ring 4 ...)))))
//! ```
//!
//! A loop says what it *covers*, not how often it runs: `(for n 5120 block BODY)` covers 5120
//! rows in steps of what `BODY` covers of `n`. Splitting a loop is therefore adding one inside it,
//! and the extents that a term covers are the same for all equal terms.

use std::fmt;
use std::str::FromStr;

/// An axis of the iteration space of `C[M,N] = A[M,K] * W[N,K]^T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Axis {
    /// Tokens.
    M,
    /// Output features.
    N,
    /// Input features.
    K,
}

/// Extents or positions by axis: `[m, n, k]`.
pub type Extents = [u32; 3];

/// Who runs the steps of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Binding {
    /// One after the other.
    Serial,
    /// A thread block each.
    Block,
    /// A warp of the block each.
    Warp,
    /// A warpgroup of the block each: four warps that multiply together.
    Group,
    /// A lane of the warp each.
    Lane,
    /// Side by side in the registers of one lane (unroll and jam).
    Reg,
    /// One after the other without a branch, operands of all steps loaded first.
    Unroll,
    /// Dealt to this many thread blocks, each walking one contiguous share (split-K).
    Split(u32),
    /// The same, of a cluster.
    Cluster(u32),
    /// With the steps of all output tiles, one tile after the other, dealt to this many thread
    /// blocks, each walking one contiguous share (stream-K).
    Stream(u32),
}

/// The innermost computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Leaf {
    /// One scalar multiply-accumulate.
    Mac,
    /// One 16-byte load of 4-bit codes and f32 FMAs: 32 of k.
    Fma32,
    /// One 16-byte load of 4-bit codes and half2 FMAs: 32 of k.
    Fma2,
    /// `mma.sync.m16n8k16` with the weights on the 16-row side (PTX ISA, "Matrix multiply-
    /// accumulate operation using mma instruction").
    Mma16816,
    /// `wgmma.m64n8k16` with the weights on the 64-row side; its columns are as many as the tokens
    /// side by side (PTX ISA, "Asynchronous warpgroup level matrix instructions").
    Wgmma64,
}

/// One loop of a nest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Loop {
    /// The axis that it walks.
    pub axis: Axis,
    /// What it covers of the axis; its step is what the body covers.
    pub extent: u32,
    /// Who runs its steps.
    pub binding: Binding,
}

/// One layer around the rest of a nest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// `(for AXIS EXTENT BINDING BODY)`.
    For(Loop),
    /// `(stage x shared BODY)`: the activations that the body reads are copied to shared memory.
    StageX,
    /// `(ring STAGES BODY)`: the operands of the body arrive in shared memory through a ring of
    /// this many stages.
    Ring(u32),
    /// `(slab ROWS BODY)`: the weights that the body reads are dequantized this many rows at a
    /// time, into memory that L2 holds.
    Slab(u32),
}

/// A loop nest: layers from the outside to the inside, then the leaf.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nest {
    /// Outermost first.
    pub layers: Vec<Layer>,
    /// The computation inside all layers.
    pub leaf: Leaf,
}

/// Text that is not a nest, or a nest that breaks a rule of [`super::verify()`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a nest: {why} in `{place}`")]
pub struct NestError {
    /// The rule that is broken.
    pub why: String,
    /// The layer, or the rest of the text, where it is.
    pub place: String,
}

impl NestError {
    pub(super) fn new(why: impl Into<String>, place: impl fmt::Display) -> NestError {
        NestError { why: why.into(), place: place.to_string() }
    }
}

/// The axes with their names.
pub(super) const AXES: [(Axis, &str); 3] = [(Axis::M, "m"), (Axis::N, "n"), (Axis::K, "k")];

/// Bindings without a number, with their names.
pub(super) const BINDINGS: [(Binding, &str); 7] = [
    (Binding::Serial, "serial"),
    (Binding::Block, "block"),
    (Binding::Warp, "warp"),
    (Binding::Group, "group"),
    (Binding::Lane, "lane"),
    (Binding::Reg, "reg"),
    (Binding::Unroll, "unroll"),
];

/// Leaves with their names and what one of them covers.
pub(super) const LEAVES: [(Leaf, &str, Extents); 5] = [
    (Leaf::Mac, "mac", [1, 1, 1]),
    (Leaf::Fma32, "fma32", [1, 1, 32]),
    (Leaf::Fma2, "fma2", [1, 1, 32]),
    (Leaf::Mma16816, "mma16816", [8, 16, 16]),
    (Leaf::Wgmma64, "wgmma64", [8, 64, 16]),
];

impl Axis {
    /// The position of this axis in [`Extents`].
    pub fn index(self) -> usize {
        self as usize
    }
}

impl Leaf {
    /// What one leaf covers.
    pub fn extents(self) -> Extents {
        LEAVES[self as usize].2
    }
}

impl Nest {
    /// The nest of the mathematics: every loop serial, one scalar multiply-accumulate inside.
    pub fn naive([m, n, k]: Extents) -> Nest {
        let serial = |axis, extent| Layer::For(Loop { axis, extent, binding: Binding::Serial });
        Nest {
            layers: vec![serial(Axis::M, m), serial(Axis::N, n), serial(Axis::K, k)],
            leaf: Leaf::Mac,
        }
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(AXES[self.index()].1)
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match BINDINGS.iter().find(|(binding, _)| binding == self) {
            Some((_, name)) => f.write_str(name),
            None => match self {
                Binding::Split(blocks) => write!(f, "(split {blocks})"),
                Binding::Cluster(blocks) => write!(f, "(cluster {blocks})"),
                Binding::Stream(blocks) => write!(f, "(stream {blocks})"),
                named => unreachable!("{named:?} has a row in BINDINGS"),
            },
        }
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({})", LEAVES[*self as usize].1)
    }
}

/// The layer without its body and closing parenthesis: `(for n 64 warp`.
impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Layer::For(l) => write!(f, "(for {} {} {}", l.axis, l.extent, l.binding),
            Layer::StageX => f.write_str("(stage x shared"),
            Layer::Ring(stages) => write!(f, "(ring {stages}"),
            Layer::Slab(rows) => write!(f, "(slab {rows}"),
        }
    }
}

impl fmt::Display for Nest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for layer in &self.layers {
            write!(f, "{layer} ")?;
        }
        write!(f, "{}", self.leaf)?;
        f.write_str(&")".repeat(self.layers.len()))
    }
}

/// Words of an s-expression, read from the left.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn fail<T>(&self, why: impl Into<String>) -> Result<T, NestError> {
        Err(NestError::new(why, self.rest))
    }

    fn next(&mut self) -> Result<&'a str, NestError> {
        let text = self.rest.trim_start();
        let length = match text.find(|c: char| c.is_whitespace() || c == '(' || c == ')') {
            Some(0) => 1,
            Some(length) => length,
            None => text.len(),
        };
        if length == 0 {
            return self.fail("the text ends early");
        }
        let (word, rest) = text.split_at(length);
        self.rest = rest;
        Ok(word)
    }

    fn expect(&mut self, wanted: &str) -> Result<(), NestError> {
        let at = self.rest;
        match self.next()? {
            word if word == wanted => Ok(()),
            word => Err(NestError::new(format!("`{word}` where `{wanted}` belongs"), at)),
        }
    }

    fn number(&mut self) -> Result<u32, NestError> {
        let at = self.rest;
        let word = self.next()?;
        match word.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(NestError::new(format!("`{word}` is not a positive number"), at)),
        }
    }

    fn axis(&mut self) -> Result<Axis, NestError> {
        let at = self.rest;
        let word = self.next()?;
        match AXES.iter().find(|(_, name)| *name == word) {
            Some((axis, _)) => Ok(*axis),
            None => Err(NestError::new(format!("`{word}` is not an axis"), at)),
        }
    }

    fn binding(&mut self) -> Result<Binding, NestError> {
        let at = self.rest;
        let word = self.next()?;
        if word == "(" {
            let shared: fn(u32) -> Binding = match self.next()? {
                "split" => Binding::Split,
                "cluster" => Binding::Cluster,
                "stream" => Binding::Stream,
                word => return self.fail(format!("`{word}` is not a way to share a loop")),
            };
            let blocks = self.number()?;
            self.expect(")")?;
            return Ok(shared(blocks));
        }
        match BINDINGS.iter().find(|(_, name)| *name == word) {
            Some((binding, _)) => Ok(*binding),
            None => Err(NestError::new(format!("`{word}` is not a binding"), at)),
        }
    }
}

impl FromStr for Nest {
    type Err = NestError;

    fn from_str(text: &str) -> Result<Nest, NestError> {
        let mut words = Words { rest: text };
        let mut layers = Vec::new();
        let leaf = loop {
            words.expect("(")?;
            let at = words.rest;
            match words.next()? {
                "for" => layers.push(Layer::For(Loop {
                    axis: words.axis()?,
                    extent: words.number()?,
                    binding: words.binding()?,
                })),
                "stage" => {
                    words.expect("x")?;
                    words.expect("shared")?;
                    layers.push(Layer::StageX);
                }
                "ring" => layers.push(Layer::Ring(words.number()?)),
                "slab" => layers.push(Layer::Slab(words.number()?)),
                word => match LEAVES.iter().find(|(_, name, _)| *name == word) {
                    Some((leaf, ..)) => break *leaf,
                    None => return Err(NestError::new(format!("`{word}` is not an operator"), at)),
                },
            }
        };
        for _ in 0..layers.len() + 1 {
            words.expect(")")?;
        }
        if !words.rest.trim().is_empty() {
            return words.fail("text after the nest");
        }
        Ok(Nest { layers, leaf })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any nest at all, well formed or not.
    pub fn any_nest() -> impl Strategy<Value = Nest> {
        let axis = prop::sample::select(AXES.map(|row| row.0).to_vec());
        let binding = prop_oneof![
            prop::sample::select(BINDINGS.map(|row| row.0).to_vec()),
            (1u32..9).prop_map(Binding::Split),
            (1u32..9).prop_map(Binding::Cluster),
            (1u32..900).prop_map(Binding::Stream)
        ];
        let looped = (axis, 1u32..9000, binding)
            .prop_map(|(axis, extent, binding)| Layer::For(Loop { axis, extent, binding }));
        let ring = (1u32..9).prop_map(Layer::Ring);
        let slab = (1u32..9000).prop_map(Layer::Slab);
        let layer = prop_oneof![6 => looped, 1 => Just(Layer::StageX), 1 => ring, 1 => slab];
        let leaf = prop::sample::select(LEAVES.map(|row| row.0).to_vec());
        (prop::collection::vec(layer, 0..12), leaf).prop_map(|(layers, leaf)| Nest { layers, leaf })
    }

    proptest! {
        #[test]
        fn nests_print_and_parse_back(nest in any_nest()) {
            prop_assert_eq!(nest.to_string().parse::<Nest>().unwrap(), nest);
        }
    }

    #[test]
    fn rows_of_the_leaf_table_stand_in_the_order_of_the_enum() {
        for (index, (leaf, ..)) in LEAVES.iter().enumerate() {
            assert_eq!(*leaf as usize, index);
        }
    }

    #[test]
    fn malformed_text_names_what_is_wrong_and_where() {
        let why = |text: &str| text.parse::<Nest>().unwrap_err().to_string();
        assert!(why("(for q 3 serial (mac))").contains("`q` is not an axis"));
        assert!(why("(for m 0 serial (mac))").contains("`0` is not a positive number"));
        assert!(why("(for m 3 fast (mac))").contains("`fast` is not a binding"));
        assert!(why("(for m 3 serial (mac)").contains("ends early"));
        assert!(why("(mac) (mac)").contains("after the nest"));
        assert!(why("(add 1 2)").contains("`add` is not an operator"));
    }
}
