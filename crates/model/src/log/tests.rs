use super::*;

fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn parse(driver: &str, pairs: &[(&str, &str)]) -> Result<LogSpec, String> {
    LogSpec::parse(driver, &options(pairs)).map_err(|error| error.to_string())
}

#[test]
fn files_are_bounded_unless_it_is_said_otherwise() {
    let files = |driver: &str, pairs: &[(&str, &str)]| {
        let files = parse(driver, pairs).unwrap().files().unwrap();
        (files.file_size_bytes, files.files, files.compress)
    };
    assert_eq!(files("", &[]), (20_000_000, 3, true));
    assert_eq!(files("json-file", &[("compress", "false")]), (20_000_000, 3, false));
    assert_eq!(files("json-file", &[("max-size", "10m")]), (10_000_000, 1, false), "Docker's own defaults");
    assert_eq!(files("json-file", &[("max-size", "1k"), ("max-file", "3")]), (1000, 3, false));
    assert_eq!(files("json-file", &[("max-size", "1k"), ("max-file", "3"), ("compress", "1")]), (1000, 3, true));
    assert_eq!(files("json-file", &[("max-size", "-1")]), (u64::MAX, 1, false));
    assert_eq!(files("local", &[]), (20_000_000, 5, true));
    assert_eq!(files("local", &[("max-file", "2")]), (20_000_000, 2, true));
    assert!(parse("none", &[]).unwrap().files().is_none());
}

#[test]
fn what_cannot_be_is_refused_in_dockers_words() {
    for (driver, pairs, words) in [
        ("nothing", &[][..], "no log driver named 'nothing' is registered"),
        ("splunk", &[], "the log driver \"splunk\" is not built yet"),
        ("json-file", &[("x", "y")], "unknown log opt 'x' for json-file log driver"),
        ("local", &[("labels", "y")], "unknown log opt 'labels' for local log driver"),
        ("none", &[("max-size", "1")], "invalid logging opts for driver none"),
        ("json-file", &[("max-file", "0")], "invalid value for the log option max-file"),
        ("json-file", &[("max-size", "much")], "invalid value for the log option max-size"),
        (
            "json-file",
            &[("max-size", "1m"), ("compress", "true")],
            "compress cannot be true when max-file is less than 2",
        ),
        ("json-file", &[("mode", "fast")], "logging mode not supported: fast"),
        ("syslog", &[("syslog-facility", "x")], "invalid syslog facility \"x\""),
        ("syslog", &[("syslog-format", "x")], "invalid syslog format \"x\""),
        ("syslog", &[("syslog-address", "here")], "should be in form proto://address"),
        ("syslog", &[("syslog-tls-key", "k")], "the log option syslog-tls-key is not built yet"),
        ("syslog", &[("labels", "a")], "unknown log opt 'labels' for syslog log driver"),
        ("fluentd", &[("fluentd-request-ack", "true")], "the log option fluentd-request-ack is not built yet"),
        ("fluentd", &[("fluentd-address", "http://x")], "unsupported scheme: 'http'"),
        ("gelf", &[], "gelf-address is a required parameter"),
        ("gelf", &[("gelf-address", "here:1")], "gelf-address should be in form proto://address"),
        ("gelf", &[("gelf-address", "http://here:1")], "endpoint needs to be TCP or UDP"),
        ("gelf", &[("gelf-address", "udp://here")], "please provide gelf-address as proto://host:port"),
        (
            "gelf",
            &[("gelf-address", "udp://a:1"), ("gelf-compression-type", "x")],
            "unknown value \"x\" for log opt \"gelf-compression-type\" for gelf log driver",
        ),
        ("gelf", &[("gelf-address", "udp://a:1"), ("gelf-compression-level", "10")], "unknown value \"10\""),
        ("gelf", &[("gelf-address", "tcp://a:1"), ("gelf-compression-type", "none")], "only supported on UDP"),
        ("gelf", &[("gelf-address", "udp://a:1"), ("gelf-tcp-reconnect-delay", "1")], "only valid for TCP"),
        ("gelf", &[("gelf-address", "tcp://a:1"), ("gelf-tcp-reconnect-delay", "0")], "must be a positive integer"),
        ("gelf", &[("gelf-address", "tcp://a:1"), ("gelf-tcp-max-reconnect", "3")], "is not built yet"),
        ("journald", &[("max-size", "1m")], "unknown log opt 'max-size' for journald log driver"),
        ("json-file", &[("mode", "non-blocking")], "mode=non-blocking for the log driver json-file is not built yet"),
        ("json-file", &[("max-buffer-size", "1m")], "only supported with 'mode=non-blocking'"),
    ] {
        let error = parse(driver, pairs).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn sizes_count_as_go_units_does() {
    for (text, want) in [
        ("20m", Some(20_000_000)),
        ("20MB", Some(20_000_000)),
        ("1.5k", Some(1500)),
        ("7", Some(7)),
        ("7b", Some(7)),
        ("1 GiB", Some(1_000_000_000)),
        ("", None),
        ("m", None),
        ("-1", None),
        ("1.m", None),
        ("99999999999999999999", None),
        ("99999p", None),
    ] {
        assert_eq!(decimal_size(text), want, "{text}");
    }
    assert_eq!(binary_size("4m"), Some(4 << 20));
}

/// What is kept in a ledger is read by every later engine.
#[test]
fn rows_of_older_engines_are_read() {
    let read = |row: &str| serde_json::from_str::<LogSpec>(row).unwrap();
    assert_eq!(read(r#"{"file_size_bytes":20000000,"files":3}"#), LogSpec::default());
    let own = read(r#"{"file_size_bytes":10485760,"files":1}"#);
    assert_eq!(own.options(), &options(&[("max-size", "10485760"), ("max-file", "1")]));
    assert_eq!(own.files().unwrap().file_size_bytes, 10 << 20);
    let endless = read(r#"{"file_size_bytes":18446744073709551615,"files":1}"#);
    assert_eq!(endless.files().unwrap().file_size_bytes, u64::MAX);
}

#[test]
fn a_row_says_what_was_asked() {
    let spec = parse("json-file", &[("max-size", "1m"), ("labels", "a,b"), ("tag", "{{.Name}}")]).unwrap();
    let row = serde_json::to_string(&spec).unwrap();
    assert_eq!(row, r#"{"driver":"json-file","options":{"labels":"a,b","max-size":"1m","tag":"{{.Name}}"}}"#);
    assert_eq!(serde_json::from_str::<LogSpec>(&row).unwrap(), spec);
    assert_eq!((spec.attributes().labels.len(), spec.tag()), (2, Some("{{.Name}}")));
}

#[test]
fn options_change_one_by_one() {
    let spec = parse("json-file", &[("max-size", "1m"), ("labels", "a")]).unwrap();
    let changed = spec.with(&options(&[("max-size", "2m"), ("labels", ""), ("tag", "t")])).unwrap();
    assert_eq!(changed.options(), &options(&[("max-size", "2m"), ("tag", "t")]));
    assert!(spec.with(&options(&[("x", "y")])).is_err());
}

proptest::proptest! {
    #[test]
    fn no_option_panics(driver in "\\PC{0,8}|json-file|local", name in "max-size|max-file|tag|\\PC{0,8}", value in "\\PC{0,12}|[0-9.]{0,22}[kmgtp]?i?b?") {
        let _ = LogSpec::parse(&driver, &BTreeMap::from([(name, value)]));
    }
}

#[test]
fn servers_have_a_copy_on_disk_that_is_bounded() {
    let spec =
        parse("syslog", &[("syslog-address", "udp://h"), ("mode", "non-blocking"), ("max-buffer-size", "2m")]).unwrap();
    assert_eq!(spec.files(), Some(LogFiles { file_size_bytes: 20_000_000, files: 5, compress: true }));
    assert_eq!(spec.delivery(), LogDelivery::NonBlocking { buffer_bytes: 2 << 20 });
    let spec =
        parse("journald", &[("cache-max-size", "1m"), ("cache-max-file", "2"), ("cache-compress", "false")]).unwrap();
    assert_eq!(spec.files(), Some(LogFiles { file_size_bytes: 1_000_000, files: 2, compress: false }));
    assert_eq!(parse("fluentd", &[("cache-disabled", "true")]).unwrap().files(), None);
    let LogDriver::Fluentd(fluentd) = parse("fluentd", &[("fluentd-async", "true")]).unwrap().driver().clone() else {
        panic!("another driver")
    };
    assert!(fluentd.asynchronous);
}

#[test]
fn graylog_is_told_by_datagrams_or_by_a_connection() {
    let gelf = |pairs: &[(&str, &str)]| match parse("gelf", pairs).unwrap().driver() {
        LogDriver::Gelf(options) => options.clone(),
        other => panic!("{other:?}"),
    };
    let udp = |level: &str| gelf(&[("gelf-address", "udp://[fd00::1]:12201"), ("gelf-compression-level", level)]);
    assert_eq!(udp("9").address, LogAddress::Udp("fd00::1".into(), 12201));
    assert_eq!(udp("-1").compression, GelfCompression::Gzip { level: 6 });
    let zlib =
        gelf(&[("gelf-address", "udp://logs:1"), ("gelf-compression-type", "zlib"), ("labels", "a"), ("tag", "x")]);
    assert_eq!(zlib.compression, GelfCompression::Zlib { level: 1 });
    let tcp = gelf(&[("gelf-address", "tcp://logs:1"), ("gelf-tcp-reconnect-delay", "7")]);
    assert_eq!((tcp.address, tcp.retry_wait_ms), (LogAddress::Tcp("logs".into(), 1), 7000));
}
