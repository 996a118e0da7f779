//! The opcode table: nine bits of an instruction to its name and class.
//!
//! NVIDIA does not document the encoding. Bits 0 to 8 select the operation, bits 9 to 11 the form
//! of its operands. The table was read off `nvdisasm` 13.5 by disassembling every 12-bit value for
//! sm_80, 86, 89, 90a, 100a and 120a; `fixtures/opcodes.txt` keeps what it printed for the code of
//! real kernels, and a test compares the two. Graphics operations are left out on purpose.

use super::class::Class;

/// One operation.
#[derive(Debug, Clone, Copy)]
struct Row {
    op: u16,
    name: &'static str,
    class: Class,
    /// First and last compute capability with this meaning.
    sm: (u32, u32),
}

impl Row {
    const fn on(mut self, first: u32, last: u32) -> Row {
        self.sm = (first, last);
        self
    }
}

const fn row(op: u16, name: &'static str, class: Class) -> Row {
    Row { op, name, class, sm: (0, u32::MAX) }
}

/// Name and class of the operation whose low nine bits are `op` on compute capability `sm`;
/// `("?", Class::Other)` for what the table does not hold.
pub(super) fn lookup(op: u16, sm: u32) -> (&'static str, Class) {
    let first = TABLE.partition_point(|row| row.op < op);
    TABLE[first..]
        .iter()
        .take_while(|row| row.op == op)
        .find(|row| (row.sm.0..=row.sm.1).contains(&sm))
        .map_or(("?", Class::Other), |row| (row.name, row.class))
}

/// Sorted by operation.
#[rustfmt::skip] // One row a line, however long.
static TABLE: &[Row] = &[
    row(0x001, "PMTRIG", Class::Barrier),
    row(0x002, "MOV", Class::Alu),
    row(0x003, "P2R", Class::Alu),
    row(0x004, "R2P", Class::Alu),
    row(0x005, "CS2R", Class::Alu),
    row(0x006, "VOTE", Class::WarpVote),
    row(0x007, "SEL", Class::Alu),
    row(0x008, "FSEL", Class::Alu),
    row(0x009, "FMNMX", Class::Alu),
    row(0x00a, "FSET", Class::Alu),
    row(0x00b, "FSETP", Class::Alu),
    row(0x00c, "ISETP", Class::Alu),
    row(0x00d, "CSMTEST", Class::Alu),
    row(0x00f, "VIMNMX3", Class::Alu),
    row(0x010, "IADD3", Class::Alu),
    row(0x011, "LEA", Class::Alu),
    row(0x012, "LOP3", Class::Alu),
    row(0x013, "IABS", Class::Alu),
    row(0x014, "VABSDIFF", Class::Alu),
    row(0x015, "VABSDIFF4", Class::Alu),
    row(0x016, "PRMT", Class::Alu),
    row(0x017, "IMNMX", Class::Alu),
    row(0x019, "SHF", Class::Alu),
    row(0x01a, "SGXT", Class::Alu),
    row(0x01b, "BMSK", Class::Alu),
    row(0x01c, "PLOP3", Class::Alu),
    row(0x01d, "PLOP3", Class::Alu),
    row(0x01e, "PLOP3", Class::Alu),
    row(0x01f, "PLOP3", Class::Alu),
    row(0x020, "FMUL", Class::Fp32),
    row(0x021, "FADD", Class::Fp32),
    row(0x022, "FSWZADD", Class::Fp32),
    row(0x023, "FFMA", Class::Fp32),
    row(0x024, "IMAD", Class::Imad),
    row(0x025, "IMAD", Class::Imad),
    row(0x026, "IDP", Class::Imad),
    row(0x027, "IMAD", Class::Imad),
    row(0x028, "DMUL", Class::Fp64),
    row(0x029, "DADD", Class::Fp64),
    row(0x02a, "DSETP", Class::Fp64),
    row(0x02b, "DFMA", Class::Fp64),
    row(0x02c, "CLMAD", Class::Imad),
    row(0x02d, "PREEXIT", Class::Barrier),
    row(0x02e, "ACQBULK", Class::Barrier),
    row(0x02f, "ELECT", Class::WarpVote),
    row(0x030, "HADD2", Class::Half2),
    row(0x031, "HFMA2", Class::Half2),
    row(0x032, "HMUL2", Class::Half2),
    row(0x033, "HSET2", Class::Half2),
    row(0x034, "HSETP2", Class::Half2),
    row(0x035, "HFMA2.MMA", Class::Half2).on(0, 99),
    row(0x035, "IADD", Class::Alu).on(100, u32::MAX),
    row(0x036, "VIADD", Class::Alu),
    row(0x037, "IMMA", Class::Tensor),
    row(0x038, "I2I", Class::Alu),
    row(0x039, "I2IP", Class::Alu),
    row(0x03a, "MOVM", Class::Shuffle),
    row(0x03b, "LDSM", Class::MatrixLoad),
    row(0x03c, "HMMA", Class::Tensor),
    row(0x03d, "BMMA", Class::Tensor),
    row(0x03e, "F2FP", Class::Pack),
    row(0x03f, "DMMA", Class::Tensor),
    row(0x040, "HMNMX2", Class::Half2),
    row(0x043, "F2IP", Class::Pack),
    row(0x044, "STSM", Class::SharedStore),
    row(0x045, "I2FP", Class::Pack),
    row(0x046, "VIADDMNMX", Class::Alu),
    row(0x047, "VHMNMX", Class::Half2),
    row(0x048, "VIMNMX", Class::Alu),
    row(0x049, "FFMA2", Class::Fp32).on(100, 119),
    row(0x049, "UVIADD", Class::Uniform).on(120, u32::MAX),
    row(0x04a, "FMUL2", Class::Fp32).on(100, 119),
    row(0x04a, "UVIMNMX", Class::Uniform).on(120, u32::MAX),
    row(0x04b, "FADD2", Class::Fp32),
    row(0x04c, "UVIRTCOUNT", Class::Uniform),
    row(0x04d, "UIABS", Class::Uniform),
    row(0x04e, "UI2I", Class::Uniform),
    row(0x04f, "UI2IP", Class::Uniform),
    row(0x050, "UFMNMX", Class::Uniform),
    row(0x051, "UFSEL", Class::Uniform),
    row(0x052, "UFSET", Class::Uniform),
    row(0x053, "UFSETP", Class::Uniform),
    row(0x054, "UFADD", Class::Uniform),
    row(0x055, "UFFMA", Class::Uniform),
    row(0x056, "UFMUL", Class::Uniform),
    row(0x059, "UF2IP", Class::Uniform),
    row(0x05a, "UI2F", Class::Uniform),
    row(0x05b, "UF2F", Class::Uniform),
    row(0x05c, "UF2I", Class::Uniform),
    row(0x05e, "UI2FP", Class::Uniform),
    row(0x076, "FMNMX3", Class::Alu),
    row(0x077, "ACQSHMINIT", Class::Barrier),
    row(0x07a, "QMMA", Class::Tensor),
    row(0x07f, "OMMA", Class::Tensor),
    row(0x082, "UMOV", Class::Uniform),
    row(0x083, "UP2UR", Class::Uniform),
    row(0x084, "UR2UP", Class::Uniform),
    row(0x085, "UIMNMX", Class::Uniform),
    row(0x086, "VOTEU", Class::WarpVote),
    row(0x087, "USEL", Class::Uniform),
    row(0x08c, "UISETP", Class::Uniform),
    row(0x090, "UIADD3", Class::Uniform),
    row(0x091, "ULEA", Class::Uniform),
    row(0x092, "ULOP3", Class::Uniform),
    row(0x096, "UPRMT", Class::Uniform),
    row(0x097, "UIADD3", Class::Uniform),
    row(0x099, "USHF", Class::Uniform),
    row(0x09a, "USGXT", Class::Uniform),
    row(0x09b, "UBMSK", Class::Uniform),
    row(0x09c, "UPLOP3", Class::Uniform),
    row(0x09d, "UPLOP3", Class::Uniform),
    row(0x09e, "UPLOP3", Class::Uniform),
    row(0x09f, "UPLOP3", Class::Uniform),
    row(0x0a4, "UIMAD", Class::Uniform),
    row(0x0a5, "UIMAD", Class::Uniform),
    row(0x0a6, "UIMAD", Class::Uniform),
    row(0x0b8, "ULDC", Class::ConstantLoad),
    row(0x0b9, "ULDC", Class::ConstantLoad),
    row(0x0ba, "UF2FP", Class::Uniform),
    row(0x0bb, "ULDC", Class::ConstantLoad),
    row(0x0bc, "UCLEA", Class::Uniform),
    row(0x0bd, "UFLO", Class::Uniform),
    row(0x0be, "UBREV", Class::Uniform),
    row(0x0bf, "UPOPC", Class::Uniform),
    row(0x0ca, "R2UR", Class::Uniform),
    row(0x0cb, "CS2UR", Class::Uniform),
    row(0x0cc, "CREDUX", Class::WarpVote),
    row(0x100, "FLO", Class::Convert),
    row(0x101, "BREV", Class::Convert),
    row(0x102, "FCHK", Class::Fp32),
    row(0x104, "F2F", Class::Convert),
    row(0x105, "F2I", Class::Convert),
    row(0x106, "I2F", Class::Convert),
    row(0x107, "FRND", Class::Convert),
    row(0x108, "MUFU", Class::Sfu),
    row(0x109, "POPC", Class::Convert),
    row(0x110, "F2F", Class::Convert),
    row(0x111, "F2I", Class::Convert),
    row(0x112, "I2F", Class::Convert),
    row(0x113, "FRND", Class::Convert),
    row(0x118, "NOP", Class::Nop),
    row(0x119, "S2R", Class::SpecialRegister),
    row(0x11a, "DEPBAR", Class::Barrier),
    row(0x11b, "ENDCOLLECTIVE", Class::Barrier),
    row(0x11c, "B2R", Class::Barrier),
    row(0x11d, "BAR", Class::Barrier),
    row(0x13f, "CCTL", Class::Barrier),
    row(0x140, "CCTL", Class::Barrier),
    row(0x141, "BSYNC", Class::Branch),
    row(0x142, "BREAK", Class::Branch),
    row(0x143, "CALL", Class::Branch),
    row(0x144, "CALL", Class::Branch),
    row(0x145, "BSSY", Class::Branch),
    row(0x146, "YIELD", Class::Branch),
    row(0x147, "BRA", Class::Branch),
    row(0x148, "WARPSYNC", Class::Barrier),
    row(0x149, "BRX", Class::Branch),
    row(0x14a, "JMP", Class::Branch),
    row(0x14c, "JMX", Class::Branch),
    row(0x14d, "EXIT", Class::Branch),
    row(0x14e, "LEPC", Class::Branch),
    row(0x150, "RET", Class::Branch),
    row(0x152, "RPCMOV", Class::Branch),
    row(0x153, "RPCMOV", Class::Branch),
    row(0x154, "RPCMOV", Class::Branch),
    row(0x155, "BMOV", Class::Branch),
    row(0x156, "BMOV", Class::Branch),
    row(0x157, "BMOV", Class::Branch),
    row(0x158, "BRXU", Class::Branch),
    row(0x159, "JMXU", Class::Branch),
    row(0x15b, "KILL", Class::Branch),
    row(0x15c, "BPT", Class::Branch),
    row(0x15d, "NANOSLEEP", Class::Barrier),
    row(0x15e, "WARPGROUPSET", Class::Barrier),
    row(0x17e, "LDG", Class::GlobalLoad),
    row(0x17f, "STG", Class::GlobalStore),
    row(0x180, "LD", Class::GlobalLoad),
    row(0x181, "LDG", Class::GlobalLoad),
    row(0x182, "LDC", Class::ConstantLoad),
    row(0x183, "LDL", Class::LocalLoad),
    row(0x184, "LDS", Class::SharedLoad),
    row(0x185, "ST", Class::GlobalStore),
    row(0x186, "STG", Class::GlobalStore),
    row(0x187, "STL", Class::LocalStore),
    row(0x188, "STS", Class::SharedStore),
    row(0x189, "SHFL", Class::Shuffle),
    row(0x18a, "ATOM", Class::GlobalAtomic),
    row(0x18b, "ATOM", Class::GlobalAtomic),
    row(0x18c, "ATOMS", Class::SharedAtomic),
    row(0x18d, "ATOMS", Class::SharedAtomic),
    row(0x18e, "RED", Class::GlobalAtomic).on(0, 89),
    row(0x18e, "REDG", Class::GlobalAtomic).on(90, u32::MAX),
    row(0x18f, "CCTL", Class::Barrier),
    row(0x190, "CCTLL", Class::Barrier),
    row(0x192, "MEMBAR", Class::Barrier),
    row(0x1a1, "MATCH", Class::WarpVote),
    row(0x1a2, "ATOM", Class::GlobalAtomic),
    row(0x1a3, "ATOMG", Class::GlobalAtomic),
    row(0x1a4, "LDGMC", Class::GlobalLoad),
    row(0x1a5, "LDGMC", Class::GlobalLoad),
    row(0x1a6, "REDG", Class::GlobalAtomic),
    row(0x1a7, "SYNCS", Class::Barrier),
    row(0x1a8, "ATOMG", Class::GlobalAtomic),
    row(0x1a9, "ATOMG", Class::GlobalAtomic),
    row(0x1ab, "ERRBAR", Class::Barrier),
    row(0x1ac, "LDCU", Class::ConstantLoad),
    row(0x1ae, "LDGSTS", Class::AsyncCopy),
    row(0x1af, "LDGDEPBAR", Class::Barrier),
    row(0x1b0, "ARRIVES", Class::Barrier),
    row(0x1b1, "SYNCS", Class::Barrier),
    row(0x1b2, "SYNCS", Class::Barrier),
    row(0x1b4, "UTMALDG", Class::BulkCopy),
    row(0x1b5, "UTMASTG", Class::BulkCopy),
    row(0x1b6, "UTMAREDG", Class::BulkCopy),
    row(0x1b7, "UTMACMDFLUSH", Class::Barrier),
    row(0x1b8, "UTMAPF", Class::BulkCopy),
    row(0x1b9, "UTMACCTL", Class::BulkCopy),
    row(0x1ba, "UBLKCP", Class::BulkCopy),
    row(0x1bb, "UBLKRED", Class::BulkCopy),
    row(0x1bc, "UBLKPF", Class::BulkCopy),
    row(0x1bd, "STAS", Class::BulkCopy),
    row(0x1be, "REDAS", Class::BulkCopy),
    row(0x1c0, "GETLMEMBASE", Class::SpecialRegister),
    row(0x1c1, "SETLMEMBASE", Class::SpecialRegister),
    row(0x1c2, "R2UR", Class::Uniform),
    row(0x1c3, "S2UR", Class::SpecialRegister),
    row(0x1c4, "REDUX", Class::WarpVote),
    row(0x1c5, "WARPGROUP", Class::Barrier),
    row(0x1c6, "FENCE", Class::Barrier),
    row(0x1c7, "UCGABAR", Class::Barrier),
    row(0x1c8, "USETMAXREG", Class::Barrier),
    row(0x1ce, "ULEPC", Class::Branch),
    row(0x1ea, "UTCHMMA", Class::TensorGroup),
    row(0x1f0, "HGMMA", Class::TensorGroup),
    row(0x1f1, "IGMMA", Class::TensorGroup),
    row(0x1f2, "BGMMA", Class::TensorGroup),
    row(0x1f3, "QGMMA", Class::TensorGroup),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_no_operation_has_two_meanings_on_one_gpu() {
        for pair in TABLE.windows(2) {
            let [a, b] = pair else { unreachable!("windows of two") };
            let apart = a.op < b.op || (a.op == b.op && a.sm.1 < b.sm.0);
            assert!(apart, "{a:?} {b:?}");
        }
        assert!(TABLE.iter().all(|row| row.op < 0x200));
    }

    /// Lines are `<12-bit opcode> <name> <compute capabilities>`.
    #[test]
    fn the_table_agrees_with_nvdisasm_on_every_opcode_of_the_sample_kernels() {
        let listing = include_str!("fixtures/opcodes.txt");
        let mut checked = 0;
        for line in listing.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            let opcode = words.next().and_then(|w| u16::from_str_radix(w, 16).ok());
            let (Some(opcode), Some(name)) = (opcode, words.next()) else { panic!("{line}") };
            for sm in words {
                let sm = sm.parse().expect("a compute capability");
                let (ours, class) = lookup(opcode & 0x1ff, sm);
                // One row stands for the thread-block and the cluster form, for arrive and wait;
                // and the table names the pipe where nvdisasm does in a suffix.
                let name = name.strip_prefix("CGA").unwrap_or(name).split('_').next();
                assert_eq!(ours.split('.').next(), name, "{line} on sm_{sm}");
                assert_ne!(class, Class::Other, "{line}");
                checked += 1;
            }
        }
        assert!(checked > 800, "only {checked}");
    }

    #[test]
    fn one_code_means_half2_on_hopper_and_an_add_on_blackwell() {
        assert_eq!(lookup(0x035, 90), ("HFMA2.MMA", Class::Half2));
        assert_eq!(lookup(0x035, 120), ("IADD", Class::Alu));
        assert_eq!(lookup(0x0fe, 90), ("?", Class::Other));
    }
}
