//! Which columns the options of ps(1) ask for, and what each of them shows.

use super::{Machine, Process};
use crate::EngineError;

/// A column, by what it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Column {
    title: &'static str,
    shows: Shows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    Pid,
    Parent,
    Group,
    Session,
    UserName,
    UserNumber,
    GroupName,
    GroupNumber,
    /// Its own short name.
    Name,
    CommandLine,
    /// Processor time as a part of its age, in per cent, rounded.
    Share,
    /// The same with a decimal.
    ShareTenths,
    MemoryShare,
    VirtualKibibytes,
    ResidentKibibytes,
    Threads,
    Nice,
    Priority,
    State,
    StateAndMore,
    Terminal,
    /// `[days-]hours:minutes:seconds`.
    ProcessorTime,
    /// `minutes:seconds`.
    ProcessorMinutes,
    Age,
    AgeSeconds,
    Started,
}

/// Their names, by which `-o` asks for them, and what stands above them (ps(1), STANDARD FORMAT SPECIFIERS).
const KNOWN: &[(&[&str], &str, Shows)] = &[
    (&["pid", "tgid"], "PID", Shows::Pid),
    (&["ppid"], "PPID", Shows::Parent),
    (&["pgid", "pgrp"], "PGID", Shows::Group),
    (&["sid"], "SID", Shows::Session),
    (&["sess", "session"], "SESS", Shows::Session),
    (&["user", "uname", "euser"], "USER", Shows::UserName),
    (&["uid", "euid"], "UID", Shows::UserNumber),
    (&["group", "egroup"], "GROUP", Shows::GroupName),
    (&["gid", "egid"], "GID", Shows::GroupNumber),
    (&["comm", "ucmd", "ucomm"], "COMMAND", Shows::Name),
    (&["cmd"], "CMD", Shows::CommandLine),
    (&["args", "command"], "COMMAND", Shows::CommandLine),
    (&["c"], "C", Shows::Share),
    (&["%cpu", "pcpu"], "%CPU", Shows::ShareTenths),
    (&["%mem", "pmem"], "%MEM", Shows::MemoryShare),
    (&["vsz", "vsize"], "VSZ", Shows::VirtualKibibytes),
    (&["rss", "rssize", "rsz"], "RSS", Shows::ResidentKibibytes),
    (&["nlwp", "thcount"], "NLWP", Shows::Threads),
    (&["ni", "nice"], "NI", Shows::Nice),
    (&["pri"], "PRI", Shows::Priority),
    (&["s", "state"], "S", Shows::State),
    (&["stat"], "STAT", Shows::StateAndMore),
    (&["tty", "tt", "tname"], "TTY", Shows::Terminal),
    (&["time", "cputime"], "TIME", Shows::ProcessorTime),
    (&["bsdtime"], "TIME", Shows::ProcessorMinutes),
    (&["etime"], "ELAPSED", Shows::Age),
    (&["etimes"], "ELAPSED", Shows::AgeSeconds),
    (&["stime"], "STIME", Shows::Started),
    (&["bsdstart"], "START", Shows::Started),
];

const DEFAULT: &str = "pid,tty,time,cmd-name";
const BSD_DEFAULT: &str = "pid,tty,stat,bsdtime,command";
const FULL: &str = "user-as-uid,pid,ppid,c,stime,tty,time,cmd";
const USER: &str = "user,pid,%cpu,%mem,vsz,rss,tty,stat,bsdstart,bsdtime,command";

/// What `ps` calls otherwise in its own formats than where it is asked by name.
const WITHIN: &[(&str, &str, Shows)] = &[("cmd-name", "CMD", Shows::Name), ("user-as-uid", "UID", Shows::UserName)];

/// Reads options as ps(1) does: `-ef`, `aux`, `-eo pid,cmd`, `axo pid,comm -o rss`. None at all is Docker's `-ef`.
pub(crate) fn parse(arguments: &str) -> Result<Vec<Column>, EngineError> {
    let mut words = arguments.split_whitespace();
    let mut asked = Vec::new();
    let mut format = DEFAULT;
    let mut any = false;
    while let Some(word) = words.next() {
        any = true;
        let (letters, bsd) = match word.strip_prefix('-') {
            // The one long option that choose columns; `--format pid` and `--format=pid`.
            Some(long) if long.starts_with('-') => {
                let list = match long.strip_prefix("-format") {
                    Some("") => words.next().unwrap_or_default(),
                    Some(list) if list.starts_with('=') => &list[1..],
                    _ => return Err(refused(arguments, word)),
                };
                asked.extend(columns(list, arguments)?);
                continue;
            }
            // As the old one: `-aux` means aux.
            Some("aux") => ("aux", true),
            Some(letters) => (letters, false),
            None => (word, true),
        };
        for (at, letter) in letters.char_indices() {
            match letter {
                'o' => {
                    let list = match &letters[at + 1..] {
                        "" => words.next().unwrap_or_default(),
                        attached => attached,
                    };
                    asked.extend(columns(list, arguments)?);
                    break;
                }
                // Which processes: always the container's. And how wide: always as wide as it is.
                'a' | 'x' | 'w' => {}
                'e' | 'A' if !bsd => {}
                'f' if !bsd => format = FULL,
                'u' if bsd => format = USER,
                _ => return Err(refused(arguments, &format!("{}{letter}", if bsd { "" } else { "-" }))),
            }
            if bsd && format == DEFAULT {
                format = BSD_DEFAULT;
            }
        }
    }
    if !any {
        format = FULL;
    }
    if asked.is_empty() {
        asked = columns(format, arguments)?;
    }
    if !asked.iter().any(|column| column.shows == Shows::Pid) {
        // Docker's words, which tells the container's processes by it.
        return Err(EngineError::Invalid {
            message: "Couldn't find PID field in ps output".into(),
            hint: Some("add pid to the columns".into()),
        });
    }
    Ok(asked)
}

fn columns(list: &str, arguments: &str) -> Result<Vec<Column>, EngineError> {
    let column = |name: &str| {
        let within = WITHIN.iter().find(|(known, ..)| *known == name).map(|(_, title, shows)| (*title, *shows));
        let known = || {
            let found = KNOWN.iter().find(|(names, ..)| names.contains(&name));
            found.map(|(_, title, shows)| (*title, *shows))
        };
        let (title, shows) = within.or_else(known).ok_or_else(|| refused(arguments, &format!("column {name:?}")))?;
        Ok(Column { title, shows })
    };
    list.split(',').map(column).collect()
}

fn refused(arguments: &str, what: &str) -> EngineError {
    EngineError::NotBuilt {
        message: format!("top with ps options {arguments:?}: {what} is not built yet"),
        hint: Some("leave them out, or use -ef, aux, or -o with columns such as pid,ppid,user,stat,time,args".into()),
    }
}

impl Column {
    pub(super) fn title(&self) -> &'static str {
        self.title
    }

    pub(super) fn show(&self, process: &Process, machine: &Machine) -> String {
        let stat = &process.stat;
        let ticks_per_second = machine.ticks_per_second.max(1);
        let age_s = (machine.uptime_s - stat.start_ticks as f64 / ticks_per_second as f64).max(0.0);
        let processor_s = stat.processor_ticks / ticks_per_second;
        let share =
            if age_s > 0.0 { stat.processor_ticks as f64 / ticks_per_second as f64 * 100.0 / age_s } else { 0.0 };
        let resident = stat.resident_pages.saturating_mul(machine.page_bytes);
        let name = |names: &std::collections::BTreeMap<u32, String>, number: u32| {
            names.get(&number).cloned().unwrap_or_else(|| number.to_string())
        };
        match self.shows {
            Shows::Pid => process.pid.to_string(),
            Shows::Parent => stat.parent.to_string(),
            Shows::Group => stat.group.to_string(),
            Shows::Session => stat.session.to_string(),
            Shows::UserName => name(&machine.users, process.user),
            Shows::UserNumber => process.user.to_string(),
            Shows::GroupName => name(&machine.groups, process.group),
            Shows::GroupNumber => process.group.to_string(),
            Shows::Name => process.name.clone(),
            Shows::CommandLine => process.command_line.clone(),
            Shows::Share => format!("{share:.0}"),
            Shows::ShareTenths => format!("{share:.1}"),
            Shows::MemoryShare => format!("{:.1}", resident as f64 * 100.0 / machine.memory_bytes.max(1) as f64),
            Shows::VirtualKibibytes => (stat.virtual_bytes / 1024).to_string(),
            Shows::ResidentKibibytes => (resident / 1024).to_string(),
            Shows::Threads => stat.threads.to_string(),
            Shows::Nice => stat.nice.to_string(),
            // As ps counts it: the larger, the sooner.
            Shows::Priority => (39 - stat.priority).to_string(),
            Shows::State => stat.state.to_string(),
            Shows::StateAndMore => state_and_more(process),
            Shows::Terminal => terminal(stat.terminal),
            Shows::ProcessorTime => match processor_s / 86_400 {
                0 => clock(processor_s),
                days => format!("{days}-{}", clock(processor_s % 86_400)),
            },
            Shows::ProcessorMinutes => format!("{}:{:02}", processor_s / 60, processor_s % 60),
            Shows::Age => match (age_s as u64 / 86_400, age_s as u64 / 3600) {
                (0, 0) => format!("{:02}:{:02}", age_s as u64 / 60, age_s as u64 % 60),
                (0, _) => clock(age_s as u64),
                (days, _) => format!("{days}-{}", clock(age_s as u64 % 86_400)),
            },
            Shows::AgeSeconds => (age_s as u64).to_string(),
            Shows::Started => {
                let now = jiff::Zoned::now();
                let started = now.checked_sub(jiff::SignedDuration::from_secs_f64(age_s)).unwrap_or(now);
                started.strftime("%H:%M").to_string()
            }
        }
    }
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// ps(1), PROCESS STATE CODES.
fn state_and_more(process: &Process) -> String {
    let stat = &process.stat;
    let mut text = stat.state.to_string();
    for (letter, holds) in [
        ('<', stat.nice < 0),
        ('N', stat.nice > 0),
        ('s', stat.session == process.pid),
        ('l', stat.threads > 1),
        ('+', stat.foreground_group == stat.group),
    ] {
        text.extend(holds.then_some(letter));
    }
    text
}

/// By its number (proc_pid_stat(5), tty_nr): the minor is in two parts around the major.
fn terminal(number: i32) -> String {
    let number = number as u32;
    match ((number >> 8) & 0xfff, (number & 0xff) | (number >> 12 & 0xfff00)) {
        (0, 0) => "?".to_owned(),
        // Documentation/admin-guide/devices.txt: 136 to 143 are the slaves of Unix98 terminals.
        (major @ 136..=143, minor) => format!("pts/{}", (major - 136) * 256 + minor),
        (4, minor @ 0..64) => format!("tty{minor}"),
        (major, minor) => format!("{major}:{minor}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Stat;
    use super::*;

    fn titles(arguments: &str) -> String {
        let columns = parse(arguments).unwrap();
        columns.iter().map(|column| column.title()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn options_choose_columns() {
        const FULL: &str = "UID PID PPID C STIME TTY TIME CMD";
        const USER: &str = "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND";
        for (arguments, wanted) in [
            ("", FULL),
            ("-ef", FULL),
            ("-e -f", FULL),
            ("-eaf -ww", FULL),
            ("aux", USER),
            ("-aux", USER),
            ("au x", USER),
            ("-e", "PID TTY TIME CMD"),
            ("ax", "PID TTY STAT TIME COMMAND"),
            ("-o pid,cmd", "PID CMD"),
            ("-opid,comm", "PID COMMAND"),
            ("-eo pid,%cpu,etime", "PID %CPU ELAPSED"),
            ("axo pid,args -o rss", "PID COMMAND RSS"),
            ("--format pid,user", "PID USER"),
            ("-e --format=uid,pid", "UID PID"),
        ] {
            assert_eq!(titles(arguments), wanted, "{arguments}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (arguments, words) in [
            ("ef", "e is not built yet"),
            ("-el", "-l is not built yet"),
            ("-eo pid,wchan", "column \"wchan\""),
            ("-o pid=X", "column \"pid=X\""),
            ("-o", "column \"\""),
            ("--forest", "--forest is not"),
            ("-C sh", "-C is not"),
            ("1", "1 is not"),
            ("-o comm", "Couldn't find PID field"),
            ("é", "é is not"),
        ] {
            let error = parse(arguments).unwrap_err().to_string();
            assert!(error.contains(words), "{arguments}: {error}");
        }
    }

    #[test]
    fn every_column_shows_something() {
        let machine = Machine {
            uptime_s: 200_000.0,
            memory_bytes: 1 << 30,
            ticks_per_second: 100,
            page_bytes: 4096,
            users: [(33, "web".to_owned())].into(),
            groups: [(34, "staff".to_owned())].into(),
        };
        let stat = Stat {
            state: 'S',
            parent: 1,
            group: 5,
            session: 7,
            terminal: 34817,
            foreground_group: 5,
            processor_ticks: 9_000_000,
            priority: 25,
            nice: 5,
            threads: 3,
            start_ticks: 100,
            virtual_bytes: 8192,
            resident_pages: 26_214,
        };
        let process = Process { pid: 7, stat, user: 33, group: 34, name: "sh".into(), command_line: "sh -c x".into() };
        let show = |list: &str| {
            let columns = columns(list, "").unwrap();
            columns.iter().map(|column| column.show(&process, &machine)).collect::<Vec<_>>().join(" | ")
        };
        assert_eq!(show("pid,ppid,pgid,sid,user,uid,group,gid"), "7 | 1 | 5 | 7 | web | 33 | staff | 34");
        assert_eq!(show("comm,cmd,c,%cpu,%mem,vsz,rss"), "sh | sh -c x | 45 | 45.0 | 10.0 | 8 | 104856");
        assert_eq!(show("nlwp,ni,pri,s,stat,tty"), "3 | 5 | 14 | S | SNsl+ | pts/1");
        assert_eq!(show("time,bsdtime,etime,etimes"), "1-01:00:00 | 1500:00 | 2-07:33:19 | 199999");
        for (names, title, _) in KNOWN {
            for name in *names {
                assert!(!show(name).is_empty() && !title.is_empty(), "{name}");
            }
        }
        assert_eq!(
            (terminal(0), terminal(0x0401), terminal(0x0010_8802)),
            ("?".into(), "tty1".into(), "pts/258".into())
        );
    }
}
