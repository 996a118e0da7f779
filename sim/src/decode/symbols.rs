//! Addresses of variables and parameters: where each state space puts its symbols.

use std::collections::{HashMap, HashSet};

use crate::address;
use crate::error::SimError;
use crate::program::{Space, StaticData};
use crate::ptx::ast::{
    Kernel, ModuleSyntax, Operand, Parameter, Statement, Variable, VariableSpace,
};

/// Address of a symbol within its state space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SymbolAddress {
    pub space: Space,
    pub address: u64,
}

/// Sizes and contents of the state spaces of one kernel.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub static_shared_bytes: u64,
    pub dynamic_shared_offset: u64,
    pub local_bytes: u64,
    pub constant_bank: Vec<u8>,
    pub globals: Vec<StaticData>,
    pub parameters: Vec<(u32, u32)>,
    pub parameter_bytes: u32,
    /// Symbols visible in the whole kernel: module variables and parameters.
    pub symbols: HashMap<String, SymbolAddress>,
    /// Variables declared inside the body, in statement order.
    pub body_addresses: Vec<SymbolAddress>,
}

fn align_up(value: u64, align: u64) -> u64 {
    value.div_ceil(align) * align
}

/// Lays out everything a kernel can name.
pub(super) fn layout(module: &ModuleSyntax, kernel: &Kernel) -> Result<Layout, SimError> {
    let mut layout = Layout::default();
    layout.place_parameters(&kernel.parameters)?;
    let mut names = HashSet::new();
    let mut locals = Vec::new();
    collect(&kernel.body, &mut names, &mut locals);
    for variable in &module.variables {
        let dynamic = variable.space == VariableSpace::Shared && variable.bytes == 0;
        if names.contains(variable.name.as_str()) && !dynamic {
            let address = layout.place(variable)?;
            layout.symbols.insert(variable.name.clone(), address);
        }
    }
    for variable in locals {
        let address = layout.place(variable)?;
        layout.body_addresses.push(address);
    }
    layout.place_dynamic(module);
    Ok(layout)
}

fn collect<'a>(
    body: &'a [Statement],
    names: &mut HashSet<&'a str>,
    variables: &mut Vec<&'a Variable>,
) {
    for statement in body {
        match statement {
            Statement::Scope(inner) => collect(inner, names, variables),
            Statement::Variable(variable) => variables.push(variable),
            Statement::Instruction(i) => i.operands.iter().for_each(|o| operand_names(o, names)),
            Statement::Registers(_) | Statement::Label { .. } | Statement::BranchTargets { .. } => {
            }
        }
    }
}

fn operand_names<'a>(operand: &'a Operand, names: &mut HashSet<&'a str>) {
    match operand {
        Operand::Name(name) | Operand::SymbolOffset { name, .. } => {
            names.insert(name);
        }
        Operand::Vector(elements) => elements.iter().for_each(|o| operand_names(o, names)),
        Operand::Address { base, more, .. } => {
            operand_names(base, names);
            more.iter().for_each(|o| operand_names(o, names));
        }
        _ => {}
    }
}

impl Layout {
    fn place_parameters(&mut self, parameters: &[Parameter]) -> Result<(), SimError> {
        let mut offset = 0u64;
        for parameter in parameters {
            offset = align_up(offset, parameter.align);
            // 32,764 bytes is the limit of PTX ISA 8.1 and later.
            if offset + parameter.bytes > 32_764 {
                return Err(SimError::parse(0, "kernel parameters exceed 32764 bytes"));
            }
            self.parameters.push((offset as u32, parameter.bytes as u32));
            self.symbols.insert(
                parameter.name.clone(),
                SymbolAddress { space: Space::Param, address: offset },
            );
            offset += parameter.bytes;
        }
        self.parameter_bytes = offset as u32;
        Ok(())
    }

    fn place(&mut self, variable: &Variable) -> Result<SymbolAddress, SimError> {
        let space = match variable.space {
            VariableSpace::Shared => Space::Shared,
            VariableSpace::Local => Space::Local,
            VariableSpace::Const => Space::Const,
            VariableSpace::Global => return Ok(self.place_global(variable)),
        };
        if variable.init.is_some() && space != Space::Const {
            return Err(SimError::parse(
                variable.line,
                "only global and constant data have values",
            ));
        }
        let mut constant_bytes = self.constant_bank.len() as u64;
        let size = match space {
            Space::Shared => &mut self.static_shared_bytes,
            Space::Local => &mut self.local_bytes,
            _ => &mut constant_bytes,
        };
        let address = align_up(*size, variable.align);
        *size = address + variable.bytes;
        if *size > address::MAX_SMALL_SPACE_BYTES {
            return Err(SimError::parse(
                variable.line,
                format!("variables of `{space:?}` space take {size} bytes"),
            ));
        }
        if space == Space::Const {
            self.constant_bank.resize(constant_bytes as usize, 0);
            if let Some(init) = &variable.init {
                self.constant_bank[address as usize..][..init.len()].copy_from_slice(init);
            }
        }
        Ok(SymbolAddress { space, address })
    }

    fn place_global(&mut self, variable: &Variable) -> SymbolAddress {
        let mut bytes = variable.init.clone().unwrap_or_default();
        bytes.resize(variable.bytes as usize, 0);
        let address = address::static_buffer(self.globals.len());
        self.globals.push(StaticData { name: variable.name.clone(), bytes });
        SymbolAddress { space: Space::Global, address }
    }

    /// Dynamic shared memory starts after the static part, at the declared alignment.
    fn place_dynamic(&mut self, module: &ModuleSyntax) {
        let dynamic: Vec<&Variable> = module
            .variables
            .iter()
            .filter(|v| v.space == VariableSpace::Shared && v.bytes == 0)
            .collect();
        let align = dynamic.iter().map(|v| v.align).max().unwrap_or(16).max(16);
        self.dynamic_shared_offset = align_up(self.static_shared_bytes, align);
        for variable in dynamic {
            self.symbols.insert(
                variable.name.clone(),
                SymbolAddress { space: Space::Shared, address: self.dynamic_shared_offset },
            );
        }
    }
}
