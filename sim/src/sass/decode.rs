//! One 16-byte instruction to its fields.
//!
//! Fields of the encoding used since sm_70 (bit numbers of the 128-bit word, checked against
//! `nvdisasm` for sm_80 to sm_120):
//!
//! | bits | field |
//! |---|---|
//! | 0-8 | operation |
//! | 9-11 | form of the operands |
//! | 12-14, 15 | guard predicate (7 = always), negated |
//! | 16-23, 34-81 | branch offset in words of 4 bytes; bits 16-23 from sm_90 on only |
//! | 73-75 | width of a load or store |
//! | 87-90 | second predicate of a branch |
//! | 105-108 | stall cycles before the next instruction of the warp |
//! | 110-112, 113-115, 116-121 | barrier set on write, on read, mask of barriers waited for |

use super::class::Class;
use super::opcode::lookup;
use serde::{Deserialize, Serialize};

/// Bytes of one instruction.
pub const INSTRUCTION_BYTES: u32 = 16;
/// First generation whose branch offsets have their low eight bits in bits 16 to 23.
const SPLIT_OFFSET_SM: u32 = 90;
/// Operation codes (bits 0 to 8) that the flow analysis has to know.
const OP_BRA: u16 = 0x147;
const OP_BRX: u16 = 0x149;
const OP_JMP: u16 = 0x14a;
const OP_JMX: u16 = 0x14c;
const OP_EXIT: u16 = 0x14d;
const OP_RET: u16 = 0x150;
const OP_BRXU: u16 = 0x158;
const OP_JMXU: u16 = 0x159;

/// The predicate that decides whether a lane executes an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Predicate register; 7 is the constant true.
    pub predicate: u8,
    /// Whether the predicate is negated.
    pub negated: bool,
}

impl Guard {
    /// Executed by every lane.
    pub fn always(self) -> bool {
        self.predicate == 7 && !self.negated
    }

    /// Executed by no lane: how the assembler writes the no-ops that work around hardware faults.
    pub fn never(self) -> bool {
        self.predicate == 7 && self.negated
    }
}

/// Where control goes after an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flow {
    /// To the next instruction. Calls count as this: they come back.
    Next,
    /// To this byte offset.
    Jump(u32),
    /// To this byte offset or the next instruction.
    Branch(u32),
    /// Out of the kernel, or to a computed address.
    Leave,
    /// Out of the kernel or to a computed address for some lanes, on to the next for others.
    LeaveSome,
}

/// One decoded instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Byte offset in the kernel's text.
    pub pc: u32,
    /// Bits 0 to 11: operation and operand form, as the tables of opcodes print it.
    pub opcode: u16,
    /// Mnemonic without modifiers, `?` if unknown.
    pub name: &'static str,
    /// What it occupies.
    pub class: Class,
    /// Who executes it.
    pub guard: Guard,
    /// Cycles until the warp's next instruction may issue.
    pub stall: u8,
    /// Scoreboard barriers (a bit each) that it waits for.
    pub wait_mask: u8,
    /// Bytes per lane of a load or store of global, shared or local memory; `None` for anything
    /// else and for widths in another encoding (`LDGSTS`, matrix loads, 256-bit loads).
    pub bytes_per_lane: Option<u8>,
    /// Where control goes next.
    pub flow: Flow,
}

impl Instruction {
    /// Decodes the instruction at `pc` of a kernel for compute capability `sm`.
    pub(super) fn decode(pc: u32, bytes: [u8; 16], sm: u32) -> Instruction {
        let word = u128::from_le_bytes(bytes);
        let field = |at: u32, len: u32| (word >> at & ((1 << len) - 1)) as u64;
        let opcode = field(0, 12) as u16;
        let (name, class) = lookup(opcode & 0x1ff, sm);
        let guard = Guard { predicate: field(12, 3) as u8, negated: field(15, 1) == 1 };
        Instruction {
            pc,
            opcode,
            name,
            class,
            guard,
            stall: field(105, 4) as u8,
            wait_mask: field(116, 6) as u8,
            bytes_per_lane: bytes_per_lane(opcode & 0x1ff, class, field(73, 3)),
            flow: flow(pc, opcode, word, guard, sm),
        }
    }

    /// Whether it is one of the instructions that do nothing: no lane executes it.
    pub fn is_workaround(&self) -> bool {
        self.guard.never()
    }
}

fn bytes_per_lane(op: u16, class: Class, width: u64) -> Option<u8> {
    // LDG and STG of 256 bits have operations of their own, with another width field.
    const LDG_256: u16 = 0x17e;
    const STG_256: u16 = 0x17f;
    const STSM: u16 = 0x044;
    let plain = matches!(
        class,
        Class::GlobalLoad
            | Class::GlobalStore
            | Class::SharedLoad
            | Class::SharedStore
            | Class::LocalLoad
            | Class::LocalStore
    );
    if !plain || [LDG_256, STG_256, STSM].contains(&op) {
        return None;
    }
    [1, 1, 2, 2, 4, 8, 16].get(width as usize).copied()
}

fn flow(pc: u32, opcode: u16, word: u128, guard: Guard, sm: u32) -> Flow {
    if guard.never() {
        return Flow::Next;
    }
    match opcode & 0x1ff {
        OP_BRA | OP_JMP => {
            let target = branch_target(pc, word, sm);
            // Beside the guard a branch has a second predicate and a mode (uniform, divergent);
            // only the plain form with both predicates true always jumps.
            let plain = opcode == 0x947 && word >> 32 & 3 == 0 && word >> 87 & 0xf == 7;
            match target {
                Some(target) if plain && guard.always() => Flow::Jump(target),
                Some(target) => Flow::Branch(target),
                None => Flow::LeaveSome,
            }
        }
        OP_EXIT | OP_RET | OP_BRX | OP_JMX | OP_BRXU | OP_JMXU => {
            if guard.always() && word >> 87 & 0xf == 7 {
                Flow::Leave
            } else {
                Flow::LeaveSome
            }
        }
        _ => Flow::Next,
    }
}

/// Byte offset that a branch goes to, `None` if it lies before the kernel's start.
fn branch_target(pc: u32, word: u128, sm: u32) -> Option<u32> {
    let high = (word >> 34 & ((1 << 48) - 1)) as i64;
    let (words, bits) = if sm >= SPLIT_OFFSET_SM {
        (high << 8 | (word >> 16 & 0xff) as i64, 56)
    } else {
        (high, 48)
    };
    let signed = words << (64 - bits) >> (64 - bits);
    let next = i64::from(pc) + i64::from(INSTRUCTION_BYTES);
    u32::try_from(next.checked_add(signed.checked_mul(4)?)?).ok()
}
