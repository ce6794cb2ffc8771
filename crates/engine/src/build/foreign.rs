//! Commands for another platform than this host's: the kernel hands them to an emulator, if one is registered for their kind
//! of program (Documentation/admin-guide/binfmt-misc.rst). Whether one is, is looked at before anything is run.

use std::io::Read;
use std::path::Path;

use dozen_image::Platform;

use super::failure::StepError;

/// Where the kernel shows its handlers.
const HANDLERS: &str = "/proc/sys/fs/binfmt_misc";
/// Of one that describes itself: its magic has 128 bytes at the most, in two digits each, and so has its mask.
const HANDLER_LIMIT_BYTES: u64 = 8 << 10;
/// More are not looked at.
const MOST_HANDLERS: usize = 4096;

/// Who may run programs of other platforms.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Handler {
    interpreter: String,
    /// It was opened when it was registered (flag `F`): a container need not have it.
    is_open: bool,
    offset: usize,
    magic: Vec<u8>,
    /// As long as the magic.
    mask: Vec<u8>,
}

/// Refuses, before anything is run, commands that nobody here can run. Blocks.
pub(super) fn check(platform: &Platform) -> Result<(), StepError> {
    if is_of(&Platform::host(), platform) {
        return Ok(());
    }
    let (is_mounted, handlers) = registered(Path::new(HANDLERS));
    decide(platform, &handlers, is_mounted)
}

/// Nobody need emulate it. What says nothing of itself is taken for this host's, and so is every variant of its
/// architecture: which of them a processor has is not known here, and programs find out.
fn is_of(host: &Platform, platform: &Platform) -> bool {
    let is_same = (&host.os, &host.architecture) == (&platform.os, &platform.architecture);
    platform.architecture.is_empty() || is_same || host.rank(platform).is_some()
}

fn decide(platform: &Platform, handlers: &[Handler], is_mounted: bool) -> Result<(), StepError> {
    let host = Platform::host();
    let Some(program) = elf_header(platform) else {
        return Err(StepError::said(format!("commands for {platform} cannot be run on {host}: nothing emulates it")));
    };
    let fitting: Vec<&Handler> = handlers.iter().filter(|handler| handler.takes(&program)).collect();
    if fitting.iter().any(|handler| handler.is_open) {
        return Ok(());
    }
    let refused = format!("commands for {platform} cannot be run on {host}");
    Err(match fitting.first() {
        Some(handler) => StepError::with_hint(
            format!(
                "{refused}: the emulator {} is registered without the flag F, and no container has it",
                handler.interpreter
            ),
            "register it with that flag: install qemu-user-static and binfmt-support, or set its flag \"fix_binary yes\"",
        ),
        None => StepError::with_hint(
            format!("{refused}: no emulator for it is registered in {HANDLERS}"),
            match is_mounted {
                true => "install qemu-user-static and binfmt-support, which register one with the flag F",
                false => {
                    "install qemu-user-static and binfmt-support, which register one with the flag F, and mount \
                     binfmt_misc there"
                }
            },
        ),
    })
}

impl Handler {
    /// As the kernel describes one that is in force and goes by the bytes that programs begin with; others are `None`.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != "enabled" {
            return None;
        }
        let (mut interpreter, mut flags, mut offset) = ("", "", 0);
        let (mut magic, mut mask) = (None, None);
        for line in lines {
            match line.split_once(' ')? {
                ("interpreter", path) => interpreter = path,
                ("flags:", said) => flags = said,
                ("offset", number) => offset = number.parse().ok()?,
                ("magic", digits) => magic = Some(bytes(digits)?),
                ("mask", digits) => mask = Some(bytes(digits)?),
                _ => return None,
            }
        }
        let magic = magic.filter(|magic| !magic.is_empty())?;
        let mask = mask.unwrap_or_else(|| vec![0xff; magic.len()]);
        let (is_open, interpreter) = (flags.contains('F'), interpreter.to_owned());
        (mask.len() == magic.len()).then_some(Self { interpreter, is_open, offset, magic, mask })
    }

    fn takes(&self, program: &[u8]) -> bool {
        let begin = program.get(self.offset..).unwrap_or_default();
        begin.len() >= self.magic.len()
            && begin.iter().zip(&self.magic).zip(&self.mask).all(|((byte, magic), mask)| (byte ^ magic) & mask == 0)
    }
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = digits.chars().map(|digit| Some(digit.to_digit(16)? as u8)).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// All handlers; and whether the kernel shows any. Blocks.
fn registered(place: &Path) -> (bool, Vec<Handler>) {
    let is_mounted = place.join("register").exists();
    let handler = |path: &Path| {
        let mut text = String::new();
        std::fs::File::open(path).ok()?.take(HANDLER_LIMIT_BYTES).read_to_string(&mut text).ok()?;
        Handler::parse(&text)
    };
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten().take(MOST_HANDLERS);
    let names = entries.filter(|entry| entry.file_name() != "register" && entry.file_name() != "status");
    (is_mounted, names.filter_map(|entry| handler(&entry.path())).collect())
}

/// How a program for a platform begins (elf(5), `Elf64_Ehdr`), as far as handlers look at it.
fn elf_header(platform: &Platform) -> Option<[u8; 64]> {
    const BITS_32: u8 = 1;
    const BITS_64: u8 = 2;
    const EXECUTABLE: u16 = 2;
    // The numbers of machines are those of the gABI (elf.h, EM_*).
    let (class, is_little, machine): (u8, bool, u16) = match platform.architecture.as_str() {
        "386" => (BITS_32, true, 3),
        "amd64" => (BITS_64, true, 62),
        "arm" => (BITS_32, true, 40),
        "arm64" => (BITS_64, true, 183),
        "loong64" => (BITS_64, true, 258),
        "mips" => (BITS_32, false, 8),
        "mipsle" => (BITS_32, true, 8),
        "mips64" => (BITS_64, false, 8),
        "mips64le" => (BITS_64, true, 8),
        "ppc64" => (BITS_64, false, 21),
        "ppc64le" => (BITS_64, true, 21),
        "riscv64" => (BITS_64, true, 243),
        "s390x" => (BITS_64, false, 22),
        _ => return None,
    };
    if platform.os != "linux" {
        return None;
    }
    let number = |value: u16| if is_little { value.to_le_bytes() } else { value.to_be_bytes() };
    let mut header = [0; 64];
    header[..4].copy_from_slice(b"\x7fELF");
    (header[4], header[5], header[6]) = (class, if is_little { 1 } else { 2 }, 1);
    header[16..18].copy_from_slice(&number(EXECUTABLE));
    header[18..20].copy_from_slice(&number(machine));
    header[if is_little { 20 } else { 23 }] = 1;
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Debian's qemu-user-static registers them.
    const ARM64: &str = "7f454c460201010000000000000000000200b700";
    const S390X: &str = "7f454c4602020100000000000000000000020016";
    const MASK: &str = "ffffffffffffff00fffffffffffffffffeffffff";
    const BIG_MASK: &str = "ffffffffffffff00fffffffffffffffffffeffff";

    fn shown(flags: &str, magic: &str, mask: &str) -> String {
        format!("enabled\ninterpreter /usr/libexec/qemu\nflags: {flags}\noffset 0\nmagic {magic}\nmask {mask}\n")
    }

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    fn decided(text: &str, handlers: &[String]) -> Result<(), (String, Option<String>)> {
        let handlers: Vec<Handler> = handlers.iter().map(|text| Handler::parse(text).unwrap()).collect();
        decide(&platform(text), &handlers, true).map_err(|error| match error {
            StepError::Said { message, hint } => (message, hint),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn an_emulator_is_found_by_the_bytes_that_programs_begin_with() {
        let (arm, big) = (shown("OCF", ARM64, MASK), shown("F", S390X, BIG_MASK));
        let python = "enabled\ninterpreter /usr/bin/python3\nflags: \noffset 0\nmagic a70d0d0a\n".to_owned();
        let all = [python.clone(), arm.clone(), big.clone()];
        assert_eq!(decided("linux/arm64", &all), Ok(()));
        assert_eq!(decided("linux/arm64/v9", &all), Ok(()));
        assert_eq!(decided("linux/s390x", &all), Ok(()));
        for (text, handlers, words) in [
            ("linux/arm64", vec![python.clone(), big], "no emulator for it is registered"),
            ("linux/riscv64", all.to_vec(), "no emulator for it is registered"),
            ("linux/arm/v7", all.to_vec(), "no emulator for it is registered"),
            (
                "linux/arm64",
                vec![shown("OC", ARM64, MASK)],
                "the emulator /usr/libexec/qemu is registered without the flag F",
            ),
            ("windows/amd64", all.to_vec(), "nothing emulates it"),
            ("linux/pdp11", all.to_vec(), "nothing emulates it"),
        ] {
            let (message, _) = decided(text, &handlers).unwrap_err();
            assert!(message.contains(words) && message.contains(&platform(text).to_string()), "{text}: {message}");
        }
        let (_, hint) = decided("linux/arm64", &[]).unwrap_err();
        assert!(hint.unwrap().contains("qemu-user-static"));
        // One with the flag beside one without it will do.
        assert_eq!(decided("linux/arm64", &[shown("", ARM64, MASK), arm]), Ok(()));
    }

    #[test]
    fn what_is_no_handler_in_force_is_passed_over() {
        let good = shown("F", ARM64, MASK);
        let handler = Handler::parse(&good).unwrap();
        assert!(handler.is_open && handler.magic.len() == 20);
        for (wrong, by) in [
            ("enabled\n", "disabled\n"),
            ("offset 0", "offset -1"),
            ("offset 0", "offset"),
            ("magic 7f", "magic 7"),
            ("magic 7f", "magic é"),
            ("mask ffff", "mask ff"),
            ("offset 0\nmagic", "extension"),
            ("flags", "newer"),
        ] {
            assert_eq!(Handler::parse(&good.replacen(wrong, by, 1)), None, "{wrong} -> {by}");
        }
        for text in ["", "enabled", "enabled\nextension .jar\n", "enabled\nmagic \n"] {
            assert_eq!(Handler::parse(text), None, "{text:?}");
        }
        let far = good.replace("offset 0", "offset 18446744073709551615");
        assert!(!Handler::parse(&far).unwrap().takes(&[0; 64]));
    }

    #[test]
    fn every_platform_that_runs_here_is_run() {
        assert!(check(&Platform::host()).is_ok());
        for (host, native, foreign) in [
            ("linux/amd64", &["linux/amd64", "linux/amd64/v3", "linux/386"][..], &["linux/arm64", "linux/arm/v7"][..]),
            ("linux/arm64", &["linux/arm64", "linux/arm64/v9", "linux/arm/v7"], &["linux/amd64", "linux/386"]),
        ] {
            let host = platform(host);
            assert!(native.iter().all(|text| is_of(&host, &platform(text))), "{native:?}");
            assert!(!foreign.iter().any(|text| is_of(&host, &platform(text))), "{foreign:?}");
            assert!(is_of(&host, &Platform::new("linux", "", None)));
        }
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(registered(directory.path()), (false, Vec::new()));
        for (name, text) in
            [("register", ""), ("status", "enabled\n"), ("qemu", &shown("F", ARM64, MASK)), ("odd", "\n")]
        {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let (is_mounted, handlers) = registered(directory.path());
        assert!(is_mounted && handlers.len() == 1);
    }
}
