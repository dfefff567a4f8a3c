//! What happened in a run, as a hash that two runs of a seed must share, and as text when somebody wants to read it.

use std::time::Duration;

/// A running hash of everything observable, with the lines themselves if asked for.
#[derive(Debug, Clone)]
pub struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: None,
        }
    }
}

impl Trace {
    /// Keeps the lines from now on.
    pub(super) fn keep_lines(&mut self) {
        self.lines.get_or_insert_default();
    }

    /// The hash so far: FNV over words of eight bytes. Not for secrets.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines so far; empty unless they were asked for.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }

    /// Adds one fact: what, on what, with what result, when.
    pub(super) fn add(&mut self, at: Duration, what: &str, on: &str, result: &str) {
        let millis = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        for bytes in [
            &millis.to_le_bytes(),
            what.as_bytes(),
            on.as_bytes(),
            result.as_bytes(),
            b"\n",
        ] {
            for word in bytes.chunks(8) {
                let mut padded = [0; 8];
                padded[..word.len()].copy_from_slice(word);
                let word = u64::from_le_bytes(padded);
                self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
                self.hash ^= self.hash >> 29;
            }
        }
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>9.3} s  {what} {on} {result}", at.as_secs_f64()));
        }
    }
}
