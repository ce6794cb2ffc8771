//! The recipes, as data: which packages, what is changed after them, and how the image is run.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::sources::Sources;
use super::tarball::hex;
use crate::failure::Failure;

/// Raised when the builder would make something else of the same recipe.
const BUILDER_VERSION: u32 = 2;

/// The time of everything that has no older time: 2025-01-01T00:00:00Z. Two builds from the same packages are the same
/// bytes.
pub const SOURCE_DATE_EPOCH: u64 = 1_735_689_600;

/// One image.
#[derive(Debug)]
pub struct Recipe {
    /// As people write it.
    pub name: &'static str,
    /// The image whose layers come first; its packages and script are part of this one.
    pub base: Option<&'static str>,
    /// Only unpack the packages (no apt, no dpkg inside), or install them on Debian's smallest system.
    pub install: bool,
    /// Debian packages of its own.
    pub packages: &'static [&'static str],
    /// A shell script on the host, with the root file system as `$1`, after the packages.
    pub script: &'static str,
    /// The `config` object of the image (image-spec config.md).
    pub config: fn() -> Value,
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All of them; a base stands before what is built on it.
pub const ALL: &[Recipe] = &[
    Recipe {
        name: "busybox",
        base: None,
        install: false,
        packages: &["busybox-static"],
        script: r#"
            cd "$1"
            # etc/apt and var/lib stay: mmdebstrap itself cleans there afterwards.
            rm -rf usr
            mkdir -p -m 755 dev etc proc sys root usr/bin usr/sbin var var/spool/mail home sbin
            mkdir -p -m 1777 tmp
            chmod 700 root
            printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'daemon:x:1:1:daemon:/usr/sbin:/bin/false' \
                'www-data:x:33:33:www-data:/var/www:/bin/false' 'nobody:x:65534:65534:nobody:/home:/bin/false' >etc/passwd
            printf '%s\n' 'root:x:0:' 'daemon:x:1:' 'www-data:x:33:' 'users:x:100:' 'nogroup:x:65534:' >etc/group
            printf '%s\n' 'root::0:0:99999:7:::' >etc/shadow
            chmod 640 etc/shadow
            for applet in $(bin/busybox --list); do
                case $applet in busybox|init|linuxrc) ;; *) ln -s busybox "bin/$applet" ;; esac
            done
        "#,
        config: || json!({ "Env": [PATH], "Cmd": ["sh"] }),
    },
    Recipe {
        name: "debian:bookworm-slim",
        base: None,
        install: true,
        packages: &[],
        // An image has no place of its own: neither the host's name, nor its resolver, nor its proxy stay in it.
        script: r#"
            cd "$1"
            rm -f etc/apt/apt.conf.d/99mmdebstrap
            : >etc/hostname
            : >etc/resolv.conf
            rm -rf usr/share/info/* usr/share/lintian usr/share/linda
            printf '%s\n' '#!/bin/sh' '# No service is started while packages are installed.' 'exit 101' >usr/sbin/policy-rc.d
            chmod 755 usr/sbin/policy-rc.d
            printf '%s\n' '// What was downloaded is not kept in a layer.' \
                'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };' \
                'Dir::Cache::pkgcache "";' 'Dir::Cache::srcpkgcache "";' \
                'Acquire::Languages "none";' 'Acquire::GzipIndexes "true";' >etc/apt/apt.conf.d/50container
        "#,
        config: || json!({ "Env": [PATH], "Cmd": ["bash"] }),
    },
    Recipe {
        name: "debian-mirror",
        base: Some("debian:bookworm-slim"),
        install: true,
        packages: &[],
        // A part of Debian's archive: some packages that do more to a file system than lay files in it (users, set-user-id
        // and capabilities of files, alternatives, diversions), and what they need beyond the base.
        script: r#"
            cd "$1"
            export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
            apt-get clean
            apt-get --yes --no-install-recommends --download-only install \
                cron dbus iputils-ping libcap2-bin molly-guard sudo vim-tiny
            index=dists/bookworm/main/binary-$(dpkg --print-architecture)
            mkdir -p "srv/debian/pool" "srv/debian/$index"
            # The name of a file at the mirror has no epoch.
            for package in var/cache/apt/archives/*.deb; do
                mv "$package" "srv/debian/pool/$(basename "$package" | sed 's/_[0-9]*%3a/_/')"
            done
            rm -f var/cache/apt/*.bin
            cd srv/debian
            for package in pool/*.deb; do
                dpkg-deb --field "$package"
                echo "Filename: $package"
                echo "Size: $(stat --format %s "$package")"
                echo "SHA256: $(sha256sum "$package" | cut -d' ' -f1)"
                echo
            done >"$index/Packages"
            cd dists/bookworm
            {
                printf '%s\n' 'Codename: bookworm' "Architectures: $(dpkg --print-architecture)" 'Components: main'
                echo "Date: $(LC_ALL=C date --utc --date="@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S UTC')"
                echo 'SHA256:'
                for list in main/*/Packages; do
                    echo " $(sha256sum "$list" | cut -d' ' -f1) $(stat --format %s "$list") $list"
                done
            } >Release
        "#,
        config: || json!({ "Env": [PATH], "Cmd": ["bash"] }),
    },
    Recipe {
        name: "python:3.11-slim",
        base: Some("debian:bookworm-slim"),
        install: true,
        packages: &["python3", "python3-pip", "python3-venv", "python-is-python3", "ca-certificates"],
        // The marker of PEP 668 keeps pip out of Debian's own directories; an image of Python is there for pip.
        script: r#"rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED"#,
        config: || json!({ "Env": [PATH, "LANG=C.UTF-8", "PIP_ROOT_USER_ACTION=ignore"], "Cmd": ["python3"] }),
    },
    Recipe {
        name: "redis:7",
        base: Some("debian:bookworm-slim"),
        install: true,
        packages: &["redis-server"],
        script: r#"mkdir -p "$1/data"; chroot "$1" chown redis:redis /data"#,
        config: || {
            json!({
                "Env": [PATH], "User": "redis", "WorkingDir": "/data", "Volumes": { "/data": {} },
                "ExposedPorts": { "6379/tcp": {} }, "Cmd": ["redis-server", "--protected-mode", "no"],
            })
        },
    },
    Recipe {
        name: "nginx:1.22",
        base: Some("debian:bookworm-slim"),
        install: true,
        packages: &["nginx-light"],
        script: r#"
            ln -sf /dev/stdout "$1/var/log/nginx/access.log"
            ln -sf /dev/stderr "$1/var/log/nginx/error.log"
        "#,
        config: || {
            json!({
                "Env": [PATH], "ExposedPorts": { "80/tcp": {} }, "StopSignal": "SIGQUIT",
                "Cmd": ["nginx", "-g", "daemon off;"],
            })
        },
    },
    Recipe {
        name: "postgres:15",
        base: Some("debian:bookworm-slim"),
        install: true,
        packages: &["postgresql-15"],
        script: r#"
            rm -rf "$1"/var/lib/postgresql/15 "$1"/etc/postgresql/15
            mkdir -p "$1/var/lib/postgresql/data"
            chroot "$1" chown postgres:postgres /var/lib/postgresql/data
            chmod 700 "$1/var/lib/postgresql/data"
            cat >"$1/usr/local/bin/entrypoint" <<'END'
#!/bin/sh
# Makes the database on the first start, then is the server.
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username=postgres --auth=trust ${POSTGRES_INITDB_ARGS:-} >/dev/null
    echo "host all all all ${POSTGRES_HOST_AUTH_METHOD:-trust}" >>"$PGDATA/pg_hba.conf"
fi
exec "$@"
END
            chmod 755 "$1/usr/local/bin/entrypoint"
        "#,
        config: || {
            json!({
                "Env": [format!("{PATH}:/usr/lib/postgresql/15/bin"), "PGDATA=/var/lib/postgresql/data", "LANG=C.UTF-8"],
                "User": "postgres", "Volumes": { "/var/lib/postgresql/data": {} }, "ExposedPorts": { "5432/tcp": {} },
                "StopSignal": "SIGINT", "Entrypoint": ["entrypoint"],
                // /run is empty in an image: on a machine, systemd makes PostgreSQL's directory there.
                "Cmd": ["postgres", "-c", "listen_addresses=*", "-c", "unix_socket_directories=/tmp"],
            })
        },
    },
    Recipe {
        name: "gunicorn:20",
        base: Some("debian:bookworm-slim"),
        install: true,
        packages: &["gunicorn", "python3-flask"],
        script: "",
        config: || {
            json!({
                "Env": [PATH, "PYTHONPATH=/given"], "User": "www-data", "ExposedPorts": { "8000/tcp": {} },
                // Its workers say that they live through a file: on /dev/shm it blocks on no disk.
                "Entrypoint": ["gunicorn", "--bind=[::]:8000", "--worker-tmp-dir=/dev/shm"],
            })
        },
    },
];

/// The recipe of this name; `busybox` and `busybox:latest` are one.
pub fn find(name: &str) -> Result<&'static Recipe, Failure> {
    let wanted = name.strip_suffix(":latest").unwrap_or(name);
    ALL.iter().find(|recipe| recipe.name == wanted).ok_or_else(|| {
        let known = ALL.iter().map(|recipe| recipe.name).collect::<Vec<_>>().join(", ");
        Failure::new(format!("no recipe for an image named '{name}'")).with_hint(format!("there is: {known}"))
    })
}

impl Recipe {
    /// Name and tag apart: `busybox` has the tag `latest`.
    pub fn repository_and_tag(&self) -> (&'static str, &'static str) {
        self.name.split_once(':').unwrap_or((self.name, "latest"))
    }

    /// What its archive is called, without hash and ending.
    pub fn file_stem(&self) -> String {
        self.name.replace([':', '/'], "-")
    }

    /// The bases, from the lowest, and this one.
    pub fn chain(&self) -> Vec<&Recipe> {
        let mut chain = match self.base {
            Some(base) => ALL.iter().find(|recipe| recipe.name == base).expect("a test looks up every base").chain(),
            None => Vec::new(),
        };
        chain.push(self);
        chain
    }

    /// Sixteen hexadecimal digits that change when anything that goes into the image does, but for the packages'
    /// versions: those are as new as the last build.
    pub fn hash(&self, architecture: &str, sources: &Sources) -> String {
        let mut hasher = Sha256::new();
        hasher.update(
            json!([BUILDER_VERSION, SOURCE_DATE_EPOCH, architecture, sources.lines, sources.apt_options]).to_string(),
        );
        for recipe in self.chain() {
            let (name, install) = (recipe.name, recipe.install);
            hasher.update(json!([name, install, recipe.packages, recipe.script, (recipe.config)()]).to_string());
        }
        hex(&hasher.finalize())[..16].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_stands_after_its_base() {
        for (index, recipe) in ALL.iter().enumerate() {
            let Some(base) = recipe.base else { continue };
            let at = ALL.iter().position(|other| other.name == base);
            assert!(at.is_some_and(|at| at < index), "{} is built on {base}", recipe.name);
        }
    }

    #[test]
    fn the_hash_follows_the_base() {
        let sources = Sources { lines: vec!["deb x".into()], apt_options: vec![] };
        let other = Sources { lines: vec!["deb y".into()], apt_options: vec![] };
        let python = find("python:3.11-slim").unwrap();
        assert_eq!(python.hash("amd64", &sources), python.hash("amd64", &sources));
        assert_ne!(python.hash("amd64", &sources), python.hash("amd64", &other));
        assert_ne!(python.hash("amd64", &sources), find("debian:bookworm-slim").unwrap().hash("amd64", &sources));
        assert_eq!(python.chain().len(), 2);
    }

    #[test]
    fn an_unknown_name_says_what_there_is() {
        let failure = find("alpine").unwrap_err();
        assert!(failure.hint().unwrap().contains("busybox, debian:bookworm-slim"));
        assert_eq!(find("busybox:latest").unwrap().name, "busybox");
    }
}
