//! Environment variables and labels, from flags and from files.

use std::collections::BTreeMap;

/// The environment of whoever called us.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// `-e NAME=VALUE`, or `-e NAME` for the value that we have ourselves: `None` if we have none.
pub fn environment_entry(text: &str, environment: Environment<'_>) -> Result<Option<String>, String> {
    match text.split_once('=') {
        _ if text.is_empty() => Err("the variable has no name".to_owned()),
        Some(("", _)) => Err(format!("invalid environment variable: {text}")),
        Some(_) => Ok(Some(text.to_owned())),
        None => Ok(environment(text).map(|value| format!("{text}={value}"))),
    }
}

/// The lines of an `--env-file`; a name alone takes our own value, or is left out.
pub fn environment_file(path: &str, bytes: &[u8], environment: Environment<'_>) -> Result<Vec<String>, String> {
    let entry = |line: &str| match line.contains('=') {
        true => Some(line.to_owned()),
        false => environment(line).map(|value| format!("{line}={value}")),
    };
    Ok(lines(path, bytes, "environment file", "variable")?.into_iter().filter_map(entry).collect())
}

/// The lines of a `--label-file`.
pub fn label_file(path: &str, bytes: &[u8]) -> Result<Vec<String>, String> {
    lines(path, bytes, "label file", "label").map(|lines| lines.into_iter().map(str::to_owned).collect())
}

/// Labels as a map; a later one wins, a name alone has an empty value.
pub fn labels<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<BTreeMap<String, String>, String> {
    let mut labels = BTreeMap::new();
    for text in texts {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if name.is_empty() {
            return Err(format!("invalid label format: \"{text}\""));
        }
        labels.insert(name.to_owned(), value.to_owned());
    }
    Ok(labels)
}

/// The lines that say something. Space before a line goes, space after it is part of the value.
fn lines<'a>(path: &str, bytes: &'a [u8], kind: &str, noun: &str) -> Result<Vec<&'a str>, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut kept = Vec::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let at = format!("{path}:{}", number + 1);
        let line = std::str::from_utf8(line).map_err(|_| format!("invalid {kind} ({at}): it is not UTF-8"))?;
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.is_empty() {
            return Err(format!("invalid {kind} ({at}): no {noun} name on line '{line}'"));
        }
        if name.contains(char::is_whitespace) {
            return Err(format!("invalid {kind} ({at}): {noun} '{name}' contains whitespaces"));
        }
        kept.push(line);
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(name: &str) -> Option<String> {
        (name == "HOME").then(|| "/root".to_owned())
    }

    #[test]
    fn variables_come_from_the_flag_or_from_us() {
        for (text, parsed) in [
            ("A=b", Ok(Some("A=b"))),
            ("A=", Ok(Some("A="))),
            ("A=b=c", Ok(Some("A=b=c"))),
            ("HOME", Ok(Some("HOME=/root"))),
            ("NONE", Ok(None)),
            ("=b", Err(())),
            ("", Err(())),
        ] {
            let entry = environment_entry(text, &ours);
            assert_eq!(entry.as_ref().map(Option::as_deref).map_err(|_| ()), parsed, "{text}");
        }
    }

    #[test]
    fn files_have_comments_and_no_quotes() {
        let file = "\u{feff}# talk\n  A=b \n\nB=\"c\"\r\nHOME\nNONE\nE=\n".as_bytes();
        assert_eq!(environment_file("f", file, &ours).unwrap(), ["A=b ", "B=\"c\"", "HOME=/root", "E="]);
        assert_eq!(label_file("f", b"a=b\nc\n").unwrap(), ["a=b", "c"]);
        for (bad, words) in [
            (&b"A=b\n=x"[..], "invalid environment file (f:2): no variable name on line '=x'"),
            (b"A B=c", "invalid environment file (f:1): variable 'A B' contains whitespaces"),
            (b"\xff", "invalid environment file (f:1): it is not UTF-8"),
        ] {
            assert_eq!(environment_file("f", bad, &ours).unwrap_err(), words);
        }
    }

    #[test]
    fn labels_gather() {
        let labels = labels(["a=1", "b", "a=2=3"]).unwrap();
        assert_eq!(labels, BTreeMap::from([("a".into(), "2=3".into()), ("b".into(), String::new())]));
        assert!(super::labels(["=x"]).is_err());
    }
}
