//! A small interpreter of the programs that we make: what would the kernel answer?

use super::Machine;
use crate::sys::Instruction;

/// What the kernel would return (Documentation/networking/filter.rst). Panics where it would refuse the program.
pub(super) fn run(program: &[Instruction], machine: Machine, number: u32, arguments: [u64; 6]) -> u32 {
    let number = if machine == Machine::X32 { number | 0x4000_0000 } else { number };
    // struct seccomp_data: number, architecture, instruction pointer, arguments.
    let mut data = vec![number, machine.audit_number(), 0, 0];
    data.extend(arguments.iter().flat_map(|argument| [*argument as u32, (*argument >> 32) as u32]));
    let (mut accumulator, mut at) = (0u32, 0usize);
    loop {
        let Instruction { code, if_true, if_false, value } = program[at];
        at += 1;
        let holds = match code {
            0x20 => {
                accumulator = data[value as usize / 4];
                continue;
            }
            0x54 => {
                accumulator &= value;
                continue;
            }
            0x05 => {
                at += value as usize;
                continue;
            }
            0x06 => return value,
            0x15 => accumulator == value,
            0x25 => accumulator > value,
            0x35 => accumulator >= value,
            other => unreachable!("the compiler makes no instruction {other:#x}"),
        };
        at += usize::from(if holds { if_true } else { if_false });
    }
}
