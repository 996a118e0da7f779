//! Frames between a worker and its parent: a JSON message, then bytes that belong to it.
//!
//! ```text
//! u32  length of the message     little endian
//! u64  length of the bytes
//! ...  message, bytes
//! ```
//!
//! A worker first writes [`GREETING`]. Whatever comes before it, such as a line of a library that
//! was loaded, is passed over.

use serde::de::DeserializeOwned;
use serde::Serialize;
use std::io::{self, Read, Write};

/// What a worker writes when it is ready.
pub(super) const GREETING: &[u8] = b"\n\x02qtune worker 1\x03\n";
/// Longest message. Launches list thread blocks, sources take some ten KiB.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Most bytes with a message: the largest buffer that is copied at once.
const BYTES_MAX: u64 = 16 << 30;
/// Noise before the greeting, at most.
const NOISE_BYTES_MAX: usize = 1 << 20;

/// Writes one frame.
pub(super) fn write(
    out: &mut impl Write,
    message: &impl Serialize,
    bytes: &[u8],
) -> io::Result<()> {
    let message = serde_json::to_vec(message).map_err(io::Error::other)?;
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&(bytes.len() as u64).to_le_bytes())?;
    out.write_all(&message)?;
    out.write_all(bytes)?;
    out.flush()
}

/// Reads one frame; an error at the end of input.
pub(super) fn read<T: DeserializeOwned>(input: &mut impl Read) -> io::Result<(T, Vec<u8>)> {
    let (mut length, mut count) = ([0; 4], [0; 8]);
    input.read_exact(&mut length)?;
    input.read_exact(&mut count)?;
    let (length, count) = (u32::from_le_bytes(length) as usize, u64::from_le_bytes(count));
    if length > MESSAGE_BYTES_MAX || count > BYTES_MAX {
        return Err(io::Error::other(format!("a frame of {length} and {count} bytes")));
    }
    let message = exactly(input, length as u64)?;
    let bytes = exactly(input, count)?;
    let message = serde_json::from_slice(&message).map_err(io::Error::other)?;
    Ok((message, bytes))
}

/// `count` bytes, allocated as they come in.
fn exactly(input: &mut impl Read, count: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let found = input.take(count).read_to_end(&mut bytes)?;
    if found as u64 == count {
        return Ok(bytes);
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Reads up to and including the greeting.
pub(super) fn await_greeting(input: &mut impl Read) -> io::Result<()> {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(GREETING) {
        input.read_exact(&mut byte)?;
        seen.push(byte[0]);
        if seen.len() > NOISE_BYTES_MAX {
            return Err(io::Error::other("it does not speak the protocol of workers"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_and_noise_before_the_greeting_is_passed_over() {
        let mut stream = b"running 1 test\n".to_vec();
        stream.extend_from_slice(GREETING);
        write(&mut stream, &("message", 7), b"bytes").unwrap();
        write(&mut stream, &("empty", 8), b"").unwrap();
        let mut input = stream.as_slice();
        await_greeting(&mut input).unwrap();
        let first: ((String, u32), Vec<u8>) = read(&mut input).unwrap();
        assert_eq!(first, (("message".into(), 7), b"bytes".to_vec()));
        let second: ((String, u32), Vec<u8>) = read(&mut input).unwrap();
        assert_eq!(second.1, b"");
        assert!(read::<()>(&mut input).is_err());
    }

    #[test]
    fn a_frame_that_is_cut_or_promises_too_much_is_an_error() {
        let mut frame = Vec::new();
        write(&mut frame, &1, b"bytes").unwrap();
        for length in 0..frame.len() {
            assert!(read::<u32>(&mut &frame[..length]).is_err());
        }
        frame[11] = 0xff;
        assert!(read::<u32>(&mut frame.as_slice()).is_err());
        assert!(await_greeting(&mut &[b'x'; 64][..]).is_err());
    }
}
