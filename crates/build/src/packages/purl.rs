//! A package's name that is the same for everyone: `pkg:deb/debian/libc6@2.36?arch=amd64` (package-url/purl-spec).

use std::fmt::Write as _;

use super::{Manager, Package, Release};

impl Package {
    /// In an image of that system.
    pub fn url(&self, release: &Release) -> String {
        let mut url = String::from("pkg:");
        let of_system = |usual: &'static str| if release.id.is_empty() { usual } else { release.id.as_str() };
        match self.manager {
            Manager::Debian => url += &format!("deb/{}/", encoded(of_system("debian"))),
            Manager::Alpine => url += &format!("apk/{}/", encoded(of_system("alpine"))),
            Manager::Python => url += "pypi/",
            Manager::Node => url += "npm/",
        }
        match self.manager {
            Manager::Python => url += &encoded(&self.name.to_lowercase().replace('_', "-")),
            // A scope is a part of its own.
            Manager::Node => url += &self.name.split('/').map(encoded).collect::<Vec<_>>().join("/"),
            Manager::Debian | Manager::Alpine => url += &encoded(&self.name.to_lowercase()),
        }
        let _ = write!(url, "@{}", encoded(&self.version));
        let mut qualifiers = Vec::new();
        if let Some(architecture) = &self.architecture {
            qualifiers.push(format!("arch={}", encoded(architecture)));
        }
        if matches!(self.manager, Manager::Debian | Manager::Alpine) && !release.version.is_empty() {
            qualifiers.push(format!("distro={}-{}", encoded(&release.id), encoded(&release.version)));
        }
        if let Some((name, version)) = &self.source {
            let version = version.as_ref().map(|version| format!("@{version}")).unwrap_or_default();
            qualifiers.push(format!("upstream={}", encoded(&format!("{name}{version}"))));
        }
        if !qualifiers.is_empty() {
            let _ = write!(url, "?{}", qualifiers.join("&"));
        }
        url
    }
}

/// "Rules for each purl component": all but letters, digits and `.-_~` is percent-encoded; a colon may stay.
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => encoded.push(byte.into()),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_the_names_that_scanners_look_for() {
        let release = Release { id: "debian".into(), version: "12".into() };
        let package = |manager, name: &str, version: &str| Package {
            manager,
            name: name.into(),
            version: version.into(),
            architecture: None,
            source: None,
            license: None,
            found_in: String::new(),
        };
        let libc = Package {
            architecture: Some("amd64".into()),
            source: Some(("glibc".into(), None)),
            ..package(Manager::Debian, "libc6", "1:2.36-9+deb12u4")
        };
        for (package, release, expected) in [
            (
                libc.clone(),
                &release,
                "pkg:deb/debian/libc6@1:2.36-9%2Bdeb12u4?arch=amd64&distro=debian-12&upstream=glibc",
            ),
            (libc, &Release::default(), "pkg:deb/debian/libc6@1:2.36-9%2Bdeb12u4?arch=amd64&upstream=glibc"),
            (package(Manager::Alpine, "musl", "1.2"), &Release::default(), "pkg:apk/alpine/musl@1.2"),
            (package(Manager::Python, "Flask_Login", "1 2"), &release, "pkg:pypi/flask-login@1%202"),
            (package(Manager::Node, "@a/b", "1"), &release, "pkg:npm/%40a/b@1"),
        ] {
            assert_eq!(package.url(release), expected);
        }
        let gcc = Package {
            source: Some(("gcc-12".into(), Some("12.2".into()))),
            ..package(Manager::Debian, "libgcc-s1", "12.2")
        };
        assert!(gcc.url(&release).ends_with("&upstream=gcc-12%4012.2"));
    }
}
