//! Arrays in NumPy's file format, as far as kernels' buffers need it: numbers in little-endian
//! order, rows first.
//!
//! Source: NumPy Enhancement Proposal 1, versions 1.0 to 3.0 of the format.

use anyhow::{bail, ensure, Context};
use std::fmt;

const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy's own limit on the number of dimensions.
const DIMENSIONS_MAX: usize = 64;
/// The data of a file that is written begins at a multiple of this.
const ALIGNMENT: usize = 64;

/// How an element is stored: NumPy's kind letter and the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// `f`, `u` or `i`.
    pub kind: char,
    /// Bytes of one element.
    pub bytes: usize,
}

impl Stored {
    const ALL: [(char, usize); 11] = [
        ('f', 2),
        ('f', 4),
        ('f', 8),
        ('u', 1),
        ('u', 2),
        ('u', 4),
        ('u', 8),
        ('i', 1),
        ('i', 2),
        ('i', 4),
        ('i', 8),
    ];

    /// The type that NumPy's description names, such as `<f4`.
    fn described(text: &str) -> Option<Stored> {
        let known = Stored::ALL.map(|(kind, bytes)| Stored { kind, bytes });
        known.into_iter().find(|stored| stored.description() == text)
    }

    fn description(self) -> String {
        format!("{}{self}", if self.bytes == 1 { '|' } else { '<' })
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind, self.bytes)
    }
}

/// An array as it is in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// How each element is stored.
    pub stored: Stored,
    /// Elements along each axis; empty for a scalar.
    pub shape: Vec<u64>,
    /// The elements, last axis fastest.
    pub data: Vec<u8>,
}

/// Bytes of an array, at least one element.
pub fn size(stored: Stored, shape: &[u64]) -> anyhow::Result<u64> {
    let elements = shape.iter().try_fold(1u64, |all, axis| all.checked_mul(*axis));
    let bytes = elements.and_then(|all| all.checked_mul(stored.bytes as u64));
    let Some(bytes) = bytes else { bail!("the shape {shape:?} overflows") };
    ensure!(bytes > 0, "the array has no elements");
    Ok(bytes)
}

impl Array {
    /// Reads a whole file; its header must account for every byte.
    pub fn parse(file: &[u8]) -> anyhow::Result<Array> {
        let (header, data) = split(file)?;
        let header = Header::parse(header)?;
        let bytes = size(header.stored, &header.shape)?;
        ensure!(
            bytes == data.len() as u64,
            "the header promises {bytes} bytes of data and {} follow; write the file anew",
            data.len()
        );
        Ok(Array { stored: header.stored, shape: header.shape, data: data.to_vec() })
    }

    /// The file with `data` in place of this array's own.
    pub fn file_with(&self, data: &[u8]) -> Vec<u8> {
        let axes: String = self.shape.iter().map(|axis| format!("{axis}, ")).collect();
        let axes = if self.shape.len() > 1 { axes.trim_end_matches(", ") } else { axes.trim_end() };
        let description = self.stored.description();
        let mut header =
            format!("{{'descr': '{description}', 'fortran_order': False, 'shape': ({axes}), }}");
        let before = MAGIC.len() + 4;
        let padded = (before + header.len() + 1).next_multiple_of(ALIGNMENT) - before - 1;
        header += &" ".repeat(padded - header.len());
        header.push('\n');
        // 64 axes of 20 digits fit the 16-bit length of version 1.0.
        let length = (header.len() as u16).to_le_bytes();
        [MAGIC, &[1, 0], &length, header.as_bytes(), data].concat()
    }
}

/// The header's text and the data after it.
fn split(file: &[u8]) -> anyhow::Result<(&str, &[u8])> {
    let rest = file.strip_prefix(MAGIC).context("this is no npy file: its first bytes differ")?;
    let (length_bytes, rest) = match rest {
        [1, _, rest @ ..] => (2, rest),
        [2 | 3, _, rest @ ..] => (4, rest),
        [major, ..] => bail!("version {major} of the npy format is not known"),
        [] => bail!("the file ends in its header"),
    };
    let length = rest.get(..length_bytes).context("the file ends in its header")?;
    let length = length.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let rest = &rest[length_bytes..];
    let header = rest.get(..length).context("the file ends in its header")?;
    Ok((std::str::from_utf8(header).context("the header is not text")?, &rest[length..]))
}

/// What the dictionary of a header says.
struct Header {
    stored: Stored,
    shape: Vec<u64>,
}

impl Header {
    fn parse(text: &str) -> anyhow::Result<Header> {
        let mut cursor = Cursor { rest: text };
        let (mut stored, mut shape, mut order) = (None, None, None);
        cursor.expect("{")?;
        while !cursor.take("}") {
            let key = cursor.string()?;
            cursor.expect(":")?;
            let known = match key {
                "descr" => stored.replace(cursor.stored()?).is_none(),
                "fortran_order" => order.replace(cursor.rows_first()?).is_none(),
                "shape" => shape.replace(cursor.shape()?).is_none(),
                _ => false,
            };
            ensure!(known, "the header has `{key}` twice or should not have it");
            if !cursor.take(",") {
                cursor.expect("}")?;
                break;
            }
        }
        ensure!(cursor.rest.trim().is_empty(), "text follows the header's dictionary");
        match (stored, shape, order) {
            (Some(stored), Some(shape), Some(())) => Ok(Header { stored, shape }),
            _ => bail!("the header lacks `descr`, `fortran_order` or `shape`"),
        }
    }
}

/// Reads the Python literals of a header.
struct Cursor<'t> {
    rest: &'t str,
}

impl<'t> Cursor<'t> {
    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, token: &str) -> anyhow::Result<()> {
        ensure!(self.take(token), "the header has no `{token}` where one is needed");
        Ok(())
    }

    fn string(&mut self) -> anyhow::Result<&'t str> {
        let quote = if self.take("\"") { "\"" } else { "'" };
        if quote == "'" {
            self.expect(quote).context("structured arrays are not kernel buffers")?;
        }
        let (text, rest) = self.rest.split_once(quote).context("a string does not end")?;
        self.rest = rest;
        Ok(text)
    }

    fn stored(&mut self) -> anyhow::Result<Stored> {
        let text = self.string()?;
        Stored::described(text).with_context(|| {
            let known = Stored::ALL.map(|(kind, bytes)| format!("{kind}{bytes}")).join(", ");
            format!("element type `{text}` is none of {known} in little-endian order")
        })
    }

    fn rows_first(&mut self) -> anyhow::Result<()> {
        ensure!(
            self.take("False"),
            "the array is in Fortran order; store numpy.ascontiguousarray of it"
        );
        Ok(())
    }

    fn shape(&mut self) -> anyhow::Result<Vec<u64>> {
        let mut shape = Vec::new();
        self.expect("(")?;
        while !self.take(")") {
            ensure!(shape.len() < DIMENSIONS_MAX, "more than {DIMENSIONS_MAX} dimensions");
            shape.push(self.number()?);
            if !self.take(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(shape)
    }

    fn number(&mut self) -> anyhow::Result<u64> {
        let text = self.rest.trim_start();
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        self.rest = &text[end..];
        text[..end].parse().context("the shape has something that is no size")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(kind: char, bytes: usize, shape: &[u64]) -> Array {
        let elements: u64 = shape.iter().product();
        let data = (0..elements as usize * bytes).map(|i| i as u8).collect();
        Array { stored: Stored { kind, bytes }, shape: shape.to_vec(), data }
    }

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let length = (header.len() as u16).to_le_bytes();
        [MAGIC, &[1, 0], &length, header.as_bytes(), data].concat()
    }

    #[test]
    fn what_is_written_reads_back_with_aligned_data() {
        for (kind, bytes) in Stored::ALL {
            for shape in [&[][..], &[3], &[2, 5], &[1, 2, 3, 4]] {
                let array = array(kind, bytes, shape);
                let file = array.file_with(&array.data);
                assert_eq!((file.len() - array.data.len()) % ALIGNMENT, 0);
                assert_eq!(Array::parse(&file).unwrap(), array);
            }
        }
    }

    #[test]
    fn the_header_is_written_as_numpy_writes_it() {
        let file = array('f', 4, &[3]).file_with(&[]);
        let dictionary = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }";
        assert_eq!(&file[10..10 + dictionary.len()], dictionary.as_bytes());
        assert_eq!((file.len(), file[127]), (128, b'\n'));
    }

    #[test]
    fn headers_that_do_not_explain_the_file_are_refused() {
        let good = "{'descr': '<u2', 'fortran_order': False, 'shape': (2,), }";
        assert!(Array::parse(&file(good, &[0; 4])).is_ok());
        for (header, part) in [
            (good.replace("(2,)", "(3,)"), "promises 6 bytes of data and 4 follow"),
            (good.replace("(2,)", "(0,)"), "no elements"),
            (good.replace("(2,)", "(9999999999, 9999999999)"), "overflows"),
            (good.replace("(2,)", "(-2,)"), "no size"),
            (good.replace("<u2", ">u2"), "`>u2` is none of"),
            (good.replace("False", "True"), "Fortran order"),
            (good.replace("'shape'", "'descr'"), "no `'`"),
            (good.replace("'shape': (2,), ", ""), "lacks"),
            (good.replace(", }", ""), "no `}`"),
        ] {
            let error = format!("{:#}", Array::parse(&file(&header, &[0; 4])).unwrap_err());
            assert!(error.contains(part), "{header}: {error}");
        }
        assert!(Array::parse(b"PK\x03\x04").is_err());
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        let array = array('i', 8, &[2, 2]);
        let file = array.file_with(&array.data);
        assert!((0..file.len()).all(|length| Array::parse(&file[..length]).is_err()));
    }
}
