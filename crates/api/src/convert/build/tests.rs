use dozen_engine::HostResources;
use dozen_model::{Digest, ImageId, Ulimit};
use dozen_settings::Settings;

use super::*;
use crate::convert::create::{self, ImageDefaults};
use crate::convert::defaults;

fn read(query: &str) -> Result<BuildRequest, ApiError> {
    request(&Query::from(query), None, None, container(&Settings::default()))
}

/// As the route makes it, on an engine without networks and containers.
fn container(settings: &Settings) -> impl FnOnce(Create) -> Result<(ContainerSpec, Option<u32>), ApiError> {
    |mut wanted| {
        defaults::merge(&mut wanted, settings);
        let nobody = ImageId::new(Digest::from_sha256([0; 32]));
        let find = |_: &str| Err(ApiError::invalid("there is none"));
        create::spec(&wanted, nobody, &ImageDefaults::default(), &find).map(|(spec, _)| (spec, None))
    }
}

/// What the docker CLI sends (20.10 for a classic build; 28 leaves out what is empty), and docker-py.
const CLI_20: &str = "buildargs=%7B%22A%22%3A%22b%22%2C%22C%22%3Anull%7D&cachefrom=%5B%5D&cgroupparent=&cpuperiod=0&cpuquota=0&\
     cpusetcpus=&cpusetmems=&cpushares=0&dockerfile=Dockerfile&labels=%7B%7D&memory=0&memswap=0&networkmode=default&rm=1&\
     shmsize=0&t=web%3A1&target=&ulimits=null&version=1";
const DOCKER_PY: &str = "t=web&remote=&q=False&nocache=False&rm=False&forcerm=False&pull=False&dockerfile=Dockerfile";

#[test]
fn what_clients_send_by_default_is_taken() {
    let cli = read(CLI_20).unwrap();
    assert_eq!(cli.given.arguments, BTreeMap::from([("A".to_owned(), "b".to_owned())]));
    assert_eq!(cli.tags.iter().map(Reference::familiar).collect::<Vec<_>>(), ["web:1"]);
    let (network, resources) = (&cli.container.network, &cli.container.resources);
    assert_eq!((network, resources.memory.limit_bytes), (&dozen_model::NetworkMode::Bridge, None));
    assert_eq!(resources.cpu.cpus, "");
    assert_eq!(cli.container.shm_size_bytes, Settings::default().shm_size_bytes);
    assert_eq!(cli.container.log.driver(), &dozen_model::LogDriver::None);
    let sdk = read(DOCKER_PY).unwrap();
    assert_eq!(sdk.tags.iter().map(Reference::familiar).collect::<Vec<_>>(), ["web:latest"]);
    assert_eq!(sdk.dockerfile, DockerfileSource::InContext("Dockerfile".into()));
    assert!(!sdk.no_cache);
    assert_eq!(read("").unwrap().dockerfile, DockerfileSource::default());
}

#[test]
fn every_parameter_that_acts_is_read() {
    let query = "dockerfile=web/Dockerfile&t=a&t=b:2&t=a:latest&nocache=1&target=test&buildargs=%7B%22A%22:%22b%22%7D&\
        labels=%7B%22l%22:%22m%22%7D&networkmode=host&extrahosts=db:10.0.0.1&extrahosts=me:host-gateway&shmsize=1048576&\
        ulimits=%5B%7B%22Name%22:%22nofile%22,%22Soft%22:5,%22Hard%22:6%7D%5D&memory=67108864&cpushares=7&cpuquota=5000&\
        cpuperiod=10000&cpusetcpus=0&cpusetmems=0&cgroupparent=/team&nocachefilter=a,b&nocachefilter=c&\
        allow=security.insecure&cachefrom=%5B%22a%22,%22b:1%22%5D&cacheto=inline,client";
    let platform = "linux/arm64".parse().unwrap();
    let created = Timestamp::from_second(7).unwrap();
    let it = request(&Query::from(query), Some(&platform), Some(created), container(&Settings::default())).unwrap();
    assert_eq!(it.dockerfile, DockerfileSource::InContext("web/Dockerfile".into()));
    assert_eq!(it.tags.iter().map(Reference::familiar).collect::<Vec<_>>(), ["a:latest", "b:2"]);
    assert!(it.no_cache && it.has_inline_cache && it.is_cache_taken);
    assert_eq!(it.cache_images, ["a", "b:1"]);
    assert_eq!(
        (it.given.target_stage.as_str(), it.given.target_platform.to_string().as_str()),
        ("test", "linux/arm64")
    );
    assert_eq!(it.given.build_platform, of(&dozen_engine::Platform::host()));
    assert_eq!((it.given.arguments["A"].as_str(), it.labels["l"].as_str()), ("b", "m"));
    let ran = &it.container;
    assert_eq!(ran.network, dozen_model::NetworkMode::Host);
    assert_eq!(ran.extra_hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>(), ["db", "me"]);
    assert_eq!(ran.shm_size_bytes, 1 << 20);
    assert_eq!(ran.resources.ulimits, [Ulimit { name: "nofile".into(), soft: 5, hard: 6 }]);
    assert_eq!(it.no_cache_stages, ["a", "b", "c"]);
    assert_eq!(it.entitlements, ["security.insecure"]);
    assert_eq!(it.given.arguments["SOURCE_DATE_EPOCH"], "7");
    assert!(it.platform.is_some_and(|platform| platform.architecture == "arm64"));
    // What this machine's kernel cannot limit is dropped with a warning.
    let host = HostResources::of_host();
    let limited = |is_there: bool, value: u64| is_there.then_some(value);
    let limits = &ran.resources;
    assert_eq!(limits.memory.limit_bytes, limited(host.memory, 64 << 20));
    assert_eq!(limits.cpu.shares, limited(host.cpu_shares, 7));
    assert_eq!(limits.cpu.period_us, limited(host.cpu_quota, 10_000));
    assert_eq!(limits.cpu.quota_us, host.cpu_quota.then_some(5000));
    assert_eq!(limits.cpu.cpus, if host.cpuset { "0" } else { "" });
    assert_eq!(limits.cgroup_parent.as_ref().map(|parent| parent.path()), Some("/team"));
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    for (query, words) in [
        ("squash=1", "\"squash\""),
        ("cacheto=s3", "a cache that goes to \"s3\""),
        ("outputs=%5B%7B%22Type%22:%22local%22%7D%5D", "\"outputs\""),
        ("version=2", "BuildKit's protocol"),
        ("session=abc", "a build session"),
        ("isolation=hyperv", "\"isolation\""),
        ("securityopt=a%3Db", "\"securityopt\""),
        ("allow=device", "the entitlement \"device\""),
    ] {
        let error = read(query).unwrap_err();
        assert_eq!(error.status(), 501, "{query}");
        assert!(error.message.contains(words) && error.hint.is_some(), "{query}: {}", error.message);
    }
    for query in ["pull=1", "squash=false", "outputs=null", "isolation=default", "cachefrom=null", "securityopt="] {
        assert_eq!(read(query).map(drop), Ok(()), "{query}");
    }
    // The table and the test above are one: nobody takes a parameter out of it unseen.
    let refused = PARAMETERS.iter().filter(|(_, parameter)| matches!(parameter, Refused(..))).count();
    assert_eq!(refused, 6);
}

#[test]
fn what_is_wrong_is_said() {
    for (query, words) in [
        ("t=A", "invalid reference format"),
        ("t=a@sha256:0000000000000000000000000000000000000000000000000000000000000000", "cannot contain a digest"),
        ("memory=1", "Minimum memory limit allowed is 6MB"),
        ("memory=x", "invalid value for \"memory\""),
        ("shmsize=-1", "SHM size can not be less than 0"),
        ("labels=%5B%5D", "\"labels\" is not the JSON"),
        ("extrahosts=a", "bad format for add-host"),
        ("ulimits=%5B%7B%22Name%22:%22x%22%7D%5D", "invalid ulimit type: x"),
        ("cgroupparent=a%2F..%2Fb", "cgroup"),
    ] {
        let error = read(query).unwrap_err();
        assert_eq!(error.status(), 400, "{query}");
        assert!(error.message.contains(words), "{query}: {}", error.message);
    }
}

#[test]
fn a_build_arguments_value_is_never_told() {
    let error = read("buildargs=%7B%22A%22:%22hunter2%22,%22B%22:hunter3%7D").unwrap_err();
    assert!(!error.message.contains("hunter"), "{}", error.message);
}

#[test]
fn the_configuration_fills_in() {
    let mut settings = Settings { shm_size_bytes: 5 << 20, ..Settings::default() };
    settings.containers.cgroup_parent = "/team".into();
    let it = request(&Query::default(), None, None, container(&settings)).unwrap().container;
    let parent = it.resources.cgroup_parent.as_ref().map(|parent| parent.path());
    assert_eq!((it.shm_size_bytes, parent), (5 << 20, Some("/team")));
}
