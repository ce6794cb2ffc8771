//! The compiler against the rules that it compiled, by way of the interpreter.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg};
use proptest::prelude::*;

use super::interpret::run;
use super::*;

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
/// The capabilities of an ordinary container: enough for these tests that SYS_ADMIN is not among them.
const ORDINARY: u64 = 0x0400_0001;

/// The rules read one by one, as a person would. `numbers` are those of each.
fn expect(spec: &LinuxSeccomp, numbers: &[Vec<u32>], machine: Machine, number: u32, arguments: [u64; 6]) -> u32 {
    let default = spec.default_action().as_u32(spec.default_errno_ret());
    let rules = spec.syscalls().as_deref().unwrap_or_default();
    let machine_bits = if machine.has_32_bits() { u64::from(u32::MAX) } else { u64::MAX };
    let known = numbers.iter().flatten();
    let highest = known.clone().filter(|number| **number < OWN).max();
    if highest.is_some_and(|highest| number > *highest && known.clone().all(|known| *known != number))
        && default & 0xffff_0000 == 0x0005_0000
    {
        return NOT_IMPLEMENTED;
    }
    let holds = |argument: &LinuxSeccompArg| {
        let (value, wanted) = (arguments[argument.index()] & machine_bits, argument.value() & machine_bits);
        match argument.op() {
            Operator::ScmpCmpNe => value != wanted,
            Operator::ScmpCmpLt => value < wanted,
            Operator::ScmpCmpLe => value <= wanted,
            Operator::ScmpCmpEq => value == wanted,
            Operator::ScmpCmpGe => value >= wanted,
            Operator::ScmpCmpGt => value > wanted,
            Operator::ScmpCmpMaskedEq => value & wanted == argument.value_two().unwrap_or(0) & machine_bits,
        }
    };
    let of_number: Vec<&LinuxSyscall> = rules
        .iter()
        .zip(numbers)
        .filter(|(rule, numbers)| numbers.contains(&number) && rule.action().as_u32(rule.errno_ret()) != default)
        .map(|(rule, _)| rule)
        .collect();
    let arguments_of = |rule: &LinuxSyscall| rule.args().clone().unwrap_or_default();
    let chosen = of_number
        .iter()
        .find(|rule| arguments_of(rule).is_empty())
        .or_else(|| of_number.iter().find(|rule| arguments_of(rule).iter().all(holds)));
    // socketcall(2) and ipc(2) of x86 make the calls that rules name.
    let made = |name: &str| match (machine, number, name) {
        (Machine::X86, 102, "socket") => arguments[0] == 1,
        (Machine::X86, 102, "sendmmsg") => arguments[0] == 20,
        (Machine::X86, 117, "shmget") => arguments[0] & 0xffff == 23,
        _ => false,
    };
    let by_another = || {
        let makes = |rule: &&LinuxSyscall| arguments_of(rule).is_empty() && rule.names().iter().any(|name| made(name));
        rules.iter().find(|rule| rule.action().as_u32(rule.errno_ret()) != default && makes(rule))
    };
    let chosen = chosen.copied().or_else(by_another);
    chosen.map_or(default, |rule| rule.action().as_u32(rule.errno_ret()))
}

fn machines(spec: &LinuxSeccomp) -> impl Iterator<Item = Machine> {
    spec.architectures().iter().flatten().filter_map(|arch| Machine::of(*arch))
}

fn check_all(spec: &LinuxSeccomp, arguments: [u64; 6]) {
    let filter = compile(spec).unwrap();
    for machine in machines(spec) {
        let rules = spec.syscalls().iter().flatten();
        let numbers: Vec<Vec<u32>> =
            rules.map(|rule| rule.names().iter().filter_map(|name| machine.number(name)).collect()).collect();
        for number in (0..600).chain(OWN..OWN + 8) {
            // A register of 32 bits is all that there is of an argument there.
            let arguments = if machine.has_32_bits() { arguments.map(|value| value & 0xffff_ffff) } else { arguments };
            let result = run(&filter.program, machine, number, arguments);
            assert_eq!(
                result,
                expect(spec, &numbers, machine, number, arguments),
                "{machine:?} {number} {arguments:x?}"
            );
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_default_profile_means_what_it_says() {
    for capabilities in [0, ORDINARY, crate::capability::ALL] {
        let spec = default_profile(capabilities);
        for first in [0, 12, 38, 0x20000, 1 << 32, 0x1000_0000] {
            check_all(&spec, [first, 0, 0, 0, 0, 0]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn known_answers_of_the_default_profile() {
    let program = compile(&default_profile(ORDINARY)).unwrap().program;
    let ask = |name: &str, first: u64| {
        run(&program, Machine::X86_64, Machine::X86_64.number(name).unwrap(), [first, 0, 0, 0, 0, 0])
    };
    for name in ["read", "execve", "openat", "ptrace", "capset", "mknodat", "futex", "rseq", "statx"] {
        assert_eq!(ask(name, 0), ALLOW, "{name}");
    }
    for name in [
        "mount",
        "unshare",
        "setns",
        "bpf",
        "keyctl",
        "add_key",
        "io_uring_setup",
        "kexec_load",
        "userfaultfd",
        "open_by_handle_at",
        "init_module",
        "reboot",
        "chroot",
    ] {
        assert_eq!(ask(name, 0), EPERM, "{name}");
    }
    assert_eq!((ask("socket", 2), ask("socket", 40), ask("socket", 38)), (ALLOW, EPERM, EPERM));
    assert_eq!((ask("clone", 0x11), ask("clone", 0x1000_0011)), (ALLOW, EPERM));
    assert_eq!(ask("clone3", 0), NOT_IMPLEMENTED);
    assert_eq!(run(&program, Machine::X86_64, 900, [0; 6]), NOT_IMPLEMENTED);
    assert_eq!(run(&program, Machine::Aarch64, 0, [0; 6]), FOREIGN_ARCHITECTURE);
    // The kernel reads, checks and translates it at every start.
    assert!(program.len() < 1000, "{}", program.len());
    let admin = compile(&default_profile(crate::capability::ALL)).unwrap().program;
    assert_eq!(run(&admin, Machine::X86_64, Machine::X86_64.number("mount").unwrap(), [0; 6]), ALLOW);
}

#[test]
fn every_name_of_the_default_profile_is_known() {
    for rule in default_profile(crate::capability::ALL).syscalls().iter().flatten() {
        for name in rule.names() {
            let numbers =
                [Machine::X86_64, Machine::X86, Machine::Aarch64, Machine::Arm].map(|machine| machine.number(name));
            assert!(numbers.iter().any(Option::is_some), "{name}");
        }
    }
    assert!(table::TABLE.is_sorted_by_key(|(name, _)| *name));
}

#[test]
fn profiles_that_cannot_be_used_are_refused() {
    for bad in [
        "",
        "{}",
        r#"{"defaultAction": "SCMP_ACT_NOPE"}"#,
        r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "mkdir", "action": "SCMP_ACT_NOTIFY"}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a",
            "syscalls": [{"names": ["mkdir", "sendmsg"], "action": "SCMP_ACT_NOTIFY"}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a",
            "syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOPE"]}"#,
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 65536}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "unknown": 1}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a", "names": ["b"], "action": "SCMP_ACT_ALLOW"}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#,
    ] {
        assert!(check_profile(bad).is_err(), "{bad}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_users_profile_depends_on_capabilities() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []}],
        "syscalls": [{"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}},
                     {"names": ["mseal"], "action": "SCMP_ACT_ALLOW"},
                     {"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                     {"names": ["write"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}}]}"#;
    let ask = |capabilities, name: &str| {
        let program = compile(&resolve_profile(profile, capabilities).unwrap()).unwrap().program;
        run(&program, Machine::X86_64, Machine::X86_64.number(name).unwrap(), [0; 6])
    };
    assert_eq!((ask(0, "chroot"), ask(1 << 18, "chroot"), ask(0, "read")), (EPERM, ALLOW, ALLOW));
    assert_ne!(ask(0, "write"), ALLOW);
}

#[test]
fn a_filter_that_asks_has_a_listener() {
    let spec = |change: serde_json::Value| {
        let mut spec = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent", "listenerMetadata": "m",
            "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"]});
        spec["syscalls"] = change;
        compile(&serde_json::from_value(spec).unwrap()).unwrap()
    };
    let asking = spec(serde_json::json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]));
    assert_eq!(asking.listener, Some(Listener { path: "/agent".into(), metadata: Some("m".to_owned()) }));
    assert_eq!(asking.flags, sys::NEW_LISTENER | 32 | 2);
    // A path alone asks nobody.
    let quiet = spec(serde_json::json!([]));
    assert_eq!((quiet.listener, quiet.flags), (None, 2));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn programs_of_32_bits_are_filtered_too() {
    let spec = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_MIPS"], "syscalls": [
        {"names": ["connect", "shmget"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": u64::MAX, "op": "SCMP_CMP_EQ"}]},
    ]});
    let program = compile(&serde_json::from_value(spec).unwrap()).unwrap().program;
    let ask = |name: &str, first: u64| {
        run(&program, Machine::X86, Machine::X86.number(name).unwrap(), [first, 0, 0, 0, 0, 0])
    };
    assert_eq!((ask("connect", 0), ask("socketcall", 3), ask("socketcall", 1)), (EPERM, EPERM, ALLOW));
    assert_eq!((ask("shmget", 0), ask("ipc", 23), ask("ipc", 0x1_0017), ask("ipc", 1)), (EPERM, EPERM, EPERM, ALLOW));
    assert_eq!((ask("personality", 0xffff_ffff), ask("personality", 0)), (EPERM, ALLOW));
    // x32 is not listed, and MIPS is not a machine of ours.
    assert_eq!(run(&program, Machine::X32, 0, [0; 6]), FOREIGN_ARCHITECTURE);
}

/// Arm's own calls lie above all that a profile could not know.
#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_arms_own_are_not_taken_for_newer_ones() {
    let all = |rules: serde_json::Value| {
        let spec = serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_ARM"], "syscalls": rules});
        let program = compile(&serde_json::from_value(spec).unwrap()).unwrap().program;
        [300, 400, 0xf_0002, 0xf_0005, 0xf_0007].map(|number| run(&program, Machine::Arm, number, [0; 6]))
    };
    let rule = |names: &[&str], action: &str| serde_json::json!({"names": names, "action": action});
    let (allow, errno) = ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO");
    let unknown = NOT_IMPLEMENTED;
    // 397 is the highest that is named beside them.
    let known = ["statx", "set_tls"];
    assert_eq!(all(serde_json::json!([rule(&known, allow)])), [EPERM, unknown, unknown, ALLOW, unknown]);
    assert_eq!(all(serde_json::json!([rule(&known, errno)])), [EPERM, unknown, unknown, EPERM, unknown]);
    let both = serde_json::json!([rule(&known, errno), rule(&known, allow)]);
    assert_eq!(all(both), [EPERM, unknown, unknown, ALLOW, unknown]);
}

fn any_rule() -> impl Strategy<Value = serde_json::Value> {
    const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let value = prop_oneof![0u64..4, Just(1 << 32), Just(u64::MAX), Just(0xffff_ffff)];
    let argument = (0u64..3, value.clone(), value, proptest::sample::select(&OPERATORS[..]));
    let names = proptest::sample::subsequence(
        vec!["read", "pread64", "open", "socket", "sendmmsg", "shmget", "clone3", "mseal", "set_tls"],
        1..3,
    );
    (names, proptest::collection::vec(argument, 0..3), prop_oneof!["ALLOW", "ALLOW", "KILL_PROCESS", "KILL_THREAD", "TRAP", "TRACE", "ERRNO", "NOTIFY", "LOG"], proptest::option::of(0u32..3)).prop_map(
        |(names, mut arguments, action, errno)| {
            arguments.sort_by_key(|argument| argument.0);
            arguments.dedup_by_key(|argument| argument.0);
            let arguments: Vec<_> = arguments
                .iter()
                .map(|(index, value, two, op)| serde_json::json!({"index": index, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{op}")}))
                .collect();
            let mut rule = serde_json::json!({"names": names, "args": arguments, "action": format!("SCMP_ACT_{action}")});
            if let Some(errno) = errno {
                rule["errnoRet"] = errno.into();
            }
            rule
        },
    )
}

#[cfg(target_arch = "x86_64")]
proptest! {
    #[test]
    fn any_profile_means_what_it_says(
        rules in proptest::collection::vec(any_rule(), 0..6),
        arguments in proptest::array::uniform6(prop_oneof![0u64..4, Just(20), Just(23), Just(0x1_0017), Just(1 << 32), Just(u64::MAX), any::<u64>()]),
    ) {
        let spec = serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules, "listenerPath": "/agent",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]});
        check_all(&serde_json::from_value(spec).unwrap(), arguments);
    }
}

#[test]
fn a_filter_lets_its_own_calls_through_besides() {
    let spec: LinuxSeccomp = serde_json::from_value(serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}],
    }))
    .unwrap();
    let filter = compile(&spec).unwrap();
    let calls = [Call::any("setsid"), Call::with("ioctl", 1, 7), Call::any("close")];
    let wider = filter.besides(&calls);
    let permits = |filter: &Filter, call| filter.permits(&call);
    for call in calls {
        assert!(!permits(&filter, call) && permits(&wider, call), "{call:?}");
    }
    assert!(permits(&wider, Call::any("read")) && !permits(&wider, Call::any("write")));
    assert!(!permits(&wider, Call::with("ioctl", 1, 8)) && !permits(&wider, Call::with("ioctl", 0, 7)));
    // Of other architectures nothing.
    let number = Machine::X86.number("setsid").unwrap();
    let verdict = |filter: &Filter| interpret::run(&filter.program, Machine::X86, number, [0; 6]);
    assert_eq!(verdict(&wider), verdict(&filter));
}
