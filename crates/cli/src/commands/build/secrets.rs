//! `--secret id=token,src=./token.txt`, `--secret id=token,env=TOKEN`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use dozen_model::base64;

use crate::arguments::flags::invalid;
use crate::arguments::key_values::Environment;
use crate::commands::system_words;
use crate::failure::Failure;

/// Of one secret, as BuildKit has it.
const LIMIT_BYTES: usize = 500 << 10;

/// Where one is.
#[derive(Debug, PartialEq, Eq)]
enum Source<'a> {
    File(&'a str),
    Variable(&'a str),
}

/// All secrets, by id, in base 64. Given again, the last one counts.
pub(super) fn read(texts: &[&str], environment: Environment<'_>) -> Result<BTreeMap<String, String>, Failure> {
    let mut secrets = BTreeMap::new();
    for text in texts {
        let (id, source) = parse(text, environment).map_err(|why| invalid(text, "secret", why))?;
        let bytes = match source {
            Source::Variable(name) => environment(name).unwrap_or_default().into_bytes(),
            Source::File(path) => file(path)
                .map_err(|why| Failure::new(format!("ERROR: failed to read the secret \"{id}\": {path}: {why}")))?,
        };
        if bytes.len() > LIMIT_BYTES {
            let limit = LIMIT_BYTES >> 10;
            return Err(Failure::new(format!("ERROR: the secret \"{id}\" is too big: it may have {limit} KiB")));
        }
        secrets.insert(id.to_owned(), base64::encode(&bytes));
    }
    Ok(secrets)
}

fn file(path: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| system_words(&error))?;
    file.take(LIMIT_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|error| system_words(&error))?;
    Ok(bytes)
}

/// The rules are buildx's: without a place it is the variable of that name, or else the file.
fn parse<'a>(text: &'a str, environment: Environment<'_>) -> Result<(&'a str, Source<'a>), String> {
    let (mut id, mut path, mut variable, mut kind) = ("", "", "", "");
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        match key.to_ascii_lowercase().as_str() {
            "type" if matches!(value, "file" | "env") => kind = value,
            "type" => return Err(format!("unsupported secret type \"{value}\"")),
            "id" => id = value,
            "source" | "src" => path = value,
            "env" => variable = value,
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if id.is_empty() {
        return Err("secret missing ID".to_owned());
    }
    if kind == "env" && variable.is_empty() {
        (variable, path) = (path, "");
    }
    Ok(match (variable, path) {
        ("", "") if kind != "file" && environment(id).is_some() => (id, Source::Variable(id)),
        ("", "") => (id, Source::File(id)),
        ("", path) => (id, Source::File(path)),
        (variable, _) => (id, Source::Variable(variable)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_where_buildx_finds_them() {
        let environment = |name: &str| (name == "TOKEN").then(|| "t".to_owned());
        for (text, found) in [
            ("id=a,src=/b", Ok(("a", Source::File("/b")))),
            ("id=a,source=/b", Ok(("a", Source::File("/b")))),
            ("type=file,id=TOKEN", Ok(("TOKEN", Source::File("TOKEN")))),
            ("id=a,env=TOKEN", Ok(("a", Source::Variable("TOKEN")))),
            ("type=env,id=a,src=TOKEN", Ok(("a", Source::Variable("TOKEN")))),
            ("id=TOKEN", Ok(("TOKEN", Source::Variable("TOKEN")))),
            ("id=other", Ok(("other", Source::File("other")))),
            ("src=/b", Err("secret missing ID")),
            ("id=a,type=x", Err("unsupported secret type \"x\"")),
            ("id=a,mode=1", Err("unexpected key 'mode' in 'mode=1'")),
            ("a", Err("invalid field 'a' must be a key=value pair")),
        ] {
            let read = parse(text, &environment);
            assert_eq!(read, found.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn they_are_read_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        std::fs::write(&path, b"\0\xff").unwrap();
        let text = format!("id=a,src={}", path.display());
        let environment = |_: &str| Some("v".to_owned());
        let read = |texts: &[&str]| read(texts, &environment).map_err(|failure| failure.message);
        assert_eq!(read(&[&text, "id=b,env=B"]).unwrap().values().collect::<Vec<_>>(), ["AP8=", "dg=="]);
        std::fs::write(&path, vec![0; LIMIT_BYTES + 1]).unwrap();
        assert!(read(&[&text]).unwrap_err().contains("too big"));
        assert!(read(&["id=a,src=/nowhere"]).unwrap_err().ends_with("/nowhere: no such file or directory"));
    }
}
