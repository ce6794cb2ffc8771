//! The processes of a container, as `ps` prints them, read from /proc by its cgroup.

use std::fs;

use dozen_runtime::Cgroup;

use crate::EngineError;

/// Processes of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "columns and rows")]
pub struct Top {
    pub titles: Vec<String>,
    pub processes: Vec<Vec<String>>,
}

/// Which columns: what `ps` options ask for. Docker runs the host's ps with any option; these are the usual ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Columns {
    /// `-ef`, Docker's default.
    Full,
    /// `aux`.
    User,
}

impl Columns {
    pub(crate) fn parse(arguments: &str) -> Result<Self, EngineError> {
        match arguments.trim() {
            "" | "-ef" | "-e -f" | "ef" => Ok(Self::Full),
            "aux" | "-aux" => Ok(Self::User),
            other => Err(EngineError::Invalid {
                message: format!("top with ps options {other:?} is not built yet"),
                hint: Some("leave them out, or use -ef or aux".into()),
            }),
        }
    }

    fn titles(self) -> &'static [&'static str] {
        match self {
            Self::Full => &["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"],
            Self::User => &["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"],
        }
    }
}

/// What the kernel says of a process (proc_pid_stat(5)), as far as the columns need it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: i32,
    terminal: i32,
    processor_ticks: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

/// The processes in the cgroup, in order of their ids. One that ends while it is read is left out.
pub(crate) fn processes(cgroup: &str, columns: Columns) -> Result<Top, EngineError> {
    let mut pids = match Cgroup::open(cgroup)? {
        Some(cgroup) => cgroup.pids()?,
        None => Vec::new(),
    };
    pids.sort_unstable();
    let machine = Machine::read();
    let processes = pids.into_iter().filter_map(|pid| row(pid, columns, &machine)).collect();
    Ok(Top { titles: columns.titles().iter().map(|title| (*title).to_owned()).collect(), processes })
}

/// Facts that all rows need.
struct Machine {
    uptime_s: f64,
    memory_bytes: u64,
    ticks_per_second: u64,
    page_bytes: u64,
}

impl Machine {
    fn read() -> Self {
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let uptime_s = uptime.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        let info = rustix::system::sysinfo();
        Self {
            uptime_s,
            memory_bytes: (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)).max(1),
            ticks_per_second: rustix::param::clock_ticks_per_second(),
            page_bytes: rustix::param::page_size() as u64,
        }
    }
}

fn row(pid: i32, columns: Columns, machine: &Machine) -> Option<Vec<String>> {
    let stat = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.to_owned();
    let command = command_line(pid)?;
    let age_s = (machine.uptime_s - stat.start_ticks as f64 / machine.ticks_per_second as f64).max(0.0);
    let processor_s = stat.processor_ticks / machine.ticks_per_second;
    let share = if age_s > 0.0 { processor_s as f64 * 100.0 / age_s } else { 0.0 };
    let now = jiff::Zoned::now();
    let started = now.checked_sub(jiff::SignedDuration::from_secs_f64(age_s)).unwrap_or(now);
    let start = started.strftime("%H:%M").to_string();
    let terminal = if stat.terminal == 0 { "?".to_owned() } else { format!("pts/{}", stat.terminal & 0xff) };
    let time = format!("{:02}:{:02}:{:02}", processor_s / 3600, processor_s / 60 % 60, processor_s % 60);
    Some(match columns {
        Columns::Full => {
            vec![uid, pid.to_string(), stat.parent.to_string(), format!("{share:.0}"), start, terminal, time, command]
        }
        Columns::User => {
            let resident = stat.resident_pages * machine.page_bytes;
            vec![
                uid,
                pid.to_string(),
                format!("{share:.1}"),
                format!("{:.1}", resident as f64 * 100.0 / machine.memory_bytes as f64),
                (stat.virtual_bytes / 1024).to_string(),
                (resident / 1024).to_string(),
                terminal,
                stat.state.to_string(),
                start,
                format!("{}:{:02}", processor_s / 60, processor_s % 60),
                command,
            ]
        }
    })
}

fn command_line(pid: i32) -> Option<String> {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    if raw.is_empty() {
        return Some(format!("[{}]", fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end()));
    }
    let arguments = raw.strip_suffix(b"\0").unwrap_or(&raw);
    Some(String::from_utf8_lossy(arguments).replace('\0', " "))
}

/// The name in parentheses is the process's own choice and may hold anything: fields are counted from its last `)`.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        terminal: fields.get(4)?.parse().ok()?,
        processor_ticks: number(11)? + number(12)?,
        start_ticks: number(19)?,
        virtual_bytes: number(20)?,
        resident_pages: number(21)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_process_name_does_not_shift_the_fields() {
        let tail = "S 7 1 1 34816 1 0 0 0 0 0 3 4 0 0 20 0 1 0 500 4096 9 0";
        let stat = parse_stat(&format!("1 (a) R 9 (b) {tail}")).unwrap();
        assert_eq!((stat.state, stat.parent, stat.terminal, stat.processor_ticks), ('S', 7, 34816, 7));
        assert_eq!((stat.start_ticks, stat.virtual_bytes, stat.resident_pages), (500, 4096, 9));
        assert_eq!(parse_stat("garbage"), None);
        assert_eq!(parse_stat("1 (x) S"), None);
    }

    #[test]
    fn options_are_known_or_refused() {
        assert_eq!(Columns::parse("").unwrap(), Columns::Full);
        assert_eq!(Columns::parse("aux").unwrap(), Columns::User);
        assert!(Columns::parse("-o pid").is_err());
    }
}
