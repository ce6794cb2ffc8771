//! The processes of a container, as `ps` prints them, read from /proc by its cgroup.
//!
//! Docker runs the host's `ps` with any option. Here no program is run: the options of ps(1) that choose columns are
//! understood, those that choose processes among all make no difference, and any other is refused by name.

mod columns;

use std::collections::BTreeMap;
use std::fs;

use dozen_runtime::Cgroup;

use self::columns::Column;
use crate::EngineError;

/// Processes of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "columns and rows")]
pub struct Top {
    pub titles: Vec<String>,
    pub processes: Vec<Vec<String>>,
}

pub(crate) use self::columns::parse;

/// What the kernel says of a process (proc_pid_stat(5)), as far as the columns need it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: i32,
    group: i32,
    session: i32,
    terminal: i32,
    foreground_group: i32,
    processor_ticks: u64,
    priority: i64,
    nice: i64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

/// The processes in the cgroup, in order of their ids. One that ends while it is read is left out.
pub(crate) fn processes(cgroup: &str, columns: &[Column]) -> Result<Top, EngineError> {
    let mut pids = match Cgroup::open(cgroup)? {
        Some(cgroup) => cgroup.pids()?,
        None => Vec::new(),
    };
    pids.sort_unstable();
    let machine = Machine::read();
    let rows = pids.into_iter().filter_map(Process::read);
    let processes = rows.map(|process| columns.iter().map(|column| column.show(&process, &machine)).collect());
    Ok(Top { titles: columns.iter().map(|column| column.title().to_owned()).collect(), processes: processes.collect() })
}

/// Facts that all rows need.
#[derive(Debug, Default)]
struct Machine {
    uptime_s: f64,
    memory_bytes: u64,
    ticks_per_second: u64,
    page_bytes: u64,
    /// Names by number, the host's own, as its `ps` would show them.
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl Machine {
    fn read() -> Self {
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let uptime_s = uptime.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        let info = rustix::system::sysinfo();
        let names = |path: &str| names(&fs::read_to_string(path).unwrap_or_default());
        Self {
            uptime_s,
            memory_bytes: (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)).max(1),
            ticks_per_second: rustix::param::clock_ticks_per_second(),
            page_bytes: rustix::param::page_size() as u64,
            users: names("/etc/passwd"),
            groups: names("/etc/group"),
        }
    }
}

/// `name:password:number:…` (passwd(5), group(5)); the first name of a number counts.
fn names(text: &str) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(number)) = (fields.next(), fields.nth(1).and_then(|number| number.parse().ok())) {
            names.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    names
}

/// One process.
#[derive(Debug, Default)]
struct Process {
    pid: i32,
    stat: Stat,
    user: u32,
    group: u32,
    /// Its own short name.
    name: String,
    command_line: String,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let stat = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        // Real, effective, saved, for files: ps shows the effective one.
        let effective = |field: &str| {
            status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().nth(1)?.parse().ok()
        };
        let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
        let name = String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned();
        let raw = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let arguments = raw.strip_suffix(b"\0").unwrap_or(&raw);
        let command_line = match arguments {
            [] => format!("[{name}]"),
            arguments => String::from_utf8_lossy(arguments).replace('\0', " "),
        };
        Some(Self { pid, stat, user: effective("Uid:")?, group: effective("Gid:")?, name, command_line })
    }
}

/// The name in parentheses is the process's own choice and may hold anything: fields are counted from its last `)`.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let signed = |index: usize| fields.get(index)?.parse::<i64>().ok();
    let id = |index: usize| fields.get(index)?.parse::<i32>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: id(1)?,
        group: id(2)?,
        session: id(3)?,
        terminal: id(4)?,
        foreground_group: id(5)?,
        processor_ticks: number(11)?.saturating_add(number(12)?),
        priority: signed(15)?,
        nice: signed(16)?,
        threads: number(17)?,
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
        let tail = "S 7 1 2 34816 3 0 0 0 0 0 3 4 0 0 20 -5 6 0 500 4096 9 0";
        let stat = parse_stat(&format!("1 (a) R 9 (b) {tail}")).unwrap();
        assert_eq!((stat.state, stat.parent, stat.terminal, stat.processor_ticks), ('S', 7, 34816, 7));
        assert_eq!((stat.group, stat.session, stat.foreground_group), (1, 2, 3));
        assert_eq!((stat.priority, stat.nice, stat.threads), (20, -5, 6));
        assert_eq!((stat.start_ticks, stat.virtual_bytes, stat.resident_pages), (500, 4096, 9));
        assert_eq!(parse_stat("garbage"), None);
        assert_eq!(parse_stat("1 (x) S"), None);
    }

    #[test]
    fn numbers_have_the_first_of_their_names() {
        let names = names("root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\n#comment\nweb:x:33\nbad:x:-1:\n");
        assert_eq!(names, BTreeMap::from([(0, "root".to_owned()), (33, "web".to_owned())]));
    }

    #[test]
    fn this_process_is_shown() {
        let process = Process::read(std::process::id() as i32).unwrap();
        let machine = Machine::read();
        let shown: Vec<String> = parse("axo pid,ppid,uid,comm,args,rss,nlwp,etime,stat")
            .unwrap()
            .iter()
            .map(|column| column.show(&process, &machine))
            .collect();
        assert_eq!(shown[0], std::process::id().to_string());
        assert_eq!(shown[1], std::os::unix::process::parent_id().to_string());
        assert_eq!(shown[2], rustix::process::geteuid().as_raw().to_string());
        assert!(shown[4].contains(&shown[3]) && shown[5].parse::<u64>().unwrap() > 100, "{shown:?}");
    }
}
