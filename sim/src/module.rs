//! A parsed and decoded PTX module.

use crate::decode;
use crate::error::SimError;
use crate::program::Program;
use crate::ptx::inline::inline;
use crate::ptx::parser;

/// The kernels of a PTX text, decoded and ready to run.
#[derive(Debug, Clone)]
pub struct Module {
    target: String,
    programs: Vec<Program>,
}

impl Module {
    /// Parses and decodes every kernel of a PTX text.
    ///
    /// # Errors
    /// With the line of the first thing that is not understood; nothing is ever skipped.
    pub fn parse(ptx: &str) -> Result<Module, SimError> {
        let syntax = parser::parse(ptx)?;
        let programs = syntax
            .kernels
            .iter()
            .map(|kernel| decode::lower(&syntax, &inline(&syntax, kernel)?))
            .collect::<Result<_, _>>()?;
        Ok(Module { target: syntax.target, programs })
    }

    /// Names of the kernels, in textual order.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        self.programs.iter().map(|program| program.name.as_str())
    }

    /// Text of `.target`, for example `sm_90a`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Number of PTX instructions of a kernel.
    pub fn instruction_count(&self, entry: &str) -> Option<usize> {
        // The decoder appends one exit for control that falls off the end.
        self.programs.iter().find(|p| p.name == entry).map(|p| p.code.len() - 1)
    }

    /// Static shared bytes of a kernel.
    pub fn static_shared_bytes(&self, entry: &str) -> Option<u32> {
        self.programs.iter().find(|p| p.name == entry).map(|p| p.static_shared_bytes)
    }

    pub(crate) fn program(&self, entry: &str) -> Result<&Program, SimError> {
        self.programs.iter().find(|p| p.name == entry).ok_or_else(|| SimError::UnknownEntry {
            name: entry.to_owned(),
            available: self.entries().collect::<Vec<_>>().join(", "),
        })
    }
}
