//! `--mount type=…,source=…,target=…`, a line of CSV.

use std::path::Path;

use serde_json::{Map, Value, json};

/// Parses one into an entry of the API's `Mounts`. The words of the refusals are Docker's where it has any.
pub fn parse(text: &str, directory: &Path) -> Result<Value, String> {
    let mut mount = Mount { kind: "volume".to_owned(), ..Mount::default() };
    for field in fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        mount.set(&field, &key, value)?;
    }
    mount.finish(directory)
}

#[derive(Debug, Default)]
struct Mount {
    kind: String,
    source: Option<String>,
    target: Option<String>,
    read_only: Option<bool>,
    consistency: Option<String>,
    bind: Map<String, Value>,
    volume: Map<String, Value>,
    image: Map<String, Value>,
    artifact: Map<String, Value>,
    tmpfs: Map<String, Value>,
    owner: Map<String, Value>,
}

impl Mount {
    fn set(&mut self, field: &str, key: &str, value: Option<&str>) -> Result<(), String> {
        let text = || match value {
            Some(value) if !value.is_empty() => Ok(value.to_owned()),
            _ => Err(format!("invalid field '{field}' must be a key=value pair")),
        };
        let switch = || match value {
            None | Some("1" | "t" | "true") => Ok(true),
            Some("0" | "f" | "false") => Ok(false),
            Some(other) => Err(format!("invalid value for {key}: {other}")),
        };
        match key {
            "type" => {
                self.kind = text()?.to_ascii_lowercase();
                if !matches!(self.kind.as_str(), "bind" | "volume" | "tmpfs" | "image" | "artifact") {
                    return Err(match self.kind.as_str() {
                        "cluster" | "npipe" => format!("--mount type={} is not built yet", self.kind),
                        other => format!("invalid mount type '{other}': want bind, volume, tmpfs, image or artifact"),
                    });
                }
            }
            "source" | "src" => self.source = Some(text()?),
            "target" | "dst" | "destination" => self.target = Some(text()?),
            "readonly" | "ro" => self.read_only = Some(switch()?),
            "bind-propagation" => {
                let propagation = text()?.to_ascii_lowercase();
                if !matches!(propagation.as_str(), "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave") {
                    return Err(format!("invalid value for bind-propagation: {propagation}"));
                }
                self.bind.insert("Propagation".to_owned(), propagation.into());
            }
            "bind-recursive" => match text()?.as_str() {
                "enabled" => {}
                "disabled" => drop(self.bind.insert("NonRecursive".to_owned(), true.into())),
                "writable" => drop(self.bind.insert("ReadOnlyNonRecursive".to_owned(), true.into())),
                "readonly" => drop(self.bind.insert("ReadOnlyForceRecursive".to_owned(), true.into())),
                other => {
                    return Err(format!(
                        "invalid value for {key}: {other}: want \"enabled\", \"disabled\", \"writable\" or \"readonly\""
                    ));
                }
            },
            "bind-nonrecursive" => drop(self.bind.insert("NonRecursive".to_owned(), switch()?.into())),
            "bind-create-src" => drop(self.bind.insert("CreateMountpoint".to_owned(), switch()?.into())),
            "volume-subpath" => drop(self.volume.insert("Subpath".to_owned(), text()?.into())),
            "image-subpath" => drop(self.image.insert("Subpath".to_owned(), text()?.into())),
            // Of artifacts, in podman's words.
            "digest" => drop(self.artifact.insert("Digest".to_owned(), text()?.into())),
            "title" => drop(self.artifact.insert("Title".to_owned(), text()?.into())),
            "name" => drop(self.artifact.insert("Name".to_owned(), text()?.into())),
            "volume-label" => {
                let label = text()?;
                let (name, value) = label.split_once('=').unwrap_or((&label, ""));
                insert_within(&mut self.volume, "Labels", name, value.into());
            }
            "uid" | "gid" => {
                let id = text()?;
                let number = id.parse::<u32>().ok().filter(|id| *id != u32::MAX);
                let number = number.ok_or_else(|| format!("invalid value for {key}: {id}"))?;
                self.owner.insert(key.to_ascii_uppercase(), number.into());
            }
            "volume-nocopy" => {
                self.volume.insert("NoCopy".to_owned(), switch()?.into());
            }
            "tmpfs-size" => {
                let size = super::sizes::parse(&text()?).map_err(|why| format!("invalid value for {key}: {why}"))?;
                self.tmpfs.insert("SizeBytes".to_owned(), size.into());
            }
            "tmpfs-mode" => {
                let mode = text()?;
                let bits = u32::from_str_radix(&mode, 8).ok().filter(|bits| *bits <= 0o7777);
                self.tmpfs.insert("Mode".to_owned(), bits.ok_or(format!("invalid value for {key}: {mode}"))?.into());
            }
            // It only ever meant something on a Mac.
            "consistency" => {
                let consistency = text()?.to_ascii_lowercase();
                if !matches!(consistency.as_str(), "default" | "consistent" | "cached" | "delegated") {
                    return Err(format!("invalid value for consistency: {consistency}"));
                }
                self.consistency = Some(consistency);
            }
            "volume-driver" => {
                let driver = text()?;
                insert_within(&mut self.volume, "DriverConfig", "Name", driver.into());
            }
            "volume-opt" => {
                let option = text()?;
                let (name, value) = option.split_once('=').unwrap_or((&option, ""));
                let config = self.volume.entry("DriverConfig").or_insert_with(|| json!({}));
                config["Options"][name] = value.into();
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
        Ok(())
    }

    fn finish(self, directory: &Path) -> Result<Value, String> {
        let target = self.target.as_deref().ok_or("target is required")?;
        if !target.starts_with('/') {
            return Err(format!("invalid mount target '{target}': it must be an absolute path"));
        }
        let own = [("bind", &self.bind), ("volume", &self.volume), ("tmpfs", &self.tmpfs), ("image", &self.image)];
        for (kind, options) in own {
            if kind != self.kind && !options.is_empty() {
                return Err(format!("cannot mix '{kind}-*' options with mount type '{}'", self.kind));
            }
        }
        if self.kind == "artifact" {
            if self.read_only == Some(false) {
                return Err("the files of an artifact are read-only: leave 'readonly=false' away".to_owned());
            }
        } else if !self.artifact.is_empty() {
            return Err(format!("cannot mix 'digest', 'title' and 'name' with mount type '{}'", self.kind));
        }
        let is_read_only = self.read_only == Some(true);
        if !self.owner.is_empty() && !matches!(self.kind.as_str(), "bind" | "volume") {
            return Err(format!("cannot mix 'uid' and 'gid' with mount type '{}'", self.kind));
        }
        let needs = |option: &str, value: &str, other: &str| {
            Err(format!("option '{option}={value}' requires '{other}' to be specified in conjunction"))
        };
        if self.bind.contains_key("ReadOnlyNonRecursive") && !is_read_only {
            return needs("bind-recursive", "writable", "readonly");
        }
        if self.bind.contains_key("ReadOnlyForceRecursive") {
            if !is_read_only {
                return needs("bind-recursive", "readonly", "readonly");
            }
            if self.bind.get("Propagation").and_then(Value::as_str) != Some("rprivate") {
                return needs("bind-recursive", "readonly", "bind-propagation=rprivate");
            }
        }
        let mut mount = json!({ "Type": self.kind, "Target": target });
        match (self.kind.as_str(), &self.source) {
            ("bind", None) => return Err("source is required for a bind mount".to_owned()),
            ("bind", Some(source)) => {
                let source = super::volumes::absolute(source, directory)?;
                if !source.starts_with('/') {
                    return Err(format!("invalid mount source '{source}': it must be an absolute path"));
                }
                mount["Source"] = source.into();
            }
            ("image" | "artifact", None) => return Err(format!("source is required for an {} mount", self.kind)),
            ("tmpfs", Some(_)) => return Err("a tmpfs mount has no source".to_owned()),
            (_, Some(source)) => mount["Source"] = source.as_str().into(),
            (_, None) => {}
        }
        if is_read_only {
            mount["ReadOnly"] = true.into();
        }
        if let Some(consistency) = self.consistency {
            mount["Consistency"] = consistency.into();
        }
        for (name, options) in [
            ("BindOptions", self.bind),
            ("VolumeOptions", self.volume),
            ("ImageOptions", self.image),
            ("ArtifactOptions", self.artifact),
            ("TmpfsOptions", self.tmpfs),
            ("Owner", self.owner),
        ] {
            if !options.is_empty() {
                mount[name] = Value::Object(options);
            }
        }
        Ok(mount)
    }
}

/// A map in a map, made with its first entry.
fn insert_within(outer: &mut Map<String, Value>, name: &str, key: &str, value: Value) {
    let inner = outer.entry(name).or_insert_with(|| json!({}));
    inner[key] = value;
}

/// One record of CSV (RFC 4180): a field may be in double quotes, in which two stand for one.
pub(super) fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut characters = text.chars().peekable();
    let mut is_quoted = false;
    while let Some(character) = characters.next() {
        let field = fields.last_mut().expect("it begins with one field");
        match character {
            '"' if is_quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if is_quoted => is_quoted = false,
            '"' if field.is_empty() => is_quoted = true,
            '"' => return Err(format!("a quote within a field: {text}")),
            ',' if !is_quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    if is_quoted { Err(format!("a quote is not closed: {text}")) } else { Ok(fields) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mounts_parse() {
        for (text, parsed) in [
            ("type=bind,source=/a,target=/b", json!({"Type":"bind","Source":"/a","Target":"/b"})),
            ("type=bind,src=./a,dst=/b,ro", json!({"Type":"bind","Source":"/here/a","Target":"/b","ReadOnly":true})),
            ("src=v,target=/b,readonly=false", json!({"Type":"volume","Source":"v","Target":"/b"})),
            ("target=/b,volume-nocopy", json!({"Type":"volume","Target":"/b","VolumeOptions":{"NoCopy":true}})),
            (
                "type=bind,src=/a,dst=/b,bind-propagation=rslave",
                json!({"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"Propagation":"rslave"}}),
            ),
            (
                "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=0700",
                json!({"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1_048_576,"Mode":448}}),
            ),
            (
                "type=bind,src=/a,dst=/b,consistency=Delegated",
                json!({"Type":"bind","Source":"/a","Target":"/b","Consistency":"delegated"}),
            ),
            (
                "type=bind,src=/a,dst=/b,ro,bind-recursive=writable,uid=5,gid=0",
                json!({"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true,
                    "BindOptions":{"ReadOnlyNonRecursive":true},"Owner":{"UID":5,"GID":0}}),
            ),
            (
                "type=volume,src=v,dst=/b,volume-subpath=x/y,volume-label=a=b,volume-label=c",
                json!({"Type":"volume","Source":"v","Target":"/b",
                    "VolumeOptions":{"Subpath":"x/y","Labels":{"a":"b","c":""}}}),
            ),
            (
                "src=v,dst=/b,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs,\"volume-opt=o=size=1m,uid=7\"",
                json!({"Type":"volume","Source":"v","Target":"/b","VolumeOptions":{"DriverConfig":
                    {"Name":"local","Options":{"type":"tmpfs","device":"tmpfs","o":"size=1m,uid=7"}}}}),
            ),
            (
                "type=image,src=busybox,dst=/b,image-subpath=etc",
                json!({"Type":"image","Source":"busybox","Target":"/b","ImageOptions":{"Subpath":"etc"}}),
            ),
            (
                "type=artifact,src=r.example/a:1,dst=/b,title=x,name=y",
                json!({"Type":"artifact","Source":"r.example/a:1","Target":"/b","ArtifactOptions":{"Title":"x","Name":"y"}}),
            ),
            (
                "type=artifact,src=a,dst=/b,ro,digest=sha256:5",
                json!({"Type":"artifact","Source":"a","Target":"/b","ReadOnly":true,"ArtifactOptions":{"Digest":"sha256:5"}}),
            ),
            ("type=bind,\"src=/a,b\",dst=/b", json!({"Type":"bind","Source":"/a,b","Target":"/b"})),
        ] {
            assert_eq!(parse(text, Path::new("/here")), Ok(parsed), "{text}");
        }
    }

    #[test]
    fn what_is_no_mount_is_refused() {
        for (text, words) in [
            ("", "unexpected key '' in ''"),
            ("type=bind,src=/a", "target is required"),
            ("type=bind,dst=/a", "source is required for a bind mount"),
            ("type=x,dst=/a", "invalid mount type 'x': want bind, volume, tmpfs, image or artifact"),
            ("type=npipe,dst=/a", "--mount type=npipe is not built yet"),
            ("type=artifact,dst=/a", "source is required for an artifact mount"),
            ("src=v,dst=/a,title=x", "cannot mix 'digest', 'title' and 'name' with mount type 'volume'"),
            (
                "type=artifact,src=a,dst=/a,ro=false",
                "the files of an artifact are read-only: leave 'readonly=false' away",
            ),
            ("type=image,dst=/a", "source is required for an image mount"),
            ("foo=x", "unexpected key 'foo' in 'foo=x'"),
            ("type=tmpfs,dst=/a,volume-nocopy", "cannot mix 'volume-*' options with mount type 'tmpfs'"),
            ("type=tmpfs,dst=/a,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
            ("dst=/a,consistency=strong", "invalid value for consistency: strong"),
            (
                "type=bind,src=/a,dst=/b,bind-recursive=writable",
                "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction",
            ),
            (
                "type=bind,src=/a,dst=/b,ro,bind-recursive=readonly",
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction",
            ),
            ("type=tmpfs,dst=/a,uid=5", "cannot mix 'uid' and 'gid' with mount type 'tmpfs'"),
            ("src=v,dst=/a,uid=me", "invalid value for uid: me"),
            ("dst=a", "invalid mount target 'a': it must be an absolute path"),
            ("\"dst=/a", "a quote is not closed: \"dst=/a"),
        ] {
            assert_eq!(parse(text, Path::new("/here")).unwrap_err(), words, "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[a-z=,\"/ -]{0,40}") {
            let _ = parse(&text, Path::new("/here"));
        }
    }
}
