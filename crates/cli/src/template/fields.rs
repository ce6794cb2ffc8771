//! Fields by name, as Docker's types have them: Go's names where JSON's differ in case, and an empty value of the
//! right type where the API says null or nothing. Types: moby, api/types.

use super::value::{Empty, Value};

/// What a field has that the API leaves out.
#[derive(Debug, Clone, Copy)]
enum Zero {
    Text,
    False,
    Number,
    Nil(Empty),
}

const LIST: Zero = Zero::Nil(Empty::List);
const MAP: Zero = Zero::Nil(Empty::Map);
const POINTER: Zero = Zero::Nil(Empty::Pointer);

/// A kind of object: fields one of which it always has, and those that are left out.
type Object = (&'static [&'static str], &'static [(&'static str, Zero)]);

/// Kinds of objects, each known by a field that it always has, with the fields that are left out when they are empty.
const OBJECTS: &[Object] = &[
    // A container, and within it the state, the host's part and a mount.
    (&["RestartCount"], &[("SizeRw", POINTER), ("SizeRootFs", POINTER), ("Mounts", LIST), ("ExecIDs", LIST)]),
    (&["Running"], &[("Health", POINTER)]),
    (
        &["ShmSize"],
        &[
            ("Annotations", MAP),
            ("Init", POINTER),
            ("Tmpfs", MAP),
            ("Sysctls", MAP),
            ("StorageOpt", MAP),
            ("Mounts", LIST),
            ("MaskedPaths", LIST),
            ("ReadonlyPaths", LIST),
        ],
    ),
    (&["Destination"], &[("Name", Zero::Text), ("Driver", Zero::Text), ("Source", Zero::Text), ("Mode", Zero::Text)]),
    // The configuration of a container or image.
    (
        &["Env", "Cmd", "Entrypoint"],
        &[
            ("User", Zero::Text),
            ("WorkingDir", Zero::Text),
            ("StopSignal", Zero::Text),
            ("MacAddress", Zero::Text),
            ("Env", LIST),
            ("Cmd", LIST),
            ("Entrypoint", LIST),
            ("OnBuild", LIST),
            ("Shell", LIST),
            ("Labels", MAP),
            ("Volumes", MAP),
            ("ExposedPorts", MAP),
            ("Healthcheck", POINTER),
            ("StopTimeout", POINTER),
            ("ArgsEscaped", Zero::False),
            ("NetworkDisabled", Zero::False),
        ],
    ),
    // An image, a volume, an event, a version, and what `info` shows.
    (
        &["RootFS"],
        &[
            ("Variant", Zero::Text),
            ("OsVersion", Zero::Text),
            ("Author", Zero::Text),
            ("Comment", Zero::Text),
            ("Parent", Zero::Text),
            ("DockerVersion", Zero::Text),
            ("Container", Zero::Text),
            ("ContainerConfig", POINTER),
            // Went with API 1.44; Docker's client prints the number that nobody sends any more.
            ("VirtualSize", Zero::Number),
        ],
    ),
    (
        &["Mountpoint"],
        &[("CreatedAt", Zero::Text), ("Status", MAP), ("UsageData", POINTER), ("ClusterVolume", POINTER)],
    ),
    (&["Actor"], &[("Status", Zero::Text), ("ID", Zero::Text), ("From", Zero::Text), ("Scope", Zero::Text)]),
    (
        &["ApiVersion"],
        &[
            ("Experimental", Zero::False),
            ("GitCommit", Zero::Text),
            ("GoVersion", Zero::Text),
            ("BuildTime", Zero::Text),
            ("KernelVersion", Zero::Text),
            ("MinAPIVersion", Zero::Text),
        ],
    ),
    (
        &["ServerVersion"],
        &[("Warnings", LIST), ("ServerErrors", LIST), ("DefaultAddressPools", LIST), ("GenericResources", LIST)],
    ),
];

/// Fields that the API gives as null, by their types; those of [`OBJECTS`] besides.
const LISTS: &[&str] = &[
    "Aliases",
    "Args",
    "Authorization",
    "Binds",
    "BlkioDeviceReadBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps",
    "BlkioWeightDevice",
    "CapAdd",
    "CapDrop",
    "DNSNames",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "Layers",
    "Links",
    "RemoteManagers",
    "RepoDigests",
    "RepoTags",
    "SecondaryIPAddresses",
    "SecondaryIPv6Addresses",
    "SecurityOpt",
    "Tags",
    "Ulimits",
    "VolumesFrom",
];
const MAPS: &[&str] = &["Data", "DriverOpts", "Networks", "Options", "PortBindings", "Ports"];
const POINTERS: &[&str] = &["IPAMConfig", "MemorySwappiness", "OomKillDisable", "PidsLimit"];

/// The field of this name, with null as its type prints it. `None`: the object has no such field.
pub(super) fn find(entries: &[(String, Value)], name: &str) -> Option<Value> {
    let exact = entries.iter().find(|(key, _)| key == name);
    match exact.or_else(|| in_other_case(entries, name)) {
        Some((key, Value::Null)) => Some(null(key)),
        Some((key, Value::Map(inner))) if key == "Ports" => Some(typed(inner, &Value::Null, Empty::List)),
        Some((key, Value::Map(inner))) if key == "ExposedPorts" || key == "Volumes" => {
            Some(typed(inner, &Value::Map(Vec::new()), Empty::Struct))
        }
        Some((_, value)) => Some(value.clone()),
        None => left_out(entries, name),
    }
}

/// Go's `DNS`, `ID`, `APIVersion` for JSON's `Dns`, `Id`, `ApiVersion`. Objects of the API only: what users named
/// (labels, options) is as they wrote it.
fn in_other_case<'a>(entries: &'a [(String, Value)], name: &str) -> Option<&'a (String, Value)> {
    if !entries.iter().any(|(key, _)| key.starts_with(|c: char| c.is_ascii_uppercase())) {
        return None;
    }
    let mut alike = entries.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    let only = alike.next()?;
    alike.next().is_none().then_some(only)
}

fn left_out(entries: &[(String, Value)], name: &str) -> Option<Value> {
    let is_one = |markers: &[&str]| entries.iter().any(|(key, _)| markers.contains(&key.as_str()));
    let fields = OBJECTS.iter().filter(|(markers, _)| is_one(markers)).flat_map(|(_, fields)| *fields);
    fields.into_iter().find(|(field, _)| *field == name).map(|(_, zero)| zero.value())
}

fn null(name: &str) -> Value {
    let of_object = OBJECTS.iter().flat_map(|(_, fields)| *fields).find(|(field, _)| *field == name);
    match of_object {
        Some((_, zero)) => zero.value(),
        None if LISTS.contains(&name) => LIST.value(),
        None if MAPS.contains(&name) => MAP.value(),
        None if POINTERS.contains(&name) => POINTER.value(),
        None => Value::Null,
    }
}

/// A port that is not published has an empty list, one that is exposed a struct of nothing: `map[80/tcp:[]]`,
/// `map[80/tcp:{}]`.
fn typed(entries: &[(String, Value)], untyped: &Value, empty: Empty) -> Value {
    let value = |value: &Value| if value == untyped { Value::Empty(empty) } else { value.clone() };
    Value::Map(entries.iter().map(|(key, inner)| (key.clone(), value(inner))).collect())
}

impl Zero {
    fn value(self) -> Value {
        match self {
            Self::Text => Value::String(String::new()),
            Self::Number => Value::Integer(0),
            Self::False => Value::Boolean(false),
            Self::Nil(empty) => Value::Empty(empty),
        }
    }
}
