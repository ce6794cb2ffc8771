//! Seccomp: from the spec's rules to a classic BPF program (seccomp(2), Documentation/userspace-api/seccomp_filter.rst).
//!
//! Per architecture, the numbers of system calls fall into runs with one action, and the program finds the run by
//! bisection: seven comparisons for Docker's profile, where a list would take hundreds.

mod assemble;
mod interpret;
mod profile;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator as Operator, LinuxSyscall,
};

use self::assemble::{assemble, assemble_besides};
use crate::error::RuntimeError;
use crate::sys::{self, Instruction};

pub use profile::check_profile;
pub(crate) use profile::{default_profile, resolve_profile};

/// A program, ready to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) program: Vec<Instruction>,
    /// SECCOMP_FILTER_FLAG_*.
    pub(crate) flags: u64,
    /// Whom it asks.
    pub(crate) listener: Option<Listener>,
}

/// Whom a filter asks about system calls with SCMP_ACT_NOTIFY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    /// A stream socket.
    pub(crate) path: PathBuf,
    pub(crate) metadata: Option<String>,
}

/// A system call of this program's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    /// The lower half of an argument, by its number.
    argument: Option<(u32, u32)>,
}

impl Call {
    /// Whatever its arguments are.
    pub(crate) const fn any(name: &'static str) -> Self {
        Self { name, argument: None }
    }

    pub(crate) const fn with(name: &'static str, argument: u32, value: u32) -> Self {
        Self { name, argument: Some((argument, value)) }
    }
}

impl Filter {
    /// Whether a process of ours may make this call.
    pub(crate) fn permits(&self, call: &Call) -> bool {
        const LOG: u32 = 0x7ffc_0000;
        let mut arguments = [0; 6];
        if let Some((argument, value)) = call.argument {
            arguments[argument as usize] = u64::from(value);
        }
        let verdict = |number| interpret::run(&self.program, Machine::NATIVE, number, arguments);
        Machine::NATIVE.number(call.name).map(verdict).is_some_and(|verdict| matches!(verdict, ALLOW | LOG))
    }

    /// The same, but that these are let through besides, and nobody is asked.
    pub(crate) fn besides(&self, calls: &[Call]) -> Self {
        let native = calls.iter().filter_map(|call| Some((Machine::NATIVE.number(call.name)?, call.argument)));
        let program = assemble_besides(Machine::NATIVE, &native.collect::<Vec<_>>(), &self.program);
        Self { program, flags: self.flags & !(sys::NEW_LISTENER | WAIT_KILLABLE), listener: None }
    }
}

/// SECCOMP_RET_ALLOW.
const ALLOW: u32 = 0x7fff_0000;
/// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV.
const WAIT_KILLABLE: u64 = 32;

/// An architecture that a filter can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Machine {
    X86_64,
    X86,
    /// x86-64 with a bit in the number.
    X32,
    Aarch64,
    /// With the embedded ABI, as all have it.
    Arm,
}

impl Machine {
    #[cfg(target_arch = "x86_64")]
    const NATIVE: Self = Self::X86_64;
    #[cfg(target_arch = "aarch64")]
    const NATIVE: Self = Self::Aarch64;

    /// AUDIT_ARCH_* of linux/audit.h.
    fn audit_number(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// `None`: a machine whose programs do not run on ours, so that no rule is needed.
    fn of(arch: Arch) -> Option<Self> {
        let known = MACHINES.iter().find(|(known, _)| *known == arch).map(|(_, machine)| *machine);
        known.or((arch == Arch::ScmpArchNative).then_some(Self::NATIVE))
    }

    /// An argument is half as long there.
    fn has_32_bits(self) -> bool {
        matches!(self, Self::X86 | Self::Arm)
    }

    fn number(self, name: &str) -> Option<u32> {
        if self == Self::Arm
            && let Some((_, number)) = table::ARM_PRIVATE.iter().find(|(known, _)| *known == name)
        {
            return Some(*number);
        }
        let row = table::TABLE.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
        u32::try_from(table::TABLE[row].1[self as usize]).ok()
    }
}

/// By their names in a spec.
const MACHINES: [(Arch, Machine); 5] = [
    (Arch::ScmpArchX86_64, Machine::X86_64),
    (Arch::ScmpArchX86, Machine::X86),
    (Arch::ScmpArchX32, Machine::X32),
    (Arch::ScmpArchAarch64, Machine::Aarch64),
    (Arch::ScmpArchArm, Machine::Arm),
];

/// The architectures whose calls a filter can tell apart.
pub(crate) fn architectures() -> impl Iterator<Item = Arch> {
    MACHINES.into_iter().map(|(arch, _)| arch)
}

/// One comparison of an argument, all unsigned 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Condition {
    /// 0 to 5.
    argument: u32,
    operator: Operator,
    /// The mask, for a masked comparison.
    value: u64,
    /// What the masked argument must equal.
    masked: u64,
}

/// Conditions that must all hold, and what then becomes of the call.
type ConditionalRule = (Vec<Condition>, u32);

/// What becomes of a system call: the first rule whose conditions all hold, else the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Verdict {
    conditional: Vec<ConditionalRule>,
    otherwise: u32,
}

/// By number: rules with conditions, and the action of the first without.
type Verdicts = BTreeMap<u32, (Vec<ConditionalRule>, Option<u32>)>;

/// Where an architecture's own calls begin, far above all that are newer.
const OWN: u32 = 0xf_0000;
/// SECCOMP_RET_KILL_PROCESS, for an architecture that the filter does not name: its numbers mean other calls.
const FOREIGN_ARCHITECTURE: u32 = 0x8000_0000;
/// SECCOMP_RET_ERRNO with ENOSYS.
const NOT_IMPLEMENTED: u32 = 0x0005_0000 | libc::ENOSYS as u32;

/// Compiles a spec's rules.
pub(crate) fn compile(spec: &LinuxSeccomp) -> Result<Filter, RuntimeError> {
    let default = action(spec.default_action(), spec.default_errno_ret())?;
    let listed = spec.architectures().as_deref().unwrap_or_default();
    let mut machines: Vec<Machine> =
        listed.iter().filter_map(|arch| Machine::of(*arch)).chain([Machine::NATIVE]).collect();
    machines.sort_unstable();
    machines.dedup();
    let rules = spec.syscalls().as_deref().unwrap_or_default();
    let blocks = machines
        .into_iter()
        .map(|machine| Ok((machine, runs(machine, rules, default)?)))
        .collect::<Result<Vec<_>, RuntimeError>>()?;
    let listener = listener(spec)?;
    let mut flags = if listener.is_some() { sys::NEW_LISTENER } else { 0 };
    for flag in spec.flags().iter().flatten() {
        flags |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0, // One thread: nothing to do.
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => 2,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 4,
            // Of how one waits for an answer; the kernel refuses it where nobody is asked.
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if listener.is_none() => 0,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => WAIT_KILLABLE,
        };
    }
    if spec.flags().is_none() {
        // As other runtimes do: a filter alone does not slow a process down by the store bypass mitigation.
        flags |= 4;
    }
    let program = assemble(&blocks);
    if program.len() > 4096 {
        // BPF_MAXINSNS of linux/bpf_common.h.
        return Err(RuntimeError::Invalid("the seccomp profile makes more than 4096 instructions".to_owned()));
    }
    Ok(Filter { program, flags, listener })
}

/// Whom the spec's filter asks, if it asks anyone.
pub(crate) fn listener(spec: &LinuxSeccomp) -> Result<Option<Listener>, RuntimeError> {
    let invalid = |text: &str| Err(RuntimeError::Invalid(text.to_owned()));
    let notify = LinuxSeccompAction::ScmpActNotify;
    if spec.default_action() == notify {
        // Who is asked could not be told of it: that, too, would be asked first.
        return invalid("SCMP_ACT_NOTIFY cannot be used as the default action");
    }
    let asking = spec.syscalls().iter().flatten().filter(|rule| rule.action() == notify);
    let mut names = asking.flat_map(LinuxSyscall::names).peekable();
    if names.peek().is_none() {
        return Ok(None);
    }
    // By sendmsg(2) the process gives its descriptor away. write(2) does that for runc: who brings a profile for it here
    // would find that it is refused there.
    if let Some(name) = names.find(|name| matches!(name.as_str(), "sendmsg" | "write")) {
        return invalid(&format!("SCMP_ACT_NOTIFY cannot be used for the {name} syscall"));
    }
    match spec.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
        None => invalid("seccomp listenerPath is not set"),
        Some(path) => Ok(Some(Listener { path: path.clone(), metadata: spec.listener_metadata().clone() })),
    }
}

/// SECCOMP_RET_* with its data.
fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, RuntimeError> {
    if errno.is_some_and(|errno| errno > 0xffff) {
        return Err(RuntimeError::Invalid("seccomp: errnoRet is above 65535".to_owned()));
    }
    Ok(action.as_u32(errno))
}

/// The verdicts by number: each holds from its number to before the next. The first begins at 0.
fn runs(machine: Machine, rules: &[LinuxSyscall], default: u32) -> Result<Vec<(u32, Verdict)>, RuntimeError> {
    let mut verdicts = Verdicts::new();
    let mut highest = None;
    for rule in rules {
        let action = action(rule.action(), rule.errno_ret())?;
        let alternatives = conditions(rule, machine)?;
        for number in rule.names().iter().filter_map(|name| machine.number(name)) {
            highest = highest.max(Some(number).filter(|number| *number < OWN));
            if action == default {
                // Those of an architecture's own would else be taken for newer ones.
                if number >= OWN {
                    verdicts.entry(number).or_default();
                }
                continue;
            }
            let (conditional, unconditional) = verdicts.entry(number).or_default();
            if alternatives.is_empty() {
                unconditional.get_or_insert(action);
            }
            conditional.extend(alternatives.iter().map(|all| (all.clone(), action)));
        }
    }
    if machine == Machine::X86 {
        judge_multiplexed(rules, default, &mut verdicts)?;
    }
    let plain = |otherwise| Verdict { conditional: Vec::new(), otherwise };
    // What is newer than all that the profile knows does not exist, rather than being forbidden: a C library then
    // falls back to what it did before.
    let refuses = default & 0xffff_0000 == 0x0005_0000;
    let mut unknown = highest.filter(|_| refuses).map(|highest| highest + 1);
    let after = |number: u32| match highest {
        Some(highest) if refuses && number > highest => plain(NOT_IMPLEMENTED),
        _ => plain(default),
    };
    let mut runs: Vec<(u32, Verdict)> = vec![(0, plain(default))];
    let mut push = |number: u32, verdict: Verdict| {
        // What was said of this very number is said anew, and may then be what was said of those before it.
        runs.pop_if(|(start, _)| *start == number);
        if runs.last().is_none_or(|(_, last)| *last != verdict) {
            runs.push((number, verdict));
        }
    };
    for (number, (conditional, unconditional)) in verdicts {
        if let Some(first) = unknown.take_if(|first| *first < number) {
            push(first, plain(NOT_IMPLEMENTED));
        }
        // A rule without conditions takes in those with some, as libseccomp has it.
        push(
            number,
            match unconditional {
                Some(action) => plain(action),
                None => Verdict { conditional, otherwise: default },
            },
        );
        push(number + 1, after(number + 1));
    }
    if let Some(first) = unknown {
        push(first, plain(NOT_IMPLEMENTED));
    }
    Ok(runs)
}

/// A program of 32 bits may make some calls by a number of their own, or by one for all of their kind: what holds for
/// the call holds for either. A rule about arguments cannot, which are not to be seen then.
fn judge_multiplexed(rules: &[LinuxSyscall], default: u32, verdicts: &mut Verdicts) -> Result<(), RuntimeError> {
    let is_judged = |name| {
        let number = Machine::X86.number(name);
        number.and_then(|number| verdicts.get(&number)).is_some_and(|(_, unconditional)| unconditional.is_some())
    };
    if is_judged("socketcall") && is_judged("ipc") {
        return Ok(());
    }
    for rule in rules.iter().filter(|rule| rule.args().as_ref().is_none_or(Vec::is_empty)) {
        let action = action(rule.action(), rule.errno_ret())?;
        if action == default {
            continue;
        }
        for (number, condition) in rule.names().iter().filter_map(|name| multiplexed(name)) {
            verdicts.entry(number).or_default().0.push((vec![condition], action));
        }
    }
    Ok(())
}

/// How x86 makes a call by socketcall(2) or ipc(2): the number of that, and what its first argument is then
/// (linux/net.h, linux/ipc.h). What the call's own arguments are cannot be seen there.
fn multiplexed(name: &str) -> Option<(u32, Condition)> {
    const SOCKET_CALLS: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u64); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    if let Some(at) = SOCKET_CALLS.iter().position(|known| *known == name) {
        let condition = Condition { argument: 0, operator: Operator::ScmpCmpEq, value: at as u64 + 1, masked: 0 };
        return Some((Machine::X86.number("socketcall")?, condition));
    }
    let (_, masked) = *IPC.iter().find(|(known, _)| *known == name)?;
    // Its upper half is a version.
    let condition = Condition { argument: 0, operator: Operator::ScmpCmpMaskedEq, value: 0xffff, masked };
    Some((Machine::X86.number("ipc")?, condition))
}

/// The alternatives of a rule's arguments: each a list of conditions that must all hold. Empty: no condition.
fn conditions(rule: &LinuxSyscall, machine: Machine) -> Result<Vec<Vec<Condition>>, RuntimeError> {
    let arguments = rule.args().as_deref().unwrap_or_default();
    let mut all = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let index = u32::try_from(argument.index()).ok().filter(|index| *index < 6).ok_or_else(|| {
            RuntimeError::Invalid(format!("seccomp: {:?}: a system call has arguments 0 to 5", rule.names()))
        })?;
        // An argument of 32 bits is only those, as a value is that is meant for it: -1, say.
        let seen = if machine.has_32_bits() { u64::from(u32::MAX) } else { u64::MAX };
        all.push(Condition {
            argument: index,
            operator: argument.op(),
            value: argument.value() & seen,
            masked: argument.value_two().unwrap_or(0) & seen,
        });
    }
    // Two conditions on one argument are alternatives, for historic reasons that profiles rely on (runc does so).
    let twice = all.iter().enumerate().any(|(n, one)| all[..n].iter().any(|other| other.argument == one.argument));
    Ok(match (all.is_empty(), twice) {
        (true, _) => Vec::new(),
        (_, true) => all.into_iter().map(|one| vec![one]).collect(),
        (_, false) => vec![all],
    })
}
