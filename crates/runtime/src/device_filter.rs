//! Rules for devices where version 1's controller is not: an eBPF program of type BPF_PROG_TYPE_CGROUP_DEVICE
//! (Documentation/admin-guide/cgroup-v2.rst, "Device controller"; the instruction set: Documentation/bpf/standardization).

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

// Offsets in struct bpf_cgroup_dev_ctx (linux/bpf.h); access in the high, kind in the low half of the first word.
const ACCESS_TYPE: i16 = 0;
const MAJOR: i16 = 4;
const MINOR: i16 = 8;
// BPF_DEVCG_*.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

// Registers: the context, then what it says, then scratch.
const CONTEXT: u8 = 1;
const KIND_REGISTER: u8 = 2;
const ACCESS_REGISTER: u8 = 3;
const MAJOR_REGISTER: u8 = 4;
const MINOR_REGISTER: u8 = 5;
const RESULT: u8 = 0;

/// One instruction: opcode, registers, offset, immediate.
fn instruction(code: u8, destination: u8, source: u8, offset: i16, value: i32) -> u64 {
    u64::from(code)
        | u64::from(destination | source << 4) << 8
        | u64::from(offset as u16) << 16
        | u64::from(value as u32) << 32
}

/// `register = *(u32 *)(context + offset)`.
fn load(register: u8, offset: i16) -> u64 {
    instruction(0x61, register, CONTEXT, offset, 0)
}

/// `return allow`.
fn answer(allow: bool) -> [u64; 2] {
    [instruction(0xb7, RESULT, 0, 0, i32::from(allow)), instruction(0x95, 0, 0, 0, 0)]
}

/// The program: the last rule that matches decides, and without any, nothing is allowed.
pub(crate) fn compile(rules: &[LinuxDeviceCgroup]) -> Vec<u64> {
    let mut program = vec![
        load(KIND_REGISTER, ACCESS_TYPE),
        load(ACCESS_REGISTER, ACCESS_TYPE),
        instruction(0x54, KIND_REGISTER, 0, 0, 0xffff),
        instruction(0x74, ACCESS_REGISTER, 0, 0, 16),
        load(MAJOR_REGISTER, MAJOR),
        load(MINOR_REGISTER, MINOR),
    ];
    for rule in rules.iter().rev() {
        let tests = tests(rule);
        let everything = tests.is_empty();
        // Each test falls through if it holds, and else jumps over what is left of the rule.
        let length = tests.len() + 2;
        for (at, (code, register, value)) in tests.into_iter().enumerate() {
            let over = if is_jump(code) { (length - at - 1) as i16 } else { 0 };
            program.push(instruction(code, register, if code == COPY { ACCESS_REGISTER } else { 0 }, over, value));
        }
        program.extend(answer(rule.allow()));
        if everything {
            return program;
        }
    }
    program.extend(answer(false));
    program
}

const COPY: u8 = 0xbc;
const JUMP_IF_DIFFERENT: u8 = 0x56;
const JUMP_IF_SAME: u8 = 0x16;
const AND: u8 = 0x54;

fn is_jump(code: u8) -> bool {
    matches!(code, JUMP_IF_DIFFERENT | JUMP_IF_SAME)
}

/// Opcode, register, value.
fn tests(rule: &LinuxDeviceCgroup) -> Vec<(u8, u8, i32)> {
    let mut tests = Vec::new();
    match rule.typ() {
        Some(LinuxDeviceType::B) => tests.push((JUMP_IF_DIFFERENT, KIND_REGISTER, BLOCK)),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => tests.push((JUMP_IF_DIFFERENT, KIND_REGISTER, CHARACTER)),
        // `a` is everything, whatever else the rule says, as in version 1.
        _ => return tests,
    }
    let letters = rule.access().as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
    let bit = |letter: char, bit: i32| if letters.contains(letter) { bit } else { 0 };
    let access = bit('r', READ) | bit('w', WRITE) | bit('m', MAKE);
    if access != READ | WRITE | MAKE {
        // An allowance must cover all that is asked; a refusal catches any of it.
        tests.push((COPY, RESULT, 0));
        tests.push((AND, RESULT, if rule.allow() { !access & 7 } else { access }));
        tests.push((if rule.allow() { JUMP_IF_DIFFERENT } else { JUMP_IF_SAME }, RESULT, 0));
    }
    for (number, register) in [(rule.major(), MAJOR_REGISTER), (rule.minor(), MINOR_REGISTER)] {
        if let Some(number) = number.filter(|number| *number >= 0) {
            tests.push((JUMP_IF_DIFFERENT, register, number as i32));
        }
    }
    tests
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[u64], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [(access << 16) | kind, major, minor];
        let (mut registers, mut at) = ([0i32; 8], 0usize);
        loop {
            let word = program[at];
            at += 1;
            let (destination, source) = ((word >> 8 & 15) as usize, (word >> 12 & 15) as usize);
            let (offset, value) = ((word >> 16) as i16, (word >> 32) as i32);
            let holds = match word as u8 {
                0x61 => {
                    registers[destination] = context[offset as usize / 4];
                    false
                }
                0x54 => {
                    registers[destination] &= value;
                    false
                }
                0x74 => {
                    registers[destination] = (registers[destination] as u32 >> value) as i32;
                    false
                }
                0xbc => {
                    registers[destination] = registers[source];
                    false
                }
                0xb7 => {
                    registers[destination] = value;
                    false
                }
                0x95 => return registers[0] != 0,
                0x56 => registers[destination] != value,
                0x16 => registers[destination] == value,
                other => panic!("instruction {other:#x}"),
            };
            if holds {
                at += offset as usize;
            }
        }
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(
            r#"[{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "access": "m"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
                {"allow": true, "type": "c", "major": 136, "access": "rw"},
                {"allow": false, "type": "c", "major": 136, "minor": 7, "access": "w"}]"#,
        )
        .unwrap();
        let program = compile(&rules);
        let ask = |kind, access, major, minor| run(&program, kind, access, major, minor);
        assert!(ask(CHARACTER, READ | WRITE, 1, 3));
        assert!(ask(CHARACTER, MAKE, 10, 1) && !ask(CHARACTER, READ, 10, 1));
        assert!(!ask(BLOCK, READ, 8, 0) && !ask(BLOCK, MAKE, 8, 0));
        assert!(ask(CHARACTER, READ | WRITE, 136, 5) && !ask(CHARACTER, READ | MAKE, 136, 5));
        assert!(!ask(CHARACTER, READ | WRITE, 136, 7) && ask(CHARACTER, READ, 136, 7));
        assert!(!run(&compile(&[]), CHARACTER, READ, 1, 3));
    }

    /// On the real kernel: its verifier takes the program, and it does what it says.
    #[test]
    fn the_kernel_takes_it() {
        let layout = crate::CgroupLayout::of_host().unwrap();
        let Some(unified) = layout.unified() else { return };
        let directory = unified.mount_point().join(format!("dozen-test-devices-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(
            r#"[{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "r"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}]"#,
        )
        .unwrap();
        let cgroup = std::fs::File::open(&directory).unwrap();
        let attached = crate::sys::attach_device_program(&cgroup, &compile(&rules));
        // Our own shell, moved there, may read zero, write null, and neither write zero nor read random.
        let script = format!(
            "echo $$ > {}/cgroup.procs; true < /dev/zero && true > /dev/null; echo $?; \
             (true > /dev/zero) 2>/dev/null; echo $?; (true < /dev/random) 2>/dev/null; echo $?",
            directory.display()
        );
        let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        std::fs::remove_dir(&directory).unwrap();
        attached.unwrap();
        let codes: Vec<bool> = String::from_utf8_lossy(&output.stdout).lines().map(|code| code == "0").collect();
        assert_eq!(codes, [true, false, false], "{output:?}");
    }
}
